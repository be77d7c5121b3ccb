//! A simulated disk: sectors of 512 bytes, writes that are durable when they complete, crashes that keep any
//! part of those that have not.
//!
//! [`SimDisk::submit`] takes an operation; it has no effect until [`SimDisk::complete`] picks it, in any
//! order. A [`SimDisk::crash`] applies an arbitrary subset of the sectors of the pending writes and drops
//! every operation; what completed is kept. The same object then serves as the [`Volume`] of the restarted
//! process.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use crate::checksum::crc32c;
use crate::io::{BLOCK_BYTES, DiskDone, DiskOp, Errno, LaneId, OpId, SegmentFile, SegmentId, Volume};
use crate::testing::Rng;

/// What a crash keeps or loses as one.
pub const SECTOR_BYTES: usize = 512;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What shall go wrong with the next operation of a class. Faults of one class are used up in the order
/// injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write fails with EIO; a random part of its sectors was changed.
    WriteError,
    /// The write fails with EIO although all of it was written.
    ErrorAfterWrite,
    /// The write reports one block less than asked; only that much was changed.
    ShortWrite,
    /// The write reports success and changed nothing.
    LostWrite,
    /// The write reports success and went this many bytes too far (or too near), in the same file.
    MisdirectedWrite(i64),
    /// The read fails with EIO.
    ReadError,
    /// The preparation fails with ENOSPC.
    NoSpace,
}

impl Fault {
    fn is_for(self, op: &DiskOp) -> bool {
        match self {
            Self::WriteError
            | Self::ErrorAfterWrite
            | Self::ShortWrite
            | Self::LostWrite
            | Self::MisdirectedWrite(_) => {
                matches!(op, DiskOp::Write { .. })
            }
            Self::ReadError => matches!(op, DiskOp::Read { .. }),
            Self::NoSpace => matches!(op, DiskOp::Prepare { .. }),
        }
    }
}

/// An operation that was submitted and has not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingOp {
    /// Lane.
    pub lane: LaneId,
    /// Segment.
    pub segment: SegmentId,
    /// Its id.
    pub op: OpId,
    /// Sectors it writes; 0 for other operations.
    pub sectors: usize,
}

type File = (LaneId, SegmentId);

/// The disk.
pub struct SimDisk {
    files: RefCell<BTreeMap<File, Vec<u8>>>,
    meta: RefCell<BTreeMap<String, Vec<u8>>>,
    unreadable: BTreeSet<(LaneId, SegmentId, u64)>,
    pending: VecDeque<DiskOp>,
    faults: VecDeque<Fault>,
    syncs: Cell<u64>,
    rng: Rng,
    trace: u64,
}

impl SimDisk {
    /// An empty disk. The seed decides what is left to chance.
    pub fn new(seed: u64) -> Self {
        Self {
            files: RefCell::default(),
            meta: RefCell::default(),
            unreadable: BTreeSet::new(),
            pending: VecDeque::new(),
            faults: VecDeque::new(),
            syncs: Cell::new(0),
            rng: Rng::new(seed),
            trace: 0,
        }
    }

    /// Takes an operation. It waits until it is picked to complete.
    pub fn submit(&mut self, op: DiskOp) {
        let seen = match &op {
            DiskOp::Write { buf, len, offset, segment, .. } => {
                assert!(
                    *len > 0 && len.is_multiple_of(BLOCK_BYTES) && offset.is_multiple_of(BLOCK_BYTES as u64)
                );
                [1, u64::from(segment.0), *offset, u64::from(crc32c(&buf[..*len]))]
            }
            DiskOp::Read { len, offset, segment, .. } => [2, u64::from(segment.0), *offset, *len as u64],
            DiskOp::Prepare { segment, size, .. } => [3, u64::from(segment.0), *size, 0],
        };
        seen.into_iter().for_each(|number| self.mix(number));
        self.pending.push_back(op);
    }

    /// The operations that wait, oldest first.
    pub fn pending(&self) -> Vec<PendingOp> {
        let describe = |waiting: &DiskOp| {
            let (lane, segment, op) = identity(waiting);
            let sectors = if let DiskOp::Write { len, .. } = waiting { len / SECTOR_BYTES } else { 0 };
            PendingOp { lane, segment, op, sectors }
        };
        self.pending.iter().map(describe).collect()
    }

    /// Completes the operation at `index` of [`SimDisk::pending`]; `None` if there is none.
    pub fn complete(&mut self, index: usize) -> Option<DiskDone> {
        let op = self.pending.remove(index)?;
        let fault = self.faults.iter().position(|fault| fault.is_for(&op));
        let fault = fault.and_then(|index| self.faults.remove(index));
        let done = self.execute(op, fault);
        let outcome = done.result.map_or_else(|errno| u64::from(errno.0.unsigned_abs()) << 32, |n| n as u64);
        self.mix(done.op.0);
        self.mix(outcome);
        Some(done)
    }

    /// Completes an operation that the seed picks.
    pub fn complete_any(&mut self) -> Option<DiskDone> {
        let count = self.pending.len() as u64;
        let index = if count == 0 { 0 } else { self.rng.below(count) as usize };
        self.complete(index)
    }

    /// Makes the next operation of the fault's class fail.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.push_back(fault);
    }

    /// Forgets faults that were injected and have not happened.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Flips one bit of a segment.
    pub fn flip_bit(&mut self, lane: LaneId, segment: SegmentId, offset: u64, bit: u8) {
        if let Some(file) = self.files.get_mut().get_mut(&(lane, segment)) {
            file[offset as usize] ^= 1 << (bit & 7);
        }
    }

    /// Overwrites bytes of a segment behind everyone's back.
    pub fn overwrite(&mut self, lane: LaneId, segment: SegmentId, offset: u64, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut().get_mut(&(lane, segment)) {
            file[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Makes one block unreadable, until it is overwritten.
    pub fn make_unreadable(&mut self, lane: LaneId, segment: SegmentId, offset: u64) {
        self.unreadable.insert((lane, segment, offset / BLOCK_BYTES as u64));
    }

    /// Removes a segment file.
    pub fn remove(&mut self, lane: LaneId, segment: SegmentId) {
        self.files.get_mut().remove(&(lane, segment));
    }

    /// Cuts a segment file short.
    pub fn truncate(&mut self, lane: LaneId, segment: SegmentId, bytes: usize) {
        if let Some(file) = self.files.get_mut().get_mut(&(lane, segment)) {
            file.truncate(bytes);
        }
    }

    /// Stops the machine. Each sector of each pending write is kept if `keep`, asked with a running number,
    /// says so; pending preparations are done or not likewise. Nothing is pending afterwards, and no fault is
    /// left.
    pub fn crash(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut number = 0;
        for op in std::mem::take(&mut self.pending) {
            match op {
                DiskOp::Write { lane, segment, offset, buf, len, .. } => {
                    for (index, sector) in buf[..len].chunks(SECTOR_BYTES).enumerate() {
                        if keep(number) {
                            self.write(lane, segment, offset + (index * SECTOR_BYTES) as u64, sector);
                        }
                        number += 1;
                    }
                }
                DiskOp::Prepare { lane, segment, size, .. } => {
                    if keep(number) {
                        self.files.get_mut().insert((lane, segment), vec![0; size as usize]);
                    }
                    number += 1;
                }
                DiskOp::Read { .. } => {}
            }
        }
        self.faults.clear();
    }

    /// Stops the machine and keeps what the seed picks.
    pub fn crash_at_random(&mut self) {
        let mut rng = Rng::new(self.rng.next_u64());
        self.crash(|_| rng.one_in(2));
    }

    /// How often a segment was made durable by [`Volume::sync_segment`].
    pub fn syncs(&self) -> u64 {
        self.syncs.get()
    }

    /// A number that depends on every operation so far, its bytes and its outcome: the same run gives the
    /// same.
    pub fn trace_hash(&self) -> u64 {
        self.trace
    }

    fn mix(&mut self, number: u64) {
        self.trace = Rng::new(self.trace.rotate_left(5) ^ number).next_u64();
    }

    fn execute(&mut self, op: DiskOp, fault: Option<Fault>) -> DiskDone {
        match op {
            DiskOp::Write { lane, segment, offset, buf, len, op } => {
                let result = self.execute_write((lane, segment), offset, &buf[..len], fault);
                DiskDone { lane, op, result, buf: Some(buf) }
            }
            DiskOp::Read { lane, segment, offset, mut buf, len, op } => {
                let read = match fault {
                    Some(_) => Err(io::Error::from_raw_os_error(EIO)),
                    None => self.read_at(lane, segment, offset, &mut buf[..len]),
                };
                let result = read.map_err(|error| Errno(error.raw_os_error().unwrap_or(EIO)));
                DiskDone { lane, op, result, buf: Some(buf) }
            }
            DiskOp::Prepare { lane, segment, size, op } => {
                let result = if fault.is_some() {
                    Err(Errno(ENOSPC))
                } else {
                    self.files.get_mut().insert((lane, segment), vec![0; size as usize]);
                    Ok(0)
                };
                DiskDone { lane, op, result, buf: None }
            }
        }
    }

    fn execute_write(
        &mut self,
        file: File,
        offset: u64,
        bytes: &[u8],
        fault: Option<Fault>,
    ) -> Result<usize, Errno> {
        let (lane, segment) = file;
        match fault {
            None => self.write(lane, segment, offset, bytes),
            Some(Fault::LostWrite) => {}
            Some(Fault::ErrorAfterWrite) => {
                self.write(lane, segment, offset, bytes);
                return Err(Errno(EIO));
            }
            Some(Fault::MisdirectedWrite(by)) => {
                self.write(lane, segment, offset.saturating_add_signed(by), bytes);
            }
            Some(Fault::ShortWrite) => {
                let written = bytes.len() - BLOCK_BYTES;
                self.write(lane, segment, offset, &bytes[..written]);
                return Ok(written);
            }
            Some(_) => {
                for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if self.rng.one_in(2) {
                        self.write(lane, segment, offset + (index * SECTOR_BYTES) as u64, sector);
                    }
                }
                return Err(Errno(EIO));
            }
        }
        Ok(bytes.len())
    }

    /// Writes what lies within the file.
    fn write(&mut self, lane: LaneId, segment: SegmentId, offset: u64, bytes: &[u8]) {
        let Some(file) = self.files.get_mut().get_mut(&(lane, segment)) else { return };
        let start = (offset as usize).min(file.len());
        let end = (start + bytes.len()).min(file.len());
        file[start..end].copy_from_slice(&bytes[..end - start]);
        for block in start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            self.unreadable.remove(&(lane, segment, block as u64));
        }
    }
}

fn identity(op: &DiskOp) -> (LaneId, SegmentId, OpId) {
    match op {
        DiskOp::Write { lane, segment, op, .. }
        | DiskOp::Read { lane, segment, op, .. }
        | DiskOp::Prepare { lane, segment, op, .. } => (*lane, *segment, *op),
    }
}

impl Volume for SimDisk {
    fn segments(&self, lane: LaneId) -> io::Result<Vec<SegmentFile>> {
        let files = self.files.borrow();
        let of_lane = files.iter().filter(|((owner, _), _)| *owner == lane);
        Ok(of_lane
            .map(|((_, segment), f)| SegmentFile { segment: *segment, bytes: f.len() as u64 })
            .collect())
    }

    fn read_at(&self, lane: LaneId, segment: SegmentId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let files = self.files.borrow();
        let file = files.get(&(lane, segment)).ok_or(io::ErrorKind::NotFound)?;
        let start = (offset as usize).min(file.len());
        let end = (start + buf.len()).min(file.len());
        let blocks = (start / BLOCK_BYTES) as u64..end.div_ceil(BLOCK_BYTES) as u64;
        if self.unreadable.range((lane, segment, blocks.start)..(lane, segment, blocks.end)).next().is_some()
        {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        buf[..end - start].copy_from_slice(&file[start..end]);
        Ok(end - start)
    }

    fn sync_segment(&self, _lane: LaneId, _segment: SegmentId) -> io::Result<()> {
        self.syncs.set(self.syncs.get() + 1);
        Ok(())
    }

    fn create_segment(&self, lane: LaneId, segment: SegmentId, bytes: u64) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        if files.contains_key(&(lane, segment)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert((lane, segment), vec![0; bytes as usize]);
        Ok(())
    }

    fn create_lane(&self, _lane: LaneId) -> io::Result<()> {
        Ok(())
    }

    fn read_meta(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.meta.borrow().get(name).cloned())
    }

    fn replace_meta(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.meta.borrow_mut().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
}
