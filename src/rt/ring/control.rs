//! How threads that have no ring reach a core.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// The part of a core that foreign threads may touch.
#[derive(Debug)]
pub struct CoreControl {
    eventfd: OwnedFd,
    shutdown: AtomicBool,
}

impl CoreControl {
    /// A control for a core to be started.
    pub fn new() -> io::Result<Self> {
        Ok(Self { eventfd: eventfd(0, EventfdFlags::CLOEXEC)?, shutdown: AtomicBool::new(false) })
    }

    /// Wakes the core.
    pub fn notify(&self) {
        // Fails only when the counter is at its maximum, and then the core has been told often enough.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }

    /// Asks the core to drain and end.
    pub fn shut_down(&self) {
        self.shutdown.store(true, Ordering::Release);
        self.notify();
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    pub(super) fn eventfd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

/// Ends the process if it is dropped by a panic: half of a share-nothing state cannot be trusted. Release
/// builds abort on panic anyway; this makes the others do the same on the threads of the node.
pub(in crate::rt) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("a panic on a core ends the node; its state cannot be trusted any more");
            std::process::abort();
        }
    }
}
