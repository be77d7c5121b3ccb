//! Whether a core sleeps, and who wakes it.
//!
//! Sender: publish, `SeqCst` fence, [`Doorbell::claim_ring`]; if it is true, this sender and no other rings.
//! Receiver: [`Doorbell::park`], look at every queue again, and only then sleep; [`Doorbell::unpark`] on
//! return. The two fences make it impossible that the receiver misses the data and the sender misses the
//! parked state.

use super::sync::{AtomicU32, Ordering, fence};

const RUNNING: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// The sleep state of one core.
#[repr(align(128))]
pub struct Doorbell {
    state: AtomicU32,
}

impl Default for Doorbell {
    fn default() -> Self {
        Self { state: AtomicU32::new(RUNNING) }
    }
}

impl Doorbell {
    /// Receiver: about to sleep. The queues must be checked once more after this call.
    pub fn park(&self) {
        self.state.store(PARKED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Receiver: awake again. True if a sender has rung, or is about to.
    pub fn unpark(&self) -> bool {
        self.state.swap(RUNNING, Ordering::AcqRel) == NOTIFIED
    }

    /// Sender, after publishing and a `SeqCst` fence: true if the core sleeps and it is the caller's to ring
    /// it.
    pub fn claim_ring(&self) -> bool {
        self.state.load(Ordering::Relaxed) == PARKED
            && self.state.compare_exchange(PARKED, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
