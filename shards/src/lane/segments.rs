//! The segment files of a lane and what each is used for.
//!
//! ```text
//! (none) --Prepare--> Spare --header written--> Active --full or failed--> Sealed --all dead--> Spare
//!                                                                             \--failed once--> Retired
//! ```
//!
//! A sealed segment becomes a spare only when three things hold: nothing in it lives, no read of it is in
//! flight, and everything appended before its last record died is durable. The third keeps metadata safe that
//! was copied out of it: the copy is on disk before the original can be overwritten.
//!
//! A lane may have thousands of segments, and asks on every append and every turn how many spares there are
//! and which one comes next. So a segment changes only through methods of [`Segments`], which keep books of
//! what is asked: those answers take O(log n) at most. What looks at every segment says so.

use std::collections::BTreeSet;

use crate::format::segment::SealedSegment;
use crate::format::{Incarnation, Lsn, SEGMENTS_MAX};
use crate::io::SegmentId;
use crate::lane::ledger::Live;

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Empty, or holding nothing that lives; may become active.
    Spare,
    /// Receives the next batch.
    Active,
    /// Gets no more batches.
    Sealed,
    /// A write to it failed, or its file is not as it should be. Never written again by this process.
    Retired,
}

/// One segment file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub role: Role,
    /// Latest use; 0 if it was never used.
    pub incarnation: Incarnation,
    pub base_lsn: Lsn,
    /// Last durable record; `base_lsn - 1` if none.
    pub last_lsn: Lsn,
    /// End of the last durable batch, or of the header if there is none; 0 if it was never used.
    pub end: u32,
    /// False if a write failed: once empty it is retired, not reused.
    pub sound: bool,
    /// Reads in flight.
    pub reads: u32,
    /// True if no message is known to live in it. Holds from when it is sealed on.
    pub without_messages: bool,
    /// Set when the last live record of a sealed segment died: the LSN that must be durable before reuse.
    pub free_after: Option<Lsn>,
    /// Records that recovery found missing.
    pub missing: u32,
    /// The part of `missing` that the owner has dealt with.
    pub known_lost: u32,
}

impl Segment {
    /// A segment of `role` that was never used.
    pub fn blank(role: Role) -> Self {
        Self {
            role,
            incarnation: Incarnation(0),
            base_lsn: Lsn(1),
            last_lsn: Lsn(0),
            end: 0,
            sound: true,
            reads: 0,
            without_messages: false,
            free_after: None,
            missing: 0,
            known_lost: 0,
        }
    }

    /// True if its owner could begin to free it.
    fn is_idle(&self) -> bool {
        self.role == Role::Sealed && self.free_after.is_none() && self.without_messages
    }
}

/// All segments of a lane, by number.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// As many as the highest number in use asks for.
    slots: Vec<Option<Segment>>,
    /// The segment with the newest durable header. Its list of the others is what recovery starts from, so it
    /// is not written over before a newer header is durable.
    guide: Option<SegmentId>,
    books: Books,
}

/// What follows from the segments one by one, kept up to date as they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Books {
    /// Segments that exist.
    existing: usize,
    /// Every spare, the one used longest ago first.
    spares: BTreeSet<(Incarnation, SegmentId)>,
    /// Sealed segments that wait to become spares, by the LSN that must be durable before.
    freeing: BTreeSet<(Lsn, SegmentId)>,
    /// Sealed segments that their owner could begin to free.
    idle: usize,
    /// Reads in flight.
    reads: usize,
    /// The lowest number that no segment has.
    unused: u32,
}

impl Books {
    fn enter(&mut self, id: SegmentId, segment: &Segment) {
        self.existing += 1;
        self.idle += usize::from(segment.is_idle());
        self.reads += segment.reads as usize;
        if segment.role == Role::Spare {
            self.spares.insert((segment.incarnation, id));
        }
        if let Some(lsn) = segment.free_after {
            self.freeing.insert((lsn, id));
        }
    }

    /// Takes back what [`Books::enter`] did for the same segment.
    fn strike(&mut self, id: SegmentId, segment: &Segment) {
        self.existing -= 1;
        self.idle -= usize::from(segment.is_idle());
        self.reads -= segment.reads as usize;
        if segment.role == Role::Spare {
            self.spares.remove(&(segment.incarnation, id));
        }
        if let Some(lsn) = segment.free_after {
            self.freeing.remove(&(lsn, id));
        }
    }
}

impl Segments {
    /// The segment with this number, if there is one.
    pub fn get(&self, id: SegmentId) -> Option<&Segment> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// Adds or replaces a segment. `id` is below [`SEGMENTS_MAX`].
    pub fn set(&mut self, id: SegmentId, segment: Segment) {
        let number = id.0 as usize;
        assert!(number < SEGMENTS_MAX, "segment {number} is beyond the most");
        if number >= self.slots.len() {
            self.slots.resize(number + 1, None);
        }
        if let Some(before) = self.slots[number].take() {
            self.books.strike(id, &before);
        }
        self.books.enter(id, &segment);
        self.slots[number] = Some(segment);
        // No segment is ever taken away, so this only moves on.
        while self.slots.get(self.books.unused as usize).is_some_and(Option::is_some) {
            self.books.unused += 1;
        }
    }

    /// Changes a segment, and the books with it. False if there is none of this number.
    fn change(&mut self, id: SegmentId, change: impl FnOnce(&mut Segment)) -> bool {
        let Some(segment) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else { return false };
        self.books.strike(id, segment);
        change(segment);
        self.books.enter(id, segment);
        true
    }

    /// Every segment, by rising number.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentId, &Segment)> {
        let numbered = self.slots.iter().enumerate();
        numbered.filter_map(|(id, slot)| Some((SegmentId(id as u32), slot.as_ref()?)))
    }

    /// How many there are.
    pub fn existing(&self) -> usize {
        self.books.existing
    }

    /// How many segments have this role. Looks at every segment.
    pub fn count(&self, role: Role) -> usize {
        self.iter().filter(|(_, segment)| segment.role == role).count()
    }

    /// The lowest number that no segment has, if there may be one more.
    pub fn unused_number(&self) -> Option<SegmentId> {
        ((self.books.unused as usize) < SEGMENTS_MAX).then_some(SegmentId(self.books.unused))
    }

    /// Notes that the header of `id` is durable and newer than all others.
    pub fn set_guide(&mut self, id: SegmentId) {
        self.guide = Some(id);
    }

    /// Segments that may be opened.
    pub fn spare_count(&self) -> usize {
        let guide = self.guide.and_then(|guide| self.get(guide));
        self.books.spares.len() - usize::from(guide.is_some_and(|guide| guide.role == Role::Spare))
    }

    /// The spare that was used longest ago, so that old records leave the disk as the log moves on.
    pub fn next_spare(&self) -> Option<SegmentId> {
        self.books.spares.iter().map(|(_, id)| *id).find(|id| self.guide != Some(*id))
    }

    /// Notes a batch that became durable in the active segment.
    pub fn extend(&mut self, id: SegmentId, end: u32, last_lsn: Lsn) {
        self.change(id, |segment| (segment.end, segment.last_lsn) = (end, last_lsn));
    }

    /// Ends the active use of a segment.
    pub fn seal(&mut self, id: SegmentId, sound: bool) {
        self.change(id, |segment| {
            segment.role = Role::Sealed;
            segment.sound &= sound;
        });
    }

    /// Takes a segment out of use.
    pub fn retire(&mut self, id: SegmentId) {
        self.change(id, |segment| segment.role = Role::Retired);
    }

    /// Counts a read. False if there is no such segment.
    pub fn begin_read(&mut self, id: SegmentId) -> bool {
        self.change(id, |segment| segment.reads += 1)
    }

    /// Takes the end of a read. False if none is in flight.
    pub fn end_read(&mut self, id: SegmentId) -> bool {
        let reading = self.get(id).is_some_and(|segment| segment.reads > 0);
        reading && self.change(id, |segment| segment.reads -= 1)
    }

    /// True if a read of some segment is in flight.
    pub fn is_reading(&self) -> bool {
        self.books.reads > 0
    }

    /// Takes note of what lives in a segment: after it was sealed, and when a record of it died.
    pub fn note_live(&mut self, id: SegmentId, live: Live) {
        let without_messages = live.messages == 0;
        if self.get(id).is_some_and(|segment| segment.without_messages != without_messages) {
            self.change(id, |segment| segment.without_messages = without_messages);
        }
    }

    /// True if in some sealed segment no message lives and nobody has begun to free it.
    pub fn has_idle(&self) -> bool {
        self.books.idle > 0
    }

    /// Starts the way to reuse of a segment in which nothing lives, if it is sealed. `appended` is the last
    /// LSN given out.
    pub fn free(&mut self, id: SegmentId, appended: Lsn) {
        if self.get(id).is_some_and(|segment| segment.role == Role::Sealed) {
            self.change(id, |segment| segment.free_after = Some(appended));
        }
    }

    /// Turns sealed segments into spares where that is safe now.
    pub fn reclaim(&mut self, durable: Lsn) {
        let next = |segments: &Self| segments.waiting(durable).find(|(_, s)| s.reads == 0).map(|(id, _)| id);
        while let Some(id) = next(self) {
            self.change(id, |segment| {
                segment.role = if segment.sound { Role::Spare } else { Role::Retired };
                segment.free_after = None;
            });
        }
    }

    /// The segments on their way to reuse that wait for nothing but reads in flight, of which there are few.
    fn waiting(&self, durable: Lsn) -> impl Iterator<Item = (SegmentId, &Segment)> {
        let due = self.books.freeing.range(..=(durable, SegmentId(u32::MAX)));
        due.filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    /// True if some segment will become a spare without the owner doing anything more.
    pub fn is_freeing(&self) -> bool {
        !self.books.freeing.is_empty()
    }

    /// True if some segment waits for nothing but reads in flight to become a spare.
    pub fn waits_for_reads(&self, durable: Lsn) -> bool {
        self.waiting(durable).any(|(_, segment)| segment.sound)
    }

    /// Takes all losses for dealt with. True if some were not before. Looks at every segment.
    pub fn acknowledge_losses(&mut self) -> bool {
        let mut news = false;
        for segment in self.slots.iter_mut().flatten() {
            news |= segment.known_lost != segment.missing;
            segment.known_lost = segment.missing;
        }
        news
    }

    /// What the header of the next segment says about all others. Looks at every segment.
    pub fn sealed_list(&self) -> Vec<SealedSegment> {
        let sealed = self.iter().filter(|(_, segment)| segment.role == Role::Sealed);
        let list = sealed.map(|(id, segment)| SealedSegment {
            segment: id,
            incarnation: segment.incarnation,
            end: segment.end,
            base_lsn: segment.base_lsn,
            last_lsn: segment.last_lsn,
            known_lost: segment.known_lost,
        });
        list.collect()
    }

    /// The lowest LSN that a recovery could still meet. Looks at every segment.
    pub fn oldest_lsn(&self) -> Option<Lsn> {
        let used = self.iter().filter(|(_, s)| s.incarnation.0 > 0 && s.role != Role::Retired);
        used.map(|(_, segment)| segment.base_lsn).min()
    }
}

#[cfg(test)]
impl Segments {
    /// Fails if the books say anything else than the segments do.
    pub fn audit(&self) {
        let mut books = Books::default();
        self.iter().for_each(|(id, segment)| books.enter(id, segment));
        books.unused = self.slots.iter().take_while(|slot| slot.is_some()).count() as u32;
        assert_eq!(self.books, books);
        let spares: Vec<_> = self.iter().filter(|(_, s)| s.role == Role::Spare).collect();
        let usable = spares.iter().filter(|(id, _)| self.guide != Some(*id));
        assert_eq!(self.spare_count(), usable.clone().count());
        let oldest = usable.min_by_key(|(id, segment)| (segment.incarnation, *id));
        assert_eq!(self.next_spare(), oldest.map(|(id, _)| *id));
    }
}
