//! How far the node is, shared by the thread that changes it and the one that shows it.

use std::sync::atomic::{AtomicU8, Ordering};

/// Whether clients are served, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Readiness {
    /// Threads and listeners are being made.
    Starting,
    /// The logs are being read.
    Recovering,
    /// Clients are served.
    Ready,
    /// The node is going down; new connections are refused.
    Draining,
    /// A device failed: messages are delivered, none is accepted.
    StoreReadOnly,
}

impl Readiness {
    const ALL: [Self; 5] =
        [Self::Starting, Self::Recovering, Self::Ready, Self::Draining, Self::StoreReadOnly];

    /// The name that machines read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Recovering => "recovering",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::StoreReadOnly => "store_read_only",
        }
    }
}

/// A [`Readiness`] that several threads see.
#[derive(Debug)]
pub struct ReadinessCell(AtomicU8);

impl ReadinessCell {
    /// A cell holding `state`.
    pub const fn new(state: Readiness) -> Self {
        Self(AtomicU8::new(state as u8))
    }

    /// Replaces the state. Whoever sees it also sees what this thread did before.
    pub fn set(&self, state: Readiness) {
        self.0.store(state as u8, Ordering::Release);
    }

    /// The state now.
    pub fn get(&self) -> Readiness {
        Readiness::ALL[usize::from(self.0.load(Ordering::Acquire))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back_as_it_was_set() {
        let cell = ReadinessCell::new(Readiness::Starting);
        for state in Readiness::ALL {
            cell.set(state);
            assert_eq!(cell.get(), state);
        }
    }
}
