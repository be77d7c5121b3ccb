//! One record: a fixed header, then bytes that the log does not interpret.
//!
//! The checksum of a record is bound to its place: it is mixed with the use of the segment and the record's
//! offset there. So a read that lands on another record, or on the remains of an earlier use of the file,
//! fails. The mixing is an XOR, so that a batch can be moved to another segment without reading its payloads
//! again.

use crate::checksum::crc32c;
use crate::format::Lsn;
use crate::format::field::{put, u16_at, u32_at, u64_at};

/// Bytes of the header of a record; its payload follows at once.
pub const RECORD_HEADER_BYTES: usize = 24;
/// Records start at multiples of this many bytes within a batch.
pub const RECORD_ALIGN: usize = 8;

/// What a record is. 0 is padding. From 16 on they are found by key: see [`crate::keyed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A message of a mailbox.
    Message = 1,
    /// State of a mailbox: cursors, epoch, devices.
    MailboxState = 2,
    /// Ids that a mailbox has seen.
    DedupWindow = 3,
    /// A shard of a stripe, with its card and lease.
    Shard = 16,
    /// A signed record of the DHT.
    DhtRecord = 17,
    /// What overrules a deleted record.
    Tombstone = 18,
    /// The public keys of somebody, for others to write to them.
    KeyBundle = 19,
    /// A longer life for a record that is there already.
    Lease = 20,
    /// A part of a checkpoint of the index.
    Checkpoint = 21,
}

impl Kind {
    /// The kind with this number on disk.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Message),
            2 => Some(Self::MailboxState),
            3 => Some(Self::DedupWindow),
            16 => Some(Self::Shard),
            17 => Some(Self::DhtRecord),
            18 => Some(Self::Tombstone),
            19 => Some(Self::KeyBundle),
            20 => Some(Self::Lease),
            21 => Some(Self::Checkpoint),
            _ => None,
        }
    }

    /// True for small kinds that say something of other records. They may use the reserve of a full lane.
    pub fn is_metadata(self) -> bool {
        matches!(self, Self::MailboxState | Self::DedupWindow | Self::Tombstone | Self::Lease)
    }
}

/// A record in memory, its payload still in the buffer it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Position in the log.
    pub lsn: Lsn,
    /// What it is.
    pub kind: Kind,
    /// End of life in seconds since 1970; 0 for none. The log passes it on and does not act on it.
    pub expires_s: u32,
    /// The bytes that were appended.
    pub payload: &'a [u8],
}

/// Bytes of a record on disk, without the padding to the next one.
pub fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + payload_bytes
}

/// Bytes from the start of a record to the start of the next.
pub fn record_stride(payload_bytes: usize) -> usize {
    record_bytes(payload_bytes).next_multiple_of(RECORD_ALIGN)
}

/// Writes a record made of `parts` to the front of `out` and returns its stride. It has no place yet: see
/// [`bind`].
pub(crate) fn encode(out: &mut [u8], lsn: Lsn, kind: Kind, expires_s: u32, parts: &[&[u8]]) -> usize {
    let mut end = RECORD_HEADER_BYTES;
    for part in parts {
        put(out, end, part);
        end += part.len();
    }
    let stride = record_stride(end - RECORD_HEADER_BYTES);
    out[end..stride].fill(0);
    put(out, 4, &[kind as u8, 0, 0, 0]);
    put(out, 8, &((end - RECORD_HEADER_BYTES) as u32).to_le_bytes());
    put(out, 12, &expires_s.to_le_bytes());
    put(out, 16, &lsn.0.to_le_bytes());
    let crc = crc32c(&out[4..end]);
    put(out, 0, &crc.to_le_bytes());
    stride
}

/// Binds the records in `records`, the first of which is at `offset` in its segment, to the place with
/// `salt`. Doing it a second time with the same arguments undoes it.
pub(crate) fn bind(records: &mut [u8], offset: u32, salt: u32) {
    let mut at = 0;
    while at < records.len() {
        let bound = u32_at(records, at) ^ salt ^ (offset + at as u32);
        let stride = record_stride(u32_at(records, at + 8) as usize);
        put(records, at, &bound.to_le_bytes());
        at += stride;
    }
}

/// Parses the record at the front of `bytes` by its structure alone; its checksum is not looked at. For bytes
/// that a batch's checksum has covered.
pub fn parse(bytes: &[u8]) -> Option<RecordView<'_>> {
    if bytes.len() < RECORD_HEADER_BYTES || bytes[5] != 0 || u16_at(bytes, 6) != 0 {
        return None;
    }
    let payload_bytes = u32_at(bytes, 8) as usize;
    if payload_bytes > bytes.len() - RECORD_HEADER_BYTES {
        return None;
    }
    Some(RecordView {
        lsn: Lsn(u64_at(bytes, 16)),
        kind: Kind::from_byte(bytes[4])?,
        expires_s: u32_at(bytes, 12),
        payload: &bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_bytes],
    })
}

/// LSN and whole length, without padding, that the header at the front of `bytes` claims. Nothing vouches for
/// them.
pub(crate) fn claims(bytes: &[u8]) -> Option<(Lsn, usize)> {
    let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
    Some((Lsn(u64_at(header, 16)), record_bytes(u32_at(header, 8) as usize)))
}

/// Parses the record at the front of `bytes`, which lies at `offset` of the use of a segment with `salt`;
/// `None` if its checksum or its structure is wrong.
pub fn parse_bound(bytes: &[u8], offset: u32, salt: u32) -> Option<RecordView<'_>> {
    let record = parse(bytes)?;
    let expected = crc32c(&bytes[4..record_bytes(record.payload.len())]) ^ salt ^ offset;
    (u32_at(bytes, 0) == expected).then_some(record)
}

/// The records of `bytes` in order, by structure alone, each with its offset. Ends at the first that cannot
/// be.
pub fn walk(bytes: &[u8]) -> impl Iterator<Item = (usize, RecordView<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let record = parse(bytes.get(at..)?)?;
        let start = at;
        at += record_stride(record.payload.len());
        Some((start, record))
    })
}
