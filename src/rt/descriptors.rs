//! How the process's limit of descriptors is shared out, computed once at start.
//!
//! What the node cannot do without comes first: rings, HTTP, the segments of every lane. Connections get the
//! rest, so that a flood of them never keeps a lane from its files. The executor gives every core its share;
//! [`preflight`](super::preflight) says beforehand what it will be.
//!
//! The kernel accepts before a core can refuse, so a burst may take more for the length of a turn. The driver
//! tries a disk operation again that meets such a moment.

use rustix::process::{Resource, getrlimit};

use super::ring::PARCELS_MAX;

/// Fewer connections than this per core are not worth a start. What is left is never below, so that a node
/// without its own preflight (in a test) still serves somebody.
const CONNECTIONS_MIN: u64 = 64;
/// Standard streams, the lock, HTTP with its clients, signals, the helper thread, and small files while they
/// are read.
const PER_PROCESS: u64 = 128;
/// Rings, glommio's and our own, eventfds, the listener.
const PER_CORE: u64 = 32;
/// Segments that a core keeps open for each of its lanes; a lane may have many more. Beyond this, idle ones
/// are closed for others.
const SEGMENT_FILES_PER_LANE: usize = 96;
/// Segments that a core keeps open in all.
const SEGMENT_FILES_MAX: usize = 8_192;

/// The shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorPlan {
    /// What the process may have; `None` is without limit.
    pub limit: Option<u64>,
    /// Kept for everything that is no connection.
    pub reserved: u64,
    /// Segments that each core may keep open.
    pub segment_files: usize,
    /// Connections that each core may have.
    pub connections: usize,
    /// Connections that each core was meant to have.
    pub wanted: usize,
    /// True if the limit leaves too few connections for a start.
    pub is_too_low: bool,
}

impl DescriptorPlan {
    /// Shares out `limit` for `cores` cores with `lanes` lanes among them, each of which wants `wanted`
    /// connections.
    pub fn of(limit: Option<u64>, cores: u16, lanes: usize, wanted: usize) -> Self {
        let cores = u64::from(cores.max(1));
        let lanes_of_core = lanes.div_ceil(cores as usize);
        let segment_files = lanes_of_core.saturating_mul(SEGMENT_FILES_PER_LANE).min(SEGMENT_FILES_MAX);
        let under_way = (cores - 1) * PARCELS_MAX as u64;
        let reserved = PER_PROCESS + cores * (PER_CORE + under_way + segment_files as u64);
        let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(reserved) / cores);
        let connections = left.max(CONNECTIONS_MIN).min(wanted as u64) as usize;
        Self { limit, reserved, segment_files, connections, wanted, is_too_low: left < CONNECTIONS_MIN }
    }

    /// As [`DescriptorPlan::of`] with the limit that holds now.
    pub fn now(cores: u16, lanes: usize, wanted: usize) -> Self {
        Self::of(getrlimit(Resource::Nofile).current, cores, lanes, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_rest_leaves_and_never_more_than_they_were_meant_to() {
        let plan = DescriptorPlan::of(Some(4_096), 2, 16, 65_536);
        assert_eq!(plan.segment_files, 8 * SEGMENT_FILES_PER_LANE);
        let taken = plan.reserved + 2 * plan.connections as u64;
        assert!(taken <= 4_096 && taken > 4_096 - 2, "all of it is shared out: {plan:?}");
        assert!(!plan.is_too_low);
        assert_eq!(DescriptorPlan::of(Some(1 << 20), 2, 16, 65_536).connections, 65_536);
        assert_eq!(DescriptorPlan::of(None, 2, 16, 1_000).connections, 1_000);
    }

    #[test]
    fn a_limit_that_the_rest_uses_up_is_too_low_and_leaves_the_least() {
        for limit in [0, 100, 1_024] {
            let plan = DescriptorPlan::of(Some(limit), 1, 16, 65_536);
            assert!(plan.is_too_low);
            assert_eq!(plan.connections as u64, CONNECTIONS_MIN);
        }
        assert_eq!(DescriptorPlan::of(Some(0), 1, 16, 2).connections, 2);
    }

    #[test]
    fn the_segments_of_many_lanes_are_kept_open_up_to_a_bound() {
        let plan = DescriptorPlan::of(None, 1, 1_024, 1);
        assert_eq!(plan.segment_files, SEGMENT_FILES_MAX);
    }
}
