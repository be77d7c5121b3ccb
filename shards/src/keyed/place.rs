//! A place in a partition as the index keeps it: lane, segment, offset, length and hour of expiry in 64 bits.
//!
//! | bits from the top | what |
//! |---|---|
//! | 2 | class of the lane |
//! | 13 | segment |
//! | 24 | offset in units of 64 bytes: segments up to 1 GiB |
//! | 12 | length: below 2,048 in units of 64 bytes, from there on 2,048 more than its KiB |
//! | 13 | hour of expiry, see [`crate::index::Due`] |
//!
//! So a record begins at a multiple of 64 bytes, and its length is a multiple of 64 bytes, or of 1 KiB if it
//! is longer than 128 KiB less 64 bytes. [`padding`] is what that costs: less than a hundredth.

use crate::format::record::RECORD_HEADER_BYTES;
use crate::index::{Due, Place};
use crate::io::SegmentId;
use crate::keyed::Class;
use crate::lane::RecordLoc;

/// Records begin at multiples of this many bytes.
const UNIT_BYTES: usize = 64;
/// Lengths above [`FINE_MAX`] units are multiples of this many bytes.
const COARSE_BYTES: usize = 1 << 10;
/// Longest length counted in [`UNIT_BYTES`].
const FINE_MAX: usize = (1 << 11) - 1;
/// Largest segment that a place can point into, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = (UNIT_BYTES as u64) << OFFSET_BITS;

const OFFSET_BITS: u32 = 24;
const LENGTH_AT: u32 = 13;
const OFFSET_AT: u32 = LENGTH_AT + 12;
const SEGMENT_AT: u32 = OFFSET_AT + OFFSET_BITS;
const CLASS_AT: u32 = SEGMENT_AT + 13;

/// Zeros to put behind a payload of `payload_bytes`, so that its record has a length that a place can say.
pub(super) fn padding(payload_bytes: usize) -> usize {
    let bytes = RECORD_HEADER_BYTES + payload_bytes;
    let unit = if bytes.div_ceil(UNIT_BYTES) <= FINE_MAX { UNIT_BYTES } else { COARSE_BYTES };
    bytes.next_multiple_of(unit) - bytes
}

/// The place of a record; `None` if no place can say where it is, which no record of a partition is.
pub(super) fn pack(class: Class, loc: RecordLoc, due: Due) -> Option<Place> {
    let (offset, len) = (loc.offset as usize, loc.len as usize);
    let length = match len / UNIT_BYTES {
        units if units <= FINE_MAX => len.is_multiple_of(UNIT_BYTES).then_some(units)?,
        _ => len.is_multiple_of(COARSE_BYTES).then_some(FINE_MAX + 1 + len / COARSE_BYTES)?,
    };
    let fits = offset.is_multiple_of(UNIT_BYTES) && loc.segment.0 < 1 << 13 && length < 1 << 12;
    let bits = (class as u64) << CLASS_AT
        | u64::from(loc.segment.0) << SEGMENT_AT
        | ((offset / UNIT_BYTES) as u64) << OFFSET_AT
        | (length as u64) << LENGTH_AT;
    (fits && loc.offset as u64 / (UNIT_BYTES as u64) < 1 << OFFSET_BITS).then(|| Place(bits).with_due(due))
}

/// Lane and place in it.
pub(super) fn unpack(place: Place) -> (Class, RecordLoc) {
    let field = |at: u32, bits: u32| (place.0 >> at & ((1 << bits) - 1)) as usize;
    let length = field(LENGTH_AT, 12);
    let len = match length {
        0..=FINE_MAX => length * UNIT_BYTES,
        _ => (length - FINE_MAX - 1) * COARSE_BYTES,
    };
    let loc = RecordLoc {
        segment: SegmentId(field(SEGMENT_AT, 13) as u32),
        offset: (field(OFFSET_AT, OFFSET_BITS) * UNIT_BYTES) as u32,
        len: len as u32,
    };
    (Class::ALL[field(CLASS_AT, 2).min(Class::ALL.len() - 1)], loc)
}

/// True if both are the same record, whatever its expiry.
pub(super) fn is_same(a: Place, b: Place) -> bool {
    a.with_due(Due::LATER) == b.with_due(Due::LATER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_place_says_where_any_padded_record_lies(
            class in 0..3usize, segment in 0..8_192u32, unit in 0..1u32 << 24, payload in 0..1_100_000usize,
        ) {
            let len = (RECORD_HEADER_BYTES + payload + padding(payload)) as u32;
            prop_assert!(padding(payload) < 64 || padding(payload) * 100 < payload);
            let loc = RecordLoc { segment: SegmentId(segment), offset: unit * 64, len };
            let place = pack(Class::ALL[class], loc, Due::LATER).unwrap();
            prop_assert_eq!(unpack(place), (Class::ALL[class], loc));
            prop_assert_eq!(place.due(), Due::LATER);
        }
    }

    #[test]
    fn what_no_place_can_say_is_refused() {
        let loc = RecordLoc { segment: SegmentId(0), offset: 64, len: 128 };
        assert!(pack(Class::Days, loc, Due::LATER).is_some());
        for wrong in [
            RecordLoc { offset: 65, ..loc },
            RecordLoc { segment: SegmentId(8_192), ..loc },
            RecordLoc { len: 130, ..loc },
            RecordLoc { len: 131_072 + 64, ..loc },
            RecordLoc { len: 4 << 20, ..loc },
            RecordLoc { offset: 1 << 30, ..loc },
        ] {
            assert_eq!(pack(Class::Days, wrong, Due::LATER), None, "{wrong:?}");
        }
    }
}
