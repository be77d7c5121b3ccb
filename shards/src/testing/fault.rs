//! What can go wrong with one operation of the simulated disk.

use crate::io::DiskOp;

/// What shall go wrong with the next operation of a class. Faults of one class are used up in the order
/// injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write fails with EIO; a random part of its sectors was changed.
    WriteError,
    /// The write fails with EIO although all of it was written.
    ErrorAfterWrite,
    /// The write fails with EIO, and reads bring what was written all the same, until the machine stops: then
    /// the sectors hold what they held before. So does a cache that gives up a page and calls it clean.
    ErrorThenClean,
    /// The write reports one block less than asked; only that much was changed.
    ShortWrite,
    /// The write reports success and changed nothing.
    LostWrite,
    /// The write reports success and went this many bytes too far (or too near), in the same file.
    MisdirectedWrite(i64),
    /// The read fails with EIO.
    ReadError,
    /// The read reports success and brings what each sector held before it was last written.
    StaleRead,
    /// The read reports success and brings what lies this many bytes further (or nearer) in the same file.
    MisdirectedRead(i64),
    /// The preparation fails with ENOSPC.
    NoSpace,
}

impl Fault {
    pub(super) fn is_for(self, op: &DiskOp) -> bool {
        match self {
            Self::WriteError
            | Self::ErrorAfterWrite
            | Self::ErrorThenClean
            | Self::ShortWrite
            | Self::LostWrite
            | Self::MisdirectedWrite(_) => matches!(op, DiskOp::Write { .. }),
            Self::ReadError | Self::StaleRead | Self::MisdirectedRead(_) => {
                matches!(op, DiskOp::Read { .. })
            }
            Self::NoSpace => matches!(op, DiskOp::Prepare { .. }),
        }
    }
}
