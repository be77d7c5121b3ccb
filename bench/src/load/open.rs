//! Open loop: messages leave by a schedule of constant rate, whatever comes back, and each is timed from
//! the moment at which it was meant to leave. A server that stalls is charged for everything that had to
//! wait.
//!
//! The generator distrusts itself: it reports how late it sent and how busy it was, and says when that is
//! too much for the result to mean anything.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Load, Protocol};
use crate::error::Result;

/// Longest response time that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;
/// Below this distance to the next message the generator looks again instead of sleeping.
const SPIN_NS: u64 = 100_000;
/// How long messages may be under way after the last was sent.
const TAIL: Duration = Duration::from_secs(5);
/// A result is not trusted if the generator was later than this share of the reported p99...
const LAG_SHARE_MAX: f64 = 0.10;
/// ...or had work to do for more than this share of the time.
const BUSY_SHARE_MAX: f64 = 0.80;

/// What an open loop measured. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Messages per second that were scheduled.
    pub rate: f64,
    /// Response times.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// How late messages left, at the 99th percentile.
    pub lag_p99_us: f64,
    /// Share of the time for which the generator had work.
    pub busy: f64,
    /// Messages that were scheduled and never ended.
    pub lost: u64,
}

impl Latency {
    /// Why this result means nothing, if so.
    pub fn distrust(&self) -> Option<String> {
        if self.lost > 0 {
            return Some(format!("{} messages never came back", self.lost));
        }
        if self.lag_p99_us > LAG_SHARE_MAX * self.p99_us {
            return Some(format!("the generator sent up to {:.0} us late (p99)", self.lag_p99_us));
        }
        (self.busy > BUSY_SHARE_MAX).then(|| format!("the generator was busy for {:.0} %", self.busy * 100.0))
    }
}

struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    sent: u64,
    messages: u64,
}

impl Schedule {
    fn due_ns(&self) -> u64 {
        self.start_ns + (self.sent as f64 * self.interval_ns) as u64
    }
}

impl<P: Protocol> Load<P> {
    /// Sends `rate` messages per second over all flows in turn; the first `warm_up` are not measured.
    pub fn open(&mut self, rate: f64, warm_up: Duration, measured: Duration) -> Result<Latency> {
        let start_ns = self.now_ns();
        let count = rate * (warm_up + measured).as_secs_f64();
        let mut schedule = Schedule { start_ns, interval_ns: 1e9 / rate, sent: 0, messages: count as u64 };
        let from_ns = start_ns + warm_up.as_nanos() as u64;
        let mut response = histogram();
        let mut lag = histogram();
        let mut ended = 0;
        self.work_ns = 0;
        let end_ns = start_ns + (warm_up + measured + TAIL).as_nanos() as u64;
        while ended < schedule.messages {
            let turn_ns = self.now_ns();
            if turn_ns > end_ns {
                break;
            }
            let first = schedule.sent;
            self.send_due(&mut schedule, turn_ns)?;
            self.flush()?;
            let flushed_ns = self.now_ns();
            for nth in first..schedule.sent {
                let due_ns = start_ns + (nth as f64 * schedule.interval_ns) as u64;
                if due_ns >= from_ns {
                    lag.saturating_record(flushed_ns.saturating_sub(due_ns));
                }
            }
            let clock = self.start;
            if schedule.sent > first {
                self.work_ns += flushed_ns - turn_ns;
            }
            let got = self.pump(self.patience(&schedule), |_, stamp_ns| {
                ended += 1;
                if stamp_ns >= from_ns {
                    response.saturating_record((clock.elapsed().as_nanos() as u64).saturating_sub(stamp_ns));
                }
            })?;
            if got == 0 {
                // The kernel's own threads finish disk writes, and may have to do it on this processor.
                rustix::thread::sched_yield();
            }
        }
        self.flush()?;
        let us = |ns: u64| ns as f64 / 1000.0;
        Ok(Latency {
            rate,
            p50_us: us(response.value_at_quantile(0.5)),
            p99_us: us(response.value_at_quantile(0.99)),
            p999_us: us(response.value_at_quantile(0.999)),
            lag_p99_us: us(lag.value_at_quantile(0.99)),
            busy: self.work_ns as f64 / (warm_up + measured).as_nanos() as f64,
            lost: schedule.messages - ended,
        })
    }

    fn send_due(&mut self, schedule: &mut Schedule, now_ns: u64) -> Result<()> {
        let now = self.clock.now();
        while schedule.sent < schedule.messages && schedule.due_ns() <= now_ns {
            let flow = (schedule.sent % self.flows.len() as u64) as usize;
            self.send(flow, schedule.due_ns(), now)?;
            schedule.sent += 1;
        }
        Ok(())
    }

    /// How long to wait for input: not at all shortly before the next message.
    fn patience(&self, schedule: &Schedule) -> Option<Duration> {
        if schedule.sent >= schedule.messages {
            return Some(Duration::from_millis(10));
        }
        let left_ns = schedule.due_ns().saturating_sub(self.now_ns());
        Some(Duration::from_nanos(left_ns.saturating_sub(SPIN_NS)))
    }
}

fn histogram() -> Histogram<u64> {
    // PANIC: the bounds are constants that the library accepts.
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds of a histogram are valid")
}
