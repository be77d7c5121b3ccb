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

use crate::format::segment::SealedSegment;
use crate::format::{Incarnation, Lsn, SEGMENTS_MAX};
use crate::io::{BLOCK_BYTES, SegmentId};
use crate::lane::ledger::Ledger;

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
    /// End of the last durable batch, in bytes.
    pub end: u32,
    /// False if a write failed: once empty it is retired, not reused.
    pub sound: bool,
    /// Reads in flight.
    pub reads: u32,
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
            end: BLOCK_BYTES as u32,
            sound: true,
            reads: 0,
            free_after: None,
            missing: 0,
            known_lost: 0,
        }
    }
}

/// All segments of a lane, by number.
#[derive(Debug)]
pub(crate) struct Segments {
    slots: Vec<Option<Segment>>,
    /// The segment with the newest durable header. Its list of the others is what recovery starts from, so it
    /// is not written over before a newer header is durable.
    guide: Option<SegmentId>,
    /// True if some sealed segment waits to become a spare; keeps the usual turn from looking at all of them.
    freeing: bool,
}

impl Segments {
    /// None yet.
    pub fn new() -> Self {
        Self { slots: vec![None; SEGMENTS_MAX], guide: None, freeing: false }
    }

    /// The segment with this number, if there is one.
    pub fn get(&self, id: SegmentId) -> Option<&Segment> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// The segment with this number, if there is one.
    pub fn get_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    /// Adds or replaces a segment. `id` is below [`SEGMENTS_MAX`].
    pub fn set(&mut self, id: SegmentId, segment: Segment) {
        self.slots[id.0 as usize] = Some(segment);
    }

    /// Every segment, by rising number.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentId, &Segment)> {
        let numbered = self.slots.iter().enumerate();
        numbered.filter_map(|(id, slot)| Some((SegmentId(id as u32), slot.as_ref()?)))
    }

    /// Every segment, by rising number.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.slots.iter_mut().flatten()
    }

    /// How many segments have this role.
    pub fn count(&self, role: Role) -> usize {
        self.iter().filter(|(_, segment)| segment.role == role).count()
    }

    /// The lowest number that no segment has.
    pub fn unused_number(&self) -> Option<SegmentId> {
        self.slots.iter().position(Option::is_none).map(|id| SegmentId(id as u32))
    }

    /// Notes that the header of `id` is durable and newer than all others.
    pub fn set_guide(&mut self, id: SegmentId) {
        self.guide = Some(id);
    }

    fn spares(&self) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.iter().filter(|(id, segment)| segment.role == Role::Spare && self.guide != Some(*id))
    }

    /// Segments that may be opened.
    pub fn spare_count(&self) -> usize {
        self.spares().count()
    }

    /// The spare that was used longest ago, so that old records leave the disk as the log moves on.
    pub fn next_spare(&self) -> Option<SegmentId> {
        self.spares().min_by_key(|(id, segment)| (segment.incarnation, *id)).map(|(id, _)| id)
    }

    /// Ends the active use of a segment. `appended` is the last LSN given out.
    pub fn seal(&mut self, id: SegmentId, sound: bool, ledger: &Ledger, appended: Lsn) {
        if let Some(segment) = self.get_mut(id) {
            segment.role = Role::Sealed;
            segment.sound &= sound;
        }
        self.note_release(id, ledger, appended);
    }

    /// To be called when a record of `id` died: starts the way to reuse if it was the last.
    pub fn note_release(&mut self, id: SegmentId, ledger: &Ledger, appended: Lsn) {
        let empty = ledger.live(id).is_empty();
        if let Some(segment) = self.get_mut(id)
            && segment.role == Role::Sealed
            && empty
        {
            segment.free_after = Some(appended);
            self.freeing = true;
        }
    }

    /// Turns sealed segments into spares where that is safe now.
    pub fn reclaim(&mut self, durable: Lsn) {
        if !self.freeing {
            return;
        }
        self.freeing = false;
        for segment in self.slots.iter_mut().flatten() {
            let Some(after) = segment.free_after else { continue };
            if after <= durable && segment.reads == 0 {
                segment.role = if segment.sound { Role::Spare } else { Role::Retired };
                segment.free_after = None;
            } else {
                self.freeing = true;
            }
        }
    }

    /// True if some segment will become a spare without the owner doing anything more.
    pub fn is_freeing(&self) -> bool {
        self.freeing
    }

    /// True if some segment waits for nothing but reads in flight to become a spare.
    pub fn waits_for_reads(&self, durable: Lsn) -> bool {
        self.freeing
            && self.slots.iter().flatten().any(|s| s.sound && s.free_after.is_some_and(|lsn| lsn <= durable))
    }

    /// What the header of the next segment says about all others.
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

    /// The lowest LSN that a recovery could still meet.
    pub fn oldest_lsn(&self) -> Option<Lsn> {
        let used = self.iter().filter(|(_, s)| s.incarnation.0 > 0 && s.role != Role::Retired);
        used.map(|(_, segment)| segment.base_lsn).min()
    }
}
