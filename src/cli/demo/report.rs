//! What happened, in numbers, for people and for programs.

use serde::Serialize;

use super::Outage;
use super::check::{Findings, Latency};
use super::narrator::Narrator;
use super::recipient::Arrival;
use super::sender::{Outcome, Sent, WINDOW};
use super::text::Text;
use crate::cli::error::CliError;
use crate::cli::human::{count, micros};

const NOTE: &str = "closed-loop figures of a demonstration on one machine, not a benchmark";

/// Everything that was observed.
pub(super) struct Observed<'a> {
    pub(super) text: &'a Text,
    pub(super) sent: &'a [Sent],
    pub(super) online: &'a [Arrival],
    pub(super) offline: &'a [Arrival],
    /// From the connection of the offline recipient until everything that waited had arrived.
    pub(super) catch_up_us: u64,
    pub(super) outage: Outage,
    /// Messages that were delivered once more after they had been acknowledged.
    pub(super) again: usize,
    /// A recipient was told that its mailbox had lost part of its past.
    pub(super) past_lost: bool,
    /// The node drained and ended well when it was asked to.
    pub(super) clean_stop: bool,
}

/// What the demonstration found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    ok: bool,
    note: &'static str,
    source: String,
    lines: usize,
    repeated: usize,
    messages: usize,
    online: Findings,
    offline: Findings,
    delivered_again: usize,
    past_lost: bool,
    clean_stop: bool,
    rejected_because: Option<&'static str>,
    /// Messages under way when the node was killed.
    under_way_at_kill: usize,
    /// From the kill until the node served clients again.
    outage_us: u64,
    /// From the kill until the next receipt.
    first_receipt_us: u64,
    /// Receipts per second, the outage left out.
    receipts_per_s: u64,
    /// Messages per second that the offline recipient caught up with.
    catch_up_per_s: u64,
    window: usize,
    /// From handing a message to the client library to its receipt, for those that the outage did not touch.
    accepted: Latency,
    /// From handing a message to the client library to its arrival at the recipient who is online, likewise.
    delivered: Latency,
}

impl Report {
    pub(super) fn of(observed: &Observed<'_>) -> Self {
        let &Observed { text, sent, online, offline, outage, .. } = observed;
        let online_found = Findings::of(text, sent, 0, online);
        let offline_found = Findings::of(text, sent, 1, offline);
        let rejected_because = sent.iter().find_map(|sent| match sent.outcome {
            Outcome::Rejected { reason } => Some(reason),
            _ => None,
        });
        let receipts_us = || sent.iter().filter_map(|sent| sent.outcome.accepted_us());
        let first_receipt_us = receipts_us().filter(|at| *at > outage.ready_us).min().unwrap_or(0);
        let begin_us = sent.first().map_or(0, |sent| sent.given_us);
        let busy_us = receipts_us().max().unwrap_or(0).saturating_sub(begin_us + outage.us());
        let ok = online_found.hold()
            && offline_found.hold()
            && observed.again == 0
            && !observed.past_lost
            && observed.clean_stop;
        Self {
            ok,
            note: NOTE,
            source: text.source.clone(),
            lines: text.len(),
            repeated: text.times,
            messages: sent.len(),
            online: online_found,
            offline: offline_found,
            delivered_again: observed.again,
            past_lost: observed.past_lost,
            clean_stop: observed.clean_stop,
            rejected_because,
            under_way_at_kill: sent.iter().filter(|sent| sent.is_under_way(outage.killed_us)).count(),
            outage_us: outage.us(),
            first_receipt_us: first_receipt_us.saturating_sub(outage.killed_us),
            receipts_per_s: per_second(receipts_us().count(), busy_us),
            catch_up_per_s: per_second(offline.len(), observed.catch_up_us),
            window: WINDOW,
            accepted: Latency::of(accept_us(sent, outage)),
            delivered: Latency::of(deliver_us(sent, online, outage)),
        }
    }

    /// Whether every promise held.
    pub(super) fn ok(&self) -> bool {
        self.ok
    }

    /// Tells people.
    pub(super) fn tell(&self, narrator: &Narrator) -> Result<(), CliError> {
        let n = |value: usize| count(value as u64);
        let rate = count(self.receipts_per_s);
        narrator.say(
            "rate",
            &format!("{rate} receipts/s, {} messages/s caught up", count(self.catch_up_per_s)),
        )?;
        for (what, latency) in [("accepted", &self.accepted), ("delivered", &self.delivered)] {
            let [p50, p90, p99, max] =
                [latency.p50_us, latency.p90_us, latency.p99_us, latency.max_us].map(micros);
            narrator.say(what, &format!("p50 {p50}, p90 {p90}, p99 {p99}, max {max}"))?;
        }
        let window = self.window;
        narrator.say("", &format!("({NOTE}; {window} messages under way, the outage left out)"))?;
        for (who, found) in [("online", &self.online), ("offline", &self.offline)] {
            let Findings { acknowledged, lost, twice, altered, out_of_order, .. } = *found;
            let text = format!(
                "{} acknowledged, {} lost, {} twice, {} altered, {} out of order",
                n(acknowledged),
                n(lost),
                n(twice),
                n(altered),
                n(out_of_order)
            );
            narrator.say(who, &text)?;
        }
        narrator.say(
            "again",
            &format!("{} delivered again after their acknowledgement", n(self.delivered_again)),
        )?;
        narrator.say("verdict", &self.verdict())
    }

    fn verdict(&self) -> String {
        if self.ok {
            return "HELD: every acknowledged line arrived exactly once and in order".into();
        }
        let unacknowledged = self.online.unacknowledged + self.offline.unacknowledged;
        let mut reasons = Vec::new();
        if !self.online.hold() || !self.offline.hold() {
            let because =
                self.rejected_because.map_or(String::new(), |reason| format!(", refused: {reason}"));
            reasons.push(format!("see the lines above; {unacknowledged} were not acknowledged{because}"));
        }
        if self.delivered_again > 0 {
            reasons.push("acknowledged messages came again".into());
        }
        if self.past_lost {
            reasons.push("the node says that it lost part of its log".into());
        }
        if !self.clean_stop {
            reasons.push("the node did not drain and end when asked to".into());
        }
        format!("BROKEN: {}", reasons.join("; "))
    }
}

impl Outcome {
    fn accepted_us(self) -> Option<u64> {
        match self {
            Self::Accepted { at_us, .. } => Some(at_us),
            _ => None,
        }
    }
}

impl Sent {
    /// Whether it was given, and not yet answered, at a time.
    fn is_under_way(&self, at_us: u64) -> bool {
        self.given_us <= at_us && self.outcome.accepted_us().is_none_or(|answered_us| answered_us > at_us)
    }
}

fn per_second(things: usize, us: u64) -> u64 {
    (things as u64).saturating_mul(1_000_000).checked_div(us).unwrap_or(0)
}

fn accept_us(sent: &[Sent], outage: Outage) -> Vec<u64> {
    let took = |sent: &Sent| {
        let at_us = sent.outcome.accepted_us()?;
        outage.spares(sent.given_us, at_us).then(|| at_us - sent.given_us)
    };
    sent.iter().filter_map(took).collect()
}

fn deliver_us(sent: &[Sent], arrivals: &[Arrival], outage: Outage) -> Vec<u64> {
    let took = |arrival: &Arrival| {
        let sent = sent.get(arrival.number?)?;
        outage.spares(sent.given_us, arrival.at_us).then(|| arrival.at_us.saturating_sub(sent.given_us))
    };
    arrivals.iter().filter_map(took).collect()
}
