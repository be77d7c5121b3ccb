//! For an owner that keeps its own index: telling the lane after a start what lives, and reading whole
//! segments to copy what does.

use crate::checksum::crc32c;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::format::record::{Kind, RecordView, record_bytes, walk};
use crate::format::{Incarnation, Place};
use crate::io::SegmentId;
use crate::lane::segments::Role;
use crate::lane::{Lane, RecordLoc};

/// A segment that gets no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The segment.
    pub segment: SegmentId,
    /// End of its last batch, in bytes from the start of the file.
    pub end: u32,
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
        let sealed = self.segments.iter().filter(|(_, segment)| segment.role == Role::Sealed);
        sealed.map(|(id, segment)| Sealed {
            segment: id,
            end: segment.end,
            live_bytes: self.ledger.live(id).bytes(),
            age_segments: self.incarnation.0.saturating_sub(segment.incarnation.0),
            is_sound: segment.sound,
        })
    }

    /// The use of a segment, if that gets no more records and is not over.
    pub fn sealed_use(&self, segment: SegmentId) -> Option<Incarnation> {
        let sealed = self.segments.get(segment).filter(|segment| segment.role == Role::Sealed);
        sealed.map(|segment| segment.incarnation)
    }

    /// Segment files that exist, the one being made included.
    pub fn segment_count(&self) -> u32 {
        self.segments.iter().count() as u32 + u32::from(self.prepare.is_some())
    }

    /// Segment files that hold, or held and may hold, records: all but the spares.
    pub fn used_segments(&self) -> u32 {
        (self.segments.iter().count() - self.segments.count(Role::Spare)) as u32
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

    /// The batch of the present use of `segment` that begins at `offset`, whose bytes stand at the front of
    /// `bytes`; `None` if there is none, if it is not whole in there, or if it is damaged.
    pub fn batch_at<'a>(&self, segment: SegmentId, offset: u32, bytes: &'a [u8]) -> Option<BatchView<'a>> {
        let (header, _) = BatchHeader::decode(bytes).ok()?;
        let incarnation = self.segments.get(segment)?.incarnation;
        let place = Place { store: self.config.store, lane: self.config.lane, segment, incarnation };
        let batch = bytes.get(..header.bytes as usize).filter(|_| header.is_at(&place, offset))?;
        let payload = &batch[BATCH_HEADER_BYTES..];
        (crc32c(payload) == header.payload_crc).then_some(BatchView {
            bytes: header.bytes,
            segment,
            records_at: offset + BATCH_HEADER_BYTES as u32,
            records: &payload[..header.record_bytes as usize],
        })
    }
}
