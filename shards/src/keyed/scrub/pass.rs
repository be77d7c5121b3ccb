//! When the next piece is to be read, so that everything is by the deadline.
//!
//! The rate follows from what is left and the time that is left. That is all there is to steer, which is why
//! scrub has no [`Pace`](crate::keyed::pace::Pace): that one looks for the highest rate that nobody feels,
//! and a scrub that used it would end early and begin again for nothing.

/// Bytes per second that are not exceeded unless a pass is behind.
const RATE_MAX: u64 = 64 << 20;
/// This part of the deadline is kept for what comes between.
const KEPT_PART: u64 = 100;
/// At the very end, and beyond it, the rate is as if this part of the deadline were left.
const LAST_PART: u64 = 1_000;

/// One reading of everything that was sealed when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    /// From 1.
    pub number: u64,
    /// Wall clock at its beginning, in seconds since 1970.
    pub began_s: u64,
    /// Bytes of the segments that were dealt with.
    pub done: u64,
    /// Bytes of all its segments.
    pub total: u64,
    within_us: u64,
    /// When it is to end: a little before the deadline.
    due_us: u64,
    /// When it is meant to end: then, or earlier.
    aim_us: u64,
    is_hurried: bool,
    /// When the last piece was asked for, and how far the pass was then.
    asked_us: u64,
    asked_at: u64,
}

impl Pass {
    /// Begins to read `total` bytes.
    pub fn begin(number: u64, (now_us, now_s): (u64, u64), within_us: u64, total: u64) -> Self {
        let due_us = now_us.saturating_add(within_us - within_us / KEPT_PART);
        Self {
            number,
            began_s: now_s,
            done: 0,
            total,
            within_us,
            due_us,
            aim_us: due_us,
            is_hurried: false,
            asked_us: now_us,
            asked_at: 0,
        }
    }

    /// When the next one is to begin, if this one is through: so each segment's turn comes again in time.
    pub fn next_begins_us(&self) -> u64 {
        self.aim_us
    }

    /// Twice as fast from now on. Only the first call counts.
    pub fn hurry(&mut self, now_us: u64) {
        if !self.is_hurried {
            self.is_hurried = true;
            self.aim_us = now_us + self.aim_us.saturating_sub(now_us) / 2;
        }
    }

    /// A piece is asked for; `progress` bytes have been dealt with so far.
    pub fn note_asked(&mut self, now_us: u64, progress: u64) {
        (self.asked_us, self.asked_at) = (now_us, progress);
    }

    /// When the next piece may be asked for, as it looks at `now_us`.
    pub fn ready_us(&self, now_us: u64, progress: u64) -> u64 {
        let advanced = progress.saturating_sub(self.asked_at);
        self.asked_us.saturating_add(advanced.saturating_mul(1_000_000) / self.rate(now_us, progress))
    }

    /// True if so much is left that it would take twice the usual rate: then nothing goes before it.
    pub fn is_behind(&self, now_us: u64, progress: u64) -> bool {
        let left = u128::from(self.total.saturating_sub(progress));
        let time_left_us = u128::from(self.due_us.saturating_sub(now_us));
        left * u128::from(self.within_us) > 2 * u128::from(self.total) * time_left_us
    }

    /// Bytes per second.
    fn rate(&self, now_us: u64, progress: u64) -> u64 {
        let left = u128::from(self.total.saturating_sub(progress));
        let time_left_us = self.aim_us.saturating_sub(now_us).max(self.within_us / LAST_PART).max(1);
        let rate = u64::try_from(left * 1_000_000 / u128::from(time_left_us)).unwrap_or(u64::MAX);
        if self.is_behind(now_us, progress) { rate.max(1) } else { rate.clamp(1, RATE_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: u64 = 3_600_000_000;
    const PIECE: u64 = 1 << 20;

    /// Reads pieces when they are ready, asking every second, except while `waits`; returns when it ended.
    fn run(pass: &mut Pass, waits: impl Fn(u64) -> bool, hurry_at: Option<u64>) -> u64 {
        let (mut progress, mut now_us) = (0, 0);
        while progress < pass.total {
            if hurry_at.is_some_and(|at| progress >= at) {
                pass.hurry(now_us);
            }
            let gives_way = waits(now_us) && !pass.is_behind(now_us, progress);
            if now_us >= pass.ready_us(now_us, progress) && !gives_way {
                pass.note_asked(now_us, progress);
                progress += PIECE;
            } else {
                now_us += 1_000_000;
            }
        }
        now_us
    }

    fn pass(hours: u64, pieces: u64) -> Pass {
        Pass::begin(1, (0, 0), hours * HOUR_US, pieces * PIECE)
    }

    #[test]
    fn it_takes_the_time_it_has_and_no_more() {
        for pieces in [1, 2, 7, 1_000] {
            let ended_us = run(&mut pass(10, pieces), |_| false, None);
            assert!(ended_us <= 10 * HOUR_US, "{pieces} pieces");
            assert!(pieces < 7 || ended_us > 8 * HOUR_US, "{pieces} pieces were read in {ended_us} us");
        }
    }

    #[test]
    fn it_is_in_time_although_others_always_go_before_it() {
        let ended_us = run(&mut pass(10, 1_000), |_| true, None);
        assert!(ended_us <= 10 * HOUR_US, "{ended_us}");
        assert!(pass(10, 1_000).ready_us(0, 0) == 0 && !pass(10, 1_000).is_behind(0, 0));
    }

    #[test]
    fn from_the_first_error_on_it_is_twice_as_fast() {
        let ended_us = run(&mut pass(10, 1_000), |_| false, Some(500 * PIECE));
        let expected = 10 * HOUR_US * 99 / 100 * 3 / 4;
        assert!(ended_us.abs_diff(expected) < HOUR_US / 20, "{ended_us} instead of {expected}");
    }

    #[test]
    fn what_is_faster_than_the_most_happens_only_when_it_is_behind() {
        let seconds = 100;
        let total = 3 * RATE_MAX * seconds;
        let pass = Pass::begin(1, (0, 0), seconds * 1_000_000, total);
        assert_eq!(pass.rate(0, 0), RATE_MAX);
        assert_eq!(pass.rate(59_000_000, total / 10), 3 * RATE_MAX * 90 / 40, "it is behind");
    }
}
