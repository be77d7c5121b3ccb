//! The header of a batch: what one durable write committed, where it belongs, and what was durable before it.

use crate::checksum::crc32c;
use crate::format::field::{put, u16_at, u32_at, u64_at};
use crate::format::record::RECORD_HEADER_BYTES;
use crate::format::{BATCH_BYTES_MAX, FORMAT_VERSION, Incarnation, Lsn, Place};
use crate::io::{BLOCK_BYTES, LaneId, SegmentId};

/// Bytes of the header; the records follow at once.
pub const BATCH_HEADER_BYTES: usize = 128;
const MAGIC: [u8; 4] = *b"TRNB";
const CRC_AT: usize = BATCH_HEADER_BYTES - 4;
/// Longest batch of format version 1, in bytes.
const BYTES_MAX_V1: usize = 1 << 20;

/// The lowest version of the format that can say a batch of so many bytes, which is the one it is written
/// with.
const fn version_of(bytes: usize) -> u16 {
    if bytes <= BYTES_MAX_V1 { 1 } else { 2 }
}

/// The header of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// First 8 bytes of the store's id.
    pub store_tag: u64,
    /// Lane of the segment.
    pub lane: LaneId,
    /// The segment file.
    pub segment: SegmentId,
    /// The use of the file.
    pub incarnation: Incarnation,
    /// Own offset in the file.
    pub offset: u32,
    /// Whole length, header and padding included; a multiple of a block, at most [`BATCH_BYTES_MAX`].
    pub bytes: u32,
    /// LSN of the first record; in an empty batch, the LSN that the next record will get.
    pub first_lsn: Lsn,
    /// Number of records; 0 in a marker, which is written for its `durable_lsn` alone.
    pub records: u32,
    /// Bytes of the records, without the padding to a whole block.
    pub record_bytes: u32,
    /// Highest LSN known durable when this batch was submitted.
    pub durable_lsn: Lsn,
    /// LSN of the first record of this use of the segment, repeated from its header.
    pub base_lsn: Lsn,
    /// Checksum of the previous batch's header, or of the segment's header for the first batch.
    pub previous: u32,
    /// CRC32C of all bytes after the header, padding included.
    pub payload_crc: u32,
}

/// Why bytes are no batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// The magic is not there.
    NoBatch,
    /// Wrong checksum, or fields that contradict each other.
    Damaged,
    /// Written by a later version of this software.
    Newer(u16),
}

impl BatchHeader {
    /// Writes the header over the first bytes of `out` and returns its checksum.
    pub fn encode(&self, out: &mut [u8]) -> u32 {
        let out = &mut out[..BATCH_HEADER_BYTES];
        out.fill(0);
        put(out, 0, &MAGIC);
        put(out, 4, &version_of(self.bytes as usize).to_le_bytes());
        put(out, 8, &self.store_tag.to_le_bytes());
        put(out, 16, &self.lane.0.to_le_bytes());
        put(out, 20, &self.segment.0.to_le_bytes());
        put(out, 24, &self.incarnation.0.to_le_bytes());
        put(out, 32, &self.offset.to_le_bytes());
        put(out, 36, &self.bytes.to_le_bytes());
        put(out, 40, &self.first_lsn.0.to_le_bytes());
        put(out, 48, &self.records.to_le_bytes());
        put(out, 52, &self.record_bytes.to_le_bytes());
        put(out, 56, &self.durable_lsn.0.to_le_bytes());
        put(out, 64, &self.base_lsn.0.to_le_bytes());
        put(out, 72, &self.previous.to_le_bytes());
        put(out, 76, &self.payload_crc.to_le_bytes());
        let crc = crc32c(&out[..CRC_AT]);
        put(out, CRC_AT, &crc.to_le_bytes());
        crc
    }

    /// Reads a header from the first bytes of `bytes`; gives it and its checksum.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), BatchFault> {
        if bytes.len() < BATCH_HEADER_BYTES || bytes[..4] != MAGIC {
            return Err(BatchFault::NoBatch);
        }
        let crc = u32_at(bytes, CRC_AT);
        if crc32c(&bytes[..CRC_AT]) != crc {
            return Err(BatchFault::Damaged);
        }
        let version = u16_at(bytes, 4);
        if version > FORMAT_VERSION {
            return Err(BatchFault::Newer(version));
        }
        let header = Self {
            store_tag: u64_at(bytes, 8),
            lane: LaneId(u16_at(bytes, 16)),
            segment: SegmentId(u32_at(bytes, 20)),
            incarnation: Incarnation(u64_at(bytes, 24)),
            offset: u32_at(bytes, 32),
            bytes: u32_at(bytes, 36),
            first_lsn: Lsn(u64_at(bytes, 40)),
            records: u32_at(bytes, 48),
            record_bytes: u32_at(bytes, 52),
            durable_lsn: Lsn(u64_at(bytes, 56)),
            base_lsn: Lsn(u64_at(bytes, 64)),
            previous: u32_at(bytes, 72),
            payload_crc: u32_at(bytes, 76),
        };
        let can_say = version >= version_of(header.bytes as usize);
        if can_say && header.is_consistent() { Ok((header, crc)) } else { Err(BatchFault::Damaged) }
    }

    fn is_consistent(&self) -> bool {
        let bytes = self.bytes as usize;
        let record_bytes = self.record_bytes as usize;
        bytes.is_multiple_of(BLOCK_BYTES)
            && (BLOCK_BYTES..=BATCH_BYTES_MAX).contains(&bytes)
            && record_bytes <= bytes - BATCH_HEADER_BYTES
            && self.records as usize <= record_bytes / RECORD_HEADER_BYTES
            && self.first_lsn.0 > 0
            && self.first_lsn.0.checked_add(u64::from(self.records)).is_some()
    }

    /// LSN of the last record; `first_lsn - 1` in a marker.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.records) - 1)
    }

    /// True if this header says that it belongs to `place` at `offset`.
    pub fn is_at(&self, place: &Place, offset: u32) -> bool {
        self.store_tag == place.store.tag()
            && (self.lane, self.segment) == (place.lane, place.segment)
            && self.incarnation == place.incarnation
            && self.offset == offset
    }
}
