//! Where time comes from. Every core of a node reads the same [`Clock`], so their monotonic times compare.
//!
//! *The wall clock is not believed at once.* Expiry is reckoned by it, so a step of days, from an operator's
//! typing error or a bad time server, would discard what people have been promised. It starts as the system's
//! and goes on by a clock that nobody can set (and which counts sleep); what the system's wall clock differs
//! by then is made up by at most a tenth of the time that passes. A large difference is logged once.
//!
//! *One wall clock per process.* All [`Clock`]s show the same wall time, whichever of them corrects it. While
//! it is held back, two readings in a row may differ by up to a millisecond in the wrong direction.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::api::Now;

/// How often the wall clock is compared with the system's at most, in microseconds.
const COMPARE_US: u64 = 10_000;
/// The part of the passing time by which a difference is made up.
const SLEW_DIVISOR: u64 = 10;
/// A difference from the system's wall clock that is worth a warning, in microseconds.
const STEP_US: u64 = 600_000_000;

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

    /// Both clocks, read once.
    pub fn now(&self) -> Now {
        Now { mono_us: self.mono_us(), wall_ms: WALL.read(boot_us(), system_wall_us) / 1_000 }
    }
}

static WALL: LazyLock<Wall> = LazyLock::new(|| Wall::start(boot_us(), system_wall_us()));

/// Time since the machine started, including sleep, in microseconds.
fn boot_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// The system's wall clock in microseconds; one before 1970 reads as 1970.
#[allow(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
fn system_wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// A wall clock that follows the system's without its steps. Any thread may read and correct it.
#[derive(Debug)]
struct Wall {
    /// Wall minus boot time when it started, in microseconds.
    base_us: i64,
    /// What has been made up since then, in microseconds.
    slewed_us: AtomicI64,
    /// Boot time of the last comparison.
    compared_us: AtomicU64,
    /// True while the difference is one that was logged.
    stepped: AtomicBool,
}

impl Wall {
    /// Starts at the system's wall clock.
    fn start(boot_us: u64, system_us: u64) -> Self {
        Self {
            base_us: system_us as i64 - boot_us as i64,
            slewed_us: AtomicI64::new(0),
            compared_us: AtomicU64::new(boot_us),
            stepped: AtomicBool::new(false),
        }
    }

    /// The wall time in microseconds. Reads the system's only when a comparison is due.
    fn read(&self, boot_us: u64, system_us: impl FnOnce() -> u64) -> u64 {
        let compared_us = self.compared_us.load(Ordering::Relaxed);
        let elapsed_us = boot_us.saturating_sub(compared_us);
        let due = elapsed_us >= COMPARE_US
            && self
                .compared_us
                .compare_exchange(compared_us, boot_us, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if due {
            let slewed_us = self.slewed_us.load(Ordering::Relaxed);
            let behind_us = system_us() as i64 - boot_us as i64 - self.base_us - slewed_us;
            // Added, so that the rate holds also if another thread corrects at the same time.
            self.slewed_us.fetch_add(slew(behind_us, elapsed_us), Ordering::Relaxed);
            self.warn_once(behind_us);
        }
        (boot_us as i64 + self.base_us + self.slewed_us.load(Ordering::Relaxed)).max(0) as u64
    }

    /// Says that the system's wall clock was stepped, and is ready to say so again once the step is made up.
    fn warn_once(&self, behind_us: i64) {
        let stepped = behind_us.unsigned_abs() > STEP_US;
        if stepped && !self.stepped.swap(stepped, Ordering::Relaxed) {
            let by_s = behind_us / 1_000_000;
            tracing::warn!(
                by_s,
                "the system's wall clock was set; the node follows it by a tenth of the time that passes. \
                 If the time is right now, restart the node to take it over at once"
            );
        } else if !stepped {
            self.stepped.store(false, Ordering::Relaxed);
        }
    }
}

/// What of a difference is made up after `elapsed_us`.
fn slew(behind_us: i64, elapsed_us: u64) -> i64 {
    let most = (elapsed_us / SLEW_DIVISOR) as i64;
    behind_us.clamp(-most, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;
    const DAY: u64 = 86_400 * S;
    /// The system's wall clock when the tests start, and the boot time.
    const WALL_AT: u64 = 20_000 * DAY;
    const BOOT_AT: u64 = 5 * S;

    fn wall() -> Wall {
        Wall::start(BOOT_AT, WALL_AT)
    }

    /// The wall time `s` seconds after the start, with a system's wall clock that is `off` ahead then.
    fn read(wall: &Wall, s: u64, off: i64) -> u64 {
        let system = (WALL_AT + s * S).saturating_add_signed(off);
        wall.read(BOOT_AT + s * S, || system)
    }

    #[test]
    fn without_a_step_it_is_the_systems_wall_clock() {
        let wall = wall();
        for s in [0, 1, 2, 3_600, 86_400] {
            assert_eq!(read(&wall, s, 0), WALL_AT + s * S);
        }
    }

    #[test]
    fn a_small_drift_is_followed_at_once_and_a_step_by_a_tenth_of_the_time_that_passes() {
        let wall = wall();
        assert_eq!(read(&wall, 100, 50_000), WALL_AT + 100 * S + 50_000);
        let ahead = 30 * DAY as i64;
        assert_eq!(read(&wall, 110, ahead), WALL_AT + 110 * S + 50_000 + S);
        assert_eq!(read(&wall, 120, ahead), WALL_AT + 120 * S + 50_000 + 2 * S);
    }

    #[test]
    fn a_step_back_never_turns_it_back_and_is_made_up_in_the_end() {
        let wall = wall();
        let mut last = read(&wall, 0, 0);
        for s in 1..=20_000 {
            let now = read(&wall, s, -1_800 * S as i64);
            assert!(now > last, "second {s}");
            last = now;
        }
        assert_eq!(last, WALL_AT + 20_000 * S - 1_800 * S);
    }

    #[test]
    fn a_step_is_said_once_and_again_only_after_it_was_made_up() {
        let wall = wall();
        let said = |wall: &Wall| wall.stepped.load(Ordering::Relaxed);
        read(&wall, 1, 599 * S as i64);
        assert!(!said(&wall));
        read(&wall, 2, 7_200 * S as i64);
        assert!(said(&wall));
        read(&wall, 3, 7_200 * S as i64);
        assert!(said(&wall), "it is not said again while it lasts");
        read(&wall, 4, 0);
        assert!(!said(&wall));
    }

    #[test]
    fn the_systems_wall_clock_is_read_only_when_a_comparison_is_due() {
        let wall = wall();
        assert_eq!(wall.read(BOOT_AT + 9_999, || panic!("not due")), WALL_AT + 9_999);
        wall.read(BOOT_AT + COMPARE_US, || WALL_AT);
        wall.read(BOOT_AT + COMPARE_US, || panic!("done by another reader"));
    }

    #[test]
    fn a_wall_clock_before_its_epoch_reads_as_the_epoch() {
        let wall = Wall::start(10 * S, 0);
        assert_eq!(wall.read(5 * S, || panic!("not due")), 0);
    }

    #[test]
    fn the_machines_own_clocks_agree_with_the_systems() {
        let (before, now) = (system_wall_us() / 1_000, Clock::start().now());
        assert!(now.wall_ms.abs_diff(before) < 60_000, "{now:?}, the system says {before}");
    }
}
