//! One io_uring as a core uses it: queueing that never fails, one enter per turn, a count of what is in the
//! kernel.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::{IoUring, Submitter, cqueue, squeue};

use super::enter::{self, Wait};
use super::stats::RingStats;

/// Completions taken per turn at most, so that a storm cannot keep the logic from its turn.
const REAP_MAX: usize = 4_096;

/// A core's ring. Made and used on one thread only.
pub(super) struct Uring {
    ring: IoUring,
    /// Index by which this thread's enters name the ring, which spares the kernel a look-up per call.
    registered: u32,
    in_flight: u64,
    /// Completions taken out of the ring early, to make room.
    stash: Vec<cqueue::Entry>,
    stats: Arc<RingStats>,
}

impl Uring {
    /// A ring for the calling thread, with `entries` submissions per enter at most and room for
    /// `completions`.
    pub fn new(entries: u32, completions: u32, stats: Arc<RingStats>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(completions)
            .build(entries)?;
        let registered = enter::register_ring(ring.as_raw_fd())?;
        Ok(Self { ring, registered, in_flight: 0, stash: Vec::new(), stats })
    }

    /// For registering pools.
    pub fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// Its descriptor; open for as long as `self` lives.
    pub fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Operations in the kernel.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Queues an operation that will complete at least once.
    ///
    /// # Safety
    /// Everything the operation points to must stay valid until its last completion.
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: passed on to the caller.
        unsafe { self.queue(entry) };
        self.in_flight += 1;
    }

    /// Queues an operation that completes only if it fails.
    ///
    /// # Safety
    /// As [`Uring::push`], and `entry` must carry `SKIP_SUCCESS`.
    pub unsafe fn push_silent(&mut self, entry: squeue::Entry) {
        // SAFETY: passed on to the caller.
        unsafe { self.queue(entry) };
    }

    /// Queues an operation without counting it.
    ///
    /// # Safety
    /// As [`Uring::push`].
    unsafe fn queue(&mut self, entry: squeue::Entry) {
        // SAFETY: validity of what `entry` points to is the caller's promise.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The queue is full: submit early. If the kernel takes nothing because completions have no room,
            // make room; each round frees one or the other.
            self.enter(Wait::No);
            if self.ring.submission().is_full() {
                let Self { ring, stash, .. } = self;
                stash.extend(ring.completion());
            }
        }
    }

    /// Submits everything queued, runs deferred work, and sleeps as `wait` allows.
    pub fn enter(&mut self, wait: Wait) {
        let queue = self.ring.submission();
        let (queued, deferred) = (queue.len() as u32, queue.taskrun() || queue.cq_overflow());
        drop(queue);
        if wait == Wait::No && queued == 0 && !deferred {
            return;
        }
        let result = enter::enter(self.registered, queued, wait);
        self.stats.enters.add(1);
        let Err(error) = result else { return };
        // Time up, a signal, or no room for completions or memory for requests: what was not submitted stays
        // queued and goes with the next enter, after completions were reaped.
        let expected = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN, libc::ENOMEM];
        let known = error.raw_os_error().is_some_and(|errno| expected.contains(&errno));
        assert!(known, "io_uring_enter failed: {error}; the ring cannot be trusted any more");
    }

    /// Moves completions to `into`, which is empty. An operation is counted out with its last completion.
    pub fn reap(&mut self, into: &mut Vec<cqueue::Entry>) {
        debug_assert!(into.is_empty());
        into.append(&mut self.stash);
        into.extend(self.ring.completion().take(REAP_MAX));
        self.stats.cqes.add(into.len() as u64);
    }

    /// Counts an operation out. Called for a completion that is the last of one queued with [`Uring::push`].
    pub fn completed(&mut self) {
        assert!(self.in_flight > 0, "more completions than operations");
        self.in_flight -= 1;
    }

    /// True if completions were taken out early and wait to be reaped.
    pub fn has_stash(&self) -> bool {
        !self.stash.is_empty()
    }

    /// True if completions can be reaped, or would be after an enter that does not sleep.
    pub fn has_completions(&mut self) -> bool {
        !self.stash.is_empty() || !self.ring.completion().is_empty() || {
            let queue = self.ring.submission();
            queue.taskrun() || queue.cq_overflow()
        }
    }
}
