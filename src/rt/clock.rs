//! Where time comes from. Every core of a node reads the same [`Clock`], so their monotonic times compare.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::api::Now;

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    #[allow(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Monotonic time since the start, in microseconds.
    pub fn mono_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Both clocks, read once. A wall clock before 1970 reads as 1970.
    #[allow(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_us: self.mono_us(), wall_ms: wall.as_millis() as u64 }
    }
}
