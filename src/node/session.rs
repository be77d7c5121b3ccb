//! One connection of a core: its link, what it has logged in as, and what it may still do.

use std::net::SocketAddr;

use super::outbound::Outbound;
use crate::link::{LoggedIn, ServerLink};
use crate::relay::MailboxKey;
use crate::rt::api::ConnId;
use crate::wire::{Address, DeviceId, FrameStream, Login, MessageId};

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// TLS, then login; both have deadlines.
    Opening,
    /// Logged in; it moves to the core of its mailbox when nothing is being sent.
    Moving(LoggedIn),
    /// At home and served.
    Ready(Identity),
    /// A CLOSE frame is on its way out; nothing more is read.
    Closing,
}

/// Who a session speaks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub address: Address,
    pub device: DeviceId,
    pub mailbox: MailboxKey,
    /// What its message ids are mixed with for dedup.
    pub mask: [u8; 16],
}

impl Identity {
    /// A message id as dedup knows it: nobody else can make one that equals it.
    pub(super) fn dedup_key(&self, id: MessageId) -> MessageId {
        MessageId(std::array::from_fn(|at| id.0[at] ^ self.mask[at]))
    }
}

/// One connection.
pub(super) struct Session {
    pub conn: ConnId,
    pub peer: SocketAddr,
    /// Absent only while its own bytes are being taken in.
    pub link: Option<Box<ServerLink>>,
    pub phase: Phase,
    pub frames: FrameStream,
    pub out: Outbound,
    /// What arrived before it was this connection's turn to shake hands.
    pub early: Vec<u8>,
    /// A login that arrived and was not checked yet.
    pub login: Option<Box<Login>>,
    /// A whole frame that waits for room on the way to another core. Nothing is read meanwhile.
    pub blocked: Option<Vec<u8>>,
    /// It is in its core's list of those whose frame waits.
    pub blocked_listed: bool,
    /// The kernel has been told not to deliver more.
    pub paused: bool,
    /// Sends without a receipt yet.
    pub outstanding: u32,
    /// TLS or login must be done by then.
    pub open_by_us: u64,
    /// When the kernel last took bytes while some waited.
    pub progress_us: u64,
    /// When something last arrived.
    pub heard_us: u64,
}

impl Session {
    pub(super) fn new(
        conn: ConnId,
        peer: SocketAddr,
        link: Box<ServerLink>,
        now_us: u64,
        open_by_us: u64,
    ) -> Self {
        Self {
            conn,
            peer,
            link: Some(link),
            phase: Phase::Opening,
            frames: FrameStream::new(),
            out: Outbound::default(),
            early: Vec::new(),
            login: None,
            blocked: None,
            blocked_listed: false,
            paused: false,
            outstanding: 0,
            open_by_us,
            progress_us: now_us,
            heard_us: now_us,
        }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        match self.phase {
            Phase::Ready(identity) => Some(identity),
            _ => None,
        }
    }

    /// Frames may not be taken now: one is blocked, the output is congested, or the session is leaving.
    pub(super) fn must_wait(&self) -> bool {
        self.blocked.is_some()
            || self.login.is_some()
            || self.out.is_congested()
            || matches!(self.phase, Phase::Moving(_) | Phase::Closing)
    }
}

/// All connections of a core, by slot.
#[derive(Default)]
pub(super) struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    open: usize,
}

impl Sessions {
    pub(super) fn insert(&mut self, session: Session) {
        let slot = session.conn.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        debug_assert!(self.slots[slot].is_none(), "a slot is used again only after its connection closed");
        self.slots[slot] = Some(Box::new(session));
        self.open += 1;
    }

    pub(super) fn get(&mut self, conn: ConnId) -> Option<&mut Session> {
        let session = self.slots.get_mut(conn.slot as usize)?.as_deref_mut()?;
        (session.conn == conn).then_some(session)
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Box<Session>> {
        self.get(conn)?;
        self.open -= 1;
        self.slots[conn.slot as usize].take()
    }

    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// Exclusive upper bound of the slots in use.
    pub(super) fn slot_end(&self) -> usize {
        self.slots.len()
    }

    /// The session in a slot, whatever its generation.
    pub(super) fn at(&mut self, slot: usize) -> Option<&mut Session> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }
}
