//! The turn of a core.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use io_uring::{cqueue, opcode, squeue, types};
use shards::AlignedBuf;
use shards::io::{DiskOp, Errno};
use socket2::Socket;

use super::RingConfig;
use super::buffers::RecvBuffers;
use super::control::CoreControl;
use super::disk::{Disk, DiskSetup};
use super::enter::Wait;
use super::handover::HandOvers;
use super::listener::Listener;
use super::op::Op;
use super::stats::RingStats;
use super::table::Table;
use super::uring::Uring;
use crate::rt::api::{CloseCause, ConnId, CoreLogic, Effects, Event, Next, Now};
use crate::rt::clock::Clock;
use crate::rt::crossing::{CoreSet, Port};

/// How long a driver that is dropped waits for the kernel to let go of what it was given, in microseconds.
const DRAIN_MAX_US: u64 = 10_000_000;
/// How long one wait of the drain may take, in microseconds.
const DRAIN_STEP_US: u64 = 100_000;

/// How another core is reached.
pub struct PeerCore {
    /// A duplicate of its ring's descriptor, so that the number stays valid however long the core lives.
    pub ring: OwnedFd,
    /// The way round if the ring refuses.
    pub control: Arc<CoreControl>,
}

/// What a driver is made of.
pub struct DriverSetup {
    pub config: RingConfig,
    pub clock: Clock,
    pub control: Arc<CoreControl>,
    pub hand_overs: HandOvers,
    pub disk: Option<DiskSetup>,
}

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The next turn.
    Again,
    /// Nothing: the logic has drained.
    Done,
}

/// The driver of one core. Made, used and dropped on that core's thread.
pub struct Driver<L: CoreLogic> {
    pub(super) uring: Uring,
    pub(super) buffers: RecvBuffers,
    pub(super) table: Table,
    pub(super) listener: Option<Listener>,
    pub(super) disk: Disk,
    pub(super) hand_overs: HandOvers,
    pub(super) stats: Arc<RingStats>,
    /// `None` before the start and once it has drained.
    pub(super) logic: Option<L>,
    pub(super) effects: Effects,
    /// Buffers of sends that could not be started; reported before `finished`.
    pub(super) unsent: Vec<(ConnId, Vec<u8>)>,
    /// Connections that are over and not yet reported.
    pub(super) finished: Vec<(ConnId, CloseCause)>,
    config: RingConfig,
    clock: Clock,
    control: Arc<CoreControl>,
    peers: Arc<[PeerCore]>,
    completions: Vec<cqueue::Entry>,
    /// Where the kernel puts the eventfd's counter. Boxed, so that the address stays.
    notified: Box<u64>,
    shutting_down: bool,
}

impl<L: CoreLogic> Driver<L> {
    /// Makes the ring and its pools on the calling thread.
    pub fn new(setup: DriverSetup) -> io::Result<Self> {
        let DriverSetup { config, clock, control, hand_overs, disk } = setup;
        let stats = Arc::new(RingStats::default());
        let mut uring = Uring::new(config.submission_entries, config.completion_entries, Arc::clone(&stats))?;
        let buffers = RecvBuffers::register(&uring, config.recv_buffers, config.recv_buffer_bytes)?;
        let mut notified = Box::new(0);
        // SAFETY: the box outlives the operation, because the driver drains before it is dropped.
        unsafe { uring.push(notify_entry(&control, &mut notified)) };
        Ok(Self {
            uring,
            buffers,
            table: Table::new(config.connections_max),
            listener: None,
            disk: Disk::new(disk, Arc::clone(&control), config.segment_files_max),
            hand_overs,
            stats,
            logic: None,
            effects: Effects::default(),
            unsent: Vec::new(),
            finished: Vec::new(),
            config,
            clock,
            control,
            peers: Arc::new([]),
            completions: Vec::new(),
            notified,
            shutting_down: false,
        })
    }

    /// The counters of this core.
    pub fn stats(&self) -> Arc<RingStats> {
        Arc::clone(&self.stats)
    }

    /// Duplicates the ring's descriptor for other cores to wake this one.
    pub fn ring_handle(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring is open for as long as `self` is borrowed.
        let ring = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.uring.fd()) };
        ring.try_clone_to_owned()
    }

    /// Makes the configured disk buffers and registers them with the kernel. To be called once; the buffers
    /// may be dropped at any time, since the kernel holds the pages and no operation names the slot of a
    /// buffer that is gone.
    pub fn register_disk_buffers(&mut self) -> io::Result<Vec<AlignedBuf>> {
        let mut buffers: Vec<AlignedBuf> = (0..self.config.disk_buffers)
            .map(|_| AlignedBuf::zeroed(self.config.disk_buffer_bytes))
            .collect();
        if buffers.is_empty() {
            return Ok(buffers);
        }
        let vector =
            |buf: &mut AlignedBuf| libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let vectors: Vec<libc::iovec> = buffers.iter_mut().map(vector).collect();
        // SAFETY: the memory is valid now; the kernel pins the pages, so it stays valid for the kernel.
        unsafe { self.uring.submitter().register_buffers(&vectors)? };
        for (slot, buf) in buffers.iter_mut().enumerate() {
            buf.set_registered(slot as u16);
        }
        Ok(buffers)
    }

    /// Hands the driver its logic, the way to the other cores (indexed by core), and the socket to listen on.
    pub fn start(&mut self, logic: L, peers: Arc<[PeerCore]>, socket: Option<Socket>) -> io::Result<()> {
        self.listener = socket.map(Listener::listen).transpose()?;
        self.peers = peers;
        self.logic = Some(logic);
        Ok(())
    }

    /// One turn. Sleeps at most `sleep_max_us`, if given.
    pub fn turn(&mut self, sleep_max_us: Option<u64>) -> Turn {
        let now = self.clock.now();
        self.disk.begin_turn(&mut self.uring, now.mono_us);
        self.report_over(now);
        let mut completions = std::mem::take(&mut self.completions);
        self.uring.reap(&mut completions);
        for completion in completions.drain(..) {
            self.complete(now, &completion);
        }
        self.completions = completions;
        self.report_disk(now);
        self.adopt(now);
        self.begin_shutdown(now);
        let Some(logic) = &mut self.logic else { return Turn::Done };
        let next = logic.turn(now, &mut self.effects);
        self.apply_effects();
        self.arm_listener(now);
        self.buffers.publish();
        debug_assert_eq!(self.buffers.held(), 0, "a receive buffer was lost in this turn");
        self.publish();
        self.record(now);
        if next == Next::Done {
            self.drain();
            return Turn::Done;
        }
        self.sleep(next, sleep_max_us);
        Turn::Again
    }

    pub(super) fn emit(&mut self, now: Now, event: Event<'_>) {
        if let Some(logic) = &mut self.logic {
            logic.on_event(now, event, &mut self.effects);
            self.apply_partings();
        }
    }

    fn complete(&mut self, now: Now, completion: &cqueue::Entry) {
        let (result, flags) = (completion.result(), completion.flags());
        let Some(op) = Op::unpack(completion.user_data()) else {
            panic!("a completion of nothing: user data {:#x}", completion.user_data())
        };
        let own = !matches!(op, Op::Woken | Op::WakeFailed(_));
        if own && !cqueue::more(flags) {
            self.uring.completed();
        }
        match op {
            Op::Accept => self.on_accept(now, result, flags),
            Op::Recv(key) => self.on_recv(now, key, result, flags),
            Op::Send(key) => self.on_send(now, key, result),
            Op::Disk(slot) => {
                self.disk.complete(slot, result);
                self.report_disk(now);
            }
            Op::Notified => self.await_notification(),
            Op::Woken => self.stats.wakes_received.add(1),
            Op::WakeFailed(core) => self.peers[usize::from(core)].control.notify(),
            Op::Cancel => {}
        }
    }

    fn await_notification(&mut self) {
        if self.logic.is_some() {
            // SAFETY: as in `new`.
            unsafe { self.uring.push(notify_entry(&self.control, &mut self.notified)) };
        }
    }

    fn report_disk(&mut self, now: Now) {
        while let Some(done) = self.disk.next_done() {
            self.emit(now, Event::Disk(done));
        }
    }

    pub(super) fn start_disk(&mut self, op: DiskOp) {
        self.disk.start(&mut self.uring, op);
    }

    fn begin_shutdown(&mut self, now: Now) {
        if self.shutting_down || !self.control.is_shutting_down() {
            return;
        }
        self.shutting_down = true;
        self.stop_listening();
        if let Some(logic) = &mut self.logic {
            logic.begin_shutdown(now, &mut self.effects);
        }
    }

    pub(super) fn cancel(&mut self, op: Op) {
        let entry = opcode::AsyncCancel::new(op.pack()).build().user_data(Op::Cancel.pack());
        // SAFETY: a cancellation points to nothing.
        unsafe { self.uring.push(entry) };
    }

    /// Makes the turn's crossings visible and rings the cores that sleep.
    fn publish(&mut self) {
        let mut ring = self.hand_overs.publish();
        if let Some(port) = self.logic.as_mut().and_then(CoreLogic::port) {
            ring.merge(port.publish());
        }
        if !ring.is_empty() {
            self.ring_cores(ring);
        }
    }

    fn ring_cores(&mut self, cores: CoreSet) {
        for core in cores.iter() {
            use std::os::fd::AsRawFd;
            let target = types::Fd(self.peers[usize::from(core.0)].ring.as_raw_fd());
            let entry = opcode::MsgRingData::new(target, 0, Op::Woken.pack(), None)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(Op::WakeFailed(core.0).pack());
            // SAFETY: a message points to nothing, and succeeds silently.
            unsafe { self.uring.push_silent(entry) };
            self.stats.wakes_sent.add(1);
        }
    }

    fn record(&mut self, started: Now) {
        self.stats.connections.set(self.table.len() as u64);
        self.stats.disk_in_flight.set(self.disk.in_flight() as u64);
        self.stats.disk_put_off.set(self.disk.put_off());
        self.stats.in_flight.set(self.uring.in_flight());
        self.stats.record_turn(self.clock.mono_us().saturating_sub(started.mono_us));
    }

    /// True if the next turn has something to do that no completion will announce.
    fn has_leftovers(&self) -> bool {
        !self.finished.is_empty() || !self.unsent.is_empty() || self.disk.has_ended()
    }

    fn wait_for(&self, next: Next, sleep_max_us: Option<u64>) -> Wait {
        let logic_due = match next {
            Next::Now | Next::Done => return Wait::No,
            Next::At(us) => Some(us),
            Next::Event => None,
        };
        if self.has_leftovers() {
            return Wait::No;
        }
        let listener_due = self.listener.as_ref().and_then(Listener::due_us);
        let due = [logic_due, listener_due, self.disk.due_us()].into_iter().flatten().min();
        if due.is_none() && sleep_max_us.is_none() {
            return Wait::Forever;
        }
        let until_due = due.map_or(u64::MAX, |due| due.saturating_sub(self.clock.mono_us()));
        match until_due.min(sleep_max_us.unwrap_or(u64::MAX)) {
            0 => Wait::No,
            us => Wait::AtMostUs(us),
        }
    }

    /// Submits everything, and sleeps if nothing is there to do.
    fn sleep(&mut self, next: Next, sleep_max_us: Option<u64>) {
        let wait = self.wait_for(next, sleep_max_us);
        if wait == Wait::No || (self.config.spin_us > 0 && self.spin(wait)) {
            self.uring.enter(Wait::No);
            return;
        }
        self.hand_overs.doorbell().park();
        let wait = if self.must_run() { Wait::No } else { wait };
        if wait != Wait::No {
            self.stats.parks.add(1);
        }
        self.uring.enter(wait);
        self.hand_overs.doorbell().unpark();
    }

    fn must_run(&mut self) -> bool {
        let port = self.logic.as_mut().and_then(CoreLogic::port);
        port.is_some_and(Port::must_run) || self.hand_overs.must_run() || self.uring.has_stash()
    }

    /// Looks for work for a while instead of sleeping. True if some was found.
    fn spin(&mut self, wait: Wait) -> bool {
        self.uring.enter(Wait::No);
        let limit = if let Wait::AtMostUs(us) = wait { us } else { u64::MAX };
        let until = self.clock.mono_us() + self.config.spin_us.min(limit);
        while self.clock.mono_us() < until {
            if self.uring.has_completions() || self.must_run() {
                return true;
            }
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        }
        false
    }

    /// Takes everything back from the kernel: cancels what can be cancelled and waits for the rest. The logic
    /// hears nothing of it. What the kernel does not give back in time is leaked, never freed under its
    /// hands.
    fn drain(&mut self) {
        let now = self.clock.now();
        drop(self.logic.take());
        self.stop_listening();
        self.cancel(Op::Notified);
        self.close_all();
        let until_us = now.mono_us + DRAIN_MAX_US;
        while self.uring.in_flight() > 0 && self.clock.mono_us() < until_us {
            self.uring.enter(Wait::AtMostUs(DRAIN_STEP_US));
            let mut completions = std::mem::take(&mut self.completions);
            self.uring.reap(&mut completions);
            for completion in completions.drain(..) {
                self.complete(now, &completion);
            }
            self.completions = completions;
        }
        self.finished.clear();
        self.record(now);
    }

    /// Operations that the kernel still holds.
    pub fn in_flight(&self) -> u64 {
        self.uring.in_flight()
    }
}

impl<L: CoreLogic> Drop for Driver<L> {
    fn drop(&mut self) {
        if self.uring.in_flight() > 0 {
            self.drain();
        }
        let left = self.uring.in_flight();
        if left > 0 {
            // The pools are freed after this; the kernel would go on writing to them.
            eprintln!(
                "{left} operations did not come back from the kernel in {DRAIN_MAX_US} us; ending the process"
            );
            std::process::abort();
        }
    }
}

fn notify_entry(control: &CoreControl, counter: &mut u64) -> squeue::Entry {
    let target = std::ptr::from_mut(counter).cast();
    opcode::Read::new(types::Fd(control.eventfd()), target, size_of::<u64>() as u32)
        .build()
        .user_data(Op::Notified.pack())
}

/// The error number in a completion's negative result.
pub(super) fn errno(result: i32) -> Errno {
    debug_assert!(result < 0);
    Errno(-result)
}
