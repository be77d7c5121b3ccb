//! Whether the other end is still there: a PING after silence, and an end when it is not answered.

/// Silence, in either direction, after which a PING is sent. The node closes what it never hears.
const SILENCE_US: u64 = 30_000_000;
/// How long a PING may be unanswered, and how many of them.
const PING_US: u64 = 15_000_000;
const PINGS_MAX: u32 = 2;
/// A client that is called this late was not run; what arrived meanwhile has not been looked at, so the time
/// says nothing about the node.
const LATE_US: u64 = 5_000_000;

/// Nothing was heard for so long that the connection is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead;

/// Liveness of one session.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    heard_us: u64,
    said_us: u64,
    pinged_us: u64,
    /// PINGs since anything was heard.
    unanswered: u32,
}

impl Liveness {
    /// The session begins.
    pub(super) fn start(now_us: u64) -> Self {
        Self { heard_us: now_us, said_us: now_us, pinged_us: now_us, unanswered: 0 }
    }

    /// Any byte came.
    pub(super) fn heard(&mut self, now_us: u64) {
        (self.heard_us, self.unanswered) = (now_us, 0);
    }

    /// Something was sent.
    pub(super) fn said(&mut self, now_us: u64) {
        self.said_us = now_us;
    }

    /// When [`Liveness::tick`] has something to say.
    pub(super) fn due_us(&self) -> u64 {
        match self.unanswered {
            0 => self.heard_us.min(self.said_us) + SILENCE_US,
            _ => self.pinged_us + PING_US,
        }
    }

    /// True if a PING is to be sent now.
    pub(super) fn tick(&mut self, now_us: u64) -> Result<bool, Dead> {
        let due_us = self.due_us();
        if now_us < due_us {
            return Ok(false);
        }
        if now_us - due_us > LATE_US {
            self.heard(now_us);
        }
        if self.unanswered == PINGS_MAX {
            return Err(Dead);
        }
        self.unanswered += 1;
        (self.pinged_us, self.said_us) = (now_us, now_us);
        Ok(true)
    }
}
