//! Whether the promises held: what was acknowledged against what arrived.

use serde::Serialize;

use super::RECIPIENTS;
use super::recipient::Arrival;
use super::sender::{Outcome, Sent};
use super::text::Text;

/// What is found when the receipts of one recipient's messages are laid beside the arrivals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Findings {
    /// Messages that the node acknowledged as durable.
    pub(super) acknowledged: usize,
    /// Messages that were refused or never answered.
    pub(super) unacknowledged: usize,
    /// Of the acknowledged, those that arrived.
    pub(super) arrived: usize,
    /// Of the acknowledged, those that did not.
    pub(super) lost: usize,
    /// Arrivals of what had arrived before.
    pub(super) twice: usize,
    /// Arrivals with other bytes than were sent, or that nobody sent to this recipient.
    pub(super) altered: usize,
    /// Arrivals before which one of a higher number in the mailbox had arrived.
    pub(super) out_of_order: usize,
}

impl Findings {
    /// Compares the messages to `recipient` with what `arrivals` says.
    pub(super) fn of(text: &Text, sent: &[Sent], recipient: usize, arrivals: &[Arrival]) -> Self {
        let mut found = Self::default();
        let mut seen = vec![false; sent.len()];
        let mut highest_seq = 0;
        for arrival in arrivals {
            let number = arrival.number.filter(|n| *n < sent.len() && n % RECIPIENTS == recipient);
            let number = number.filter(|n| text.line(n / RECIPIENTS) == arrival.payload);
            let Some(number) = number else {
                found.altered += 1;
                continue;
            };
            if std::mem::replace(&mut seen[number], true) {
                found.twice += 1;
            } else if let Outcome::Accepted { seq, .. } = sent[number].outcome {
                found.out_of_order += usize::from(seq.0 <= highest_seq);
                highest_seq = highest_seq.max(seq.0);
            }
        }
        for number in (recipient..sent.len()).step_by(RECIPIENTS) {
            match sent[number].outcome {
                Outcome::Accepted { .. } if seen[number] => found.arrived += 1,
                Outcome::Accepted { .. } => found.lost += 1,
                _ => found.unacknowledged += 1,
            }
        }
        found.acknowledged = found.arrived + found.lost;
        found
    }

    /// True if everything was acknowledged and arrived exactly once, unchanged, and in order.
    pub(super) fn hold(&self) -> bool {
        let Self { acknowledged: _, unacknowledged, arrived, lost, twice, altered, out_of_order } = *self;
        arrived > 0 && [unacknowledged, lost, twice, altered, out_of_order] == [0; 5]
    }
}

/// Percentiles of durations, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Latency {
    pub(super) count: usize,
    pub(super) p50_us: u64,
    pub(super) p90_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
}

impl Latency {
    /// Of all `durations_us`; zeros if there are none.
    pub(super) fn of(mut durations_us: Vec<u64>) -> Self {
        durations_us.sort_unstable();
        // The smallest value that `percent` of all do not exceed.
        let at = |percent: usize| {
            let rank = (durations_us.len() * percent).div_ceil(100);
            durations_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        let count = durations_us.len();
        Self { count, p50_us: at(50), p90_us: at(90), p99_us: at(99), max_us: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MailboxSeq;

    /// Four lines for each of two recipients, all accepted, in the order of the lines.
    fn story() -> (Text, Vec<Sent>, Vec<Arrival>) {
        let text = Text { lines: ["a", "b", "c", "d"].map(Into::into).into(), times: 1, source: "t".into() };
        let accepted =
            |n: usize| Outcome::Accepted { seq: MailboxSeq((n / RECIPIENTS) as u64 + 1), at_us: 1 };
        let sent: Vec<_> = (0..8).map(|n| Sent { given_us: 0, outcome: accepted(n) }).collect();
        let arrival = |n: usize| Arrival { number: Some(n), at_us: 2, payload: text.line(n / 2).to_vec() };
        let arrivals = (0..8).step_by(RECIPIENTS).map(arrival).collect();
        (text, sent, arrivals)
    }

    #[test]
    fn what_arrives_once_and_in_order_holds() {
        let (text, sent, arrivals) = story();
        let found = Findings::of(&text, &sent, 0, &arrivals);
        assert_eq!(found, Findings { acknowledged: 4, arrived: 4, ..Findings::default() });
        assert!(found.hold());
        assert!(!Findings::default().hold(), "nothing at all is no success");
    }

    #[test]
    fn each_broken_promise_is_found_and_fails_the_verdict() {
        type Damage = fn(&mut Vec<Sent>, &mut Vec<Arrival>);
        type Count = fn(&Findings) -> usize;
        let cases: [(Damage, Count); 7] = [
            (|_, arrivals| drop(arrivals.remove(1)), |found| found.lost),
            (|_, arrivals| arrivals.push(arrivals[2].clone()), |found| found.twice),
            (|_, arrivals| arrivals.swap(0, 1), |found| found.out_of_order),
            (|_, arrivals| arrivals[3].payload.push(0), |found| found.altered),
            (|_, arrivals| arrivals[3].number = Some(7), |found| found.altered),
            (|_, arrivals| arrivals[3].number = None, |found| found.altered),
            (|sent, _| sent[2].outcome = Outcome::Unanswered, |found| found.unacknowledged),
        ];
        for (case, (damage, count)) in cases.into_iter().enumerate() {
            let (text, mut sent, mut arrivals) = story();
            damage(&mut sent, &mut arrivals);
            let found = Findings::of(&text, &sent, 0, &arrivals);
            assert_eq!(count(&found), 1, "case {case}: {found:?}");
            assert!(!found.hold(), "case {case}: {found:?}");
        }
    }

    #[test]
    fn percentiles_are_of_the_values_that_were_measured() {
        let latency = Latency::of((1..=200).rev().collect());
        let Latency { count, p50_us, p90_us, p99_us, max_us } = latency;
        assert_eq!((count, p50_us, p90_us, p99_us, max_us), (200, 100, 180, 198, 200));
        assert_eq!(Latency::of(vec![7]).p50_us, 7);
        assert_eq!(Latency::of(vec![]), Latency::default());
    }
}
