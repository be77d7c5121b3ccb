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
use crate::format::record::{Kind, RecordView};
use crate::index::{Due, Place, Prefix};
use crate::io::{BLOCK_BYTES, Errno, SegmentId};
use crate::keyed::change::{Appended, Effect};
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
    /// Its use: it may die before it is emptied, and be used again.
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
        }
    }

    /// True if there was nothing worth doing.
    pub(super) fn has_nothing_to_do(&self) -> bool {
        self.found_none
    }

    /// When it can go on, if it waits for nothing but time.
    pub(super) fn next_us(&self) -> Option<u64> {
        let waits = self.victim.is_some() && self.buf.is_some() && !self.pace.may_go_on();
        waits.then(|| self.pace.next_us())
    }
}

/// How much of a segment may live, in thousandths, for it to be worth emptying when so many thousandths of
/// the partition's segments are in use.
fn worth(used_permille: u64) -> u64 {
    match used_permille {
        0..500 => 0,
        500..700 => 250,
        700..850 => 500,
        850..950 => 750,
        _ => 850,
    }
}

/// Space won and age against bytes to copy, as integers; higher is better.
fn score(sealed: &Sealed) -> u64 {
    let end = u64::from(sealed.end);
    let live = sealed.live_bytes.min(end);
    (end - live).saturating_mul(1 + sealed.age_segments) * 1_000 / (end + live)
}

impl KeyedStore {
    /// Does what is due and may be done now.
    pub(super) fn compact(&mut self, now_us: u64) {
        self.compactor.pace.tick(now_us, self.compactor.victim.is_some(), self.is_short());
        if self.compactor.victim.is_none() && now_us >= self.compactor.look_at_us {
            self.compactor.look_at_us = now_us + LOOK_EVERY_US;
            self.compactor.avoided.retain(|it| it.until_us > now_us);
            self.compactor.victim = self.choose_victim();
            self.compactor.found_none = self.compactor.victim.is_none();
        }
        while self.compactor.pace.may_go_on() && self.advance() {}
    }

    /// True if there is garbage that is worth freeing.
    pub(super) fn is_compacting(&self) -> bool {
        self.compactor.victim.is_some() || self.choose_victim().is_some()
    }

    fn choose_victim(&self) -> Option<Victim> {
        let limit = worth(self.used_permille());
        let candidates = Class::ALL
            .into_iter()
            .flat_map(|class| self.lanes[class as usize].sealed().map(move |sealed| (class, sealed)));
        let eligible = candidates.filter(|(class, sealed)| {
            let is_same =
                |it: &Avoided| (it.class, it.segment, it.end) == (*class, sealed.segment, sealed.end);
            let is_avoided = self.compactor.avoided.iter().any(is_same);
            let permille = sealed.live_bytes * 1_000 / u64::from(sealed.end);
            let worth_it = permille <= limit || !sealed.is_sound;
            sealed.live_bytes > 0 && worth_it && !is_avoided
        });
        let (class, sealed) = eligible.max_by_key(|(_, sealed)| score(sealed))?;
        let incarnation = self.lanes[class as usize].sealed_use(sealed.segment)?;
        let (segment, end, next) = (sealed.segment, sealed.end, BLOCK_BYTES as u32);
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
        if self.lanes[victim.class as usize].sealed_use(victim.segment) != Some(victim.incarnation) {
            // All of it died meanwhile; others may write to it any time.
            victim.next = victim.end;
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
        let Victim { class, segment, end, left, .. } = victim;
        let sealed = self.lanes[class as usize].sealed().find(|sealed| sealed.segment == segment);
        let lives = sealed.is_some_and(|sealed| sealed.live_bytes > 0);
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
        let (Some(head), Some(place)) = (Head::decode(record.payload), pack(victim.class, loc, Due::LATER))
        else {
            return Copied::Done;
        };
        let (family, prefix) = (head.identity.family, head.prefix());
        let trees = &self.families[family.at()];
        let found = Tree::ALL.into_iter().find_map(|tree| {
            let there = trees.get(tree).candidates(prefix).find(|there| is_same(*there, place))?;
            Some((tree, there))
        });
        let Some(from) = found else { return Copied::Done };
        let due = from.1.due().hour(trees.get(from.0).origin());
        let hour = due.unwrap_or(hour_of(head.expires_s));
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
        let class = Class::of(hour.saturating_sub(self.hour));
        let parts = [record.payload];
        let (class, lsn) = match self.append(Reserve::Use, class, record.kind, record.expires_s, &parts) {
            Ok(appended) => appended,
            Err(error) => {
                self.unlock(family, prefix);
                // Without any space, or on a lane that takes nothing more, there is nothing to do but wait.
                debug_assert!(!matches!(error, AppendError::TooLarge { .. }), "it was appended before");
                return Copied::Wait;
            }
        };
        let (kind, effect) = (record.kind, Effect::Move { from });
        let appended = Appended { lsn, ticket: None, at_us: self.now_us, family, prefix, kind, hour, effect };
        self.appended[class as usize].push_back(appended);
        self.compactor.pace.spend(loc.len as usize);
        self.compactor.copied_bytes += u64::from(loc.len);
        victim.under_way += 1;
        Copied::Done
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
