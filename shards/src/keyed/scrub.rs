//! Reading everything in turns, so that rot is found while other nodes still have what it destroyed.
//!
//! **Promise.** Each sealed segment is read once in every *pass*, and a pass takes no longer than the
//! deadline unless the device cannot give that. Every batch is verified (header, checksum, place), and of
//! every record that lives its head and its structure; BLAKE3 of the body against the root for a tenth of
//! them, another tenth in each pass, and for all of a segment in which something was wrong. What stays wrong
//! when it is read again is taken out of the index and named ([`Event::Lost`], [`KeyedStore::known_lost`]).
//! What lives next to it and is sound is copied elsewhere. Only what the index points to counts: rot in what
//! is dead is passed over.
//!
//! **How.** `pass` says when the next piece is due; one read is in flight at most. `check` verifies what is
//! in the buffer. A piece that cannot be read, or a batch that is not as it should be, becomes a damaged
//! range; at the end of the segment the index is swept in small steps for entries that point into such a
//! range, and each is read by itself (`suspect`): so everything that is lost has a name, even where nothing
//! can be read. `trouble` tells a failing device from a bad spot.
//!
//! **What gives way to whom.** A piece waits while compaction empties a segment and while changes take longer
//! than usual, unless the pass is behind.
//!
//! **Order.** What was verified longest ago comes first; that is known of this process only. After a restart
//! a pass begins anew, with the segments of each lane that were opened longest ago. What is sealed during a
//! pass is read in the next one.
//!
//! **Failure model.** [`FAULTS_MAX`] faults in a segment put it out of use: compaction empties it, and this
//! process never writes to it again. A record whose root is wrong under a right checksum was written so; it
//! is not shown any more, but after a restart it is there again until the first pass meets it. Nothing is
//! taken out for want of being readable while the whole device fails.
//!
//! **Bounds.** Each call looks at a few hundred records or entries; what is remembered is one line per
//! segment, the ranges of one segment, and [`KNOWN_LOST_MAX`] losses.

mod check;
mod pass;
mod suspect;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use crate::buffer::AlignedBuf;
use crate::format::Incarnation;
use crate::index::{Entry, Place, Prefix};
use crate::io::{BLOCK_BYTES, Errno, OpId, SegmentId};
use crate::keyed::family::Tree;
use crate::keyed::place::unpack;
use crate::keyed::{Class, Event, Family, Identity, KeyedConfig, KeyedStore};
use check::Current;
use pass::Pass;
use suspect::Suspect;
use trouble::Trouble;

/// A usual deadline: a week, in seconds.
pub const SCRUB_WITHIN_S: u64 = 7 * 24 * 3_600;
/// Losses that are remembered.
const KNOWN_LOST_MAX: usize = 1_024;
/// Faults in one segment after which it is put out of use.
const FAULTS_MAX: u32 = 10;
/// How long a piece waits before it is asked again whether anything goes before it, in microseconds.
const GIVE_WAY_US: u64 = 20_000;
/// Parts of the deadline after which it is asked again whether there is anything to read.
const LOOKS_PER_DEADLINE: u64 = 100;
/// Steps per call.
const STEPS_PER_POLL: usize = 4;

/// Why a record is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// Its bytes are not those that were written.
    Damaged,
    /// The device does not give it.
    Unreadable(Errno),
    /// Its bytes are those that were written, and its body is not what its root says.
    RootMismatch,
}

/// A record that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLost {
    /// Its family.
    pub family: Family,
    /// First bytes of its key.
    pub prefix: Prefix,
    /// Whose it was, if its head could still be read.
    pub identity: Option<Identity>,
    /// Lane in which it lay.
    pub class: Class,
    /// Segment in which it lay.
    pub segment: SegmentId,
    /// Where it began in there, in bytes.
    pub offset: u32,
    /// Why it is lost.
    pub reason: LostReason,
    /// When that was noticed, in seconds since 1970.
    pub noticed_s: u64,
}

/// How far verifying is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Passes begun since the start, this one included; 0 if there was nothing to read yet.
    pub pass: u64,
    /// Bytes of this pass that were dealt with.
    pub done_bytes: u64,
    /// Bytes of this pass.
    pub total_bytes: u64,
    /// When it began, in seconds since 1970.
    pub began_s: u64,
    /// By when it must have ended, in seconds since 1970.
    pub due_s: u64,
    /// Faults found since the start: damaged batches, unreadable ranges and wrong roots that cost a record
    /// that lived.
    pub faults: u64,
    /// Records lost since the start, whoever noticed it.
    pub lost: u64,
    /// Segments put out of use for their faults since the start.
    pub condemned: u64,
}

/// One use of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    class: Class,
    segment: SegmentId,
    incarnation: Incarnation,
    end: u32,
}

/// What is known of a sealed segment.
#[derive(Clone, Copy, Debug)]
struct History {
    incarnation: Incarnation,
    /// The higher, the later it was verified, or sealed if it was not verified yet.
    stamp: u64,
    faults: u32,
}

/// What scrub is doing.
#[derive(Debug)]
pub(super) struct Scrubber {
    within_us: u64,
    /// Tells the tenths of one process from those of the next.
    salt: u64,
    /// Away while it is being read into.
    buf: Option<AlignedBuf>,
    pass: Option<Pass>,
    /// What this pass has yet to read, in order.
    plan: VecDeque<Target>,
    current: Option<Current>,
    /// Entries of the index that have to be looked at one by one before anything else.
    suspects: VecDeque<Suspect>,
    histories: BTreeMap<(usize, SegmentId), History>,
    /// The last stamp given.
    stamp: u64,
    not_before_us: u64,
    trouble: Trouble,
    known_lost: VecDeque<KnownLost>,
    lost: u64,
    faults: u64,
    condemned: u64,
    /// The wall clock, as told last.
    now_s: u64,
    is_stopped: bool,
}

impl Scrubber {
    pub(super) fn new(config: &KeyedConfig) -> Self {
        let bytes = (2 * config.batch_bytes).next_multiple_of(BLOCK_BYTES);
        Self {
            within_us: config.scrub_within_s.max(1).saturating_mul(1_000_000),
            salt: config.now_s,
            buf: Some(AlignedBuf::zeroed(bytes)),
            pass: None,
            plan: VecDeque::new(),
            current: None,
            suspects: VecDeque::new(),
            histories: BTreeMap::new(),
            stamp: 0,
            not_before_us: 0,
            trouble: Trouble::default(),
            known_lost: VecDeque::new(),
            lost: 0,
            faults: 0,
            condemned: 0,
            now_s: config.now_s,
            is_stopped: false,
        }
    }

    /// Begins nothing more.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Bytes of this pass that were dealt with.
    fn progress(&self) -> u64 {
        let done = self.pass.map_or(0, |pass| pass.done);
        done + self.current.as_ref().map_or(0, |current| u64::from(current.next))
    }
}

impl KeyedStore {
    /// How far verifying is.
    pub fn scrub_progress(&self) -> ScrubProgress {
        let Scrubber { faults, lost, condemned, .. } = self.scrubber;
        let Some(pass) = self.scrubber.pass else {
            return ScrubProgress { faults, lost, condemned, ..ScrubProgress::default() };
        };
        ScrubProgress {
            pass: pass.number,
            done_bytes: self.scrubber.progress(),
            total_bytes: pass.total,
            began_s: pass.began_s,
            due_s: pass.began_s + self.scrubber.within_us / 1_000_000,
            faults,
            lost,
            condemned,
        }
    }

    /// The records that were lost since the start, the first one first; of many only the latest 1,024. One
    /// that was put again meanwhile is in there, too.
    pub fn known_lost(&self) -> impl Iterator<Item = &KnownLost> {
        self.scrubber.known_lost.iter()
    }

    /// Does what is due.
    pub(super) fn scrub(&mut self, now_us: u64, now_s: u64) {
        self.scrubber.now_s = now_s;
        for _ in 0..STEPS_PER_POLL {
            let it = &self.scrubber;
            if it.is_stopped || it.buf.is_none() || now_us < it.not_before_us || !self.scrub_step(now_us) {
                return;
            }
        }
    }

    /// When the next step is due, in monotonic microseconds; `None` while a read is in flight.
    pub(super) fn scrub_next_us(&self) -> Option<u64> {
        let it = &self.scrubber;
        if it.is_stopped || it.buf.is_none() {
            return None;
        }
        let next_us = match (&it.pass, &it.current) {
            (None, _) => 0,
            (Some(pass), None) if it.plan.is_empty() => pass.next_begins_us(),
            (Some(pass), Some(current)) if it.suspects.is_empty() && current.waits_for_turn() => {
                pass.ready_us(self.now_us, it.progress())
            }
            _ => 0,
        };
        Some(next_us.max(it.not_before_us))
    }

    /// One step; false if there is nothing more to do now.
    fn scrub_step(&mut self, now_us: u64) -> bool {
        if !self.scrubber.suspects.is_empty() {
            return self.look_at_suspect();
        }
        let Some(current) = &mut self.scrubber.current else { return self.open_next(now_us) };
        let Target { class, segment, incarnation, end } = current.target;
        if !self.lanes[class as usize].is_sealed(segment, incarnation) {
            return self.close_current();
        }
        if current.next < end {
            return if current.is_loaded() { self.check_loaded() } else { self.load_piece(now_us) };
        }
        if current.has_damage() { self.sweep() } else { self.close_current() }
    }

    /// Turns to the next segment, and to the next pass when it is time.
    fn open_next(&mut self, now_us: u64) -> bool {
        let batch_bytes = self.config.batch_bytes as u32;
        if let Some(target) = self.scrubber.plan.pop_front() {
            self.scrubber.current = Some(Current::new(target, batch_bytes, false));
            return true;
        }
        if self.scrubber.pass.is_some_and(|pass| now_us < pass.next_begins_us()) {
            return false;
        }
        self.take_stock();
        self.scrubber.plan = self.plan();
        let total = self.scrubber.plan.iter().map(|target| u64::from(target.end)).sum();
        let it = &mut self.scrubber;
        if total == 0 {
            it.not_before_us = now_us + it.within_us / LOOKS_PER_DEADLINE;
            return false;
        }
        let number = it.pass.map_or(0, |pass| pass.number) + 1;
        it.pass = Some(Pass::begin(number, (now_us, it.now_s), it.within_us, total));
        true
    }

    /// Takes note of segments that were sealed, and forgets those that are not any more.
    fn take_stock(&mut self) {
        let Scrubber { histories, stamp, .. } = &mut self.scrubber;
        let mut sealed = BTreeMap::new();
        for class in Class::ALL {
            for it in self.lanes[class as usize].sealed() {
                let at = (class as usize, it.segment);
                let known = histories.get(&at).filter(|known| known.incarnation == it.incarnation);
                let new = History { incarnation: it.incarnation, stamp: *stamp, faults: 0 };
                sealed.insert(at, *known.unwrap_or(&new));
            }
        }
        *histories = sealed;
    }

    /// What a pass has to read, what was verified longest ago first.
    fn plan(&self) -> VecDeque<Target> {
        let mut order = Vec::new();
        for class in Class::ALL {
            for it in self.lanes[class as usize].sealed().filter(|it| it.live_bytes > 0) {
                let known = self.scrubber.histories.get(&(class as usize, it.segment));
                let stamp = known.map_or(0, |known| known.stamp);
                let (segment, incarnation, end) = (it.segment, it.incarnation, it.end);
                let target = Target { class, segment, incarnation, end };
                order.push(((stamp, Reverse(it.age_segments)), target));
            }
        }
        order.sort_by_key(|(key, _)| *key);
        order.into_iter().map(|(_, target)| target).collect()
    }

    /// The end of a segment; once more from its beginning if something was wrong and not all was looked at.
    fn close_current(&mut self) -> bool {
        let Some(current) = self.scrubber.current.take() else { return false };
        let target = current.target;
        if let Some(pass) = &mut self.scrubber.pass {
            pass.done += u64::from(target.end);
        }
        let Target { class, segment, incarnation, end } = target;
        let is_there = self.lanes[class as usize].is_sealed(segment, incarnation);
        if current.must_be_repeated() && is_there {
            self.scrubber.current = Some(Current::new(target, self.config.batch_bytes as u32, true));
            if let Some(pass) = &mut self.scrubber.pass {
                pass.total += u64::from(end);
            }
            return true;
        }
        self.take_stock();
        self.scrubber.stamp += 1;
        let stamp = self.scrubber.stamp;
        if let Some(history) = self.scrubber.histories.get_mut(&(class as usize, segment)) {
            history.stamp = stamp;
        }
        true
    }

    /// Takes out of the index what cannot be read any more, so that nothing of it comes back, and says so.
    pub(super) fn lose(
        &mut self,
        (family, tree, entry): (Family, Tree, Entry),
        reason: LostReason,
        identity: Option<Identity>,
        events: &mut Vec<Event>,
    ) {
        let Entry { prefix, place } = entry;
        self.shadow(family, prefix, place.due().hour(self.families[family.at()].get(tree).origin()));
        self.kill(family, tree, prefix, place);
        let noticed_s = self.scrubber.now_s;
        let lost = KnownLost::new((family, prefix, place), identity, reason, noticed_s);
        self.scrubber.lost += 1;
        if self.scrubber.known_lost.len() == KNOWN_LOST_MAX {
            self.scrubber.known_lost.pop_front();
        }
        self.scrubber.known_lost.push_back(lost);
        events.push(Event::Lost(lost));
    }

    /// One more fault in a segment. The tenth puts it out of use.
    fn count_fault(&mut self, now_us: u64, target: Target) {
        let Target { class, segment, incarnation, .. } = target;
        self.scrubber.faults += 1;
        if let Some(pass) = &mut self.scrubber.pass {
            pass.hurry(now_us);
        }
        let history = self.scrubber.histories.get_mut(&(class as usize, segment));
        let Some(history) = history.filter(|history| history.incarnation == incarnation) else { return };
        history.faults += 1;
        if history.faults == FAULTS_MAX {
            self.scrubber.condemned += 1;
            self.lanes[class as usize].condemn(segment);
            self.compactor.reconsider(class, segment);
        }
    }

    /// An operation failed. Many failures mean that the device does; then scrub rests.
    pub(super) fn note_failure(&mut self, class: Class, op: OpId, errno: Errno, events: &mut Vec<Event>) {
        let Some(failing) = self.scrubber.trouble.note(self.now_us, class, op, errno) else { return };
        let until_us = self.scrubber.trouble.failing_until_us(self.now_us);
        self.scrubber.not_before_us = until_us.unwrap_or(self.now_us);
        events.push(failing);
    }
}

impl KnownLost {
    fn new(
        (family, prefix, place): (Family, Prefix, Place),
        identity: Option<Identity>,
        reason: LostReason,
        noticed_s: u64,
    ) -> Self {
        let (class, loc) = unpack(place);
        let (segment, offset) = (loc.segment, loc.offset);
        Self { family, prefix, identity, class, segment, offset, reason, noticed_s }
    }
}
