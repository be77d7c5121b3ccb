//! The sender: every line to each recipient, with a bounded number of lines under way.

use std::time::Duration;

use tokio::sync::oneshot;

use super::narrator::Narrator;
use super::text::Text;
use super::{RECIPIENTS, failed};
use crate::cli::error::CliError;
use crate::cli::session::random;
use crate::client::{ClientEvent, Driver, NewMessage};
use crate::wire::{Address, MailboxSeq, MessageClass, MessageId, ReceiptStatus};

/// Messages under way at once: the loop is closed, a receipt makes room for the next message.
pub(super) const WINDOW: usize = 256;

/// Line and recipient of a message, in its id: a random half, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbering([u8; 8]);

impl Numbering {
    pub(super) fn new() -> Result<Self, CliError> {
        random().map(Self)
    }

    /// The id of message `number`.
    pub(super) fn id(self, number: usize) -> MessageId {
        MessageId((u128::from(u64::from_be_bytes(self.0)) << 64 | number as u128).to_be_bytes())
    }

    /// The number in `id`, if this run made it.
    pub(super) fn number(self, id: MessageId) -> Option<usize> {
        let number = id.0.strip_prefix(&self.0)?.try_into().ok()?;
        usize::try_from(u64::from_be_bytes(number)).ok()
    }
}

/// What became of a message, as far as its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No final receipt.
    Unanswered,
    /// Durable on the node, which numbered it so.
    Accepted { seq: MailboxSeq, at_us: u64 },
    /// Refused for good.
    Rejected { reason: &'static str },
}

/// A message and its receipt. Message `n` is line `n / RECIPIENTS` to recipient `n % RECIPIENTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// When it was given to the client library.
    pub(super) given_us: u64,
    pub(super) outcome: Outcome,
}

/// Sends every line of `text` to each of `to`; says so on `half` when half of the receipts are there.
pub(super) async fn send_all(
    mut driver: Driver,
    text: &Text,
    to: [Address; RECIPIENTS],
    numbering: Numbering,
    half: oneshot::Sender<()>,
    narrator: &Narrator,
) -> Result<Vec<Sent>, CliError> {
    let messages = text.len() * RECIPIENTS;
    let mut sent: Vec<Sent> = Vec::with_capacity(messages);
    let mut half = Some(half);
    let mut answered = 0;
    while answered < messages {
        while sent.len() < messages && driver.client().unsent() < WINDOW {
            let number = sent.len();
            let now = driver.clock().now();
            driver.client().send(
                now,
                NewMessage {
                    to: to[number % RECIPIENTS],
                    id: numbering.id(number),
                    ttl_s: 0,
                    class: MessageClass::Durable,
                    want_delivered: false,
                    anonymous: false,
                    payload: text.line(number / RECIPIENTS).to_vec(),
                },
            );
            sent.push(Sent { given_us: now.mono_us, outcome: Outcome::Unanswered });
        }
        let event = driver.next().await.map_err(failed)?;
        let at_us = driver.clock().mono_us();
        let (id, outcome) = match event {
            ClientEvent::Sent(report) => match report.status {
                ReceiptStatus::Rejected(reason) => (report.id, Outcome::Rejected { reason: reason.name() }),
                _ => (report.id, Outcome::Accepted { seq: report.seq, at_us }),
            },
            ClientEvent::GaveUp { id, .. } => (id, Outcome::Unanswered),
            _ => continue,
        };
        if let Some(message) = numbering.number(id).and_then(|number| sent.get_mut(number)) {
            message.outcome = outcome;
        }
        answered += 1;
        narrator.progress();
        if answered == messages / 2
            && let Some(half) = half.take()
        {
            // Nobody listens any more only if the demonstration is being given up.
            let _ = half.send(());
        }
    }
    driver.finish(Duration::from_secs(1)).await;
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_number_and_a_foreign_one_tells_nothing() {
        let (ours, theirs) = (Numbering([1; 8]), Numbering([2; 8]));
        assert_eq!(ours.number(ours.id(70_000)), Some(70_000));
        assert_eq!(ours.number(theirs.id(70_000)), None);
        assert_ne!(ours.id(0), ours.id(1));
    }
}
