//! Rebuilding the mailboxes of a core from its lanes, in LSN order, before anything is served.

use shards::io::LaneId;
use shards::{Kind, Ledger, RecoveredRecord};

use super::Relay;
use super::dedup::DedupIndex;
use super::mailbox::{Device, Entry, Mailbox, MailboxKey, Proof, Remembered};
use super::records::{self, MessageRecord, StateRecord};
use crate::wire::{Address, Epoch};

/// Stands for the epoch of a mailbox until a record tells it.
const NOT_RECORDED: Epoch = Epoch(0);

/// A relay that is being fed its past.
pub struct Recovering {
    relay: Relay,
    now_s: u32,
    now_ms: u64,
    foreign: u64,
}

impl Recovering {
    /// Starts from an empty relay. `now_ms` is the wall clock; what expired before it is not taken up.
    pub fn new(relay: Relay, now_ms: u64) -> Self {
        Self { relay, now_s: u32::try_from(now_ms / 1000).unwrap_or(u32::MAX), now_ms, foreign: 0 }
    }

    /// Takes one record, and releases what is dead: this one, or one that it replaces.
    pub fn record(&mut self, lane: LaneId, record: &RecoveredRecord<'_>, ledger: &mut Ledger) {
        let understood = match record.kind {
            Kind::Message => self.message(lane, record, ledger),
            Kind::MailboxState => self.state(lane, record, ledger),
            Kind::DedupWindow => {
                ledger.release(record.loc, record.kind);
                self.dedup(lane, record)
            }
            Kind::Shard
            | Kind::DhtRecord
            | Kind::KeyBundle
            | Kind::Tombstone
            | Kind::Lease
            | Kind::Checkpoint => false,
        };
        if !understood {
            // Its checksum holds, so some version of this program wrote it; this one cannot have.
            self.foreign += 1;
            if record.kind != Kind::DedupWindow {
                ledger.release(record.loc, record.kind);
            }
        }
    }

    fn mailbox(&mut self, lane: LaneId, address: Address) -> MailboxKey {
        if let Some(key) = self.relay.mailboxes.find(&address) {
            return key;
        }
        self.relay.mailboxes.insert(Mailbox::new(address, lane, NOT_RECORDED))
    }

    fn message(&mut self, lane: LaneId, record: &RecoveredRecord<'_>, ledger: &mut Ledger) -> bool {
        let Some(message) = MessageRecord::decode(record.payload) else { return false };
        let key = self.mailbox(lane, message.to);
        let limits = self.relay.limits;
        let mailbox = &mut self.relay.mailboxes[key];
        mailbox.next_seq = mailbox.next_seq.max(message.seq + 1);
        let at_s = u32::try_from(message.accepted_ms / 1000).unwrap_or(u32::MAX);
        if at_s.saturating_add(limits.dedup_s) > self.now_s {
            let proof = Proof::in_segment(record.loc.segment);
            let entry = Remembered { id: message.dedup, seq: message.seq, at_s, proof };
            DedupIndex::recall(mailbox, entry, limits.dedup_ids);
        }
        let entry = Entry {
            seq: message.seq,
            loc: record.loc,
            expires_s: record.expires_s,
            accepted_s: at_s,
            notified: !message.notify,
        };
        if record.expires_s > self.now_s && message.seq > mailbox.floor() {
            if let Some(original) = mailbox.place(entry) {
                ledger.release(original, Kind::Message);
            } else {
                mailbox.bytes += message.payload.len() as u64;
            }
        } else {
            ledger.release(record.loc, Kind::Message);
        }
        mailbox.committed_seq = mailbox.committed_seq.max(message.seq);
        true
    }

    fn state(&mut self, lane: LaneId, record: &RecoveredRecord<'_>, ledger: &mut Ledger) -> bool {
        let Some(state) = StateRecord::decode(record.payload) else { return false };
        let key = self.mailbox(lane, state.address);
        let book = self.relay.book(lane);
        book.epoch = Epoch(book.epoch.0.max(state.epoch.0));
        let mailbox = &mut self.relay.mailboxes[key];
        mailbox.epoch = state.epoch;
        // Numbers that were given but never committed are not given again: nobody can have seen them twice.
        mailbox.next_seq = mailbox.next_seq.max(state.next_seq);
        mailbox.committed_seq = mailbox.committed_seq.max(mailbox.next_seq - 1);
        mailbox.devices = state
            .devices
            .iter()
            .map(|device| Device {
                id: device.id,
                cursor: device.cursor,
                pushed: 0,
                last_seen_s: device.last_seen_s,
                session: None,
            })
            .collect();
        if let Some(old) = mailbox.state.loc.replace(record.loc) {
            ledger.release(old, Kind::MailboxState);
        }
        let floor = mailbox.floor();
        while let Some(entry) = mailbox.entries.front().filter(|entry| entry.seq <= floor) {
            mailbox.bytes -= u64::from(entry.payload_bytes());
            ledger.release(entry.loc, Kind::Message);
            mailbox.entries.pop_front();
        }
        true
    }

    fn dedup(&mut self, lane: LaneId, record: &RecoveredRecord<'_>) -> bool {
        let Some((address, entries)) = records::decode_dedup(record.payload) else { return false };
        let key = self.mailbox(lane, address);
        let limits = self.relay.limits;
        for entry in entries {
            let mailbox = &mut self.relay.mailboxes[key];
            mailbox.next_seq = mailbox.next_seq.max(entry.seq + 1);
            mailbox.committed_seq = mailbox.committed_seq.max(entry.seq);
            if entry.at_s.saturating_add(limits.dedup_s) <= self.now_s {
                continue;
            }
            let proof = Proof::in_segment(record.loc.segment);
            let recalled = Remembered { id: entry.id, seq: entry.seq, at_s: entry.at_s, proof };
            DedupIndex::recall(mailbox, recalled, limits.dedup_ids);
        }
        true
    }

    /// Records whose payload no version up to this one can have written.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Ends recovery; gives the mailboxes of damaged lanes a new epoch.
    pub fn finish(mut self, damaged: impl Fn(LaneId) -> bool) -> Relay {
        for index in 0..self.relay.books.len() {
            let lane = LaneId(self.relay.first_lane.0 + index as u16);
            if damaged(lane) {
                let book = self.relay.book(lane);
                book.owes_epochs = Some(0);
                book.epoch = Epoch(self.now_ms.max(book.epoch.0 + 1));
            }
        }
        for slot in 0..self.relay.mailboxes.key_end() {
            let key = MailboxKey(slot);
            let Some(mailbox) = self.relay.mailboxes.get_mut(key) else { continue };
            let limits = self.relay.limits;
            let ids_max = self.relay.dedup.allowance(limits.dedup_ids, limits.dedup_ids_core);
            self.relay.dedup.settle(key, mailbox, ids_max);
            self.relay.queued_messages += mailbox.entries.len() as u64;
            self.relay.queued_bytes += mailbox.bytes;
            let lane = mailbox.lane;
            if damaged(lane) || mailbox.epoch == NOT_RECORDED {
                let epoch = self.relay.book(lane).epoch;
                self.relay.mailboxes[key].epoch = epoch;
            }
            if damaged(lane) {
                self.relay.mailboxes[key].state.owes_epoch = true;
                let owed = &mut self.relay.book(lane).owes_epochs;
                *owed = owed.map(|owed| owed + 1);
                self.relay.mark_dirty(key);
            }
        }
        self.relay
    }
}
