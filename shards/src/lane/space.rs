//! Space of a lane: who may still append, what is alive, what could be freed.

use crate::format::Lsn;
use crate::format::batch::BATCH_HEADER_BYTES;
use crate::format::record::{Kind, record_stride};
use crate::io::{BLOCK_BYTES, Errno, SegmentId};
use crate::lane::segments::Role;
use crate::lane::{AppendError, Lane, RecordLoc, Reserve};

/// How full a lane is. `live_*` counts records that were not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Segment files that exist.
    pub segments: u32,
    /// Segment files that may exist.
    pub segments_max: u32,
    /// Of those that exist: ready to be written. An empty one whose header is the newest on disk does not
    /// count.
    pub spares: u32,
    /// Of those that exist: taken out of use after a failure.
    pub retired: u32,
    /// Size of each.
    pub segment_bytes: u32,
    /// Bytes left in the segment being written.
    pub active_room_bytes: u32,
    /// Live messages.
    pub live_messages: u64,
    /// Live records of metadata.
    pub live_metadata: u64,
    /// Bytes of all live records, with their headers.
    pub live_bytes: u64,
    /// Lowest LSN that a recovery could still meet. A record that only exists to overrule older ones (a
    /// tombstone) is needed until this has passed them.
    pub oldest_lsn: Option<Lsn>,
    /// Why no segment could be prepared, if the last attempt failed.
    pub prepare_error: Option<Errno>,
    /// Why the lane is read-only, if it is.
    pub read_only: Option<Errno>,
}

/// What still lives in a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLoad {
    /// The segment.
    pub segment: SegmentId,
    /// Live messages.
    pub messages: u64,
    /// Live records of metadata.
    pub metadata: u64,
    /// Bytes of all live records, with their headers.
    pub live_bytes: u64,
}

impl Lane {
    /// The record at `loc` is dead. To be called once for each committed or recovered record, when it was
    /// delivered to all, expired, or replaced by a record appended before this call.
    ///
    /// # Panics
    /// If more records of the segment are released than were counted.
    pub fn release(&mut self, loc: RecordLoc, kind: Kind) {
        self.ledger.release(loc, kind);
        self.free_if_dead(loc.segment);
    }

    /// Lets a sealed segment in which nothing lives be used again, unless that is for its owner to say.
    pub(super) fn free_if_dead(&mut self, segment: SegmentId) {
        let live = self.ledger.live(segment);
        self.segments.note_live(segment, live);
        if live.is_empty() && !self.config.owner_reclaims {
            self.segments.free(segment, self.next_lsn.previous());
        }
    }

    /// How full the lane is. Looks at every segment; not meant for every message.
    pub fn usage(&self) -> Usage {
        let total = self.ledger.total();
        Usage {
            segments: self.segments.existing() as u32,
            segments_max: self.config.segments_max,
            spares: self.segments.spare_count() as u32,
            retired: self.segments.count(Role::Retired) as u32,
            segment_bytes: self.config.segment_bytes,
            active_room_bytes: self.active_room() as u32,
            live_messages: total.messages,
            live_metadata: total.metadata,
            live_bytes: total.bytes(),
            oldest_lsn: self.segments.oldest_lsn(),
            prepare_error: self.prepare_failed.map(|(errno, _)| errno),
            read_only: self.read_only,
        }
    }

    /// A sealed segment in which only metadata lives, the one with the least of it. To free it, append that
    /// metadata again and then release the old records.
    pub fn relocation_candidate(&self) -> Option<SegmentLoad> {
        self.sealed_loads().filter(|load| load.messages == 0).min_by_key(|load| load.live_bytes)
    }

    /// True if no segment can be added and at most `spares` are left: time to free some.
    pub fn is_short_of(&self, spares: usize) -> bool {
        !self.may_grow() && self.segments.spare_count() <= spares
    }

    /// A sealed segment in which no message lives, the emptiest, when the owner reclaims segments itself. It
    /// carries what it still needs elsewhere, releases it, and calls [`Lane::reclaim`].
    pub fn reclaimable_segment(&self) -> Option<SegmentId> {
        let sealed = self.segments.iter().filter(|(_, s)| s.role == Role::Sealed && s.free_after.is_none());
        let loads = sealed.map(|(segment, _)| (segment, self.ledger.live(segment)));
        let idle = loads.filter(|(_, live)| live.messages == 0);
        idle.min_by_key(|(_, live)| live.bytes()).map(|(segment, _)| segment)
    }

    /// The owner needs nothing of this segment any more. It is used again once everything appended so far is
    /// durable.
    ///
    /// # Panics
    /// If something in it lives.
    pub fn reclaim(&mut self, segment: SegmentId) {
        assert!(self.ledger.live(segment).is_empty(), "segment {} still holds live records", segment.0);
        self.segments.free(segment, self.next_lsn.previous());
    }

    /// Of the sealed segments that are `wanted` and in which messages live, the one with the fewest live
    /// bytes. After many restarts, each of which starts a fresh segment, copying its records forward is what
    /// gives space back.
    pub fn sparsest_segment(&self, wanted: impl Fn(SegmentId) -> bool) -> Option<SegmentLoad> {
        let loads = self.sealed_loads().filter(|load| load.messages > 0 && wanted(load.segment));
        loads.min_by_key(|load| load.live_bytes)
    }

    fn sealed_loads(&self) -> impl Iterator<Item = SegmentLoad> {
        let sealed = self.segments.iter().filter(|(_, segment)| segment.role == Role::Sealed);
        let loads = sealed.map(|(segment, _)| (segment, self.ledger.live(segment)));
        loads.filter(|(_, live)| !live.is_empty()).map(|(segment, live)| SegmentLoad {
            segment,
            messages: live.messages,
            metadata: live.metadata,
            live_bytes: live.bytes(),
        })
    }

    /// The loss that recovery reported has been dealt with durably (for instance by new mailbox epochs), so
    /// that the next recovery need not report it as new. That stands in the header of the next segment, which
    /// is opened as soon as the lane is idle and has a spare.
    pub fn acknowledge_loss(&mut self) {
        self.owes_header |= self.segments.acknowledge_losses();
    }

    /// Checks that a record can be placed: in the active segment, or in a spare. When no more segments can be
    /// made, messages leave one spare to metadata, to the repetition of a failed write and to the fresh
    /// segment that every restart begins with; so a full lane can always record what frees it. If it is the
    /// disk that has no space for that spare, they leave the reserve at the end of the active segment
    /// instead.
    pub(super) fn admit(
        &self,
        reserve: Reserve,
        payload_bytes: usize,
        fits_last: bool,
    ) -> Result<(), AppendError> {
        let (queued, room) = (self.queued_bytes_with(payload_bytes, fits_last), self.active_room());
        let opens = usize::from(queued > room);
        let kept = usize::from(reserve == Reserve::Keep && !self.may_grow());
        let leaves_reserve = self.is_below_limit() && queued + self.config.reserve_bytes as usize <= room;
        if self.segments.spare_count() >= opens + kept || leaves_reserve {
            Ok(())
        } else if self.segments.is_freeing()
            || self.spare_comes_by_itself()
            || (reserve == Reserve::Keep && self.waits_for_owner())
        {
            Err(AppendError::Busy)
        } else {
            Err(AppendError::Full)
        }
    }

    /// True if the owner is to reclaim a segment.
    fn waits_for_owner(&self) -> bool {
        self.config.owner_reclaims && self.segments.has_idle()
    }

    /// Bytes of all batches that wait, if one more record were among them.
    fn queued_bytes_with(&self, payload_bytes: usize, fits_last: bool) -> usize {
        let queued: usize = self.queue.iter().map(|batch| batch.meta.bytes()).sum();
        match self.queue.back() {
            Some(last) if fits_last => queued + last.bytes_with(payload_bytes) - last.meta.bytes(),
            _ => queued + (BATCH_HEADER_BYTES + record_stride(payload_bytes)).next_multiple_of(BLOCK_BYTES),
        }
    }

    /// True if another segment can be made, as far as is known.
    pub(super) fn may_grow(&self) -> bool {
        self.prepare.is_some() || (self.is_below_limit() && self.prepare_failed.is_none())
    }

    pub(super) fn is_below_limit(&self) -> bool {
        self.segments.existing() < self.config.segments_max as usize
    }

    /// True if a spare will come even if no further record becomes durable.
    pub(super) fn spare_comes_by_itself(&self) -> bool {
        self.may_grow() || self.segments.waits_for_reads(self.durable)
    }

    /// Bytes that batches may still take in the active segment, besides the write in flight and the last
    /// block, which is kept for a marker.
    pub(super) fn active_room(&self) -> usize {
        let Some(active) = &self.active else { return 0 };
        let end = active.end as usize + self.write_in_flight_bytes() + BLOCK_BYTES;
        (self.config.segment_bytes as usize).saturating_sub(end)
    }
}
