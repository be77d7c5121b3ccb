//! The cells that hold one number each. One writer, many readers; all accesses are relaxed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one. Only the owning core may call this.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes over a number that is counted elsewhere.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `n`, wrapping. Only the owning core may call this: a second writer's additions could be lost.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls. Totals over cores are sums.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.sub(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.set(self.get().saturating_add(n));
    }

    /// Takes `n` away. Falling below zero is a bug of the caller: asserted in debug builds, held at zero
    /// otherwise.
    pub fn sub(&self, n: u64) {
        let before = self.get();
        debug_assert!(n <= before, "a gauge at {before} cannot fall by {n}");
        self.set(before.saturating_sub(n));
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The highest value ever seen. Totals over cores are maxima.
#[derive(Debug, Default)]
pub struct Peak(AtomicU64);

impl Peak {
    /// Raises the peak to `value` if that is higher.
    pub fn observe(&self, value: u64) {
        if value > self.get() {
            self.0.store(value, Relaxed);
        }
    }

    /// The highest value so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// When the oldest of some things began, as wall-clock milliseconds. Totals over cores are the earliest.
///
/// The writer stores an instant and the reader computes the age, so that an age also grows while the core is
/// stuck.
#[derive(Debug, Default)]
pub struct Oldest(AtomicU64);

impl Oldest {
    /// Notes that the oldest began at `wall_ms`, or that there is none.
    pub fn set(&self, wall_ms: Option<u64>) {
        self.0.store(wall_ms.unwrap_or(0), Relaxed);
    }

    /// When the oldest began, in wall-clock milliseconds, if there is one.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|&wall_ms| wall_ms != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_sums_what_was_added() {
        let counter = Counter::new();
        counter.inc();
        counter.add(41);
        assert_eq!(counter.get(), 42);
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "cannot fall"))]
    fn a_gauge_does_not_pass_below_zero() {
        let gauge = Gauge::default();
        gauge.inc();
        gauge.sub(2);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_peak_keeps_the_highest_value() {
        let peak = Peak::default();
        [3, 9, 4].into_iter().for_each(|value| peak.observe(value));
        assert_eq!(peak.get(), 9);
    }

    #[test]
    fn the_oldest_can_be_forgotten() {
        let oldest = Oldest::default();
        assert_eq!(oldest.get(), None);
        oldest.set(Some(7));
        assert_eq!(oldest.get(), Some(7));
        oldest.set(None);
        assert_eq!(oldest.get(), None);
    }
}
