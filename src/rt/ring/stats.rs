//! What a core's driver counts. One writer, the core; anyone may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread raises and others read. No read-modify-write, because there is one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of the turn-time histogram.
pub const TURN_BUCKETS: usize = 24;

/// Counters of one core since it started; gauges where it says "now".
#[derive(Debug, Default)]
pub struct RingStats {
    /// Turns of the loop.
    pub turns: Counter,
    /// `io_uring_enter` calls.
    pub enters: Counter,
    /// Of these, the ones that could sleep.
    pub parks: Counter,
    /// Completions reaped.
    pub cqes: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Accepts that the kernel refused.
    pub accepts_failed: Counter,
    /// Connections closed at once because the table was full.
    pub accepts_shed: Counter,
    /// Connections now.
    pub connections: Counter,
    /// Connections given to and taken from other cores.
    pub handed_over: Counter,
    /// Connections taken from other cores.
    pub adopted: Counter,
    /// Receives that ended because no buffer was left.
    pub recv_starved: Counter,
    /// Bytes received.
    pub recv_bytes: Counter,
    /// Bytes sent.
    pub sent_bytes: Counter,
    /// Sends of which the kernel took a part only.
    pub sends_short: Counter,
    /// Wake-ups sent to other cores.
    pub wakes_sent: Counter,
    /// Wake-ups received from other cores.
    pub wakes_received: Counter,
    /// Disk operations in the kernel now.
    pub disk_in_flight: Counter,
    /// Disk operations that met a lack of descriptors or memory, or an interruption, and were put off.
    pub disk_put_off: Counter,
    /// Operations in the kernel now, of every kind.
    pub in_flight: Counter,
    /// Turns by the time they took: bucket `i` counts those of less than 2^i microseconds, and not less than
    /// half.
    pub turn_us: [Counter; TURN_BUCKETS],
}

impl RingStats {
    pub(super) fn record_turn(&self, us: u64) {
        let bucket = (64 - us.leading_zeros() as usize).min(TURN_BUCKETS - 1);
        self.turn_us[bucket].add(1);
        self.turns.add(1);
    }
}
