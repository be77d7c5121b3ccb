//! A simulated disk: sectors of 512 bytes, writes that are durable when they complete, crashes that keep any
//! part of those that have not.
//!
//! [`SimDisk::submit`] takes an operation; it has no effect until [`SimDisk::complete`] picks it, in any
//! order. A [`SimDisk::crash`] applies an arbitrary subset of the sectors of the pending writes and drops
//! every operation; what completed is kept. The same object then serves as the [`Volume`] of the restarted
//! process.
//!
//! What goes wrong with single operations is a [`Fault`]. A slow one is held back while later ones complete:
//! [`SimDisk::hold_back`]. What happens to data at rest: [`SimDisk::rot`], [`SimDisk::wear_out`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;

use crate::checksum::crc32c;
use crate::io::{BLOCK_BYTES, DiskDone, DiskOp, Errno, LaneId, OpId, SegmentFile, SegmentId, Volume};
use crate::testing::medium::Medium;
use crate::testing::{Fault, Rng, SECTOR_BYTES};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

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

/// An operation, and how many others are to complete before it.
struct Waiting {
    op: DiskOp,
    held: u64,
}

/// The disk.
pub struct SimDisk {
    files: RefCell<BTreeMap<File, Medium>>,
    meta: RefCell<BTreeMap<String, Vec<u8>>>,
    pending: VecDeque<Waiting>,
    faults: VecDeque<Fault>,
    syncs: Cell<u64>,
    /// Rises with each read and each operation that completed.
    now: Cell<u64>,
    rng: Rng,
    trace: u64,
}

impl SimDisk {
    /// An empty disk. The seed decides what is left to chance.
    pub fn new(seed: u64) -> Self {
        Self {
            files: RefCell::default(),
            meta: RefCell::default(),
            pending: VecDeque::new(),
            faults: VecDeque::new(),
            syncs: Cell::new(0),
            now: Cell::new(0),
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
        self.pending.push_back(Waiting { op, held: 0 });
    }

    /// The operations that wait, oldest first.
    pub fn pending(&self) -> Vec<PendingOp> {
        let describe = |waiting: &Waiting| {
            let (lane, segment, op) = identity(&waiting.op);
            let sectors = if let DiskOp::Write { len, .. } = waiting.op { len / SECTOR_BYTES } else { 0 };
            PendingOp { lane, segment, op, sectors }
        };
        self.pending.iter().map(describe).collect()
    }

    /// Completes the operation at `index` of [`SimDisk::pending`], also if it is held back; `None` if there
    /// is none.
    pub fn complete(&mut self, index: usize) -> Option<DiskDone> {
        let op = self.pending.remove(index)?.op;
        self.pending.iter_mut().for_each(|waiting| waiting.held = waiting.held.saturating_sub(1));
        let fault = self.faults.iter().position(|fault| fault.is_for(&op));
        let fault = fault.and_then(|index| self.faults.remove(index));
        let done = self.execute(op, fault);
        let outcome = done.result.map_or_else(|errno| u64::from(errno.0.unsigned_abs()) << 32, |n| n as u64);
        self.mix(done.op.0);
        self.mix(outcome);
        Some(done)
    }

    /// Completes an operation that the seed picks among those that are not held back, or among all if no
    /// other is left: what is slow ends, too.
    pub fn complete_any(&mut self) -> Option<DiskDone> {
        let is_free = |index: &usize| self.pending[*index].held == 0;
        let mut ready: Vec<usize> = (0..self.pending.len()).filter(is_free).collect();
        if ready.is_empty() {
            ready = (0..self.pending.len()).collect();
        }
        let index = if ready.is_empty() { 0 } else { ready[self.rng.below(ready.len() as u64) as usize] };
        self.complete(index)
    }

    /// Lets the operation at `index` of [`SimDisk::pending`] wait until so many others completed.
    pub fn hold_back(&mut self, index: usize, completions: u64) {
        if let Some(waiting) = self.pending.get_mut(index) {
            waiting.held = completions;
        }
    }

    /// Holds back one operation that the seed picks.
    pub fn hold_back_any(&mut self, completions: u64) {
        let count = self.pending.len() as u64;
        if count > 0 {
            let index = self.rng.below(count) as usize;
            self.hold_back(index, completions);
        }
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
        if let Some(file) = self.file(lane, segment) {
            file.flip_bit(offset, bit);
        }
    }

    /// Overwrites bytes of a segment behind everyone's back.
    pub fn overwrite(&mut self, lane: LaneId, segment: SegmentId, offset: u64, bytes: &[u8]) {
        if let Some(file) = self.file(lane, segment) {
            file.overwrite(offset, bytes);
        }
    }

    /// Makes one block unreadable, until it is overwritten.
    pub fn make_unreadable(&mut self, lane: LaneId, segment: SegmentId, offset: u64) {
        if let Some(file) = self.file(lane, segment) {
            file.make_unreadable(offset as usize / BLOCK_BYTES);
        }
    }

    /// Flips a bit that the seed picks, in a block that was ever written; says where. `None` if there is
    /// none.
    pub fn rot(&mut self) -> Option<(LaneId, SegmentId, u64)> {
        let (lane, segment, block) = self.pick(u64::MAX)?;
        let offset = block + self.rng.below(BLOCK_BYTES as u64);
        let bit = self.rng.below(8) as u8;
        self.flip_bit(lane, segment, offset, bit);
        Some((lane, segment, offset))
    }

    /// Makes a block unreadable that the seed picks among those that were written, and neither written nor
    /// read during the last `operations`; says where. `None` if there is none: what is read often is known to
    /// be readable.
    pub fn wear_out(&mut self, operations: u64) -> Option<(LaneId, SegmentId, u64)> {
        let since = self.now.get().saturating_sub(operations);
        let (lane, segment, block) = self.pick(since)?;
        self.make_unreadable(lane, segment, block);
        Some((lane, segment, block))
    }

    /// A block that was written and not touched since `since`, by its offset.
    fn pick(&mut self, since: u64) -> Option<(LaneId, SegmentId, u64)> {
        let files = self.files.get_mut().iter();
        let blocks = files.flat_map(|((lane, segment), file)| {
            file.untouched_since(since).map(|block| (*lane, *segment, (block * BLOCK_BYTES) as u64))
        });
        let blocks: Vec<_> = blocks.collect();
        let count = blocks.len() as u64;
        (count > 0).then(|| blocks[self.rng.below(count) as usize])
    }

    fn file(&mut self, lane: LaneId, segment: SegmentId) -> Option<&mut Medium> {
        self.files.get_mut().get_mut(&(lane, segment))
    }

    /// Removes a segment file.
    pub fn remove(&mut self, lane: LaneId, segment: SegmentId) {
        self.files.get_mut().remove(&(lane, segment));
    }

    /// Cuts a segment file short.
    pub fn truncate(&mut self, lane: LaneId, segment: SegmentId, bytes: usize) {
        if let Some(file) = self.file(lane, segment) {
            file.truncate(bytes);
        }
    }

    /// Stops the machine. Each sector of each pending write is kept if `keep`, asked with a running number,
    /// says so; pending preparations are done or not likewise. Nothing is pending afterwards, and no fault is
    /// left.
    pub fn crash(&mut self, keep: impl FnMut(usize) -> bool) {
        self.files.get_mut().values_mut().for_each(Medium::stop);
        let pending = std::mem::take(&mut self.pending);
        self.keep_of(&pending, keep);
        self.faults.clear();
    }

    /// What [`SimDisk::crash`] would leave, as another disk.
    pub fn crashed(&self, keep: impl FnMut(usize) -> bool) -> Self {
        let mut left = Self::new(0);
        left.rng = self.rng.clone();
        left.now = self.now.clone();
        left.meta = self.meta.clone();
        left.files = self.files.clone();
        left.files.get_mut().values_mut().for_each(Medium::stop);
        left.keep_of(&self.pending, keep);
        left
    }

    fn keep_of(&mut self, pending: &VecDeque<Waiting>, mut keep: impl FnMut(usize) -> bool) {
        let mut number = 0;
        for waiting in pending {
            match &waiting.op {
                DiskOp::Write { lane, segment, offset, buf, len, .. } => {
                    for (index, sector) in buf[..*len].chunks(SECTOR_BYTES).enumerate() {
                        if keep(number) {
                            self.write(*lane, *segment, offset + (index * SECTOR_BYTES) as u64, sector);
                        }
                        number += 1;
                    }
                }
                DiskOp::Prepare { lane, segment, size, .. } => {
                    if keep(number) {
                        let blank = Medium::zeroed(*size as usize);
                        self.files.get_mut().insert((*lane, *segment), blank);
                    }
                    number += 1;
                }
                DiskOp::Read { .. } => {}
            }
        }
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
                let read = self.execute_read((lane, segment), offset, &mut buf[..len], fault);
                let result = read.map_err(|error| Errno(error.raw_os_error().unwrap_or(EIO)));
                DiskDone { lane, op, result, buf: Some(buf) }
            }
            DiskOp::Prepare { lane, segment, size, op } => {
                let result = if fault.is_some() {
                    Err(Errno(ENOSPC))
                } else {
                    self.files.get_mut().insert((lane, segment), Medium::zeroed(size as usize));
                    Ok(0)
                };
                DiskDone { lane, op, result, buf: None }
            }
        }
    }

    fn execute_read(
        &self,
        (lane, segment): File,
        offset: u64,
        into: &mut [u8],
        fault: Option<Fault>,
    ) -> io::Result<usize> {
        match fault {
            None => self.read_at(lane, segment, offset, into),
            Some(Fault::MisdirectedRead(by)) => {
                self.read_at(lane, segment, offset.saturating_add_signed(by), into)
            }
            Some(Fault::StaleRead) => {
                let files = self.files.borrow();
                let file = files.get(&(lane, segment)).ok_or(io::ErrorKind::NotFound)?;
                Ok(file.read_stale(offset, into))
            }
            Some(_) => Err(io::Error::from_raw_os_error(EIO)),
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
            Some(Fault::ErrorThenClean) => {
                if let Some(file) = self.file(lane, segment) {
                    file.seem_to_write(offset, bytes);
                }
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
        let now = self.tick();
        if let Some(file) = self.file(lane, segment) {
            file.write(offset, bytes, now);
        }
    }

    fn tick(&self) -> u64 {
        self.now.set(self.now.get() + 1);
        self.now.get()
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
        let now = self.tick();
        let mut files = self.files.borrow_mut();
        let file = files.get_mut(&(lane, segment)).ok_or(io::ErrorKind::NotFound)?;
        file.read(offset, buf, now).ok_or_else(|| io::Error::from_raw_os_error(EIO))
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
        files.insert((lane, segment), Medium::zeroed(bytes as usize));
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
