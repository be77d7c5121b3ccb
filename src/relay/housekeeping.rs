//! Slow work in small steps: writing changed cursors, dropping what has expired, moving what must outlive a
//! segment that is about to be reclaimed.
//!
//! Each step has a budget, so that none of them ever holds up a turn.

use shards::io::{LaneId, SegmentId};
use shards::{AppendError, Committed, Kind, LaneSet, Reserve};

use super::accept::wall_s;
use super::mailbox::{MailboxKey, Proof};
use super::records::{self, DedupEntry, DeviceState, StateRecord};
use super::{Outlet, Relay, Staged};
use crate::rt::api::Now;

/// State records written per lane and step.
const STATES_PER_STEP: usize = 256;
/// Mailboxes looked at for expiry per step, at least; a pass over all takes at most `SWEEP_STEPS` steps.
const SWEEP_MIN: u32 = 64;
const SWEEP_STEPS: u32 = 300;
/// Mailboxes and remembered ids looked at for relocation per step, about a tenth of a millisecond.
const RELOCATE_PER_STEP: usize = 16 * 1024;
/// A mailbox that got nothing for this long, in seconds, gives the memory of its empty queues back.
const TRIM_AFTER_S: u32 = 60;
/// State and dedup records hold no message and never expire with their segment.
const NEVER_S: u32 = u32::MAX;

/// Where the walk for expired messages stands.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: u32,
    /// Oldest message met in this pass.
    oldest_s: Option<u32>,
}

/// A segment being emptied of what must outlive it.
#[derive(Debug)]
pub(super) struct Relocation {
    segment: SegmentId,
    next: u32,
    /// The walk is over; the segment is free once this many records of it are committed elsewhere.
    awaiting: u32,
    /// Something could not be written yet: walk again.
    again: bool,
}

impl Relay {
    /// One step of everything; call about every 200 ms.
    pub fn housekeep(&mut self, now: Now, lanes: &mut LaneSet, outlet: &mut impl Outlet) {
        self.retry_reads(outlet);
        self.sweep(now, lanes);
        self.choose_copying(lanes);
        for index in 0..self.books.len() {
            let lane = LaneId(self.first_lane.0 + index as u16);
            self.write_states(lanes, lane, STATES_PER_STEP);
            self.relocate(now, lanes, lane);
            self.acknowledge_loss(lanes, lane);
        }
    }

    /// Stages the state of every changed mailbox, for a node that stops. `false` if some lane's buffers are
    /// all in use: call again after the next completion. A lane that takes nothing any more keeps what it
    /// has: cursors that are behind repeat messages, they lose none.
    pub fn write_all_states(&mut self, lanes: &mut LaneSet) -> bool {
        let mut done = true;
        for index in 0..self.books.len() {
            let lane = LaneId(self.first_lane.0 + index as u16);
            while let Some(key) = self.book(lane).dirty.pop_front() {
                let Some(mailbox) = self.mailboxes.get_mut(key) else { continue };
                mailbox.state.listed = false;
                if mailbox.state.dirty && self.write_state(lanes, key, Reserve::Use) == Err(AppendError::Busy)
                {
                    self.mark_dirty(key);
                    done = false;
                    break;
                }
            }
        }
        done
    }

    /// Once every mailbox of a damaged lane has its new epoch on disk, the loss is no news any more.
    fn acknowledge_loss(&mut self, lanes: &mut LaneSet, lane: LaneId) {
        if self.book(lane).owes_epochs.take_if(|owed| *owed == 0).is_some() {
            lanes.lane_mut(lane).acknowledge_loss();
        }
    }

    /// The epoch that tells of a loss is on disk, or its mailbox is gone.
    pub(super) fn epoch_is_durable(&mut self, key: MailboxKey) {
        let mailbox = &mut self.mailboxes[key];
        let lane = mailbox.lane;
        if std::mem::take(&mut mailbox.state.owes_epoch)
            && let Some(owed) = &mut self.book(lane).owes_epochs
        {
            *owed -= 1;
        }
    }

    /// Stages the state of up to `budget` changed mailboxes of a lane. What finds no room stays on the list.
    fn write_states(&mut self, lanes: &mut LaneSet, lane: LaneId, budget: usize) {
        for _ in 0..budget.min(self.book(lane).dirty.len()) {
            let Some(key) = self.book(lane).dirty.pop_front() else { return };
            let Some(mailbox) = self.mailboxes.get_mut(key) else { continue };
            mailbox.state.listed = false;
            if mailbox.state.dirty && self.write_state(lanes, key, Reserve::Keep).is_err() {
                self.mark_dirty(key);
                return;
            }
        }
    }

    fn write_state(
        &mut self,
        lanes: &mut LaneSet,
        key: MailboxKey,
        reserve: Reserve,
    ) -> Result<(), AppendError> {
        let mailbox = &mut self.mailboxes[key];
        self.scratch.clear();
        let devices = mailbox.devices.iter().map(|device| DeviceState {
            id: device.id,
            cursor: device.cursor,
            last_seen_s: device.last_seen_s,
        });
        StateRecord::encode(&mailbox.address, mailbox.epoch, mailbox.next_seq, devices, &mut self.scratch);
        let lane = mailbox.lane;
        let lsn = lanes.lane_mut(lane).append_with(reserve, Kind::MailboxState, NEVER_S, &[&self.scratch])?;
        mailbox.state.dirty = false;
        mailbox.staged_else += 1;
        self.book(lane).staged.push_back(Staged::State { lsn, mailbox: key });
        Ok(())
    }

    /// Looks at some mailboxes: drops expired messages, old message ids, long gone devices, and empty
    /// mailboxes.
    fn sweep(&mut self, now: Now, lanes: &mut LaneSet) {
        let end = self.mailboxes.key_end();
        for _ in 0..SWEEP_MIN.max(end / SWEEP_STEPS).min(end) {
            if self.sweep.next >= end {
                let oldest_s = std::mem::take(&mut self.sweep).oldest_s;
                self.stats.relay.oldest_queued.set(oldest_s.map(|oldest_s| u64::from(oldest_s) * 1000));
            }
            self.sweep_one(now, lanes, MailboxKey(self.sweep.next));
            self.sweep.next += 1;
        }
    }

    fn sweep_one(&mut self, now: Now, lanes: &mut LaneSet, key: MailboxKey) {
        let now_s = wall_s(now);
        let Some(mailbox) = self.mailboxes.get_mut(key) else { return };
        self.dedup.forget_before(key, mailbox, now_s.saturating_sub(self.limits.dedup_s));
        let gone_before_s = now_s.saturating_sub(self.limits.device_retention_s);
        let devices = mailbox.devices.len();
        mailbox.devices.retain(|device| device.session.is_some() || device.last_seen_s >= gone_before_s);
        if mailbox.devices.len() < devices {
            self.mark_dirty(key);
            self.let_go_below_floor(lanes, key);
        }
        if self.mailboxes[key].expires_first_s <= now_s {
            self.expire(lanes, key, now_s);
        }
        let mailbox = &mut self.mailboxes[key];
        if mailbox.remembered.back().is_none_or(|last| last.at_s.saturating_add(TRIM_AFTER_S) < now_s) {
            mailbox.entries.trim();
            mailbox.remembered.trim();
        }
        if let Some(oldest) = mailbox.entries.front() {
            self.sweep.oldest_s =
                Some(self.sweep.oldest_s.map_or(oldest.accepted_s, |s| s.min(oldest.accepted_s)));
        }
        if mailbox.is_idle() {
            let (lane, loc) = (mailbox.lane, mailbox.state.loc);
            self.epoch_is_durable(key);
            self.mailboxes.remove(key);
            if let Some(loc) = loc {
                lanes.lane_mut(lane).release(loc, Kind::MailboxState);
            }
        }
    }

    fn expire(&mut self, lanes: &mut LaneSet, key: MailboxKey, now_s: u32) {
        let mailbox = &mut self.mailboxes[key];
        let (lane, mut bytes, mut count, mut first_s) = (mailbox.lane, 0, 0, u32::MAX);
        mailbox.entries.retain(|entry| {
            let live = entry.expires_s > now_s;
            if live {
                first_s = first_s.min(entry.expires_s);
            } else {
                lanes.lane_mut(lane).release(entry.loc, Kind::Message);
                bytes += u64::from(entry.payload_bytes());
                count += 1;
            }
            live
        });
        mailbox.expires_first_s = first_s;
        mailbox.bytes -= bytes;
        self.queued_messages -= count;
        self.queued_bytes -= bytes;
        self.stats.relay.expired.add(count);
    }

    /// Works on the lane's next reclaimable segment: carries out of it what must outlive it, then frees it.
    fn relocate(&mut self, now: Now, lanes: &mut LaneSet, lane: LaneId) {
        if self.book(lane).relocation.is_none() {
            let Some(segment) = lanes.lane(lane).reclaimable_segment() else { return };
            self.book(lane).relocation = Some(Relocation { segment, next: 0, awaiting: 0, again: false });
        }
        let Some(mut relocation) = self.book(lane).relocation.take() else { return };
        let end = self.mailboxes.key_end();
        let mut looked_at = 0;
        while relocation.next < end && looked_at < RELOCATE_PER_STEP {
            looked_at +=
                1 + self.relocate_mailbox(now, lanes, lane, MailboxKey(relocation.next), &mut relocation);
            relocation.next += 1;
        }
        if relocation.next >= end && relocation.awaiting == 0 {
            if !relocation.again {
                lanes.lane_mut(lane).reclaim(relocation.segment);
                return;
            }
            relocation = Relocation { segment: relocation.segment, next: 0, awaiting: 0, again: false };
        }
        self.book(lane).relocation = Some(relocation);
    }

    /// Stages what of a mailbox lies in the segment. Returns how many ids it looked at.
    fn relocate_mailbox(
        &mut self,
        now: Now,
        lanes: &mut LaneSet,
        lane: LaneId,
        key: MailboxKey,
        relocation: &mut Relocation,
    ) -> usize {
        let Some(mailbox) = self.mailboxes.get_mut(key).filter(|mailbox| mailbox.lane == lane) else {
            return 0;
        };
        self.dedup.forget_before(key, mailbox, wall_s(now).saturating_sub(self.limits.dedup_s));
        let segment = relocation.segment;
        let looked_at = mailbox.remembered.len();
        let count =
            mailbox.remembered.iter().filter(|entry| entry.proof == Proof::in_segment(segment)).count();
        if mailbox.state.loc.is_some_and(|loc| loc.segment == segment) {
            relocation.again = true;
            if self.write_state(lanes, key, Reserve::Use).is_err() {
                return looked_at;
            }
        }
        let per_record = records::dedup_ids_within(lanes.lane(lane).payload_bytes_max());
        for from in (0..count).step_by(per_record) {
            match self.write_dedup(lanes, key, segment, from..from + per_record) {
                Ok(()) => relocation.awaiting += 1,
                Err(AppendError::Full) => {
                    // Nothing can be appended at all, and this segment may be the only way out: a shorter
                    // dedup window is better than a lane that takes nothing until an operator gives it space.
                    self.forget_ids(key, segment);
                    break;
                }
                Err(_) => {
                    relocation.again = true;
                    break;
                }
            }
        }
        looked_at
    }

    fn forget_ids(&mut self, key: MailboxKey, segment: SegmentId) {
        let forgotten = self.dedup.forget_segment(key, &mut self.mailboxes[key], segment);
        self.stats.relay.dedup_forgotten.add(forgotten);
        tracing::warn!(forgotten, "no space to keep message ids: a message sent again may be stored again");
    }

    /// Stages one dedup record with some of the ids that lie in a segment.
    fn write_dedup(
        &mut self,
        lanes: &mut LaneSet,
        key: MailboxKey,
        segment: SegmentId,
        range: std::ops::Range<usize>,
    ) -> Result<(), AppendError> {
        let mailbox = &self.mailboxes[key];
        let entries = mailbox.remembered.iter().filter(|entry| entry.proof == Proof::in_segment(segment));
        let entries = entries.skip(range.start).take(range.len());
        let entries = entries.map(|entry| DedupEntry { id: entry.id, seq: entry.seq, at_s: entry.at_s });
        self.scratch.clear();
        records::encode_dedup(&mailbox.address, entries, &mut self.scratch);
        let lane = mailbox.lane;
        let lsn =
            lanes.lane_mut(lane).append_with(Reserve::Use, Kind::DedupWindow, NEVER_S, &[&self.scratch])?;
        self.mailboxes[key].staged_else += 1;
        self.book(lane).staged.push_back(Staged::Dedup { lsn, mailbox: key, from: segment });
        Ok(())
    }

    /// Ids were carried to a new segment and are durable there.
    pub(super) fn dedup_moved(
        &mut self,
        lane: LaneId,
        key: MailboxKey,
        from: SegmentId,
        record: &Committed<'_>,
    ) {
        let mailbox = &mut self.mailboxes[key];
        if let Some((_, entries)) = records::decode_dedup(record.payload) {
            for moved in entries {
                if let Some(entry) = mailbox.remembered_mut(moved.seq).filter(|entry| entry.id == moved.id) {
                    entry.proof = Proof::in_segment(record.loc.segment);
                }
            }
        }
        if let Some(relocation) = self.book(lane).relocation.as_mut()
            && relocation.segment == from
        {
            relocation.awaiting -= 1;
        }
    }
}
