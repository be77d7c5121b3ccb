//! Operation ids of a lane: they say what the operation was, so that nothing need be looked up when it ends.

use crate::format::SEGMENTS_MAX;
use crate::io::{OpId, SegmentId};
use crate::lane::Lane;

/// What an operation of a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpClass {
    /// Writes a batch or a segment header.
    Write,
    /// Prepares a segment.
    Prepare,
    /// Reads from this segment.
    Read(SegmentId),
}

/// Bits of a segment number.
const SEGMENT_BITS: u32 = 13;
const SEGMENT_MASK: u64 = (1 << SEGMENT_BITS) - 1;
/// Bits that say which class an operation is of.
const CLASS_BITS: u32 = 2;
const CLASS_MASK: u64 = (1 << CLASS_BITS) - 1;
const _: () = assert!(SEGMENTS_MAX <= 1 << SEGMENT_BITS);

impl Lane {
    /// A fresh id: a running number above the segment and the class. There are ids for 2^49 operations.
    pub(crate) fn next_op(&mut self, class: OpClass) -> OpId {
        self.ops_issued += 1;
        let low = match class {
            OpClass::Write => 0,
            OpClass::Prepare => 1,
            OpClass::Read(segment) => 2 | (u64::from(segment.0) & SEGMENT_MASK) << CLASS_BITS,
        };
        OpId(self.ops_issued << (SEGMENT_BITS + CLASS_BITS) | low)
    }
}

/// The segment that the operation with this id reads from; `None` if it does something else.
pub(crate) fn segment_of_read(op: OpId) -> Option<SegmentId> {
    match class_of(op) {
        Some(OpClass::Read(segment)) => Some(segment),
        _ => None,
    }
}

/// What the operation with this id does; `None` for an id that no lane makes.
pub(crate) fn class_of(op: OpId) -> Option<OpClass> {
    match op.0 & CLASS_MASK {
        0 => Some(OpClass::Write),
        1 => Some(OpClass::Prepare),
        2 => Some(OpClass::Read(SegmentId((op.0 >> CLASS_BITS & SEGMENT_MASK) as u32))),
        _ => None,
    }
}
