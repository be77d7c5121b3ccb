//! Disk operations of a core: direct reads, durable overwrites, and segments made by the helper thread.
//!
//! An operation owns its buffer from submission to completion. A short transfer is reported as its byte
//! count; the lane decides what that means. An error that passes is not reported before it was met many
//! times.
//!
//! All segments of a lane are opened when the first of them is used, at the start of a node, so that serving
//! takes no descriptors but for new segments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use io_uring::{opcode, types};
use shards::AlignedBuf;
use shards::io::{DiskDone, DiskOp, Errno, LaneId, OpId, SegmentId, Volume};

use super::cold::{ColdDone, ColdJob, ColdQueue, Prepare};
use super::control::CoreControl;
use super::op::Op;
use super::retry::{Retries, Tries};
use super::uring::Uring;
use crate::rt::volume::FsVolume;

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

/// The disk side of a driver.
pub(super) struct Disk {
    setup: Option<DiskSetup>,
    control: Arc<CoreControl>,
    files: BTreeMap<FileKey, OpenFile>,
    files_max: usize,
    /// Lanes whose segments were opened.
    lanes: BTreeSet<LaneId>,
    flights: Vec<Option<Transfer>>,
    free: Vec<u32>,
    retries: Retries<Job>,
    /// Time of the turn.
    now_us: u64,
    cold_in: Sender<ColdDone>,
    cold_out: Receiver<ColdDone>,
    /// Operations that have ended and were not reported.
    ended: VecDeque<DiskDone>,
}

/// One transfer, as the kernel will see it.
struct Transfer {
    file: FileKey,
    offset: u64,
    buf: AlignedBuf,
    len: usize,
    op: OpId,
    write: bool,
    tries: Tries,
}

/// An operation that has to be begun.
enum Job {
    Transfer(Transfer),
    Prepare(Prepare),
}

impl Job {
    fn tries(&mut self) -> &mut Tries {
        match self {
            Job::Transfer(transfer) => &mut transfer.tries,
            Job::Prepare(prepare) => &mut prepare.tries,
        }
    }

    fn failed(self, errno: Errno) -> DiskDone {
        let (lane, op, buf) = match self {
            Job::Transfer(Transfer { file, op, buf, .. }) => (file.0, op, Some(buf)),
            Job::Prepare(Prepare { lane, op, .. }) => (lane, op, None),
        };
        DiskDone { lane, op, result: Err(errno), buf }
    }
}

impl Disk {
    /// Without files and operations; it will keep `files_max` open at most. `control` is how the helper
    /// thread wakes this core.
    pub fn new(setup: Option<DiskSetup>, control: Arc<CoreControl>, files_max: usize) -> Self {
        let (cold_in, cold_out) = channel();
        Self {
            setup,
            control,
            files: BTreeMap::new(),
            files_max,
            lanes: BTreeSet::new(),
            flights: Vec::new(),
            free: Vec::new(),
            retries: Retries::new(),
            now_us: 0,
            cold_in,
            cold_out,
            ended: VecDeque::new(),
        }
    }

    /// Tells the time, and begins again what was put off until now.
    pub fn begin_turn(&mut self, uring: &mut Uring, now_us: u64) {
        self.now_us = now_us;
        while let Some(job) = self.retries.pop_due(now_us) {
            self.begin(uring, job);
        }
    }

    /// When something that was put off is due.
    pub fn due_us(&self) -> Option<u64> {
        self.retries.due_us()
    }

    /// Operations put off so far.
    pub fn put_off(&self) -> u64 {
        self.retries.total()
    }

    /// Transfers in the kernel.
    pub fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Starts `op`. Whatever happens, one [`DiskDone`] will follow.
    pub fn start(&mut self, uring: &mut Uring, op: DiskOp) {
        let tries = Tries::default();
        let job = match op {
            DiskOp::Write { lane, segment, offset, buf, len, op } => {
                let file = (lane, segment);
                Job::Transfer(Transfer { file, offset, buf, len, op, write: true, tries })
            }
            DiskOp::Read { lane, segment, offset, buf, len, op } => {
                let file = (lane, segment);
                Job::Transfer(Transfer { file, offset, buf, len, op, write: false, tries })
            }
            DiskOp::Prepare { lane, segment, size: bytes, op } => {
                Job::Prepare(Prepare { lane, segment, bytes, op, tries })
            }
        };
        self.begin(uring, job);
    }

    fn begin(&mut self, uring: &mut Uring, job: Job) {
        match job {
            Job::Transfer(transfer) => self.transfer(uring, transfer),
            Job::Prepare(prepare) => self.prepare(prepare),
        }
    }

    fn transfer(&mut self, uring: &mut Uring, mut job: Transfer) {
        assert!(job.len <= job.buf.len(), "a transfer of {} bytes in {:?}", job.len, job.buf);
        if let Err(error) = self.open(job.file) {
            return self.fail(Job::Transfer(job), errno_of(&error));
        }
        let Some(file) = self.files.get_mut(&job.file) else { unreachable!("opened above") };
        file.users += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            (self.flights.len() - 1) as u32
        });
        let fd = types::Fd(file.fd.as_raw_fd());
        let entry = transfer_entry(fd, &mut job).user_data(Op::Disk(slot).pack());
        self.flights[slot as usize] = Some(job);
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
        let volume = Arc::clone(&setup.volume);
        let fd = volume.open_segment(file.0, file.1)?;
        self.remember(file, fd);
        if self.lanes.insert(file.0) {
            self.open_others(&volume, file.0);
        }
        Ok(())
    }

    /// Opens the segments of `lane` that are not open, as far as there is room. One that cannot be opened now
    /// is when it is needed.
    fn open_others(&mut self, volume: &FsVolume, lane: LaneId) {
        for found in volume.segments(lane).unwrap_or_default() {
            let file = (lane, found.segment);
            if self.files.len() >= self.files_max {
                return;
            }
            if !self.files.contains_key(&file)
                && let Ok(fd) = volume.open_segment(lane, found.segment)
            {
                self.remember(file, fd);
            }
        }
    }

    fn remember(&mut self, file: FileKey, fd: OwnedFd) {
        if self.files.len() >= self.files_max {
            let idle = self.files.iter().find(|(_, file)| file.users == 0).map(|(key, _)| *key);
            idle.and_then(|key| self.files.remove(&key));
        }
        self.files.insert(file, OpenFile { fd, users: 0 });
    }

    fn prepare(&mut self, prepare: Prepare) {
        let Some(setup) = &self.setup else {
            return self.fail(Job::Prepare(prepare), Errno(libc::ENODEV));
        };
        let volume = Arc::clone(&setup.volume);
        let (reply, control) = (self.cold_in.clone(), Arc::clone(&self.control));
        let job = ColdJob { volume, prepare, reply, control };
        if setup.cold.push(job).is_err() {
            self.fail(Job::Prepare(prepare), Errno(libc::EBUSY));
        }
    }

    /// Puts `job` off if `errno` passes, and reports it otherwise.
    fn fail(&mut self, mut job: Job, errno: Errno) {
        if Retries::<Job>::allows(errno, job.tries()) {
            self.retries.put_off(self.now_us, job);
        } else {
            self.ended.push_back(job.failed(errno));
        }
    }

    /// Takes the kernel's `result` of the transfer in `slot`. It is over, or put off.
    pub fn complete(&mut self, slot: u32, result: i32) {
        let flight = self.flights.get_mut(slot as usize).and_then(Option::take);
        let Some(transfer) = flight else { panic!("no transfer in slot {slot}") };
        self.free.push(slot);
        if let Some(file) = self.files.get_mut(&transfer.file) {
            file.users -= 1;
        }
        match usize::try_from(result) {
            Ok(bytes) => {
                let Transfer { file, op, buf, .. } = transfer;
                self.ended.push_back(DiskDone { lane: file.0, op, result: Ok(bytes), buf: Some(buf) });
            }
            Err(_) => self.fail(Job::Transfer(transfer), Errno(-result)),
        }
    }

    /// The next operation that has ended.
    pub fn next_done(&mut self) -> Option<DiskDone> {
        loop {
            if let Some(done) = self.ended.pop_front() {
                return Some(done);
            }
            let ColdDone { prepare, result } = self.cold_out.try_recv().ok()?;
            let Prepare { lane, segment, op, .. } = prepare;
            match result {
                Ok(fd) => {
                    self.remember((lane, segment), fd);
                    self.ended.push_back(DiskDone { lane, op, result: Ok(0), buf: None });
                }
                Err(error) => self.fail(Job::Prepare(prepare), errno_of(&error)),
            }
        }
    }

    /// True if an operation has ended and was not yet reported.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }
}

fn transfer_entry(fd: types::Fd, job: &mut Transfer) -> io_uring::squeue::Entry {
    let (start, registered) = (job.buf.as_mut_ptr(), job.buf.registered());
    let (len, offset) = (job.len as u32, job.offset);
    match (job.write, registered) {
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
