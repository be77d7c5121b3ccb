//! Segment headers of several blocks, and batches longer than format version 1 can say.

use crate::checksum::crc32c;
use crate::format::BATCH_BYTES_MAX;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchFault, BatchHeader};
use crate::format::segment::{HEADER_BYTES_MAX, HeaderFault, SEALED_MAX, SegmentHeader, header_bytes};
use crate::format::tests::{PLACE, batch_header, digest, header_listing};
use crate::io::BLOCK_BYTES;
use crate::testing::SECTOR_BYTES;
use proptest::prelude::*;

const FIRST_CRC_AT: usize = BLOCK_BYTES - 4;

fn encoded(entries: usize) -> Vec<u8> {
    let header = header_listing(entries);
    let mut bytes = vec![0xFF; header.bytes()];
    header.encode(&mut bytes);
    bytes
}

fn decode(front: &[u8]) -> Result<(SegmentHeader, u32), HeaderFault> {
    SegmentHeader::decode(front, PLACE.store, PLACE.lane, PLACE.segment)
}

fn seal(bytes: &mut [u8], from: usize, crc_at: usize) {
    let crc = crc32c(&bytes[from..crc_at]);
    bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Changes bytes behind the decoder's back, with checksums that are right all the same.
fn edited(mut bytes: Vec<u8>, edits: &[(usize, u8)]) -> Vec<u8> {
    edits.iter().for_each(|(at, byte)| bytes[*at] = *byte);
    seal(&mut bytes, 0, FIRST_CRC_AT);
    if bytes.len() > BLOCK_BYTES {
        let crc_at = bytes.len() - 4;
        seal(&mut bytes, FIRST_CRC_AT, crc_at);
    }
    bytes
}

/// A change of this test's numbers is a change of the format.
#[test]
fn the_encoded_bytes_are_those_of_format_version_2() {
    let mut batch = vec![0xFF; BATCH_HEADER_BYTES];
    BatchHeader { bytes: BATCH_BYTES_MAX as u32, ..batch_header() }.encode(&mut batch);
    let digests = [digest(&encoded(97)), digest(&encoded(SEALED_MAX)), digest(&batch)];
    assert_eq!(
        digests,
        [
            "0785617fb3f4bd56bd3108309686b54d",
            "d802de6fb13dfdeaa2d47040a76bc065",
            "ffa17a6f2d845bc3cc2b9f8f11b947ce"
        ]
    );
}

#[test]
fn a_header_takes_the_fewest_blocks_that_hold_its_list_and_the_lowest_version_that_can_say_it() {
    let cases = [(0, 1), (96, 1), (97, 2), (198, 2), (199, 3), (300, 3), (301, 4), (SEALED_MAX, 81)];
    for (entries, blocks) in cases {
        assert_eq!(header_bytes(entries), blocks * BLOCK_BYTES, "{entries}");
        let bytes = encoded(entries);
        assert_eq!(bytes.len(), blocks * BLOCK_BYTES, "{entries}");
        assert_eq!(bytes[8], if blocks == 1 { 1 } else { 2 }, "version for {entries}");
        assert_eq!(bytes[76], if blocks == 1 { 0 } else { blocks as u8 }, "blocks for {entries}");
        assert_eq!(SegmentHeader::bytes_claimed(&bytes[..BLOCK_BYTES]), Ok(bytes.len()));
        let (header, crc) = decode(&bytes).unwrap();
        assert_eq!(header, header_listing(entries));
        assert_eq!(crc.to_le_bytes(), bytes[bytes.len() - 4..], "the chain starts from the last field");
        let longer = [bytes.as_slice(), &[0xAB; BLOCK_BYTES]].concat();
        assert_eq!(decode(&longer).unwrap().0, header, "what follows is not looked at");
    }
    assert_eq!(header_bytes(SEALED_MAX), HEADER_BYTES_MAX);
}

/// What version 0.1.0 does with a first block: magic, the checksum at its end, then the version.
#[test]
fn software_that_knows_only_version_1_finds_a_sound_block_of_a_later_version() {
    for entries in [97, SEALED_MAX] {
        let bytes = encoded(entries);
        assert_eq!(&bytes[..8], b"TRINESEG");
        assert_eq!(crc32c(&bytes[..FIRST_CRC_AT]).to_le_bytes(), bytes[FIRST_CRC_AT..BLOCK_BYTES]);
        assert!(u16::from_le_bytes([bytes[8], bytes[9]]) > 1);
    }
}

#[test]
fn a_header_whose_number_of_blocks_is_not_that_of_its_list_is_damaged() {
    for claimed in [0, 1, 2, 4, 81, 82, u32::MAX / 4096 + 1, u32::MAX] {
        let edits: Vec<_> = (76..80).zip(claimed.to_le_bytes()).collect();
        let bytes = edited(encoded(199), &edits);
        let first = &bytes[..BLOCK_BYTES];
        assert_eq!(SegmentHeader::bytes_claimed(first), Err(HeaderFault::Damaged), "{claimed}");
        assert_eq!(decode(&bytes), Err(HeaderFault::Damaged), "{claimed}");
    }
    for entries in [96, 198, 301, SEALED_MAX as u32 + 1, u32::MAX] {
        let edits: Vec<_> = (72..76).zip(entries.to_le_bytes()).collect();
        assert_eq!(decode(&edited(encoded(199), &edits)), Err(HeaderFault::Damaged), "{entries}");
    }
    assert_eq!(
        decode(&edited(encoded(199), &[(8, 1)])),
        Err(HeaderFault::Damaged),
        "version 1 has one block"
    );
    assert_eq!(decode(&edited(encoded(96), &[(8, 2)])), Err(HeaderFault::Damaged), "version 2 has more");
    assert_eq!(decode(&edited(encoded(199), &[(8, 3)])), Err(HeaderFault::Newer(3)));
}

#[test]
fn a_long_header_with_any_byte_changed_is_refused_and_tells_whether_its_use_had_begun() {
    let sound = encoded(199);
    let unfinished = Err(HeaderFault::Unfinished(PLACE.incarnation));
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        let expected = if at < 88 { Err(HeaderFault::Damaged) } else { unfinished.clone() };
        assert_eq!(decode(&bytes), expected, "byte {at}");
    }
    for blocks in 1..3 {
        assert_eq!(decode(&sound[..blocks * BLOCK_BYTES]), unfinished, "{blocks} of 3 blocks");
    }
    let elsewhere =
        SegmentHeader::decode(&sound[..BLOCK_BYTES], PLACE.store, PLACE.lane, crate::io::SegmentId(9));
    assert_eq!(elsewhere, Err(HeaderFault::Foreign));
}

#[test]
fn parts_of_one_header_and_of_another_are_no_header_wherever_they_meet() {
    let (one, mut other) = (encoded(199), header_listing(199));
    other.place.incarnation.0 += 1;
    other.base_lsn.0 += 1;
    let mut begun = vec![0; other.bytes()];
    other.encode(&mut begun);
    for cut in (SECTOR_BYTES..begun.len()).step_by(SECTOR_BYTES) {
        let mixed = [&begun[..cut], &one[cut..]].concat();
        let fault = decode(&mixed).expect_err("a header of two halves");
        assert_eq!(fault, HeaderFault::Unfinished(other.place.incarnation), "{cut}");
    }
}

#[test]
fn a_batch_is_of_version_1_as_long_as_that_can_say_it() {
    let encoded = |bytes: usize| {
        let mut out = vec![0; BATCH_HEADER_BYTES];
        BatchHeader { bytes: bytes as u32, ..batch_header() }.encode(&mut out);
        out
    };
    let decode = |bytes: &[u8]| BatchHeader::decode(bytes).map(|(header, _)| header.bytes as usize);
    for (bytes, version) in [(8192, 1), (1 << 20, 1), ((1 << 20) + BLOCK_BYTES, 2), (BATCH_BYTES_MAX, 2)] {
        assert_eq!(encoded(bytes)[4], version, "{bytes}");
        assert_eq!(decode(&encoded(bytes)), Ok(bytes));
    }
    assert_eq!(decode(&encoded(BATCH_BYTES_MAX + BLOCK_BYTES)), Err(BatchFault::Damaged));
    let mut early = encoded(BATCH_BYTES_MAX);
    early[4] = 1;
    seal(&mut early, 0, BATCH_HEADER_BYTES - 4);
    assert_eq!(decode(&early), Err(BatchFault::Damaged), "version 1 ends at 1 MiB");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_long_header_under_right_checksums_lists_no_more_than_was_read(
        entries in 97_usize..400,
        edits in proptest::collection::vec((0..BLOCK_BYTES, any::<u8>()), 0..4),
        fields in proptest::collection::vec((72_usize..80, any::<u8>()), 0..3),
        cut in 0..5_usize,
    ) {
        let bytes = edited(edited(encoded(entries), &edits), &fields);
        let cut = bytes.len().min(cut * BLOCK_BYTES);
        for front in [&bytes[..], &bytes[..cut]] {
            if let Ok((header, _)) = decode(front) {
                prop_assert!(header.bytes() <= front.len());
            }
        }
        if let Ok(claimed) = SegmentHeader::bytes_claimed(&bytes[..BLOCK_BYTES]) {
            prop_assert!(claimed <= HEADER_BYTES_MAX);
        }
    }

    #[test]
    fn a_first_block_of_any_bytes_claims_a_bounded_length_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..2 * BLOCK_BYTES),
        version in 0..4_u8,
    ) {
        let mut block = bytes;
        if block.len() >= BLOCK_BYTES {
            block[..8].copy_from_slice(b"TRINESEG");
            (block[8], block[9]) = (version, 0);
            seal(&mut block, 0, FIRST_CRC_AT);
        }
        let _ = decode(&block);
        let first = &block[..block.len().min(BLOCK_BYTES)];
        if let Ok(claimed) = SegmentHeader::bytes_claimed(first) {
            prop_assert!(claimed <= HEADER_BYTES_MAX && claimed.is_multiple_of(BLOCK_BYTES));
        }
    }
}
