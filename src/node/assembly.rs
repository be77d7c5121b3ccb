//! The composition root: a configuration and an opened store become running cores.
//!
//! Each core recovers its own lanes on its own thread before any of them listens, so recovery is as parallel
//! as the node. Nothing here runs once the node serves.

use std::io;
use std::sync::Arc;

use shards::io::{BLOCK_BYTES, LaneId};
use shards::{AlignedBuf, RecoverError, Store};

use super::core::Core;
use super::crossing::Reply;
use super::recovery::RecoveryPlan;
use super::shared::{Deadlines, SessionLimits, Shared};
use crate::config::{Config, Limits};
use crate::link::{LinkCrypto, LinkError, NodeKey, ServerLinkConfig};
use crate::relay::{Rate, RelayLimits, Window};
use crate::rt::api::CoreId;
use crate::rt::clock::Clock;
use crate::rt::crossing::CrossingSizes;
use crate::rt::executor::{CoreContext, NodeSetup, RunningNode, StartError, run};
use crate::rt::ring::RingConfig;
use crate::rt::volume::FsVolume;
use crate::stats::{CoreCounters, CoreStats};

/// Batch buffers of a lane: one fills while the other is being written, at least. With few lanes there are
/// more, so that senders do not wait for the disk.
const BUFFERS_PER_LANE_MIN: usize = 2;
const BUFFERS_PER_LANE_MAX: usize = 8;
/// Sizes of a batch buffer: the largest message fits in the smallest.
const BATCH_BYTES_MAX: usize = 256 * 1024;
const BATCH_BYTES_MIN: usize = 128 * 1024;
/// Memory of all batch buffers that is registered with the kernel, which locks it; a default limit of 8 MiB
/// of locked memory also has to hold the rings.
const REGISTERED_BYTES_MAX: usize = 4 << 20;
/// Reads from the log under way per core, for devices that catch up.
const CATCH_UP_READS: u16 = 16;
/// A device that was not seen for this many times the longest time to live holds nothing back any more.
const DEVICE_RETENTION_TTLS: u64 = 2;

/// What a node is assembled from.
pub struct Assembly {
    /// What the operator set.
    pub config: Config,
    /// Cores to run on.
    pub cores: u16,
    /// The node's own key.
    pub key: NodeKey,
    /// The store, open and locked.
    pub volume: Arc<FsVolume>,
    /// What the store says of itself.
    pub store: Store,
    /// Where each core counts.
    pub stats: Arc<[CoreStats]>,
    /// The node's clock.
    pub clock: Clock,
    /// Random: keeps outsiders from choosing colliding keys.
    pub hash_seed: u64,
}

/// Why a node could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// Its side of TLS could not be made.
    #[error("the node's key cannot be used: {0}")]
    Link(#[from] LinkError),
    /// The cores did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why a core could not take up its lanes.
#[derive(Debug, thiserror::Error)]
enum CoreError {
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("the core was given no store: {0}")]
    NoStore(io::Error),
}

impl Assembly {
    /// The sizes of each core's ring and of the buffers registered with it.
    pub fn ring_config(config: &Config, lanes: u16, cores: u16) -> RingConfig {
        let batch = BatchBuffers::plan(lanes, cores);
        RingConfig {
            connections_max: config.limits.connections_per_core_max as usize,
            disk_buffers: if batch.registered { batch.per_core } else { 0 },
            disk_buffer_bytes: batch.bytes,
            ..RingConfig::default()
        }
    }

    /// Starts every core. Returns when all of them serve.
    pub fn start(self) -> Result<RunningNode, AssemblyError> {
        let link = Arc::new(ServerLinkConfig::new(&self.key, &LinkCrypto::system())?);
        let shared = Arc::new(self.shared(link));
        let batch = BatchBuffers::plan(self.store.lanes(), self.cores);
        let sizes = CrossingSizes::for_cores(self.cores);
        let setup = NodeSetup {
            listen: Some(self.config.listen),
            ring: Self::ring_config(&self.config, self.store.lanes(), self.cores),
            crossings: Some(sizes),
            volume: Some(self.volume),
            clock: self.clock,
        };
        let segments_per_lane =
            self.config.store.segments_per_lane(self.store.lanes(), self.store.segment_bytes());
        let factory = |core: u16| {
            let start = CoreStart {
                shared: Arc::clone(&shared),
                stats: Arc::clone(&self.stats),
                cores: self.cores,
                reply_credits: sizes.reply_slots as u32,
                hash_seed: self.hash_seed.wrapping_add(u64::from(core)),
                batch,
                segments_per_lane,
            };
            move |context| start.core(context)
        };
        Ok(run(setup, (0..self.cores).map(factory).collect())?)
    }

    fn shared(&self, link: Arc<ServerLinkConfig>) -> Shared {
        let store = self.store.clone();
        let lanes = (0..store.lanes()).map(LaneId);
        Shared {
            node_id: self.key.node_id(),
            link,
            core_of_lane: lanes.map(|lane| CoreId(store.core_of_lane(lane, self.cores))).collect(),
            store,
            relay: relay_limits(&self.config.limits),
            sessions: session_limits(&self.config.limits),
            deadlines: Deadlines {
                tls_us: self.config.deadlines.tls.as_us(),
                login_us: self.config.deadlines.login.as_us(),
                stall_us: self.config.deadlines.stall.as_us(),
                idle_us: self.config.deadlines.idle.as_us(),
            },
        }
    }
}

/// How the batch buffers of all lanes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BatchBuffers {
    bytes: usize,
    per_lane: usize,
    per_core: u16,
    registered: bool,
}

impl BatchBuffers {
    fn plan(lanes: u16, cores: u16) -> Self {
        let lanes_max = usize::from(lanes.div_ceil(cores));
        let affordable = REGISTERED_BYTES_MAX / (BATCH_BYTES_MAX * lanes_max * usize::from(cores));
        let per_lane = affordable.clamp(BUFFERS_PER_LANE_MIN, BUFFERS_PER_LANE_MAX);
        let per_core = lanes_max * per_lane;
        let count = per_core * usize::from(cores);
        let bytes =
            (REGISTERED_BYTES_MAX / count).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX) & !(BLOCK_BYTES - 1);
        Self { bytes, per_lane, per_core: per_core as u16, registered: bytes * count <= REGISTERED_BYTES_MAX }
    }
}

/// What one core is made from, on its thread.
struct CoreStart {
    shared: Arc<Shared>,
    stats: Arc<[CoreStats]>,
    cores: u16,
    reply_credits: u32,
    hash_seed: u64,
    batch: BatchBuffers,
    segments_per_lane: u32,
}

impl CoreStart {
    fn core(self, mut context: CoreContext<Reply>) -> Result<Core, CoreError> {
        let volume =
            context.volume.take().ok_or_else(|| CoreError::NoStore(io::ErrorKind::NotFound.into()))?;
        let mut buffers = std::mem::take(&mut context.disk_buffers);
        buffers.resize_with(usize::from(self.batch.per_core), || AlignedBuf::zeroed(self.batch.bytes));
        let stats = CoreCounters::new(&self.stats, context.core.0);
        let plan = RecoveryPlan {
            shared: &self.shared,
            core: context.core,
            cores: self.cores,
            segments_per_lane: self.segments_per_lane,
            buffers_per_lane: self.batch.per_lane,
            hash_seed: self.hash_seed,
            now: context.clock.now(),
        };
        let recovery = plan.recover(&*volume, &stats, buffers)?;
        Ok(Core::new(
            context.core,
            self.shared,
            stats,
            context.crossings,
            Some(context.stats),
            self.reply_credits,
            self.hash_seed,
            recovery,
        ))
    }
}

fn relay_limits(limits: &Limits) -> RelayLimits {
    let seconds = |span: crate::config::Span| u32::try_from(span.as_ms() / 1000).unwrap_or(u32::MAX);
    let retention_s = u64::from(seconds(limits.ttl_max)) * DEVICE_RETENTION_TTLS;
    RelayLimits {
        mailbox_messages: limits.mailbox_messages_max,
        mailbox_bytes: limits.mailbox_bytes_max.as_bytes(),
        mailboxes: limits.mailboxes_per_core_max,
        queued_messages: u64::from(limits.queued_messages_per_core_max),
        devices: limits.devices_per_mailbox_max,
        dedup_ids: limits.dedup_ids_max,
        dedup_ids_core: u64::from(limits.dedup_ids_per_core_max),
        dedup_s: seconds(limits.dedup_window),
        ttl_default_s: seconds(limits.ttl_default),
        ttl_max_s: seconds(limits.ttl_max),
        device_retention_s: u32::try_from(retention_s).unwrap_or(u32::MAX),
        sender_messages: Rate {
            per_s: limits.identity_messages_per_s.into(),
            burst: limits.identity_messages_burst.into(),
        },
        sender_bytes: Rate {
            per_s: limits.identity_bytes_per_s.as_bytes(),
            burst: limits.identity_bytes_burst.as_bytes(),
        },
        reads: CATCH_UP_READS,
    }
}

fn session_limits(limits: &Limits) -> SessionLimits {
    SessionLimits {
        connections: limits.connections_per_core_max,
        opening: limits.half_open_per_core_max,
        per_prefix: limits.connections_per_prefix_max,
        prefix_rate: Rate {
            per_s: limits.connects_per_prefix_per_s.into(),
            burst: limits.connects_per_prefix_burst.into(),
        },
        send_window: limits.send_window_max.into(),
        window: Window {
            messages: limits.deliver_window_messages_max.into(),
            bytes: u32::try_from(limits.deliver_window_bytes_max.as_bytes()).unwrap_or(u32::MAX),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_held_up_can_hold_everything_the_kernel_has_received_for_it() {
        let ring = Assembly::ring_config(&Config::default(), 16, 2);
        assert!(usize::from(ring.recv_buffers) * ring.recv_buffer_bytes < crate::link::HELD_BYTES_MAX);
    }

    #[test]
    fn batch_buffers_are_registered_only_within_their_share_of_locked_memory() {
        let cut =
            |bytes, per_lane, per_core, registered| BatchBuffers { bytes, per_lane, per_core, registered };
        assert_eq!(BatchBuffers::plan(1, 1), cut(BATCH_BYTES_MAX, 8, 8, true));
        assert_eq!(BatchBuffers::plan(4, 2), cut(BATCH_BYTES_MAX, 4, 8, true));
        assert_eq!(BatchBuffers::plan(256, 16), cut(BATCH_BYTES_MIN, 2, 32, false));
        for (lanes, cores) in [(1, 1), (2, 2), (4, 3), (8, 3), (16, 2), (64, 64), (256, 5)] {
            let plan = BatchBuffers::plan(lanes, cores);
            let all = plan.bytes * usize::from(plan.per_core * cores);
            assert_eq!(plan.registered, all <= REGISTERED_BYTES_MAX, "{lanes} lanes, {cores} cores");
            assert!(usize::from(plan.per_core) >= plan.per_lane * usize::from(lanes.div_ceil(cores)));
        }
    }
}
