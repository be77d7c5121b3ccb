//! The codecs: round trips, refusals, and the digest that keeps a format from changing unseen.

use crate::format::batch::{BATCH_HEADER_BYTES, BatchFault, BatchHeader};
use crate::format::record::{self, Kind, RecordView};
use crate::format::segment::{HeaderFault, SEALED_MAX, SealedSegment, SegmentHeader};
use crate::format::{Incarnation, Lsn, Place, StoreId};
use crate::io::{BLOCK_BYTES, LaneId, SegmentId};
use proptest::prelude::*;

pub(super) const PLACE: Place = Place {
    store: StoreId([0xA5; 16]),
    lane: LaneId(0x0102),
    segment: SegmentId(0x0304_0506),
    incarnation: Incarnation(0x0708_090A_0B0C_0D0E),
};

/// As many as format version 1 can list.
const ENTRIES_V1: usize = 96;

fn segment_header() -> SegmentHeader {
    header_listing(ENTRIES_V1)
}

pub(super) fn header_listing(entries: usize) -> SegmentHeader {
    let sealed = |number: u32| SealedSegment {
        segment: SegmentId(number),
        incarnation: Incarnation(u64::from(number) + 100),
        end: (number + 1) * 4096,
        base_lsn: Lsn(u64::from(number) * 1000 + 1),
        last_lsn: Lsn(u64::from(number) * 1000 + 900),
        known_lost: number,
    };
    SegmentHeader {
        place: PLACE,
        previous: Incarnation(55),
        base_lsn: Lsn(123_456),
        segment_bytes: 1 << 28,
        opened_ms: 1_700_000_000_000,
        sealed: (0..entries as u32).map(sealed).collect(),
    }
}

pub(super) fn batch_header() -> BatchHeader {
    BatchHeader {
        store_tag: PLACE.store.tag(),
        lane: PLACE.lane,
        segment: PLACE.segment,
        incarnation: PLACE.incarnation,
        offset: 0x0011_0000,
        bytes: 8192,
        first_lsn: Lsn(77),
        records: 3,
        record_bytes: 5000,
        durable_lsn: Lsn(76),
        base_lsn: Lsn(50),
        previous: 0xDEAD_BEEF,
        payload_crc: 0x1234_5678,
    }
}

fn record_bytes() -> Vec<u8> {
    let mut out = vec![0xFF; 256];
    let stride =
        record::encode(&mut out, Lsn(99), Kind::DedupWindow, 1_800_000_000, &[b"abc", b"", b"defgh"]);
    record::bind(&mut out[..stride], 128, PLACE.salt());
    out.truncate(stride);
    out
}

pub(super) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}

/// A change of this test's numbers is a change of the format: raise `FORMAT_VERSION` and keep reading the old
/// one.
#[test]
fn the_encoded_bytes_are_those_of_format_version_1() {
    let mut block = vec![0xFF; BLOCK_BYTES];
    segment_header().encode(&mut block);
    let mut batch = vec![0xFF; BATCH_HEADER_BYTES];
    batch_header().encode(&mut batch);
    let digests = [digest(&block), digest(&batch), digest(&record_bytes())];
    assert_eq!(
        digests,
        [
            "b5382f35aa66bcf98a9199b5cfc56a51",
            "29c780bb7c1591e50a9c2a6660972d3e",
            "09755030c1a967a105583b15895947f8"
        ]
    );
}

#[test]
fn a_segment_header_reads_back_as_written_and_only_where_it_belongs() {
    let header = segment_header();
    let mut block = vec![0; BLOCK_BYTES];
    let crc = header.encode(&mut block);
    let decode = |store, lane, segment| SegmentHeader::decode(&block, store, lane, segment);
    assert_eq!(decode(PLACE.store, PLACE.lane, PLACE.segment), Ok((header, crc)));
    assert_eq!(decode(StoreId([0; 16]), PLACE.lane, PLACE.segment), Err(HeaderFault::Foreign));
    assert_eq!(decode(PLACE.store, LaneId(9), PLACE.segment), Err(HeaderFault::Foreign));
    assert_eq!(decode(PLACE.store, PLACE.lane, SegmentId(9)), Err(HeaderFault::Foreign));
    let blank = SegmentHeader::decode(&[0; BLOCK_BYTES], PLACE.store, PLACE.lane, PLACE.segment);
    assert_eq!(blank, Err(HeaderFault::Blank));
}

#[test]
fn a_header_with_any_single_bit_flipped_is_refused() {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch_header().encode(&mut batch);
    for bit in 0..batch.len() * 8 {
        let mut flipped = batch.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(BatchHeader::decode(&flipped).is_err(), "bit {bit}");
    }
    let record = record_bytes();
    for bit in 0..(record::RECORD_HEADER_BYTES + 8) * 8 {
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(record::parse_bound(&flipped, 128, PLACE.salt()), None, "bit {bit}");
    }
}

#[test]
fn a_later_format_version_is_named_and_not_guessed_at() {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch_header().encode(&mut batch);
    batch[4] = 3;
    let crc = crate::checksum::crc32c(&batch[..BATCH_HEADER_BYTES - 4]);
    batch[BATCH_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(BatchHeader::decode(&batch), Err(BatchFault::Newer(3)));
}

#[test]
fn a_record_is_valid_only_at_its_offset_in_its_use_of_its_segment() {
    let bytes = record_bytes();
    let expected =
        RecordView { lsn: Lsn(99), kind: Kind::DedupWindow, expires_s: 1_800_000_000, payload: b"abcdefgh" };
    assert_eq!(record::parse_bound(&bytes, 128, PLACE.salt()), Some(expected));
    assert_eq!(record::parse_bound(&bytes, 136, PLACE.salt()), None);
    let next_use = Place { incarnation: Incarnation(PLACE.incarnation.0 + 1), ..PLACE };
    assert_eq!(record::parse_bound(&bytes, 128, next_use.salt()), None);
    let other_file = Place { segment: SegmentId(PLACE.segment.0 + 1), ..PLACE };
    assert_eq!(record::parse_bound(&bytes, 128, other_file.salt()), None);
}

#[test]
fn a_batch_moved_to_another_place_keeps_its_records_valid_there() {
    let mut bytes = record_bytes();
    record::bind(&mut bytes, 128, PLACE.salt());
    record::bind(&mut bytes, 4224, 0xABCD);
    assert!(record::parse_bound(&bytes, 4224, 0xABCD).is_some());
    assert!(record::parse_bound(&bytes, 128, PLACE.salt()).is_none());
}

/// Random bytes, and bytes that begin like a sound structure and then are damaged, with a right checksum.
fn mutated(sound: Vec<u8>, crc_at: usize) -> impl Strategy<Value = Vec<u8>> {
    let edits = proptest::collection::vec((0..crc_at, any::<u8>()), 0..6);
    edits.prop_map(move |edits| {
        let mut bytes = sound.clone();
        edits.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        let crc = crate::checksum::crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    })
}

fn sound_block() -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    segment_header().encode(&mut block);
    block
}

fn sound_batch() -> Vec<u8> {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch_header().encode(&mut batch);
    batch
}

proptest! {
    #[test]
    fn decoders_take_random_bytes_of_any_length(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let _ = SegmentHeader::decode(&bytes, PLACE.store, PLACE.lane, PLACE.segment);
        let _ = BatchHeader::decode(&bytes);
        let _ = record::parse_bound(&bytes, 8, 1);
        let walked: usize = record::walk(&bytes).map(|(_, record)| record.payload.len()).sum();
        prop_assert!(walked <= bytes.len());
    }

    #[test]
    fn a_batch_header_under_a_right_checksum_still_has_lengths_that_fit(
        bytes in mutated(sound_batch(), BATCH_HEADER_BYTES - 4)
    ) {
        if let Ok((header, _)) = BatchHeader::decode(&bytes) {
            prop_assert!(header.bytes as usize <= crate::format::BATCH_BYTES_MAX);
            prop_assert!(header.record_bytes < header.bytes);
            prop_assert!(header.records <= header.bytes / 24);
        }
    }

    #[test]
    fn a_segment_header_under_a_right_checksum_lists_at_most_what_fits(
        bytes in mutated(sound_block(), BLOCK_BYTES - 4)
    ) {
        if let Ok((header, _)) = SegmentHeader::decode(&bytes, PLACE.store, PLACE.lane, PLACE.segment) {
            prop_assert!(header.sealed.len() <= SEALED_MAX);
        }
    }

    #[test]
    fn any_record_reads_back_as_appended(
        payload in proptest::collection::vec(any::<u8>(), 0..600),
        expires_s: u32,
        lsn in 1..u64::MAX,
        offset: u16,
    ) {
        let mut out = vec![0xEE; 1024];
        let stride = record::encode(&mut out, Lsn(lsn), Kind::Message, expires_s, &[&payload]);
        let offset = u32::from(offset) * 8;
        record::bind(&mut out[..stride], offset, PLACE.salt());
        let expected = RecordView { lsn: Lsn(lsn), kind: Kind::Message, expires_s, payload: &payload };
        prop_assert_eq!(record::parse_bound(&out[..stride], offset, PLACE.salt()), Some(expected));
    }
}
