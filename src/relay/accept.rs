//! From a message to its place in the next batch, or to a refusal.

use shards::{AppendError, Kind, LaneSet};

use super::mailbox::{Mailbox, MailboxKey, Proof, Remembered};
use super::records::MessageRecord;
use super::{Delivery, Incoming, Origin, Outcome, Outlet, Receipt, Relay, Staged, Verdict, Waiter};
use crate::rt::api::Now;
use crate::wire::{Address, MailboxSeq, RejectReason};

/// How long a message may wait for a lane whose buffers are all in use, in microseconds.
const BUSY_WAIT_US: u64 = 250_000;

/// Repetitions of messages that are not committed yet, per lane. Each is looked at for every record of a
/// batch.
const WAITERS_MAX: usize = 64;

/// Part of the table of mailboxes, in sixteenths, that messages to unknown addresses may fill: the rest is
/// for people who log in.
const UNKNOWN_SIXTEENTHS: usize = 12;

/// Retry hints, in milliseconds.
const RETRY_BUSY_MS: u32 = 20;
const RETRY_FULL_MS: u32 = 5_000;
const RETRY_READ_ONLY_MS: u32 = 30_000;
const RETRY_MAILBOX_MS: u32 = 10_000;

/// What a mailbox is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Its owner is here.
    Login,
    /// Somebody sent a message to it.
    Message,
}

impl Relay {
    /// Takes a durable message: stages it for the next commit, or says at once what is known already.
    pub fn accept(
        &mut self,
        now: Now,
        lanes: &mut LaneSet,
        message: &Incoming<'_>,
        origin: Origin,
    ) -> Verdict {
        let outcome = match self.stage(now, lanes, message, origin) {
            Ok(None) => return Verdict::Pending,
            Ok(Some(seq)) => Outcome::Accepted(MailboxSeq(seq)),
            Err((RejectReason::Busy, _)) if self.may_wait(now, lanes, &message.to) => return Verdict::Busy,
            Err((reason, retry_ms)) => Outcome::Rejected { reason, retry_ms },
        };
        Verdict::Known(Receipt { id: message.id, outcome })
    }

    /// A lane whose buffers are full frees one with its next completion. Waiting for that keeps a sender's
    /// messages in order; waiting for a disk that hangs would hold up everybody else, so that ends after a
    /// while.
    fn may_wait(&mut self, now: Now, lanes: &LaneSet, to: &Address) -> bool {
        let lane = lanes.lane_of(&to.0);
        let since_us = *self.book(lane).busy_since_us.get_or_insert(now.mono_us);
        now.mono_us - since_us < BUSY_WAIT_US
    }

    /// Stages a message, or finds the number under which it is known.
    fn stage(
        &mut self,
        now: Now,
        lanes: &mut LaneSet,
        message: &Incoming<'_>,
        origin: Origin,
    ) -> Result<Option<u64>, (RejectReason, u32)> {
        let ttl_s = match message.ttl_s {
            0 => self.limits.ttl_default_s,
            ttl_s if ttl_s <= self.limits.ttl_max_s => ttl_s,
            _ => return Err((RejectReason::BadTtl, 0)),
        };
        let key = self.mailbox_for(lanes, message.to, Purpose::Message)?;
        if let Some(seq) = self.dedup.find(key, &self.mailboxes[key], message.dedup) {
            self.stats.relay.dedup_hits.inc();
            return self.receipt_of_first(key, seq, origin);
        }
        self.check_room(key, message)?;
        self.append(now, lanes, key, message, ttl_s, origin)?;
        Ok(None)
    }

    /// The mailbox of an address; made on the first message, so that an unknown address answers like a known
    /// one.
    pub(super) fn mailbox_for(
        &mut self,
        lanes: &LaneSet,
        address: Address,
        purpose: Purpose,
    ) -> Result<MailboxKey, (RejectReason, u32)> {
        if let Some(key) = self.mailboxes.find(&address) {
            return Ok(key);
        }
        let most = self.limits.mailboxes as usize;
        let most = match purpose {
            Purpose::Login => most,
            Purpose::Message => most * UNKNOWN_SIXTEENTHS / 16,
        };
        if self.mailboxes.len() >= most.max(1) {
            return Err((RejectReason::TooManyMailboxes, RETRY_FULL_MS));
        }
        let lane = lanes.lane_of(&address.0);
        let epoch = self.book(lane).epoch;
        Ok(self.mailboxes.insert(Mailbox::new(address, lane, epoch)))
    }

    /// The receipt of a message seen before: its number if it is committed, else nothing until the first one
    /// is.
    fn receipt_of_first(
        &mut self,
        key: MailboxKey,
        seq: u64,
        origin: Origin,
    ) -> Result<Option<u64>, (RejectReason, u32)> {
        let mailbox = &self.mailboxes[key];
        if seq <= mailbox.committed_seq {
            return Ok(Some(seq));
        }
        let lane = mailbox.lane;
        let waiters = &mut self.book(lane).waiters;
        if waiters.len() >= WAITERS_MAX {
            return Err((RejectReason::Rate, RETRY_BUSY_MS));
        }
        waiters.push(Waiter { mailbox: key, seq, origin });
        Ok(None)
    }

    fn check_room(&self, key: MailboxKey, message: &Incoming<'_>) -> Result<(), (RejectReason, u32)> {
        let mailbox = &self.mailboxes[key];
        if mailbox.held() >= u64::from(self.limits.mailbox_messages) {
            return Err((RejectReason::MailboxMessages, RETRY_MAILBOX_MS));
        }
        if mailbox.bytes + message.payload.len() as u64 > self.limits.mailbox_bytes {
            return Err((RejectReason::MailboxBytes, RETRY_MAILBOX_MS));
        }
        if self.queued_messages >= self.limits.queued_messages {
            return Err((RejectReason::StoreFull, RETRY_FULL_MS));
        }
        Ok(())
    }

    fn append(
        &mut self,
        now: Now,
        lanes: &mut LaneSet,
        key: MailboxKey,
        message: &Incoming<'_>,
        ttl_s: u32,
        origin: Origin,
    ) -> Result<(), (RejectReason, u32)> {
        let now_s = wall_s(now);
        let mailbox = &mut self.mailboxes[key];
        let (lane, seq) = (mailbox.lane, mailbox.next_seq);
        let record = MessageRecord {
            to: message.to,
            from: message.notify.unwrap_or(message.from),
            id: message.id,
            dedup: message.dedup,
            seq,
            sent_ms: message.sent_ms,
            accepted_ms: now.wall_ms,
            notify: message.notify.is_some(),
            anonymous: message.from == Address([0; 32]),
            payload: message.payload,
        };
        let lsn = lanes
            .lane_mut(lane)
            .append(Kind::Message, now_s.saturating_add(ttl_s), &[&record.head(), message.payload])
            .inspect_err(|error| self.stats.log.append_refusals.add(u64::from(*error != AppendError::Busy)))
            .map_err(refusal)?;
        mailbox.next_seq += 1;
        mailbox.staged += 1;
        mailbox.bytes += message.payload.len() as u64;
        self.queued_messages += 1;
        self.queued_bytes += message.payload.len() as u64;
        let entry = Remembered { id: message.dedup, seq, at_s: now_s, proof: Proof::NOT_YET };
        let ids_max = self.dedup.allowance(self.limits.dedup_ids, self.limits.dedup_ids_core);
        self.dedup.remember(key, mailbox, entry, ids_max);
        let payload_bytes = message.payload.len() as u32;
        let staged = Staged::Message { lsn, mailbox: key, seq, id: message.id, payload_bytes, origin };
        let book = self.book(lane);
        book.busy_since_us = None;
        book.staged.push_back(staged);
        Ok(())
    }

    /// Hands an ephemeral message to the connected devices of its recipient, or drops it.
    pub fn relay_ephemeral(&mut self, message: &Incoming<'_>, outlet: &mut impl Outlet) -> Receipt {
        let delivery = Delivery {
            seq: MailboxSeq(0),
            id: message.id,
            from: message.from,
            sent_ms: message.sent_ms,
            redelivery: false,
            payload: message.payload,
        };
        let mailbox = self.mailboxes.find(&message.to).map(|key| &self.mailboxes[key]);
        let sessions = mailbox.iter().flat_map(|mailbox| &mailbox.devices).filter_map(|d| d.session.as_ref());
        let mut reached = 0u64;
        for attached in sessions.filter(|attached| attached.subscribed()) {
            reached += u64::from(outlet.deliver(attached.conn, &delivery));
        }
        self.stats.relay.delivered_ephemeral.add(reached);
        let outcome = if reached > 0 {
            Outcome::Relayed
        } else {
            self.stats.relay.ephemeral_dropped.inc();
            Outcome::Rejected { reason: RejectReason::NotConnected, retry_ms: 0 }
        };
        Receipt { id: message.id, outcome }
    }
}

/// What a sender is told when its lane takes no more.
fn refusal(error: AppendError) -> (RejectReason, u32) {
    match error {
        AppendError::Busy => (RejectReason::Busy, RETRY_BUSY_MS),
        AppendError::Full => (RejectReason::StoreFull, RETRY_FULL_MS),
        AppendError::TooLarge { .. } => (RejectReason::TooLarge, 0),
        AppendError::ReadOnly(_) => (RejectReason::StoreReadOnly, RETRY_READ_ONLY_MS),
        AppendError::ShuttingDown => (RejectReason::ShuttingDown, RETRY_READ_ONLY_MS),
    }
}

/// Wall clock in whole seconds since 1970, as records hold it. Good until 2106.
pub(super) fn wall_s(now: Now) -> u32 {
    u32::try_from(now.wall_ms / 1000).unwrap_or(u32::MAX)
}
