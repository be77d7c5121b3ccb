//! For an owner that keeps its own index: telling the lane after a start what lives, and reading whole
//! segments to copy what does.

use crate::checksum::crc32c;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::format::record::{Kind, RecordView, record_bytes, walk};
use crate::format::segment::SegmentHeader;
use crate::format::{Incarnation, Place};
use crate::io::{BLOCK_BYTES, LaneId, SegmentId};
use crate::lane::segments::{Role, Segment};
use crate::lane::{Lane, RecordLoc};

/// A segment that gets no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The segment.
    pub segment: SegmentId,
    /// Tells this use of it from others.
    pub incarnation: Incarnation,
    /// End of its last batch, in bytes from the start of the file.
    pub end: u32,
    /// Its live records.
    pub live_records: u64,
    /// Bytes of its live records, with their headers.
    pub live_bytes: u64,
    /// How many segments of the lane were opened after it.
    pub age_segments: u64,
    /// False if a write to it failed: once empty it is not used again.
    pub is_sound: bool,
}

/// A batch as it lies in a segment.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// Its whole length, in bytes.
    pub bytes: u32,
    segment: SegmentId,
    records_at: u32,
    records: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Its records in order, each with its place.
    pub fn records(&self) -> impl Iterator<Item = (RecordLoc, RecordView<'a>)> {
        let (segment, records_at) = (self.segment, self.records_at);
        walk(self.records).map(move |(at, record)| {
            let len = record_bytes(record.payload.len()) as u32;
            (RecordLoc { segment, offset: records_at + at as u32, len }, record)
        })
    }
}

impl Lane {
    /// A record that recovery showed, or did not read because the owner knew it, lives. To be called before
    /// anything else is asked of a lane whose visitor released every record, once per record.
    pub fn adopt(&mut self, loc: RecordLoc, kind: Kind) {
        self.ledger.add(loc, kind);
    }

    /// The owner has said what lives. From now on a sealed segment in which nothing does is used again by
    /// itself.
    pub fn end_adoption(&mut self) {
        self.config.owner_reclaims = false;
        let sealed: Vec<SegmentId> = self.sealed().map(|sealed| sealed.segment).collect();
        sealed.into_iter().for_each(|segment| self.free_if_dead(segment));
    }

    /// The segments that get no more records, by rising number.
    pub fn sealed(&self) -> impl Iterator<Item = Sealed> {
        self.segments.iter().filter_map(|(id, segment)| self.as_sealed(id, segment))
    }

    /// A segment, if it gets no more records and was not given up yet.
    pub fn sealed_segment(&self, id: SegmentId) -> Option<Sealed> {
        self.as_sealed(id, self.segments.get(id)?)
    }

    fn as_sealed(&self, id: SegmentId, segment: &Segment) -> Option<Sealed> {
        (segment.role == Role::Sealed).then(|| Sealed {
            segment: id,
            end: segment.end,
            live_records: self.ledger.live(id).records(),
            live_bytes: self.ledger.live(id).bytes(),
            incarnation: segment.incarnation,
            age_segments: self.incarnation.0.saturating_sub(segment.incarnation.0),
            is_sound: segment.sound,
        })
    }

    /// The segments that hold records, each with its present use.
    pub fn uses(&self) -> impl Iterator<Item = (SegmentId, Incarnation)> {
        let used = self.segments.iter().filter(|(_, it)| matches!(it.role, Role::Sealed | Role::Active));
        used.map(|(id, segment)| (id, segment.incarnation))
    }

    /// True if a segment is sealed, and in this use.
    pub fn is_sealed(&self, segment: SegmentId, incarnation: Incarnation) -> bool {
        let segment = self.segments.get(segment);
        segment.is_some_and(|it| it.role == Role::Sealed && it.incarnation == incarnation)
    }

    /// Takes a sealed segment out of use as soon as nothing in it lives: it is never written again by this
    /// process. Does nothing to one that is not sealed.
    pub fn condemn(&mut self, segment: SegmentId) {
        if self.segments.get(segment).is_some_and(|segment| segment.role == Role::Sealed) {
            self.segments.seal(segment, false);
        }
    }

    /// Segments that are ready to be opened.
    pub fn spares(&self) -> u32 {
        self.segments.spare_count() as u32
    }

    /// True if a segment is about to become ready.
    pub fn awaits_spare(&self) -> bool {
        self.prepare.is_some() || self.segments.is_freeing()
    }

    /// Bytes that may still be written without opening a segment.
    pub fn room_bytes(&self) -> u64 {
        self.active_room() as u64
    }

    /// Its number.
    pub fn id(&self) -> LaneId {
        self.config.lane
    }

    /// Where the batches of a sealed segment belong.
    pub(crate) fn place_of(&self, sealed: &Sealed) -> Place {
        let Sealed { segment, incarnation, .. } = *sealed;
        Place { store: self.config.store, lane: self.config.lane, segment, incarnation }
    }

    /// Segment files that exist, the one being made included.
    pub fn segment_count(&self) -> u32 {
        self.segments.existing() as u32 + u32::from(self.prepare.is_some())
    }

    /// Segment files that hold, or held and may hold, records: all but the spares.
    pub fn used_segments(&self) -> u32 {
        (self.segments.existing() - self.segments.spare_count()) as u32
    }

    /// True if a segment is open for batches.
    pub fn is_writing(&self) -> bool {
        self.active.is_some()
    }

    /// Bytes of all live records, with their headers.
    pub fn live_bytes(&self) -> u64 {
        self.ledger.total().bytes()
    }

    /// Lets the lane own so many segments from now on; what it has, it keeps.
    pub fn limit_segments(&mut self, segments_max: u32) {
        self.config.segments_max = segments_max;
    }

    /// Length of the header of the present use of `segment`, whose bytes stand at the front of `bytes`;
    /// `None` if it is damaged. Of a header that is not whole in there only the first block is judged.
    pub fn front_at(&self, segment: SegmentId, bytes: &[u8]) -> Option<u32> {
        let claimed = SegmentHeader::bytes_claimed(bytes.get(..BLOCK_BYTES)?).ok()?;
        let Some(front) = bytes.get(..claimed) else { return Some(claimed as u32) };
        let (header, _) = SegmentHeader::decode(front, self.config.store, self.config.lane, segment).ok()?;
        let incarnation = self.segments.get(segment)?.incarnation;
        (header.place.incarnation == incarnation).then_some(claimed as u32)
    }

    /// The batch of the present use of `segment` that begins at `offset`, whose bytes stand at the front of
    /// `bytes`; `None` if there is none, if it is not whole in there, or if it is damaged.
    pub fn batch_at<'a>(&self, segment: SegmentId, offset: u32, bytes: &'a [u8]) -> Option<BatchView<'a>> {
        let header = self.batch_header_at(segment, offset, bytes)?;
        let batch = bytes.get(..header.bytes as usize)?;
        let payload = &batch[BATCH_HEADER_BYTES..];
        (crc32c(payload) == header.payload_crc).then_some(BatchView {
            bytes: header.bytes,
            segment,
            records_at: offset + BATCH_HEADER_BYTES as u32,
            records: &payload[..header.record_bytes as usize],
        })
    }

    /// Length of that batch, in bytes, if its header at least is sound.
    pub fn batch_bytes_at(&self, segment: SegmentId, offset: u32, bytes: &[u8]) -> Option<u32> {
        Some(self.batch_header_at(segment, offset, bytes)?.bytes)
    }

    fn batch_header_at(&self, segment: SegmentId, offset: u32, bytes: &[u8]) -> Option<BatchHeader> {
        let (header, _) = BatchHeader::decode(bytes).ok()?;
        let incarnation = self.segments.get(segment)?.incarnation;
        let place = Place { store: self.config.store, lane: self.config.lane, segment, incarnation };
        header.is_at(&place, offset).then_some(header)
    }
}
