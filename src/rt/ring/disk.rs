//! Disk operations of a core: direct reads, durable overwrites, and segments made by the helper thread.
//!
//! An operation owns its buffer from submission to completion. A short transfer is reported as its byte
//! count; the lane decides what that means.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use io_uring::{opcode, types};
use shards::AlignedBuf;
use shards::io::{DiskDone, DiskOp, Errno, LaneId, OpId, SegmentId};

use super::cold::{ColdDone, ColdJob, ColdQueue};
use super::control::CoreControl;
use super::op::Op;
use super::uring::Uring;
use crate::rt::volume::FsVolume;

/// Segments kept open per core. Opening one costs microseconds; descriptors are scarcer.
const OPEN_FILES_MAX: usize = 1_024;

/// What a core needs to reach its store.
#[derive(Clone)]
pub struct DiskSetup {
    /// The store's directory.
    pub volume: Arc<FsVolume>,
    /// The helper thread.
    pub cold: ColdQueue,
}

struct OpenFile {
    fd: OwnedFd,
    users: u32,
}

type FileKey = (LaneId, SegmentId);

struct Flight {
    file: FileKey,
    op: OpId,
    buf: AlignedBuf,
}

/// The disk side of a driver.
pub(super) struct Disk {
    setup: Option<DiskSetup>,
    control: Arc<CoreControl>,
    files: BTreeMap<FileKey, OpenFile>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    cold_in: Sender<ColdDone>,
    cold_out: Receiver<ColdDone>,
    /// Operations that ended without reaching the kernel.
    refused: Vec<DiskDone>,
}

/// One transfer, as the kernel will see it.
struct Transfer {
    file: FileKey,
    offset: u64,
    buf: AlignedBuf,
    len: usize,
    op: OpId,
    write: bool,
}

impl Disk {
    /// Without files and operations. `control` is how the helper thread wakes this core.
    pub fn new(setup: Option<DiskSetup>, control: Arc<CoreControl>) -> Self {
        let (cold_in, cold_out) = channel();
        let (files, flights, free) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { setup, control, files, flights, free, cold_in, cold_out, refused: Vec::new() }
    }

    /// Transfers in the kernel.
    pub fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Starts `op`. Whatever happens, one [`DiskDone`] will follow.
    pub fn start(&mut self, uring: &mut Uring, op: DiskOp) {
        match op {
            DiskOp::Write { lane, segment, offset, buf, len, op } => {
                self.transfer(uring, Transfer { file: (lane, segment), offset, buf, len, op, write: true });
            }
            DiskOp::Read { lane, segment, offset, buf, len, op } => {
                self.transfer(uring, Transfer { file: (lane, segment), offset, buf, len, op, write: false });
            }
            DiskOp::Prepare { lane, segment, size, op } => self.prepare(lane, segment, size, op),
        }
    }

    fn transfer(&mut self, uring: &mut Uring, job: Transfer) {
        assert!(job.len <= job.buf.len(), "a transfer of {} bytes in {:?}", job.len, job.buf);
        if let Err(error) = self.open(job.file) {
            self.refuse(job.file.0, job.op, &error, Some(job.buf));
            return;
        }
        let Some(file) = self.files.get_mut(&job.file) else { unreachable!("opened above") };
        file.users += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            (self.flights.len() - 1) as u32
        });
        let fd = types::Fd(file.fd.as_raw_fd());
        let Transfer { file, offset, mut buf, len, op, write } = job;
        let entry = transfer_entry(fd, &mut buf, len as u32, offset, write).user_data(Op::Disk(slot).pack());
        self.flights[slot as usize] = Some(Flight { file, op, buf });
        // SAFETY: the buffer's memory does not move with the value, the flight owns it until the completion,
        // and the file stays open while it has users.
        unsafe { uring.push(entry) };
    }

    /// Makes sure that `file` is in the table of open files.
    fn open(&mut self, file: FileKey) -> io::Result<()> {
        if self.files.contains_key(&file) {
            return Ok(());
        }
        let Some(setup) = &self.setup else { return Err(io::Error::from_raw_os_error(libc::ENODEV)) };
        let fd = setup.volume.open_segment(file.0, file.1)?;
        self.remember(file, fd);
        Ok(())
    }

    fn remember(&mut self, file: FileKey, fd: OwnedFd) {
        if self.files.len() >= OPEN_FILES_MAX {
            let idle = self.files.iter().find(|(_, file)| file.users == 0).map(|(key, _)| *key);
            idle.and_then(|key| self.files.remove(&key));
        }
        self.files.insert(file, OpenFile { fd, users: 0 });
    }

    fn prepare(&mut self, lane: LaneId, segment: SegmentId, bytes: u64, op: OpId) {
        let Some(setup) = &self.setup else {
            return self.refuse(lane, op, &io::Error::from_raw_os_error(libc::ENODEV), None);
        };
        let volume = Arc::clone(&setup.volume);
        let (reply, control) = (self.cold_in.clone(), Arc::clone(&self.control));
        let job = ColdJob { volume, lane, segment, bytes, op, reply, control };
        if setup.cold.push(job).is_err() {
            self.refuse(lane, op, &io::Error::from_raw_os_error(libc::EBUSY), None);
        }
    }

    fn refuse(&mut self, lane: LaneId, op: OpId, error: &io::Error, buf: Option<AlignedBuf>) {
        self.refused.push(DiskDone { lane, op, result: Err(errno_of(error)), buf });
    }

    /// Ends the transfer in `slot` with the kernel's `result`.
    pub fn complete(&mut self, slot: u32, result: i32) -> DiskDone {
        let flight = self.flights.get_mut(slot as usize).and_then(Option::take);
        let Some(Flight { file, op, buf }) = flight else { panic!("no transfer in slot {slot}") };
        self.free.push(slot);
        if let Some(file) = self.files.get_mut(&file) {
            file.users -= 1;
        }
        let result = usize::try_from(result).map_err(|_| Errno(-result));
        DiskDone { lane: file.0, op, result, buf: Some(buf) }
    }

    /// The next operation that ended outside the kernel.
    pub fn next_done(&mut self) -> Option<DiskDone> {
        if let Some(done) = self.refused.pop() {
            return Some(done);
        }
        let ColdDone { lane, segment, op, result } = self.cold_out.try_recv().ok()?;
        let result = match result {
            Ok(fd) => {
                self.remember((lane, segment), fd);
                Ok(0)
            }
            Err(error) => Err(errno_of(&error)),
        };
        Some(DiskDone { lane, op, result, buf: None })
    }

    /// True if an operation was refused and not yet reported.
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }
}

fn transfer_entry(
    fd: types::Fd,
    buf: &mut AlignedBuf,
    len: u32,
    offset: u64,
    write: bool,
) -> io_uring::squeue::Entry {
    let (start, registered) = (buf.as_mut_ptr(), buf.registered());
    match (write, registered) {
        (true, Some(slot)) => {
            opcode::WriteFixed::new(fd, start, len, slot).offset(offset).rw_flags(libc::RWF_DSYNC).build()
        }
        (true, None) => opcode::Write::new(fd, start, len).offset(offset).rw_flags(libc::RWF_DSYNC).build(),
        (false, Some(slot)) => opcode::ReadFixed::new(fd, start, len, slot).offset(offset).build(),
        (false, None) => opcode::Read::new(fd, start, len).offset(offset).build(),
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}
