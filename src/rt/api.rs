//! The contract between a core's logic and whatever runs it: the io_uring driver in production, the simulator
//! in tests.
//!
//! A [`CoreLogic`] is a state machine. The runtime calls it with events and the time; it answers by filling
//! [`Effects`], which the runtime carries out after the call. The logic never blocks, never looks at a clock
//! and never draws a random number of its own.
//!
//! One turn of a core: every ready [`Event`] is handed over, then [`CoreLogic::turn`] runs once (drain
//! crossings within a budget, run timers, flush), then all effects are submitted together.

use std::any::Any;
use std::net::SocketAddr;

use shards::io::{DiskDone, DiskOp, Errno};

use super::crossing::Port;

/// The time of a turn. Read once per turn, so that everything in a turn happens at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since an arbitrary start, in microseconds. For deadlines and latencies.
    pub mono_us: u64,
    /// Wall clock, in milliseconds since 1970. For expiry and for what other machines see.
    pub wall_ms: u64,
}

/// A core of this process, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// A connection of one core. The generation makes an id of a closed connection never equal a later one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Slot in the core's connection table; small and dense, so that logic may index an array by it.
    pub slot: u32,
    /// Rises each time the slot is used again.
    pub generation: u32,
}

/// What happened since the last turn.
#[derive(Debug)]
pub enum Event<'a> {
    /// A new connection; receiving has been armed.
    Accepted { conn: ConnId, peer: SocketAddr },
    /// A connection that another core handed over, with the state that core's logic attached. Bytes that were
    /// received meanwhile follow as [`Event::Received`].
    Adopted { conn: ConnId, peer: SocketAddr, state: Box<dyn Any + Send> },
    /// Bytes from the peer. The slice is the logic's to change, and valid only during the call.
    Received { conn: ConnId, data: &'a mut [u8] },
    /// The whole of a buffer given to [`Effects::send`] was taken by the kernel, or the connection failed
    /// (then [`Event::Closed`] follows). The buffer returns either way.
    Sent { conn: ConnId, buf: Vec<u8>, ok: bool },
    /// Some bytes of a buffer given to [`Effects::send`] were taken by the kernel, and the rest is still to
    /// go: the peer is slow, but it reads.
    SendProgress { conn: ConnId },
    /// The connection ended. It is the last event of this `conn`, and comes after every buffer has returned,
    /// also when the logic itself closed it.
    Closed { conn: ConnId, cause: CloseCause },
    /// A new connection was not taken: the kernel refused it, e.g. with `EMFILE`, or this core has as many as
    /// it may (also `EMFILE`). The listener is armed again by the runtime.
    AcceptFailed { errno: Errno },
    /// A disk operation ended.
    Disk(DiskDone),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer closed its side.
    PeerClosed,
    /// The network failed with this error.
    Failed(Errno),
    /// The logic asked for it with [`Effects::close`].
    Requested,
}

/// What the logic wants done after a call. The vectors keep their capacity, so that a steady state allocates
/// nothing.
#[derive(Debug, Default)]
pub struct Effects {
    /// Buffers to send. At most one per connection is in flight: the logic waits for [`Event::Sent`].
    pub sends: Vec<(ConnId, Vec<u8>)>,
    /// Connections to close. A send in flight or listed above is carried out first as far as the kernel takes
    /// it at once; nothing is waited for.
    pub closes: Vec<ConnId>,
    /// Connections on which receiving shall stop (`false`) or go on (`true`). Data that the kernel had
    /// already delivered still comes as [`Event::Received`].
    pub receives: Vec<(ConnId, bool)>,
    /// Connections to move to another core.
    pub hand_overs: Vec<HandOver>,
    /// Requests to the disk.
    pub disk: Vec<DiskOp>,
}

/// A connection on its way to another core. After this effect the logic hears nothing more of `conn`.
#[derive(Debug)]
pub struct HandOver {
    /// The connection; no send may be in flight on it.
    pub conn: ConnId,
    /// The core that shall own it.
    pub to: CoreId,
    /// What the other core's logic needs to go on.
    pub state: Box<dyn Any + Send>,
}

impl Effects {
    /// Sends `buf` on `conn`.
    pub fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        debug_assert!(!buf.is_empty());
        self.sends.push((conn, buf));
    }

    /// Closes `conn`.
    pub fn close(&mut self, conn: ConnId) {
        self.closes.push(conn);
    }

    /// True if nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
            && self.closes.is_empty()
            && self.receives.is_empty()
            && self.hand_overs.is_empty()
            && self.disk.is_empty()
    }
}

/// When a core wants to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: work was left over by a budget.
    Now,
    /// When something happens, or at this monotonic time in microseconds at the latest.
    At(u64),
    /// When something happens.
    Event,
    /// Never: the core has drained and may be taken down.
    Done,
}

/// The state machine of one core.
pub trait CoreLogic {
    /// Takes one event.
    fn on_event(&mut self, now: Now, event: Event<'_>, effects: &mut Effects);
    /// Ends the turn: drains crossings within a budget, runs timers, flushes. Says when to run next.
    fn turn(&mut self, now: Now, effects: &mut Effects) -> Next;
    /// Asks the core to stop: refuse new work, finish what is accepted, close connections, then answer
    /// [`Next::Done`] from [`CoreLogic::turn`].
    fn begin_shutdown(&mut self, now: Now, effects: &mut Effects);
    /// The crossings this logic pushes to and drains, if it has any. The runtime publishes them after each
    /// turn, rings the cores that must wake, and asks before it sleeps whether something has arrived.
    fn port(&mut self) -> Option<&mut dyn Port> {
        None
    }
}
