//! Copying what lives out of segments in which little does, so that they can be used again.
//!
//! **Promise.** A record is copied, byte for byte, before the place it was in is given up: the index swings
//! when the copy is durable, and only if it still points to the old place. A copy keeps its serial, so after
//! a crash it does not matter which of the two is found, or that both are.
//!
//! **How.** One segment at a time: the one with the best ratio of space to be won, times its age, to bytes to
//! be copied. It is read in large pieces; a record is looked up in the index, and appended to the lane of its
//! remaining life if it is alive. A key that is held is waited for, and left for another pass if that takes
//! too long.
//!
//! **What it may cost** is for [`Pace`] to say. How little must live in a segment to be worth it depends on
//! how full the partition is: [`worth`].

use std::ops::Range;

use crate::buffer::AlignedBuf;
use crate::format::Incarnation;
use crate::format::batch::BATCH_HEADER_BYTES;
use crate::format::record::{Kind, RecordView};
use crate::index::{Due, Place, Prefix};
use crate::io::{BLOCK_BYTES, Errno, SegmentId};
use crate::keyed::capacity::{FOR_DELETIONS, LANES, LIVE_PERMILLE_MAX};
use crate::keyed::change::{Appended, Effect, Mover};
use crate::keyed::family::Tree;
use crate::keyed::pace::Pace;
use crate::keyed::payload::Head;
use crate::keyed::place::{is_same, pack, unpack};
use crate::keyed::{Class, Event, Family, InFlight, KeyedStore, hour_of};
use crate::lane::{AppendError, RecordLoc, Reserve, Sealed};

/// What compaction is doing.
#[derive(Debug)]
pub(super) struct Compactor {
    pub pace: Pace,
    victim: Option<Victim>,
    /// Room for two batches; away while it is being read into.
    buf: Option<AlignedBuf>,
    /// Segments from which something could not be copied.
    avoided: Vec<Avoided>,
    /// Bytes copied since the start.
    pub copied_bytes: u64,
    /// When to look for a victim again: it means looking at every segment.
    look_at_us: u64,
    /// The last look found nothing worth doing.
    found_none: bool,
    /// It goes on until what was saved up is spent.
    is_running: bool,
}

/// How often a victim is looked for, in microseconds.
const LOOK_EVERY_US: u64 = 10_000;

/// A segment that is not to be emptied for a while: keys in it were held, or something in it is damaged.
#[derive(Clone, Copy, Debug)]
struct Avoided {
    class: Class,
    segment: SegmentId,
    /// Tells this use of the segment from a later one.
    end: u32,
    until_us: u64,
}

/// How long a key that is held is waited for, in microseconds.
const PATIENCE_US: u64 = 100_000;
/// How long a segment with held keys is left alone, and one with damage, in microseconds.
const HELD_US: u64 = 100_000;
const DAMAGED_US: u64 = 3_600_000_000;

/// The segment being emptied.
#[derive(Debug)]
struct Victim {
    class: Class,
    segment: SegmentId,
    /// Its use: when that is over, everything in it has died.
    incarnation: Incarnation,
    end: u32,
    /// Where the next batch is expected.
    next: u32,
    /// What of the segment is in the buffer.
    loaded: Range<u32>,
    /// Records of the next batch that were dealt with.
    done: usize,
    /// Copies that are not durable yet.
    under_way: u32,
    /// Since when it waits for a key that is held.
    held_since_us: Option<u64>,
    /// Keys that were held for too long.
    left: u32,
    /// A piece could not be read.
    unread: bool,
}

/// What became of one record.
enum Copied {
    Done,
    /// The lane takes no more now.
    Wait,
}

impl Compactor {
    pub(super) fn new(batch_bytes: usize) -> Self {
        let bytes = (2 * batch_bytes).next_multiple_of(BLOCK_BYTES);
        let buf = Some(AlignedBuf::zeroed(bytes));
        Self {
            pace: Pace::default(),
            victim: None,
            buf,
            avoided: Vec::new(),
            copied_bytes: 0,
            look_at_us: 0,
            found_none: true,
            is_running: false,
        }
    }

    /// True while a segment is being emptied.
    pub(super) fn is_working(&self) -> bool {
        self.victim.is_some()
    }

    /// What could not be copied from a segment before may be copied now.
    pub(super) fn reconsider(&mut self, class: Class, segment: SegmentId) {
        self.avoided.retain(|it| (it.class, it.segment) != (class, segment));
    }

    /// True if there was nothing worth doing.
    pub(super) fn has_nothing_to_do(&self) -> bool {
        self.found_none
    }

    /// When it can go on, if it waits for nothing but time.
    pub(super) fn next_us(&self) -> Option<u64> {
        let waits = self.victim.is_some() && self.buf.is_some() && !self.is_running;
        waits.then(|| self.pace.next_us())
    }
}

/// How much of a segment the copies may take, in thousandths, for it to be worth emptying when so many of
/// `segments_max` segments are free. To wait is to copy less: what dies meanwhile need not be copied. So
/// little is done while there is space, and as much as it takes when what is kept for deletions comes near.
fn worth(free: u64, segments_max: u64) -> u64 {
    let spent = u64::from(LANES + FOR_DELETIONS);
    match free.saturating_sub(spent) {
        left if left <= 2 + segments_max / 64 => LIVE_PERMILLE_MAX,
        left if left <= segments_max / 8 => 500,
        _ if free <= segments_max / 2 => 250,
        _ => 0,
    }
}

/// Bytes that the live records of a segment will take when they are copied: as many of them as fit in each
/// batch, if they are of one length. What they do not fill of a batch cannot be won by copying them again.
fn copied_bytes(sealed: &Sealed, batch_bytes: usize) -> u64 {
    if sealed.live_records == 0 {
        return 0;
    }
    let each = sealed.live_bytes.div_ceil(sealed.live_records);
    let room = (batch_bytes - BATCH_HEADER_BYTES) as u64;
    let per_batch = (room / each).clamp(1, sealed.live_records);
    let batch = (BATCH_HEADER_BYTES as u64 + per_batch * each).next_multiple_of(BLOCK_BYTES as u64);
    sealed.live_records.div_ceil(per_batch) * batch
}

/// Space won and age against bytes to copy, as integers; higher is better. Age counts at most three times:
/// what has lain long will go on lying, and its space is won for longer.
fn score(sealed: &Sealed, batch_bytes: usize, segments: u64) -> u64 {
    let end = u64::from(sealed.end);
    let copied = copied_bytes(sealed, batch_bytes).min(end);
    let age_permille = 1_000 + 1_000 * sealed.age_segments.min(2 * segments) / segments.max(1);
    (end - copied) * 1_000 / (end + copied) * age_permille
}

impl KeyedStore {
    /// Does what is due and may be done now.
    pub(super) fn compact(&mut self, now_us: u64) {
        self.compactor.pace.tick(now_us, self.compactor.victim.is_some(), self.is_short());
        if self.is_closing {
            self.compactor.victim = None;
        } else if self.compactor.victim.is_none() && now_us >= self.compactor.look_at_us {
            self.compactor.look_at_us = now_us + LOOK_EVERY_US;
            self.compactor.avoided.retain(|it| it.until_us > now_us);
            self.compactor.victim = self.choose_victim();
            self.compactor.found_none = self.compactor.victim.is_none();
        }
        // In bursts, so that batches are filled: copies that trickle would take a block each.
        let burst = self.config.batch_bytes as i64;
        self.compactor.is_running &= self.compactor.pace.may_go_on();
        self.compactor.is_running |= self.compactor.pace.has_saved(burst);
        while self.compactor.is_running && self.compactor.pace.may_go_on() && self.advance() {}
    }

    /// True if there is garbage that is worth freeing.
    pub(super) fn is_compacting(&self) -> bool {
        self.compactor.victim.is_some() || self.choose_victim().is_some()
    }

    fn choose_victim(&self) -> Option<Victim> {
        let segments_max = u64::from(self.config.segments_max);
        let free = segments_max.saturating_sub(self.used_segments().into());
        let (limit, batch_bytes) = (worth(free, segments_max), self.config.batch_bytes);
        let room = self.room_for_copies();
        let candidates = Class::ALL
            .into_iter()
            .flat_map(|class| self.lanes[class as usize].sealed().map(move |sealed| (class, sealed)));
        let eligible = candidates.filter(|(class, sealed)| {
            let is_same =
                |it: &Avoided| (it.class, it.segment, it.end) == (*class, sealed.segment, sealed.end);
            let is_avoided = self.compactor.avoided.iter().any(is_same);
            let permille = copied_bytes(sealed, batch_bytes) * 1_000 / u64::from(sealed.end);
            let worth_it = permille <= limit || !sealed.is_sound;
            // With some batches that are not filled, the copies must find room, or the segment is never free.
            let needed = copied_bytes(sealed, batch_bytes) * 5 / 4 + 2 * BLOCK_BYTES as u64;
            sealed.live_bytes > 0 && worth_it && !is_avoided && needed <= room
        });
        let (class, sealed) = eligible.max_by_key(|(_, sealed)| score(sealed, batch_bytes, segments_max))?;
        let Sealed { segment, incarnation, end, .. } = sealed;
        let next = BLOCK_BYTES as u32;
        let (loaded, done, under_way, held_since_us) = (next..next, 0, 0, None);
        Some(Victim {
            class,
            segment,
            incarnation,
            end,
            next,
            loaded,
            done,
            under_way,
            held_since_us,
            left: 0,
            unread: false,
        })
    }

    /// One step; false if there is nothing to do until something ends.
    fn advance(&mut self) -> bool {
        let Some(victim) = &mut self.compactor.victim else { return false };
        if self.compactor.buf.is_none() {
            return false;
        }
        if !self.lanes[victim.class as usize].is_sealed(victim.segment, victim.incarnation) {
            return victim.under_way == 0 && self.end_victim();
        }
        if victim.next >= victim.end {
            return victim.under_way == 0 && self.end_victim();
        }
        let needed = (self.config.batch_bytes as u32).min(victim.end - victim.next);
        if victim.loaded.start <= victim.next
            && victim.loaded.end - victim.next.min(victim.loaded.end) >= needed
        {
            return self.copy_batch();
        }
        self.load()
    }

    fn end_victim(&mut self) -> bool {
        let Some(victim) = self.compactor.victim.take() else { return false };
        let Victim { class, segment, incarnation, end, left, .. } = victim;
        let sealed = self.lanes[class as usize].sealed_segment(segment);
        let lives = sealed.is_some_and(|it| it.incarnation == incarnation && it.live_bytes > 0);
        if lives {
            let until_us = self.now_us + if left > 0 { HELD_US } else { DAMAGED_US };
            self.compactor.avoided.push(Avoided { class, segment, end, until_us });
        }
        false
    }

    /// Reads on from the next batch.
    fn load(&mut self) -> bool {
        let (Some(victim), Some(buf)) = (&mut self.compactor.victim, self.compactor.buf.take()) else {
            return false;
        };
        let bytes = buf.len().min((victim.end - victim.next) as usize);
        victim.loaded = victim.next..victim.next + bytes as u32;
        victim.done = 0;
        let (class, segment, start) = (victim.class, victim.segment, u64::from(victim.next));
        let (op, request) = self.lanes[class as usize].read_blocks(segment, start, bytes, buf);
        self.compactor.pace.spend(bytes);
        self.outbox.push(request);
        self.in_flight.insert((class, op), InFlight::Compaction);
        false
    }

    /// The end of a read of a piece.
    pub(super) fn end_piece(
        &mut self,
        result: Result<usize, Errno>,
        buf: AlignedBuf,
        events: &mut Vec<Event>,
    ) {
        self.compactor.buf = Some(buf);
        let Some(victim) = &mut self.compactor.victim else { return };
        if let Err(errno) = result {
            events.push(Event::DiskTrouble { class: victim.class, errno });
            // Once more, and then without the piece: what lives in it stays where it is.
            victim.unread = !victim.unread;
            if !victim.unread {
                victim.next = victim.loaded.end;
            }
            victim.loaded = victim.next..victim.next;
        } else {
            victim.unread = false;
        }
    }

    /// Copies what lives in the next batch; false if the lanes take no more now.
    fn copy_batch(&mut self) -> bool {
        let (Some(mut victim), Some(buf)) = (self.compactor.victim.take(), self.compactor.buf.take()) else {
            return false;
        };
        let from = (victim.next - victim.loaded.start) as usize;
        let until = (victim.loaded.end - victim.loaded.start) as usize;
        let batch =
            self.lanes[victim.class as usize].batch_at(victim.segment, victim.next, &buf[from..until]);
        let mut bytes = BLOCK_BYTES as u32;
        let mut waits = false;
        if let Some(batch) = batch {
            bytes = batch.bytes;
            for (loc, record) in batch.records().skip(victim.done) {
                if matches!(self.copy(&mut victim, loc, &record), Copied::Wait) {
                    waits = true;
                    break;
                }
                victim.done += 1;
            }
        }
        if !waits {
            victim.next += bytes;
            victim.done = 0;
        }
        self.compactor.victim = Some(victim);
        self.compactor.buf = Some(buf);
        !waits
    }

    /// Appends a copy of a record, if it lives.
    fn copy(&mut self, victim: &mut Victim, loc: RecordLoc, record: &RecordView<'_>) -> Copied {
        let head = Head::decode(record.kind, record.expires_s, record.payload);
        let (Some(head), Some(place)) = (head, pack(victim.class, loc, Due::LATER)) else {
            return Copied::Done;
        };
        let (family, prefix) = (head.identity.family, head.prefix());
        let Some(from) = self.entry_at(&head, place) else { return Copied::Done };
        if !self.lock_to_move(family, prefix) {
            // To leave it behind would cost the space of all that was copied without freeing the segment.
            let since_us = *victim.held_since_us.get_or_insert(self.now_us);
            if self.now_us < since_us + PATIENCE_US {
                return Copied::Wait;
            }
            victim.left += 1;
            return Copied::Done;
        }
        victim.held_since_us = None;
        if let Err(error) = self.append_copy(Mover::Compaction, from, &head, record) {
            // Without any space, or on a lane that takes nothing more, there is nothing to do but wait.
            debug_assert!(!matches!(error, AppendError::TooLarge { .. }), "it was appended before");
            return Copied::Wait;
        }
        self.compactor.pace.spend(loc.len as usize);
        self.compactor.copied_bytes += u64::from(loc.len);
        victim.under_way += 1;
        Copied::Done
    }

    /// The entry that points to the record with this head at a place, whatever the due of either.
    pub(super) fn entry_at(&self, head: &Head, place: Place) -> Option<(Tree, Place)> {
        let trees = &self.families[head.identity.family.at()];
        Tree::ALL.into_iter().find_map(|tree| {
            let there = trees.get(tree).candidates(head.prefix()).find(|there| is_same(*there, place))?;
            Some((tree, there))
        })
    }

    /// Appends a copy of the record that an entry points to. The caller has it locked; if no lane takes the
    /// copy, it is unlocked.
    pub(super) fn append_copy(
        &mut self,
        by: Mover,
        from: (Tree, Place),
        head: &Head,
        record: &RecordView<'_>,
    ) -> Result<(), AppendError> {
        let (family, prefix, kind) = (head.identity.family, head.prefix(), record.kind);
        let due = from.1.due().hour(self.families[family.at()].get(from.0).origin());
        let hour = due.unwrap_or(hour_of(head.expires_s));
        let class = Class::of(hour.saturating_sub(self.hour));
        let appended = self.append(Reserve::Use, class, kind, record.expires_s, &[record.payload]);
        let (class, lsn) = appended.inspect_err(|_| self.unlock(family, prefix))?;
        let (at_us, effect) = (self.now_us, Effect::Move { by, from });
        let appended =
            Appended { lsn, ticket: None, serial: None, at_us, family, prefix, kind, hour, effect };
        self.appended[class as usize].push_back(appended);
        Ok(())
    }

    /// A copy is durable, or never will be.
    pub(super) fn note_copied(&mut self) {
        if let Some(victim) = &mut self.compactor.victim {
            victim.under_way = victim.under_way.saturating_sub(1);
        }
    }

    /// Lets an entry point to its copy, which is durable; if it is not there any more, the copy is dead, too.
    pub(super) fn swing_to_copy(
        &mut self,
        family: Family,
        (tree, kind): (Tree, Kind),
        prefix: Prefix,
        (from, to): (Place, Place),
    ) {
        let (class, loc) = unpack(to);
        // An expired record that is kept as a tombstone is still what it was on disk, and was counted so.
        self.lanes[class as usize].adopt(loc, tree.counted_as(family));
        self.lanes[class as usize].release(loc, kind);
        let swung = self.families[family.at()].get_mut(tree).swing(prefix, from, to.with_due(from.due()));
        let (class, loc) = unpack(if swung { from } else { to });
        self.lanes[class as usize].release(loc, tree.counted_as(family));
    }
}
