//! The first block of a segment file: which use of the file this is, and which other segments hold live
//! records.
//!
//! The list of sealed segments makes loss visible that no segment could show by itself: a file that is gone,
//! a sealed segment whose end rotted, a segment that was free and whose old records must not come back.

use crate::checksum::crc32c;
use crate::format::field::{bytes_at, is_blank, put, u16_at, u32_at, u64_at};
use crate::format::{FORMAT_VERSION, Incarnation, Lsn, Place, StoreId};
use crate::io::{BLOCK_BYTES, LaneId, SegmentId};

const MAGIC: [u8; 8] = *b"TRINESEG";
const ENTRIES_AT: usize = 128;
const ENTRY_BYTES: usize = 40;
const CRC_AT: usize = BLOCK_BYTES - 4;

/// Sealed segments that a header can list.
pub const SEALED_MAX: usize = 96;
const _: () = assert!(ENTRIES_AT + SEALED_MAX * ENTRY_BYTES <= CRC_AT);

/// The header of one use of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Store, lane, segment and use.
    pub place: Place,
    /// The use before this one, 0 on the first: tells stale bytes from torn ones.
    pub previous: Incarnation,
    /// LSN of the first record of this use. No record of an earlier use with this LSN or a higher one counts.
    pub base_lsn: Lsn,
    /// Size of every segment file of the store.
    pub segment_bytes: u64,
    /// Wall clock when the process that wrote this opened the lane, in milliseconds since 1970. For people.
    pub opened_ms: u64,
    /// Every other segment with live records at the time of writing, at most [`SEALED_MAX`].
    pub sealed: Vec<SealedSegment>,
}

/// A segment that gets no more records, as a later header vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// The file.
    pub segment: SegmentId,
    /// Its use.
    pub incarnation: Incarnation,
    /// End of its last batch, in bytes from the start of the file.
    pub end: u32,
    /// LSN of its first record.
    pub base_lsn: Lsn,
    /// LSN of its last acknowledged record; `base_lsn - 1` if it has none.
    pub last_lsn: Lsn,
    /// Records in that range whose loss was reported and dealt with.
    pub known_lost: u32,
}

/// Why a block is no header of a segment of this lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// All zeros: the file was prepared and never used.
    Blank,
    /// No magic, wrong checksum, or fields that contradict each other.
    Damaged,
    /// A sound header of another store, lane or segment.
    Foreign,
    /// Written by a later version of this software.
    Newer(u16),
}

impl SegmentHeader {
    /// Fills `block` ([`BLOCK_BYTES`] long) and returns its checksum, with which the chain of batches starts.
    pub fn encode(&self, block: &mut [u8]) -> u32 {
        assert_eq!(block.len(), BLOCK_BYTES);
        assert!(self.sealed.len() <= SEALED_MAX);
        block.fill(0);
        put(block, 0, &MAGIC);
        put(block, 8, &FORMAT_VERSION.to_le_bytes());
        put(block, 10, &self.place.lane.0.to_le_bytes());
        put(block, 12, &self.place.segment.0.to_le_bytes());
        put(block, 16, &self.place.store.0);
        put(block, 32, &self.place.incarnation.0.to_le_bytes());
        put(block, 40, &self.previous.0.to_le_bytes());
        put(block, 48, &self.base_lsn.0.to_le_bytes());
        put(block, 56, &self.segment_bytes.to_le_bytes());
        put(block, 64, &self.opened_ms.to_le_bytes());
        put(block, 72, &(self.sealed.len() as u32).to_le_bytes());
        for (index, sealed) in self.sealed.iter().enumerate() {
            sealed.encode(&mut block[ENTRIES_AT + index * ENTRY_BYTES..][..ENTRY_BYTES]);
        }
        let crc = crc32c(&block[..CRC_AT]);
        put(block, CRC_AT, &crc.to_le_bytes());
        crc
    }

    /// Reads the first block of the file of `segment`; gives the header and its checksum.
    pub fn decode(
        block: &[u8],
        store: StoreId,
        lane: LaneId,
        segment: SegmentId,
    ) -> Result<(Self, u32), HeaderFault> {
        if block.len() != BLOCK_BYTES || block[..8] != MAGIC {
            return Err(if is_blank(block) { HeaderFault::Blank } else { HeaderFault::Damaged });
        }
        let crc = u32_at(block, CRC_AT);
        if crc32c(&block[..CRC_AT]) != crc {
            return Err(HeaderFault::Damaged);
        }
        let version = u16_at(block, 8);
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        let header = Self::parse(block).ok_or(HeaderFault::Damaged)?;
        let place = &header.place;
        if (place.store, place.lane, place.segment) != (store, lane, segment) {
            return Err(HeaderFault::Foreign);
        }
        Ok((header, crc))
    }

    fn parse(block: &[u8]) -> Option<Self> {
        let place = Place {
            store: StoreId(bytes_at(block, 16)),
            lane: LaneId(u16_at(block, 10)),
            segment: SegmentId(u32_at(block, 12)),
            incarnation: Incarnation(u64_at(block, 32)),
        };
        let count = u32_at(block, 72) as usize;
        if count > SEALED_MAX {
            return None;
        }
        let entries = block[ENTRIES_AT..].chunks_exact(ENTRY_BYTES).take(count);
        Some(Self {
            place,
            previous: Incarnation(u64_at(block, 40)),
            base_lsn: Lsn(u64_at(block, 48)),
            segment_bytes: u64_at(block, 56),
            opened_ms: u64_at(block, 64),
            sealed: entries.map(SealedSegment::decode).collect::<Option<_>>()?,
        })
    }
}

impl SealedSegment {
    fn encode(&self, entry: &mut [u8]) {
        put(entry, 0, &self.segment.0.to_le_bytes());
        put(entry, 4, &self.end.to_le_bytes());
        put(entry, 8, &self.incarnation.0.to_le_bytes());
        put(entry, 16, &self.base_lsn.0.to_le_bytes());
        put(entry, 24, &self.last_lsn.0.to_le_bytes());
        put(entry, 32, &self.known_lost.to_le_bytes());
    }

    fn decode(entry: &[u8]) -> Option<Self> {
        let sealed = Self {
            segment: SegmentId(u32_at(entry, 0)),
            end: u32_at(entry, 4),
            incarnation: Incarnation(u64_at(entry, 8)),
            base_lsn: Lsn(u64_at(entry, 16)),
            last_lsn: Lsn(u64_at(entry, 24)),
            known_lost: u32_at(entry, 32),
        };
        let in_order = sealed.base_lsn <= Lsn(sealed.last_lsn.0.checked_add(1)?);
        (in_order && (sealed.end as usize).is_multiple_of(BLOCK_BYTES)).then_some(sealed)
    }
}
