//! Entries of the index that point to something that may be wrong: finding them, and reading each by itself.

use crate::buffer::AlignedBuf;
use crate::format::record::RECORD_HEADER_BYTES;
use crate::index::{Entry, Prefix};
use crate::io::{BLOCK_BYTES, Errno};
use crate::keyed::change::Mover;
use crate::keyed::family::Tree;
use crate::keyed::payload::{HEAD_BYTES, Head, Payload};
use crate::keyed::place::unpack;
use crate::keyed::scrub::check::{has_place_in, is_root_right};
use crate::keyed::{Class, Event, Family, Identity, InFlight, KeyedStore, LostReason};
use crate::lane::{AppendError, RecordLoc};

/// Entries of the index that one step of a sweep looks at; those of one prefix are not parted.
const ENTRIES_PER_STEP: usize = 512;
/// How long what is sound next to damage waits for its key to be let go and for room, in microseconds. It is
/// left where it is then, until the next pass.
const PATIENCE_US: u64 = 1_000_000;
/// How long nothing is verified after the device gave nothing, in microseconds.
const REST_US: u64 = 60_000_000;
/// How long until it is tried again, in microseconds.
const RETRY_US: u64 = 1_000;

/// An entry to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    family: Family,
    tree: Tree,
    entry: Entry,
    /// The damaged range that it lies in; `None` if its batch is sound.
    range: Option<usize>,
    stage: Stage,
}

/// What is to be done with an entry.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Read the record.
    First,
    /// Read it again: it was wrong.
    Again,
    /// It cannot be read. Read the header of another segment: if that cannot be read either, it is not the
    /// record.
    Control(Errno),
    /// Read its head, to know at least whose it was.
    Name(Errno),
    /// Copy it out of the damage: it is in the buffer, and sound. Since when that is tried.
    Save(u64),
}

impl Suspect {
    /// To be read for the first time.
    pub fn new(family: Family, tree: Tree, entry: Entry, range: Option<usize>) -> Self {
        Self { family, tree, entry, range, stage: Stage::First }
    }

    /// What to read of it.
    fn loc(&self) -> (Class, RecordLoc) {
        let (class, loc) = unpack(self.entry.place);
        match self.stage {
            Stage::Name(_) => (class, RecordLoc { len: (RECORD_HEADER_BYTES + HEAD_BYTES) as u32, ..loc }),
            Stage::First | Stage::Again | Stage::Control(_) | Stage::Save(_) => (class, loc),
        }
    }

    /// Its head in the buffer that it was read into, if it is one that this entry can point to.
    fn head<'b>(&self, buf: &'b [u8]) -> Option<(Head, &'b [u8])> {
        let start = unpack(self.entry.place).1.offset as usize % BLOCK_BYTES;
        let head = Head::of_record(buf.get(start..)?)?;
        let payload = &buf[start + RECORD_HEADER_BYTES..];
        let is_it = head.identity.family == self.family && head.prefix() == self.entry.prefix;
        is_it.then_some((head, payload))
    }

    fn name(&self, buf: &[u8]) -> Option<Identity> {
        self.head(buf).map(|(head, _)| head.identity)
    }
}

/// The tree after this one, in the order of a sweep.
fn tree_after(family: Family, tree: Tree) -> Option<(Family, Tree)> {
    match tree {
        Tree::Live => Some((family, Tree::Marks)),
        Tree::Marks => Some((*Family::ALL.get(family.at() + 1)?, Tree::Live)),
    }
}

impl KeyedStore {
    /// Looks through a part of the index for entries that point into a damaged range.
    pub(super) fn sweep(&mut self) -> bool {
        let it = &mut self.scrubber;
        let Some(current) = &mut it.current else { return false };
        let (family, tree, from) = current.cursor.unwrap_or((Family::Shard, Tree::Live, Prefix::MIN));
        let (class, segment) = (current.target.class, current.target.segment);
        let (mut seen, mut last, mut resume) = (0, None, None);
        for entry in self.families[family.at()].get(tree).range(from, Prefix::MAX) {
            if seen >= ENTRIES_PER_STEP && last != Some(entry.prefix) {
                resume = Some((family, tree, entry.prefix));
                break;
            }
            (seen, last) = (seen + 1, Some(entry.prefix));
            let (lane, loc) = unpack(entry.place);
            let lies_in =
                |range: &std::ops::Range<u32>| loc.offset < range.end && loc.offset + loc.len > range.start;
            if (lane, loc.segment) == (class, segment)
                && let Some(range) = current.damage.iter().position(lies_in)
            {
                it.suspects.push_back(Suspect::new(family, tree, entry, Some(range)));
            }
        }
        current.cursor =
            resume.or(tree_after(family, tree).map(|(family, tree)| (family, tree, Prefix::MIN)));
        if current.cursor.is_none() {
            current.damage.clear();
        }
        true
    }

    /// Goes on with the first suspect.
    pub(super) fn look_at_suspect(&mut self) -> bool {
        let Some(suspect) = self.scrubber.suspects.front().copied() else { return false };
        let Suspect { family, tree, entry, .. } = suspect;
        if !self.families[family.at()].get(tree).holds(entry.prefix, entry.place) {
            return self.dismiss_suspect();
        }
        if let Stage::Save(since_us) = suspect.stage {
            return self.save(&suspect, since_us);
        }
        let Some(buf) = self.scrubber.buf.take() else { return false };
        if let Some(current) = &mut self.scrubber.current {
            current.unload();
        }
        let (class, loc) = match suspect.stage {
            Stage::Control(_) => self.control(&suspect),
            _ => suspect.loc(),
        };
        match self.lanes[class as usize].read(loc, buf) {
            Ok((op, request)) => {
                self.outbox.push(request);
                self.in_flight.insert((class, op), InFlight::Scrub);
                false
            }
            // Longer than any record of this configuration: it was written under another.
            Err((_, buf)) => {
                self.scrubber.buf = Some(buf);
                self.dismiss_suspect()
            }
        }
    }

    /// The header of some segment, another each time if there are others.
    fn control(&self, suspect: &Suspect) -> (Class, RecordLoc) {
        let (class, loc) = unpack(suspect.entry.place);
        let all = |class: Class| self.lanes[class as usize].sealed().map(move |it| (class, it.segment));
        let others = || Class::ALL.into_iter().flat_map(all).filter(|it| *it != (class, loc.segment));
        let pick = self.now_us as usize % others().count().max(1);
        let (class, segment) = others().nth(pick).unwrap_or((class, loc.segment));
        (class, RecordLoc { segment, offset: 0, len: BLOCK_BYTES as u32 })
    }

    fn dismiss_suspect(&mut self) -> bool {
        self.scrubber.suspects.pop_front();
        true
    }

    /// The end of a read.
    pub(in crate::keyed) fn end_scrub(
        &mut self,
        class: Class,
        result: Result<usize, Errno>,
        buf: AlignedBuf,
        events: &mut Vec<Event>,
    ) {
        match self.scrubber.suspects.front().copied() {
            Some(suspect) => self.end_suspect(suspect, result, &buf, events),
            None => self.end_scrub_piece(class, result, events),
        }
        self.scrubber.buf = Some(buf);
    }

    /// A suspect was read, or could not be.
    fn end_suspect(
        &mut self,
        suspect: Suspect,
        result: Result<usize, Errno>,
        buf: &[u8],
        events: &mut Vec<Event>,
    ) {
        let Suspect { family, tree, entry, stage, .. } = suspect;
        if !self.families[family.at()].get(tree).holds(entry.prefix, entry.place) {
            self.dismiss_suspect();
            return;
        }
        let stage = match (stage, result) {
            (Stage::Name(errno), _) => {
                let name = result.ok().and_then(|_| suspect.name(buf));
                return self.give_up(&suspect, LostReason::Unreadable(errno), name, events);
            }
            (Stage::Control(errno), Ok(_)) => return self.set_stage(Stage::Name(errno)),
            // It is the device: what it does not give now it may give later.
            (Stage::Control(_), Err(_)) => {
                self.scrubber.not_before_us = self.scrubber.not_before_us.max(self.now_us + REST_US);
                return self.set_stage(Stage::First);
            }
            (stage, _) => stage,
        };
        let read = result.map_err(LostReason::Unreadable).and_then(|_| self.judge(&suspect, buf));
        match (read, stage) {
            (Ok(()), _) if suspect.range.is_some() => self.set_stage(Stage::Save(self.now_us)),
            (Ok(()), _) => {
                self.dismiss_suspect();
            }
            (Err(_), Stage::First) => self.set_stage(Stage::Again),
            (Err(LostReason::Unreadable(errno)), _) => self.set_stage(Stage::Control(errno)),
            (Err(reason), _) => self.give_up(&suspect, reason, suspect.name(buf), events),
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(front) = self.scrubber.suspects.front_mut() {
            front.stage = stage;
        }
    }

    /// Whether what was read is the record that the entry points to, and as it was put.
    fn judge(&self, suspect: &Suspect, buf: &[u8]) -> Result<(), LostReason> {
        let (class, loc) = unpack(suspect.entry.place);
        let record = self.lanes[class as usize].parse_read(loc, buf).map_err(|_| LostReason::Damaged)?;
        let (head, _) = suspect.head(buf).ok_or(LostReason::Damaged)?;
        let payload = Payload::parse(&record).ok_or(LostReason::Damaged)?;
        if !has_place_in(suspect.tree, &head, record.kind) {
            return Err(LostReason::Damaged);
        }
        is_root_right(&payload).then_some(()).ok_or(LostReason::RootMismatch)
    }

    /// A suspect is lost. The first in a range, and each in a sound batch, is a fault.
    fn give_up(
        &mut self,
        suspect: &Suspect,
        reason: LostReason,
        name: Option<Identity>,
        events: &mut Vec<Event>,
    ) {
        self.dismiss_suspect();
        self.lose((suspect.family, suspect.tree, suspect.entry), reason, name, events);
        let Some(current) = &mut self.scrubber.current else { return };
        current.has_lost = true;
        let bit = suspect.range.map_or(0, |range| 1u64 << range);
        let is_known = current.hit & bit != 0;
        current.hit |= bit;
        let target = current.target;
        if !is_known {
            self.count_fault(self.now_us, target);
        }
    }

    /// Appends a copy of a sound record that lies in damage; the entry swings to it when it is durable.
    fn save(&mut self, suspect: &Suspect, since_us: u64) -> bool {
        let Some(buf) = self.scrubber.buf.take() else { return false };
        let saved = self.try_save(suspect, &buf);
        self.scrubber.buf = Some(buf);
        if saved || self.now_us >= since_us + PATIENCE_US {
            return self.dismiss_suspect();
        }
        self.scrubber.not_before_us = self.now_us + RETRY_US;
        false
    }

    /// False if it is worth another try.
    fn try_save(&mut self, suspect: &Suspect, buf: &[u8]) -> bool {
        let Suspect { family, tree, entry: Entry { prefix, place }, .. } = *suspect;
        let (class, loc) = unpack(place);
        let Ok(record) = self.lanes[class as usize].parse_read(loc, buf) else { return true };
        let Some((head, _)) = suspect.head(buf) else { return true };
        if !self.lock_to_move(family, prefix) {
            return false;
        }
        let copied = self.append_copy(Mover::Scrub, (tree, place), &head, &record);
        !matches!(copied, Err(AppendError::Busy | AppendError::Full))
    }
}
