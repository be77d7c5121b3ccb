//! The border between a lane and the machine: what a lane asks of a disk, and what it hears back.
//!
//! A lane never touches a file. While it runs it emits [`DiskOp`]s and is fed [`DiskDone`]s; at start and at
//! format, when nothing is served yet, it uses the blocking [`Volume`]. The runtime implements both over
//! io_uring and direct I/O, the simulator over memory with faults.
//!
//! Every buffer that an operation carries belongs to that operation until its [`DiskDone`] gives it back.

use std::io;

use crate::buffer::AlignedBuf;

/// Granularity of every offset and length on disk, in bytes.
pub const BLOCK_BYTES: usize = 4096;

/// A fixed share of the key space with its own log. The number of lanes is set when a store is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u16);

/// Number of a segment file within its lane; names the file, and is reused when the segment is recycled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

/// Chosen by the lane, echoed by the machine; unique among the operations a lane has in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpId(pub u64);

/// One request of a lane to its disk.
#[derive(Debug)]
pub enum DiskOp {
    /// Overwrite `buf[..len]` at `offset` and complete only when it is durable (direct I/O with DSYNC).
    Write { lane: LaneId, segment: SegmentId, offset: u64, buf: AlignedBuf, len: usize, op: OpId },
    /// Read `len` bytes at `offset` into the front of `buf`.
    Read { lane: LaneId, segment: SegmentId, offset: u64, buf: AlignedBuf, len: usize, op: OpId },
    /// Create the segment file: allocate `size` bytes, write zeros to all of them, make file and directory
    /// durable. Slow; runs off the data path. The file appears under its name only when it is complete; what
    /// an attempt that failed left behind does not stand in the way of the next.
    Prepare { lane: LaneId, segment: SegmentId, size: u64, op: OpId },
}

/// The end of one [`DiskOp`].
#[derive(Debug)]
pub struct DiskDone {
    /// Lane that asked.
    pub lane: LaneId,
    /// The operation that ended.
    pub op: OpId,
    /// Bytes moved (0 for `Prepare`), or the operating system's error number.
    pub result: Result<usize, Errno>,
    /// The operation's buffer, given back whatever happened.
    pub buf: Option<AlignedBuf>,
}

/// An operating system error number, such as `ENOSPC` or `EIO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// A segment file as found in a lane's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its number.
    pub segment: SegmentId,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Blocking access to a store, for format, recovery and offline tools. Never used while a core serves.
pub trait Volume {
    /// The segment files of a lane, in any order.
    fn segments(&self, lane: LaneId) -> io::Result<Vec<SegmentFile>>;
    /// Reads into `buf` (aligned, multiple of [`BLOCK_BYTES`]) at `offset`; short only at end of file.
    fn read_at(&self, lane: LaneId, segment: SegmentId, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Makes everything that was ever written to a segment durable. Recovery calls it before it relies on the
    /// end of the log: a write that was in flight when the process died may be readable and not yet durable.
    fn sync_segment(&self, lane: LaneId, segment: SegmentId) -> io::Result<()>;
    /// Creates a zero-filled segment, durable on return. Fails if it exists.
    fn create_segment(&self, lane: LaneId, segment: SegmentId, bytes: u64) -> io::Result<()>;
    /// Creates the directory of a lane, durable on return.
    fn create_lane(&self, lane: LaneId) -> io::Result<()>;
    /// A small file of the store's root, or `None` if it does not exist.
    fn read_meta(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a small file of the root atomically: write new, sync, rename, sync directory.
    fn replace_meta(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
}
