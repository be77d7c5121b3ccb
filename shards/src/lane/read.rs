//! Reading one record back: whole blocks in, a verified record out.

use crate::buffer::AlignedBuf;
use crate::format::Place;
use crate::format::record::{RecordView, claims, parse_bound, record_bytes};
use crate::io::{BLOCK_BYTES, DiskOp, OpId, SegmentId};
use crate::lane::ops::OpClass;
use crate::lane::segments::Role;
use crate::lane::{Lane, RecordLoc};

/// A record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The buffer cannot hold the blocks that the record lies in.
    #[error("reading this record needs a buffer of {needed} bytes; the one given has {given}")]
    BufferTooSmall {
        /// Bytes the blocks take.
        needed: usize,
        /// Bytes of the buffer.
        given: usize,
    },
    /// The place is outside the lane's segments: it is of another lane, or of a segment that no longer
    /// exists.
    #[error("{0:?} is no place in this lane's log")]
    NoSuchPlace(RecordLoc),
    /// What was read is not the record of this place: rot, or a read that went astray. Report it; the record
    /// is lost unless a second read succeeds.
    #[error("the bytes at {0:?} are not the record that was written there")]
    Damaged(RecordLoc),
}

impl RecordLoc {
    /// Offset of the first block of the record.
    pub fn first_block(self) -> u64 {
        u64::from(self.offset) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64
    }

    /// Bytes of the blocks that the record lies in: the least size of a buffer to read it.
    pub fn span_bytes(self) -> usize {
        let end = u64::from(self.offset) + u64::from(self.len);
        (end.next_multiple_of(BLOCK_BYTES as u64) - self.first_block()) as usize
    }
}

impl Lane {
    /// The operation that reads the blocks of the record at `loc` into `buf`, to be passed to the disk. Its
    /// end comes back from [`Lane::complete`] as [`crate::Completion::Read`] with this id. On an error the
    /// buffer comes back.
    pub fn read(
        &mut self,
        loc: RecordLoc,
        buf: AlignedBuf,
    ) -> Result<(OpId, DiskOp), (ReadError, AlignedBuf)> {
        let (needed, given) = (loc.span_bytes(), buf.len());
        if given < needed {
            return Err((ReadError::BufferTooSmall { needed, given }, buf));
        }
        let outside = loc.first_block() + needed as u64 > u64::from(self.config.segment_bytes);
        let op = self.next_op(OpClass::Read(loc.segment));
        let spare = self.segments.get(loc.segment).is_some_and(|segment| segment.role == Role::Spare);
        if outside || spare || !self.segments.begin_read(loc.segment) {
            return Err((ReadError::NoSuchPlace(loc), buf));
        }
        let (lane, segment, offset) = (self.config.lane, loc.segment, loc.first_block());
        Ok((op, DiskOp::Read { lane, segment, offset, buf, len: needed, op }))
    }

    /// The operation that reads `bytes` (whole blocks) of a segment from `start` into `buf`: several records
    /// that lie together. Each is then found with [`Lane::parse_read`], given the bytes from its first block
    /// on.
    ///
    /// # Panics
    /// If the blocks are outside the lane's segments, which no [`RecordLoc`] of this lane is, or larger than
    /// `buf`.
    pub fn read_blocks(
        &mut self,
        segment: SegmentId,
        start: u64,
        bytes: usize,
        buf: AlignedBuf,
    ) -> (OpId, DiskOp) {
        let end = start + bytes as u64;
        assert!(
            bytes <= buf.len() && end <= u64::from(self.config.segment_bytes),
            "{bytes} bytes at {start}"
        );
        let op = self.next_op(OpClass::Read(segment));
        assert!(self.segments.begin_read(segment), "segment {} does not exist", segment.0);
        (op, DiskOp::Read { lane: self.config.lane, segment, offset: start, buf, len: bytes, op })
    }

    /// The record at `loc`, from the blocks that [`Lane::read`] brought. To be called before the next
    /// [`Lane::poll`], after which a released segment may have been given to other records.
    pub fn parse_read<'a>(&self, loc: RecordLoc, buf: &'a [u8]) -> Result<RecordView<'a>, ReadError> {
        let segment = self.segments.get(loc.segment).ok_or(ReadError::NoSuchPlace(loc))?;
        let place = Place {
            store: self.config.store,
            lane: self.config.lane,
            segment: loc.segment,
            incarnation: segment.incarnation,
        };
        let start = loc.offset as usize % BLOCK_BYTES;
        let bytes = buf.get(start..start + loc.len as usize).ok_or(ReadError::Damaged(loc))?;
        let record = parse_bound(bytes, loc.offset, place.salt()).ok_or(ReadError::Damaged(loc))?;
        let whole = record_bytes(record.payload.len()) == loc.len as usize;
        whole.then_some(record).ok_or(ReadError::Damaged(loc))
    }

    /// True if the first of the blocks of the record at `loc`, which stand at the front of `buf`, may be what
    /// was written there in the present use of the segment. For whoever has only those: a record's checksum
    /// takes all of it. What an earlier use left behind has an LSN below the first of this one.
    pub fn may_begin(&self, loc: RecordLoc, buf: &[u8]) -> bool {
        let Some(segment) = self.segments.get(loc.segment) else { return false };
        let claimed = buf.get(loc.offset as usize % BLOCK_BYTES..).and_then(claims);
        claimed.is_some_and(|(lsn, bytes)| {
            bytes == loc.len as usize && (segment.base_lsn..=segment.last_lsn).contains(&lsn)
        })
    }
}
