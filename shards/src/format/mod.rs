//! The bytes on disk: segment header, batch header, record. The only code that reads or writes them.
//!
//! All integers are little endian. Every decoder takes any bytes, never panics, and allocates nothing that
//! grows with a number it read: lengths are checked against the slice at hand before they are used. A
//! structure says where it belongs (store, lane, segment, incarnation, offset), so that bytes in the wrong
//! place are told from bytes gone bad.
//!
//! Called by `lane` to write, by `recovery` and reads to parse. The tables are in `docs/ON_DISK.md`; a digest
//! of the encoded examples is kept in the tests, so that a layout cannot change unnoticed.

pub mod batch;
pub(crate) mod field;
#[cfg(test)]
mod long_header_tests;
pub mod record;
pub mod segment;
#[cfg(test)]
mod tests;

use crate::checksum::crc32c;
use crate::io::{LaneId, SegmentId};

/// Highest version of the layout of segments, batches and records that this code reads. Each structure is
/// written with the lowest version that can say it, so that older software reads on for as long as it can.
pub const FORMAT_VERSION: u16 = 2;
/// Longest batch, header and padding included, in bytes: a payload of 1 MiB and what goes before it fit. One
/// I/O of the recovery scan covers any batch.
pub const BATCH_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// Segments a lane may have: as many as one segment header can list.
pub const SEGMENTS_MAX: usize = segment::SEALED_MAX;

/// Log sequence number: position of a record in the log of its lane. The first is 1; 0 stands for "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The LSN after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The LSN before this one, or [`Lsn`] 0 before the first.
    pub(crate) fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// One use of a segment file, rising within a lane. Bytes of an earlier use never pass for bytes of this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Identity of a store, random, made when it was formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// The first 8 bytes, which every batch repeats.
    pub(crate) fn tag(self) -> u64 {
        field::u64_at(&self.0, 0)
    }
}

/// Where a batch belongs: everything that makes its bytes valid here and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Store of the lane.
    pub store: StoreId,
    /// Lane of the segment.
    pub lane: LaneId,
    /// The segment file.
    pub segment: SegmentId,
    /// The use of the file.
    pub incarnation: Incarnation,
}

impl Place {
    /// The number mixed into the checksum of every record of this use of this segment.
    pub(crate) fn salt(&self) -> u32 {
        let mut bytes = [0; 30];
        bytes[..16].copy_from_slice(&self.store.0);
        bytes[16..18].copy_from_slice(&self.lane.0.to_le_bytes());
        bytes[18..22].copy_from_slice(&self.segment.0.to_le_bytes());
        bytes[22..].copy_from_slice(&self.incarnation.0.to_le_bytes());
        crc32c(&bytes)
    }
}
