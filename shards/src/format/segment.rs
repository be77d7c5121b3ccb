//! The front of a segment file: which use of the file this is, and which other segments hold live records.
//!
//! The list of sealed segments makes loss visible that no segment could show by itself: a file that is gone,
//! a sealed segment whose end rotted, a segment that was free and whose old records must not come back.
//!
//! The list decides how many blocks a header takes. One block, which lists up to 96 segments, is format
//! version 1. More blocks are version 2: the first is laid out as before and has its own checksum where
//! version 1 has it, so that software which knows only version 1 refuses the header by name and does not take
//! it for damage; the others go on with the list. Their checksum ends the last block. It begins with the
//! first block's checksum, not with that block: the CRC of bytes that end in their own CRC is the same for
//! all bytes, and would not tie the others to the first.
//!
//! A long header is written first block first, because the others overwrite batches of the use before, which
//! an older list may still name. That the file was given up is said by its first sector alone, whose fields
//! have a sum of their own (no CRC, for the same reason): whatever of a write is lost, and however often
//! opening the file is tried again, one such sector is there whole.

use crate::checksum::crc32c;
use crate::format::field::{bytes_at, is_blank, put, u16_at, u32_at, u64_at};
use crate::format::{FORMAT_VERSION, Incarnation, Lsn, Place, StoreId};
use crate::io::{BLOCK_BYTES, LaneId, SegmentId};

const MAGIC: [u8; 8] = *b"TRINESEG";
/// Sum of the fields before it; only in long headers.
const FIELDS_SUM_AT: usize = 80;
const ENTRIES_AT: usize = 128;
const ENTRY_BYTES: usize = 40;
const CRC_BYTES: usize = 4;
/// Checksum of the first block; in a header of one block this is all of it.
const FIRST_CRC_AT: usize = BLOCK_BYTES - CRC_BYTES;
/// Entries in the first block, which is all that version 1 can list.
const FIRST_ENTRIES: usize = 96;
const _: () = assert!(ENTRIES_AT + FIRST_ENTRIES * ENTRY_BYTES <= FIRST_CRC_AT);

/// Sealed segments that a header can list.
pub const SEALED_MAX: usize = 8_192;
/// Bytes of the longest header: 81 blocks.
pub const HEADER_BYTES_MAX: usize = header_bytes(SEALED_MAX);

/// Bytes of a header that lists so many sealed segments: the fewest blocks that hold them.
pub const fn header_bytes(sealed: usize) -> usize {
    let further = sealed.saturating_sub(FIRST_ENTRIES) * ENTRY_BYTES;
    if further == 0 { BLOCK_BYTES } else { BLOCK_BYTES + (further + CRC_BYTES).next_multiple_of(BLOCK_BYTES) }
}

/// The lowest version of the format that can say a header of so many bytes, which is the one it is written
/// with: software that cannot read long headers goes on reading the short ones.
const fn version_of(bytes: usize) -> u16 {
    if bytes == BLOCK_BYTES { 1 } else { 2 }
}

/// The first 8 bytes of BLAKE3 of the fields of a long header.
fn fields_sum(first: &[u8]) -> [u8; 8] {
    bytes_at(blake3::hash(&first[..FIELDS_SUM_AT]).as_bytes(), 0)
}

/// Where the entry with this index stands.
fn entry_at(index: usize) -> usize {
    match index.checked_sub(FIRST_ENTRIES) {
        None => ENTRIES_AT + index * ENTRY_BYTES,
        Some(further) => BLOCK_BYTES + further * ENTRY_BYTES,
    }
}

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

/// Why bytes are no header of a segment of this lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// The first block is all zeros: the file was prepared and never used.
    Blank,
    /// No magic, wrong checksum, or fields that contradict each other.
    Damaged,
    /// The fields of a long header are sound, and the whole of it is not: this use of the file had begun.
    Unfinished(Incarnation),
    /// A sound header of another store, lane or segment.
    Foreign,
    /// Written by a later version of this software.
    Newer(u16),
}

impl SegmentHeader {
    /// Length of the header in bytes, a multiple of a block; the first batch follows.
    pub fn bytes(&self) -> usize {
        header_bytes(self.sealed.len())
    }

    /// Fills `out`, [`SegmentHeader::bytes`] long, and returns its checksum, with which the chain of batches
    /// starts.
    pub fn encode(&self, out: &mut [u8]) -> u32 {
        assert!(self.sealed.len() <= SEALED_MAX && out.len() == self.bytes());
        let blocks = (out.len() / BLOCK_BYTES) as u32;
        out.fill(0);
        put(out, 0, &MAGIC);
        put(out, 8, &version_of(out.len()).to_le_bytes());
        put(out, 10, &self.place.lane.0.to_le_bytes());
        put(out, 12, &self.place.segment.0.to_le_bytes());
        put(out, 16, &self.place.store.0);
        put(out, 32, &self.place.incarnation.0.to_le_bytes());
        put(out, 40, &self.previous.0.to_le_bytes());
        put(out, 48, &self.base_lsn.0.to_le_bytes());
        put(out, 56, &self.segment_bytes.to_le_bytes());
        put(out, 64, &self.opened_ms.to_le_bytes());
        put(out, 72, &(self.sealed.len() as u32).to_le_bytes());
        if blocks > 1 {
            put(out, 76, &blocks.to_le_bytes());
            let sum = fields_sum(out);
            put(out, FIELDS_SUM_AT, &sum);
        }
        for (index, sealed) in self.sealed.iter().enumerate() {
            sealed.encode(&mut out[entry_at(index)..][..ENTRY_BYTES]);
        }
        let first = crc32c(&out[..FIRST_CRC_AT]);
        put(out, FIRST_CRC_AT, &first.to_le_bytes());
        if blocks == 1 {
            return first;
        }
        let crc_at = out.len() - CRC_BYTES;
        let crc = crc32c(&out[FIRST_CRC_AT..crc_at]);
        put(out, crc_at, &crc.to_le_bytes());
        crc
    }

    /// Bytes of the header that begins with `first`, a block: what is to be read before it can be decoded. At
    /// most [`HEADER_BYTES_MAX`].
    pub fn bytes_claimed(first: &[u8]) -> Result<usize, HeaderFault> {
        if first.len() != BLOCK_BYTES || first[..8] != MAGIC {
            return Err(if is_blank(first) { HeaderFault::Blank } else { HeaderFault::Damaged });
        }
        if crc32c(&first[..FIRST_CRC_AT]) != u32_at(first, FIRST_CRC_AT) {
            return Err(HeaderFault::Damaged);
        }
        let (version, count) = (u16_at(first, 8), u32_at(first, 72) as usize);
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        if count > SEALED_MAX {
            return Err(HeaderFault::Damaged);
        }
        let bytes = header_bytes(count);
        let as_said = match version {
            2 => bytes > BLOCK_BYTES && bytes == (u32_at(first, 76) as usize).saturating_mul(BLOCK_BYTES),
            _ => bytes == BLOCK_BYTES,
        };
        as_said.then_some(bytes).ok_or(HeaderFault::Damaged)
    }

    /// Reads the front of the file of `segment`, at least as much as [`SegmentHeader::bytes_claimed`] asks
    /// for; gives the header and its checksum. Less gives a fault, which is worth knowing.
    pub fn decode(
        front: &[u8],
        store: StoreId,
        lane: LaneId,
        segment: SegmentId,
    ) -> Result<(Self, u32), HeaderFault> {
        let first = &front[..front.len().min(BLOCK_BYTES)];
        let is_here = |place: &Place| (place.store, place.lane, place.segment) == (store, lane, segment);
        let begun = || Self::begun(first).filter(is_here).map(|place| place.incarnation);
        let unfinished = || begun().map_or(HeaderFault::Damaged, HeaderFault::Unfinished);
        let bytes = Self::bytes_claimed(first).map_err(|fault| match fault {
            HeaderFault::Damaged => unfinished(),
            other => other,
        })?;
        let place = Self::place(first);
        if !is_here(&place) {
            return Err(HeaderFault::Foreign);
        }
        let front = front.get(..bytes).ok_or_else(unfinished)?;
        let crc_at = bytes - CRC_BYTES;
        let crc = u32_at(front, crc_at);
        if bytes > BLOCK_BYTES && crc32c(&front[FIRST_CRC_AT..crc_at]) != crc {
            return Err(unfinished());
        }
        let entries = (0..u32_at(front, 72) as usize).map(entry_at).map(|at| &front[at..at + ENTRY_BYTES]);
        let sealed = entries.map(SealedSegment::decode).collect::<Option<_>>().ok_or(HeaderFault::Damaged)?;
        let header = Self {
            place,
            previous: Incarnation(u64_at(front, 40)),
            base_lsn: Lsn(u64_at(front, 48)),
            segment_bytes: u64_at(front, 56),
            opened_ms: u64_at(front, 64),
            sealed,
        };
        Ok((header, crc))
    }

    /// The use that a long header is for, if at least its fields are sound.
    fn begun(first: &[u8]) -> Option<Place> {
        let long = first.len() == BLOCK_BYTES && first[..8] == MAGIC && u16_at(first, 8) == 2;
        let sound = long && bytes_at(first, FIELDS_SUM_AT) == fields_sum(first);
        sound.then(|| Self::place(first))
    }

    fn place(first: &[u8]) -> Place {
        Place {
            store: StoreId(bytes_at(first, 16)),
            lane: LaneId(u16_at(first, 10)),
            segment: SegmentId(u32_at(first, 12)),
            incarnation: Incarnation(u64_at(first, 32)),
        }
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
