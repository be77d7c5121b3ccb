//! Messages on their way to the node, in the order in which they were given, until each has a final receipt.
//!
//! # Promise
//! Messages to one recipient are written in the order in which they were given, and up to `send_window` of
//! them are under way at once. When the node refuses one for a passing reason, those under way behind it
//! cannot be recalled and may be accepted before it. Nothing else overtakes it: until every refused message
//! to that recipient has been sent again and answered, no message given after them is sent to that recipient,
//! and the refused ones are sent again in their order, each not before its time. So two messages can change
//! places only if both were under way at the same moment. Other recipients are not held up.
//!
//! # Failure model
//! A connection may end with any number under way: they are sent again, in order, on the next one.

use std::collections::VecDeque;

use super::hold::Hold;
use crate::rt::api::Now;
use crate::wire::{
    Address, ClientFrame, MailboxSeq, MessageClass, MessageId, Receipt, ReceiptStatus, RejectReason,
    RequestId, Send, SendOptions,
};

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Recipient.
    pub to: Address,
    /// Chosen by the caller, from a good random source; the node stores an id once.
    pub id: MessageId,
    /// Time to live in seconds; 0 asks for the node's longest.
    pub ttl_s: u32,
    /// Kept on disk, or only handed to who is connected.
    pub class: MessageClass,
    /// A receipt when the recipient has acknowledged it.
    pub want_delivered: bool,
    /// Do not tell the recipient who sent it.
    pub anonymous: bool,
    /// Sealed for the recipient.
    pub payload: Vec<u8>,
}

/// The end of a message as far as sending goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendReport {
    /// The number under which [`super::Client::send`] took it.
    pub request: RequestId,
    /// Its id.
    pub id: MessageId,
    /// What the node said.
    pub status: ReceiptStatus,
    /// Its number in the recipient's mailbox, if it was accepted.
    pub seq: MailboxSeq,
    /// Hint of the node, in milliseconds, when trying again makes sense; 0 if it does not.
    pub retry_ms: u32,
}

/// Pause before a message is sent again when the node gave no hint.
const RETRY_UNHINTED_US: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be sent, at once or not before a time.
    Waiting { not_before_us: u64 },
    /// Sent on this connection.
    InFlight,
}

#[derive(Debug)]
struct Pending {
    request: RequestId,
    message: NewMessage,
    sent_ms: u64,
    give_up_us: u64,
    state: State,
}

/// The messages without a final receipt.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: VecDeque<Pending>,
    next_request: u64,
    in_flight: u32,
    hold: Hold,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn push(&mut self, now: Now, message: NewMessage, give_up_us: u64) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let state = State::Waiting { not_before_us: 0 };
        self.pending.push_back(Pending { request, message, sent_ms: now.wall_ms, give_up_us, state });
        request
    }

    /// The connection broke: everything without a receipt is to be sent again.
    pub(super) fn connection_lost(&mut self) {
        self.in_flight = 0;
        for pending in &mut self.pending {
            if pending.state == State::InFlight {
                pending.state = State::Waiting { not_before_us: 0 };
                self.hold.returned(&pending.message.to, pending.request);
            }
        }
    }

    /// Writes frames for what may be sent now, in order, as far as `window` and `room_bytes` allow.
    pub(super) fn write(&mut self, now: Now, window: u32, out: &mut Vec<u8>, room_bytes: usize) {
        if self.in_flight >= window || self.in_flight as usize == self.pending.len() {
            return;
        }
        for pending in &mut self.pending {
            let (to, request) = (pending.message.to, pending.request);
            match pending.state {
                State::Waiting { not_before_us } if not_before_us <= now.mono_us => {}
                State::Waiting { .. } | State::InFlight => continue,
            }
            if !self.hold.allows(&to, request) {
                continue;
            }
            if self.in_flight >= window || out.len() >= room_bytes {
                return;
            }
            pending.frame().encode(out);
            pending.state = State::InFlight;
            self.in_flight += 1;
            self.hold.sent(&to, request);
        }
    }

    /// Takes a receipt. `None` if it is not final, or for nothing that is pending.
    pub(super) fn receipt(&mut self, now: Now, receipt: &Receipt) -> Option<SendReport> {
        let at = self.pending.binary_search_by_key(&receipt.request, |pending| pending.request).ok()?;
        let pending = &mut self.pending[at];
        if pending.state == State::InFlight {
            self.in_flight -= 1;
        }
        let again_us = now.mono_us + retry_us(receipt.retry_ms);
        if let ReceiptStatus::Rejected(reason) = receipt.status
            && is_passing(reason)
            && again_us < pending.give_up_us
        {
            pending.state = State::Waiting { not_before_us: again_us };
            self.hold.refused(pending.message.to, pending.request);
            return None;
        }
        self.hold.ended(&pending.message.to, pending.request);
        let report = SendReport {
            request: receipt.request,
            id: receipt.id,
            status: receipt.status,
            seq: receipt.seq,
            retry_ms: receipt.retry_ms,
        };
        self.pending.remove(at);
        Some(report)
    }

    /// Takes out the oldest message if its time is over. All have the same time, so the oldest ends first.
    pub(super) fn give_up(&mut self, now: Now) -> Option<(RequestId, MessageId)> {
        let late = self.pending.front().is_some_and(|pending| pending.give_up_us <= now.mono_us);
        let pending = late.then(|| self.pending.pop_front()).flatten()?;
        if pending.state == State::InFlight {
            self.in_flight -= 1;
        }
        self.hold.ended(&pending.message.to, pending.request);
        Some((pending.request, pending.message.id))
    }

    /// When the next message is given up.
    pub(super) fn give_up_us(&self) -> Option<u64> {
        self.pending.front().map(|pending| pending.give_up_us)
    }

    /// When the next refused message is to be sent again. `None` while `window` is full: then a receipt has
    /// to come first.
    pub(super) fn retry_us(&self, window: u32) -> Option<u64> {
        if self.in_flight >= window {
            return None;
        }
        let not_before_us = |request: RequestId| {
            let at = self.pending.binary_search_by_key(&request, |pending| pending.request).ok()?;
            match self.pending[at].state {
                State::Waiting { not_before_us } => Some(not_before_us),
                State::InFlight => None,
            }
        };
        self.hold.heads().filter_map(not_before_us).min()
    }
}

impl Pending {
    fn frame(&self) -> ClientFrame<'_> {
        let message = &self.message;
        ClientFrame::Send(Send {
            request: self.request,
            to: message.to,
            id: message.id,
            ttl_s: message.ttl_s,
            class: message.class,
            options: SendOptions {
                want_delivered: message.want_delivered,
                anonymous: message.anonymous,
                want_ephemeral_receipt: true,
            },
            sent_ms: self.sent_ms,
            payload: &message.payload,
        })
    }
}

fn retry_us(retry_ms: u32) -> u64 {
    match retry_ms {
        0 => RETRY_UNHINTED_US,
        hint_ms => u64::from(hint_ms) * 1000,
    }
}

/// A refusal that may not be one a little later.
fn is_passing(reason: RejectReason) -> bool {
    use RejectReason as R;
    match reason {
        R::Busy | R::Rate | R::SourceRate | R::WindowExceeded | R::ShuttingDown => true,
        R::MailboxMessages | R::MailboxBytes | R::StoreFull | R::StoreReadOnly | R::TooManyMailboxes => true,
        R::TooLarge | R::BadTtl | R::NotConnected => false,
    }
}
