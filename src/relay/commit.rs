//! What happens when a batch is durable. **The only place that makes an ACCEPTED receipt.**

use shards::io::LaneId;
use shards::{Committed, Kind, LaneSet, Lsn};

use super::attach::{InFlight, Mode, WaitsFor};
use super::mailbox::{Entry, MailboxKey, Proof};
use super::records::MessageRecord;
use super::{Delivery, Outcome, Outlet, Receipt, Relay, Staged};
use crate::wire::{MailboxSeq, RejectReason};

const RETRY_FAILED_MS: u32 = 30_000;

impl Relay {
    /// Takes one record of a committed batch. Records come in LSN order, each exactly once.
    pub fn on_committed(&mut self, lane: LaneId, record: &Committed<'_>, outlet: &mut impl Outlet) {
        match record.kind {
            Kind::Message => self.message_committed(lane, record, outlet),
            Kind::MailboxState => self.state_committed(lane, record),
            Kind::DedupWindow => self.dedup_committed(lane, record),
            // Records found by key have lanes of their own.
            other => unreachable!("the relay appends no {other:?}"),
        }
    }

    /// After the last record of a batch: lets go what its records have replaced.
    pub fn after_batch(&mut self, lanes: &mut LaneSet, lane: LaneId) {
        self.copying_may_go_on(lane);
        for (loc, kind) in self.book(lane).replaced.drain(..) {
            lanes.lane_mut(lane).release(loc, kind);
        }
    }

    fn message_committed(&mut self, lane: LaneId, record: &Committed<'_>, outlet: &mut impl Outlet) {
        let staged = self.book(lane).staged.pop_front();
        assert_eq!(
            staged.as_ref().map(Staged::lsn),
            Some(record.lsn),
            "commits come in the order of staging"
        );
        let (key, seq, id, origin) = match staged {
            Some(Staged::Message { mailbox, seq, id, origin, .. }) => (mailbox, seq, id, origin),
            Some(Staged::Copied { mailbox, seq, from, .. }) => {
                return self.copy_committed(lane, mailbox, seq, from, record.loc);
            }
            _ => unreachable!("every committed message was staged"),
        };
        let accepted = Receipt { id, outcome: Outcome::Accepted(MailboxSeq(seq)) };
        outlet.receipt(origin, accepted);
        self.answer_waiters(lane, key, seq, accepted, outlet);

        // PANIC: this node wrote the record from a valid message a moment ago, and its checksum was computed
        // then.
        let message = MessageRecord::decode(record.payload).expect("a record decodes as it was encoded");
        let mailbox = &mut self.mailboxes[key];
        mailbox.staged -= 1;
        mailbox.push(Entry {
            seq,
            loc: record.loc,
            expires_s: record.expires_s,
            accepted_s: (message.accepted_ms / 1000) as u32,
            notified: !message.notify,
        });
        if let Some(remembered) = mailbox.remembered_mut(seq) {
            remembered.proof = Proof::in_segment(record.loc.segment);
        }
        self.push_live(key, seq, &message, outlet);
    }

    /// Pushes a fresh commit to the devices that have everything before it.
    fn push_live(
        &mut self,
        key: MailboxKey,
        seq: u64,
        message: &MessageRecord<'_>,
        outlet: &mut impl Outlet,
    ) {
        let mailbox = &mut self.mailboxes[key];
        for device in &mut mailbox.devices {
            let Some(attached) = device.session.as_deref_mut().filter(|a| a.mode == Mode::Live) else {
                continue;
            };
            debug_assert!(attached.next_push <= seq, "a live device has everything up to the last commit");
            let delivery = delivery_of(message, seq <= device.pushed);
            let has_room = attached.has_room(message.payload.len());
            if has_room && outlet.deliver(attached.conn, &delivery) {
                attached.in_flight_push(seq, message);
                device.pushed = device.pushed.max(seq);
                self.stats.relay.delivered_live.inc();
                self.stats.relay.redelivered.add(u64::from(delivery.redelivery));
            } else {
                attached.mode = Mode::Behind;
                attached.waits_for = has_room.then_some(WaitsFor::Output);
                self.stats.relay.cursor_mode_sessions.inc();
            }
        }
    }

    fn answer_waiters(
        &mut self,
        lane: LaneId,
        key: MailboxKey,
        seq: u64,
        receipt: Receipt,
        outlet: &mut impl Outlet,
    ) {
        if self.book(lane).waiters.is_empty() {
            return;
        }
        self.book(lane).waiters.retain(|waiter| {
            let same = (waiter.mailbox, waiter.seq) == (key, seq);
            if same {
                outlet.receipt(waiter.origin, receipt);
            }
            !same
        });
    }

    fn state_committed(&mut self, lane: LaneId, record: &Committed<'_>) {
        let Some(Staged::State { lsn, mailbox: key }) = self.book(lane).staged.pop_front() else {
            unreachable!("every committed state was staged, in this order");
        };
        assert_eq!(lsn, record.lsn, "commits come in the order of staging");
        self.mailboxes[key].staged_else -= 1;
        self.epoch_is_durable(key);
        if let Some(old) = self.mailboxes[key].state.loc.replace(record.loc) {
            self.book(lane).replaced.push((old, Kind::MailboxState));
        }
    }

    fn dedup_committed(&mut self, lane: LaneId, record: &Committed<'_>) {
        let Some(Staged::Dedup { lsn, mailbox: key, from }) = self.book(lane).staged.pop_front() else {
            unreachable!("every committed dedup record was staged, in this order");
        };
        assert_eq!(lsn, record.lsn, "commits come in the order of staging");
        self.mailboxes[key].staged_else -= 1;
        self.dedup_moved(lane, key, from, record);
        // The ids are found again through `remembered`; the record itself holds no segment back.
        self.book(lane).replaced.push((record.loc, Kind::DedupWindow));
    }

    /// The lane could not write these records and has become read-only: nothing of them was acknowledged.
    pub fn on_failed(&mut self, lane: LaneId, first: Lsn, last: Lsn, outlet: &mut impl Outlet) {
        let refused = Outcome::Rejected { reason: RejectReason::StoreReadOnly, retry_ms: RETRY_FAILED_MS };
        while let Some(staged) =
            self.book(lane).staged.pop_front_if(|staged| (first..=last).contains(&staged.lsn()))
        {
            let (key, seq, id, payload_bytes, origin) = match staged {
                Staged::Message { mailbox, seq, id, payload_bytes, origin, .. } => {
                    (mailbox, seq, id, payload_bytes, origin)
                }
                Staged::State { mailbox, .. }
                | Staged::Dedup { mailbox, .. }
                | Staged::Copied { mailbox, .. } => {
                    self.mailboxes[mailbox].staged_else -= 1;
                    continue;
                }
            };
            let receipt = Receipt { id, outcome: refused };
            outlet.receipt(origin, receipt);
            self.answer_waiters(lane, key, seq, receipt, outlet);
            let mailbox = &mut self.mailboxes[key];
            mailbox.staged -= 1;
            mailbox.bytes -= u64::from(payload_bytes);
            self.queued_messages -= 1;
            self.queued_bytes -= u64::from(payload_bytes);
            self.dedup.retract(key, mailbox, seq);
        }
    }
}

impl super::attach::Attached {
    /// Books a message that was just written to the session.
    pub(super) fn in_flight_push(&mut self, seq: u64, message: &MessageRecord<'_>) {
        let bytes = u32::try_from(message.payload.len()).unwrap_or(u32::MAX);
        let notify = message.notify.then_some((message.from, message.id));
        self.in_flight.push_back(InFlight { seq, bytes, acked: false, notify });
        self.in_flight_bytes += u64::from(bytes);
        self.next_push = seq + 1;
    }
}

/// A message record as a device sees it.
pub(super) fn delivery_of<'a>(message: &MessageRecord<'a>, redelivery: bool) -> Delivery<'a> {
    Delivery {
        seq: MailboxSeq(message.seq),
        id: message.id,
        from: message.shown_from(),
        sent_ms: message.sent_ms,
        redelivery,
        payload: message.payload,
    }
}
