//! The log of one lane: append, group commit, space.
//!
//! **Promise.** A record is reported as committed exactly when the write that holds it completed durably, in
//! LSN order, once. What was reported is found again by [`Lane::recover`], or recovery says that it was lost.
//!
//! **How it runs.** [`Lane::append`] copies a record into the batch being filled. [`Lane::poll`], once per
//! turn, emits disk operations: while no write is in flight, the oldest batch. So the disk itself is the
//! clock: when it is slow, batches grow; when it is idle, a record is written at once. [`Lane::complete`]
//! takes the end of an operation.
//!
//! **Failure model.** A write fails, is short, or succeeds without having happened; a disk is full; power
//! goes at any instant and keeps any part of the writes in flight. A failed write is never repeated in the
//! same segment: the segment is sealed and the batch goes once to a fresh one. If that fails too the lane
//! turns read-only and the records that were waiting are refused. See `docs/ON_DISK.md` for the argument.
//!
//! **Bounds.** Buffers are given at construction; appends that find none free are refused with
//! [`AppendError::Busy`]. One write and one preparation are in flight at most; reads are bounded by the
//! buffers of the caller.

pub mod config;
pub mod ledger;
pub mod read;

mod batch;
mod ops;
mod owner;
#[cfg(test)]
mod reclaim_tests;
pub(crate) mod segments;
mod space;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use std::collections::VecDeque;

use crate::buffer::AlignedBuf;
use crate::format::batch::BATCH_HEADER_BYTES;
use crate::format::record::{Kind, RECORD_HEADER_BYTES};
use crate::format::segment::header_bytes;
use crate::format::{Incarnation, Lsn};
use crate::io::{DiskDone, Errno, OpId, SegmentId};
use batch::Batch;
use config::LaneConfig;
use ledger::Ledger;
#[cfg(test)]
use segments::Role;
use segments::Segments;
use write::{Active, WriteInFlight};

pub(crate) use ops::segment_of_read;
pub use owner::{BatchView, Sealed};
pub use space::{SegmentLoad, Usage};

/// Where a committed record lies in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordLoc {
    /// Segment file.
    pub segment: SegmentId,
    /// Offset in the file, in bytes.
    pub offset: u32,
    /// Length with its header, without padding, in bytes.
    pub len: u32,
}

impl RecordLoc {
    /// Length of the payload, in bytes.
    pub fn payload_bytes(&self) -> u32 {
        self.len.saturating_sub(RECORD_HEADER_BYTES as u32)
    }
}

/// A record that has just become durable. The payload is still in memory.
#[derive(Clone, Copy, Debug)]
pub struct Committed<'a> {
    /// Position in the log, as [`Lane::append`] returned it.
    pub lsn: Lsn,
    /// What it is.
    pub kind: Kind,
    /// End of life in seconds since 1970, as appended.
    pub expires_s: u32,
    /// Where it lies now.
    pub loc: RecordLoc,
    /// The bytes that were appended.
    pub payload: &'a [u8],
}

/// What the end of a disk operation meant.
#[derive(Debug)]
pub enum Completion {
    /// The records from `first` to `last` are durable; each was shown to the visitor.
    Committed {
        /// First of them.
        first: Lsn,
        /// Last of them.
        last: Lsn,
    },
    /// A write that carried no records (a segment header or a marker) succeeded.
    Housekeeping,
    /// A write failed; its batch goes to another segment at the next poll. Nothing was acknowledged. To be
    /// counted.
    WriteFailed(Errno),
    /// The lane is read-only from now on. The records from `first` to `last` are not durable and never will
    /// be: refuse them. There are none if `last < first`.
    Refused {
        /// First of them.
        first: Lsn,
        /// Last of them.
        last: Lsn,
        /// Cause of the last failure.
        errno: Errno,
    },
    /// A new segment is ready.
    Prepared(SegmentId),
    /// No new segment could be made, for instance because the disk is full. Tried again after a while.
    PrepareFailed(Errno),
    /// A read ended. On success, [`Lane::parse_read`] finds the record in the buffer.
    Read {
        /// As [`Lane::read`] returned it.
        op: OpId,
        /// Bytes read, or the error.
        result: Result<usize, Errno>,
        /// The buffer, if the machine gave it back.
        buf: Option<AlignedBuf>,
    },
    /// This lane has no such operation in flight: a fault of the caller. Nothing was changed; its buffer is
    /// in here.
    Unknown(DiskDone),
}

/// Why a record was not taken. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Every batch buffer is full or in flight, or a segment is being prepared. Try again after the next
    /// completion.
    #[error("the lane's buffers are all in use; try again when a write has completed")]
    Busy,
    /// No space is left for this kind of record. Release records, relocate metadata or raise the segment
    /// limit.
    #[error("the lane is full; free records or allow it more segments")]
    Full,
    /// The payload does not fit in a batch.
    #[error("a record of {bytes} bytes is too large; the most is {max}")]
    TooLarge {
        /// Payload bytes.
        bytes: usize,
        /// Most that fits.
        max: usize,
    },
    /// Two writes in a row failed. Replace the disk and restart.
    #[error("the lane is read-only since a write failed twice (error {})", .0.0)]
    ReadOnly(Errno),
    /// [`Lane::begin_shutdown`] was called.
    #[error("the lane is shutting down")]
    ShuttingDown,
}

/// Whether a record may take the space that is kept back so that a full lane can free itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// It may not: what it brings can wait.
    Keep,
    /// It may: it frees at least as much.
    Use,
}

/// The log of one lane. Made by [`Lane::recover`], also for a lane that is still empty.
#[derive(Debug)]
pub struct Lane {
    config: LaneConfig,
    segments: Segments,
    ledger: Ledger,
    /// Batch buffers not in use.
    free: Vec<AlignedBuf>,
    /// Room for the longest segment header; away while a header is being written.
    header_buf: Option<AlignedBuf>,
    /// Batches not yet submitted, oldest first. Only the last one is being filled. At most one per buffer.
    queue: VecDeque<Batch>,
    active: Option<Active>,
    /// The segment that will be active: the first block of its header is durable, the others are to be
    /// written.
    opening: Option<Active>,
    write: Option<WriteInFlight>,
    prepare: Option<(OpId, SegmentId)>,
    /// Why the last preparation failed, and when to try again.
    prepare_failed: Option<(Errno, u64)>,
    /// LSN that the next record gets.
    next_lsn: Lsn,
    /// All records up to here are durable.
    durable: Lsn,
    /// Something durable on disk says that all records up to here are.
    vouched: Lsn,
    incarnation: Incarnation,
    ops_issued: u64,
    batch_bytes: usize,
    /// Writes that failed since the last that succeeded.
    failures: u32,
    read_only: Option<Errno>,
    last_commit_us: u64,
    closing: bool,
    /// Something is to be recorded that only the header of a segment holds.
    owes_header: bool,
}

/// What recovery learned, from which the running lane is made.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub segments: Segments,
    pub ledger: Ledger,
    pub next_lsn: Lsn,
    pub vouched: Lsn,
    pub incarnation: Incarnation,
}

impl Lane {
    pub(crate) fn start(config: LaneConfig, buffers: Vec<AlignedBuf>, recovered: Recovered) -> Self {
        let Recovered { mut segments, ledger, next_lsn, vouched, incarnation } = recovered;
        segments.reclaim(next_lsn.previous());
        let others = segments.existing().max(config.segments_max as usize) - 1;
        Self {
            config,
            segments,
            ledger,
            batch_bytes: buffers.first().map_or(0, |buf| buf.len()),
            queue: VecDeque::with_capacity(buffers.len()),
            free: buffers,
            header_buf: Some(AlignedBuf::zeroed(header_bytes(others))),
            active: None,
            opening: None,
            write: None,
            prepare: None,
            prepare_failed: None,
            next_lsn,
            durable: next_lsn.previous(),
            vouched,
            incarnation,
            ops_issued: 0,
            failures: 0,
            read_only: None,
            last_commit_us: 0,
            closing: false,
            owes_header: false,
        }
    }

    /// Takes a record whose payload is `parts` put together, to be written with the next batch, and returns
    /// its LSN. It is durable only when [`Lane::complete`] has shown it. `expires_s` is kept with it, 0 for
    /// none.
    pub fn append(&mut self, kind: Kind, expires_s: u32, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        let reserve = if kind.is_metadata() { Reserve::Use } else { Reserve::Keep };
        self.append_with(reserve, kind, expires_s, parts)
    }

    /// As [`Lane::append`], saying whether the space that is kept for freeing space may be used.
    pub fn append_with(
        &mut self,
        reserve: Reserve,
        kind: Kind,
        expires_s: u32,
        parts: &[&[u8]],
    ) -> Result<Lsn, AppendError> {
        if let Some(errno) = self.read_only {
            return Err(AppendError::ReadOnly(errno));
        }
        if self.closing {
            return Err(AppendError::ShuttingDown);
        }
        let (bytes, max) = (parts.iter().map(|part| part.len()).sum(), self.payload_bytes_max());
        if bytes > max {
            return Err(AppendError::TooLarge { bytes, max });
        }
        let fits_last = self.queue.back().is_some_and(|batch| batch.has_room(bytes));
        if !fits_last && self.free.is_empty() {
            return Err(AppendError::Busy);
        }
        self.admit(reserve, bytes, fits_last)?;
        if !fits_last && let Some(buf) = self.free.pop() {
            self.queue.push_back(Batch::new(buf, self.next_lsn));
        }
        let Some(batch) = self.queue.back_mut() else { return Err(AppendError::Busy) };
        let lsn = batch.push(kind, expires_s, parts);
        debug_assert_eq!(lsn, self.next_lsn);
        self.next_lsn = lsn.next();
        Ok(lsn)
    }

    /// The largest payload that [`Lane::append`] takes, in bytes.
    pub fn payload_bytes_max(&self) -> usize {
        self.batch_bytes - BATCH_HEADER_BYTES - RECORD_HEADER_BYTES
    }

    /// All records up to this one are durable.
    pub fn durable_lsn(&self) -> Lsn {
        self.durable
    }

    /// Asks the lane to finish: no more appends; what was taken is written, and a marker that vouches for it.
    /// Go on calling [`Lane::poll`] and [`Lane::complete`] until [`Lane::is_drained`].
    pub fn begin_shutdown(&mut self) {
        self.closing = true;
    }

    /// True if shutdown was asked for and nothing is left to do or in flight.
    pub fn is_drained(&self) -> bool {
        let idle = self.write.is_none() && self.prepare.is_none() && self.queue.is_empty();
        let idle = idle && self.opening.is_none();
        self.closing && idle && !self.segments.is_reading() && !self.wants_marker()
    }
}

#[cfg(test)]
impl Lane {
    /// How many uses of segments there were.
    pub(crate) fn incarnations(&self) -> u64 {
        self.incarnation.0
    }

    /// Fails if what the lane counts is not what its segments say.
    pub(crate) fn audit(&self) {
        self.segments.audit();
        let idle = self.segments.iter().filter(|(id, segment)| {
            segment.role == Role::Sealed
                && segment.free_after.is_none()
                && self.ledger.live(*id).messages == 0
        });
        assert_eq!(self.segments.has_idle(), idle.count() > 0);
        self.ledger.audit();
    }
}
