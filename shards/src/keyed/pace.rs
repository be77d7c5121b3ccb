//! How fast background work may go, steered by what the foreground feels.
//!
//! A bucket of bytes is filled at a rate between [`RATE_MIN`] and [`RATE_MAX`]. The time that changes take,
//! from append to durable, is watched in windows: what it is while no background work runs is the measure,
//! and as soon as a window with background work is worse than twice that, the rate is halved; otherwise it
//! rises by an eighth. When space runs out, the rate is the highest: to be slow is better than to refuse.

/// Lowest rate, in bytes per second: a segment of 256 MiB in two minutes.
const RATE_MIN: u64 = 2 << 20;
/// Highest rate, in bytes per second.
const RATE_MAX: u64 = 2 << 30;
/// Rate to begin with, in bytes per second.
const RATE_START: u64 = 32 << 20;
/// Length of a window, in microseconds.
const WINDOW_US: u64 = 50_000;
/// Latencies below this are as good as none, in microseconds.
const UNFELT_US: u64 = 500;
/// Work that may be done at once after a pause, in microseconds of the rate.
const BURST_US: u64 = 10_000;
/// A window with fewer changes says nothing.
const SAMPLES_MIN: u32 = 8;

/// The bucket and what steers it.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u64,
    /// May be negative: a piece that was begun is finished.
    tokens: i64,
    ticked_us: u64,
    window_until_us: u64,
    /// Worst and number of the latencies of this window.
    worst_us: u64,
    samples: u32,
    /// Smoothed worst latency of windows without background work.
    quiet_us: u64,
    /// The last window was worse than that allows.
    is_felt: bool,
}

impl Default for Pace {
    fn default() -> Self {
        let (rate, quiet_us) = (RATE_START, UNFELT_US);
        Self {
            rate,
            tokens: 0,
            ticked_us: 0,
            window_until_us: 0,
            worst_us: 0,
            samples: 0,
            quiet_us,
            is_felt: false,
        }
    }
}

impl Pace {
    /// Time has passed. `active` says whether background work was under way, `urgent` that space runs out.
    pub fn tick(&mut self, now_us: u64, active: bool, urgent: bool) {
        if now_us >= self.window_until_us {
            self.end_window(active);
            self.window_until_us = now_us + WINDOW_US;
        }
        if urgent {
            self.rate = RATE_MAX;
        }
        let passed_us = now_us.saturating_sub(self.ticked_us).min(BURST_US);
        self.ticked_us = now_us;
        let most = self.most();
        self.tokens = (self.tokens + (self.rate * passed_us / 1_000_000) as i64).min(most);
    }

    fn end_window(&mut self, active: bool) {
        let (worst_us, samples) = (std::mem::take(&mut self.worst_us), std::mem::take(&mut self.samples));
        self.is_felt = samples >= SAMPLES_MIN && worst_us > 2 * self.quiet_us;
        if samples < SAMPLES_MIN {
            if active {
                self.rate = (self.rate + self.rate / 8).min(RATE_MAX);
            }
            return;
        }
        if !active {
            self.quiet_us = ((7 * self.quiet_us + worst_us) / 8).max(UNFELT_US);
        } else if worst_us > 2 * self.quiet_us {
            self.rate = (self.rate / 2).max(RATE_MIN);
        } else {
            self.rate = (self.rate + self.rate / 8).min(RATE_MAX);
        }
    }

    /// A change took so long.
    pub fn observe(&mut self, latency_us: u64) {
        self.worst_us = self.worst_us.max(latency_us);
        self.samples += 1;
    }

    /// True if changes took much longer lately than they usually do.
    pub fn is_felt(&self) -> bool {
        self.is_felt
    }

    /// True if more may be done now.
    pub fn may_go_on(&self) -> bool {
        self.tokens > 0
    }

    /// True if so many bytes may be spent at once, or as many as can be saved up.
    pub fn has_saved(&self, bytes: i64) -> bool {
        self.tokens >= bytes.min(self.most())
    }

    /// Bytes that can be saved up.
    fn most(&self) -> i64 {
        (self.rate * BURST_US / 1_000_000) as i64
    }

    /// So many bytes were read or copied.
    pub fn spend(&mut self, bytes: usize) {
        self.tokens -= bytes as i64;
    }

    /// When more may be done, in the time of [`Pace::tick`].
    pub fn next_us(&self) -> u64 {
        let missing = 1u64.saturating_add_signed(self.tokens.saturating_neg().max(0));
        self.ticked_us + 1 + missing.saturating_mul(1_000_000) / self.rate
    }

    /// Bytes per second that are allowed now.
    pub fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs windows of 1 ms ticks with ten changes each; returns bytes spent.
    fn run(pace: &mut Pace, from_us: u64, windows: u64, active: bool, latency_us: u64) -> u64 {
        let mut spent = 0;
        for now_us in (from_us..from_us + windows * WINDOW_US).step_by(1_000) {
            if now_us % 5_000 == 0 {
                pace.observe(latency_us);
            }
            pace.tick(now_us, active, false);
            while active && pace.may_go_on() {
                pace.spend(4_096);
                spent += 4_096;
            }
        }
        spent
    }

    #[test]
    fn it_spends_its_rate_and_no_more() {
        let mut pace = Pace::default();
        let spent = run(&mut pace, 0, 1, true, 0);
        let allowed = RATE_START * WINDOW_US / 1_000_000;
        assert!((allowed * 8 / 10..allowed * 14 / 10).contains(&spent), "{spent} of {allowed}");
    }

    #[test]
    fn it_slows_down_when_the_foreground_suffers_and_recovers_when_not() {
        let mut pace = Pace::default();
        run(&mut pace, 0, 40, false, 3_000);
        run(&mut pace, 40 * WINDOW_US, 10, true, 5_000);
        assert!(pace.rate() > RATE_START, "5 ms are not felt where 3 ms are usual");
        run(&mut pace, 50 * WINDOW_US, 20, true, 50_000);
        assert_eq!(pace.rate(), RATE_MIN);
        run(&mut pace, 70 * WINDOW_US, 60, true, 3_000);
        assert!(pace.rate() > RATE_START);
    }

    #[test]
    fn it_is_fast_when_space_runs_out_and_says_when_it_may_go_on() {
        let mut pace = Pace::default();
        pace.tick(1_000, true, true);
        assert_eq!(pace.rate(), RATE_MAX);
        pace.spend(1 << 30);
        let next_us = pace.next_us();
        let mut now_us = 1_000;
        while !pace.may_go_on() {
            now_us += 500;
            pace.tick(now_us, true, true);
        }
        assert!(now_us.abs_diff(next_us) <= 1_000, "{now_us} instead of {next_us}");
    }
}
