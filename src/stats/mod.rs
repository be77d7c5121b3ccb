//! Counters of one core: written by that core only, read by anyone, without a lock.
//!
//! Each core owns one [`CoreStats`]; the others and the housekeeping thread see it through the shared slice
//! of [`per_core`]. A counter is one relaxed load and one relaxed store, because it has one writer: no locked
//! instruction is ever executed on the data path, and nothing is allocated after start.
//!
//! What this promises: a reader sees each counter at some recent value, never torn, and counters never fall.
//! What it does not: two counters read one after the other need not be of the same instant, so a reader must
//! not conclude anything from their difference being negative. If two cores ever wrote one counter,
//! increments would be lost.
//!
//! Every series is described once, where its field is declared: the doc comment is the help text of the
//! metric. `admin` turns the tables ([`Group::SERIES`]) into OpenMetrics and JSON, so that no field can be
//! forgotten there.

mod cell;
mod coded;
mod histogram;
mod link;
mod log;
mod relay;
mod rt;
mod series;

use std::sync::Arc;

pub use cell::{Counter, Gauge, Oldest, Peak};
pub use coded::{ByClass, CLASS_COUNT, Coded};
pub use histogram::{Histogram, quantile};
pub use link::LinkStats;
pub use log::LogStats;
pub use relay::RelayStats;
pub use rt::RtStats;
pub use series::{About, Group, Measure, Series, Unit, Value, Vocabulary};

/// Everything one core counts. Aligned so that no two cores write to one cache line, nor to a pair of lines
/// that the prefetcher fetches together.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreStats {
    /// Connections, handshakes, logins, frames.
    pub link: LinkStats,
    /// Messages, receipts, mailboxes.
    pub relay: RelayStats,
    /// Lane logs and recovery.
    pub log: LogStats,
    /// The loop, crossings, buffer pools.
    pub rt: RtStats,
}

/// One zeroed [`CoreStats`] per core, indexed by core number.
pub fn per_core(cores: u16) -> Arc<[CoreStats]> {
    (0..cores).map(|_| CoreStats::default()).collect()
}

/// The counters of one core, kept alive by those of all.
#[derive(Clone, Debug)]
pub struct CoreCounters {
    all: Arc<[CoreStats]>,
    core: usize,
}

impl CoreCounters {
    /// Those of core number `core`.
    ///
    /// # Panics
    /// If there are no so many.
    pub fn new(all: &Arc<[CoreStats]>, core: u16) -> Self {
        assert!(usize::from(core) < all.len(), "core {core} of {}", all.len());
        Self { all: Arc::clone(all), core: usize::from(core) }
    }
}

impl std::ops::Deref for CoreCounters {
    type Target = CoreStats;
    fn deref(&self) -> &CoreStats {
        &self.all[self.core]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_do_not_share_a_pair_of_cache_lines() {
        let stats = per_core(2);
        let first = std::ptr::from_ref(&stats[0]).addr();
        let second = std::ptr::from_ref(&stats[1]).addr();
        assert_eq!(first % 128, 0);
        assert_eq!((second - first) % 128, 0);
    }

    #[test]
    fn a_reader_on_another_thread_sees_the_final_value() {
        let stats = per_core(1);
        let writer = Arc::clone(&stats);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..1000).for_each(|_| writer[0].rt.turns.inc()));
        });
        assert_eq!(stats[0].rt.turns.get(), 1000);
    }
}
