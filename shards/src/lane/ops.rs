//! Operation ids of a lane: they say what the operation was, so that nothing need be looked up when it ends.

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

impl Lane {
    /// A fresh id. Segment numbers stay below 128, so class and segment fit in the low 9 bits.
    pub(crate) fn next_op(&mut self, class: OpClass) -> OpId {
        self.ops_issued += 1;
        let low = match class {
            OpClass::Write => 0,
            OpClass::Prepare => 1,
            OpClass::Read(segment) => 2 | u64::from(segment.0 & 0x7F) << 2,
        };
        OpId(self.ops_issued << 9 | low)
    }
}

/// What the operation with this id does; `None` for an id that no lane makes.
pub(crate) fn class_of(op: OpId) -> Option<OpClass> {
    match op.0 & 3 {
        0 => Some(OpClass::Write),
        1 => Some(OpClass::Prepare),
        2 => Some(OpClass::Read(SegmentId((op.0 >> 2 & 0x7F) as u32))),
        _ => None,
    }
}
