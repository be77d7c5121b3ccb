//! A batch in memory: records gathered in an aligned buffer until they are written as one.
//!
//! The first [`BATCH_HEADER_BYTES`] of the buffer stay free for the header, which is written last, when the
//! place of the batch is known. A batch whose write failed is sealed a second time for another segment: same
//! records, same LSNs, new header and newly bound checksums.

use crate::buffer::AlignedBuf;
use crate::checksum::crc32c;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::format::record::{self, Kind, RecordView, record_bytes, record_stride};
use crate::format::{Lsn, Place};
use crate::io::BLOCK_BYTES;
use crate::lane::RecordLoc;
use crate::lane::write::Active;

/// What is known of a batch while its buffer is with the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchMeta {
    pub first_lsn: Lsn,
    pub records: u32,
    pub record_bytes: usize,
    /// Offset and salt the records are bound to, if the batch was sealed.
    bound: Option<(u32, u32)>,
}

/// A batch and its buffer.
#[derive(Debug)]
pub(crate) struct Batch {
    pub meta: BatchMeta,
    pub buf: AlignedBuf,
}

impl BatchMeta {
    /// Length on disk.
    pub fn bytes(&self) -> usize {
        (BATCH_HEADER_BYTES + self.record_bytes).next_multiple_of(BLOCK_BYTES)
    }

    /// LSN of the last record; `first_lsn - 1` if there is none.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.records) - 1)
    }

    /// Where the first record is or will be, for a batch at `offset`.
    fn records_at(offset: u32) -> u32 {
        offset + BATCH_HEADER_BYTES as u32
    }

    /// The records of a sealed batch, each with its place.
    pub fn records<'a>(
        &self,
        buf: &'a [u8],
        active: &Active,
        offset: u32,
    ) -> impl Iterator<Item = (RecordLoc, RecordView<'a>)> {
        let segment = active.place.segment;
        let bytes = &buf[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + self.record_bytes];
        record::walk(bytes).map(move |(at, record)| {
            let len = record_bytes(record.payload.len()) as u32;
            (RecordLoc { segment, offset: Self::records_at(offset) + at as u32, len }, record)
        })
    }
}

impl Batch {
    /// An empty batch whose first record will get `first_lsn`.
    pub fn new(buf: AlignedBuf, first_lsn: Lsn) -> Self {
        Self { meta: BatchMeta { first_lsn, records: 0, record_bytes: 0, bound: None }, buf }
    }

    /// True if a record with this payload fits in. A batch that was sealed takes no more records.
    pub fn has_room(&self, payload_bytes: usize) -> bool {
        let end = BATCH_HEADER_BYTES + self.meta.record_bytes + record_stride(payload_bytes);
        self.meta.bound.is_none() && end <= self.buf.len()
    }

    /// Length on disk if a record with this payload were added.
    pub fn bytes_with(&self, payload_bytes: usize) -> usize {
        let end = BATCH_HEADER_BYTES + self.meta.record_bytes + record_stride(payload_bytes);
        end.next_multiple_of(BLOCK_BYTES)
    }

    /// Copies a record in and returns its LSN. The caller has asked [`Batch::has_room`].
    pub fn push(&mut self, kind: Kind, expires_s: u32, parts: &[&[u8]]) -> Lsn {
        let lsn = self.meta.last_lsn().next();
        let out = &mut self.buf[BATCH_HEADER_BYTES + self.meta.record_bytes..];
        self.meta.record_bytes += record::encode(out, lsn, kind, expires_s, parts);
        self.meta.records += 1;
        lsn
    }

    /// Makes the batch ready to be written at the end of `active`; returns the checksum of its header.
    pub fn seal(&mut self, active: &Active, durable_lsn: Lsn) -> u32 {
        let Place { store, lane, segment, incarnation } = active.place;
        let (offset, bytes) = (active.end, self.meta.bytes());
        let used = BATCH_HEADER_BYTES + self.meta.record_bytes;
        let records = &mut self.buf[BATCH_HEADER_BYTES..used];
        if let Some((offset, salt)) = self.meta.bound {
            record::bind(records, offset, salt);
        }
        let target = (BatchMeta::records_at(offset), active.place.salt());
        record::bind(records, target.0, target.1);
        self.meta.bound = Some(target);
        self.buf[used..bytes].fill(0);
        let header = BatchHeader {
            store_tag: store.tag(),
            lane,
            segment,
            incarnation,
            offset,
            bytes: bytes as u32,
            first_lsn: self.meta.first_lsn,
            records: self.meta.records,
            record_bytes: self.meta.record_bytes as u32,
            durable_lsn,
            base_lsn: active.base_lsn,
            previous: active.chain,
            payload_crc: crc32c(&self.buf[BATCH_HEADER_BYTES..bytes]),
        };
        header.encode(&mut self.buf)
    }
}
