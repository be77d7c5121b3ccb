//! How connections end: with a code for the peer where the link allows it, and never later than a deadline.

use super::core::Core;
use super::inbound::Fatal;
use super::session::Phase;
use crate::rt::api::{CloseCause, ConnId, Effects, Now};
use crate::wire::{Close, CloseCode, ServerFrame};

/// A peer has this long to take a CLOSE frame, in microseconds.
const CLOSING_US: u64 = 1_000_000;
/// Connections looked at per step for having stalled or gone silent.
const INSPECT_PER_STEP: usize = 16 * 1024;

impl Core {
    /// Starts to close a connection: tells the peer why, if it can be told, and takes nothing more from it.
    pub(super) fn close_with(&mut self, now: Now, conn: ConnId, fatal: Fatal) {
        let Some(session) = self.out.sessions.get(conn) else { return };
        if matches!(session.phase, Phase::Closing) {
            return;
        }
        self.out.stats.link.connections_closed.inc(fatal.code.code() as u8);
        if session.link.as_deref().is_none_or(|link| !link.is_established()) && session.identity().is_none() {
            self.out.stats.link.handshakes_failed.inc();
        }
        self.leave(now, conn);
        let Some(session) = self.out.sessions.get(conn) else { return };
        session.open_by_us = now.mono_us + CLOSING_US;
        if session.link.as_deref().is_some_and(|link| link.is_established()) {
            let close = Close { code: fatal.code, retry_ms: fatal.retry_ms, detail: fatal.code.words() };
            self.out.write(conn, &ServerFrame::Close(close));
        }
        self.to_close.push(conn);
    }

    /// The peer said goodbye: closes once everything written for it is sent.
    pub(super) fn finish_closing(&mut self, now: Now, conn: ConnId) {
        self.leave(now, conn);
        if let Some(session) = self.out.sessions.get(conn) {
            session.open_by_us = now.mono_us + CLOSING_US;
        }
        self.to_close.push(conn);
    }

    /// Takes a session out of service: its mailbox, or its place among the opening ones.
    fn leave(&mut self, now: Now, conn: ConnId) {
        let Some(session) = self.out.sessions.get(conn) else { return };
        session.blocked = None;
        session.login = None;
        match std::mem::replace(&mut session.phase, Phase::Closing) {
            Phase::Ready(identity) => {
                self.relay.detach(now, identity.mailbox, identity.device, conn);
                self.out.stats.link.sessions_open.dec();
            }
            Phase::Opening | Phase::Moving(_) => self.left_opening(),
            Phase::Closing => {}
        }
    }

    /// A connection is no longer among those that are opening on this core.
    pub(super) fn left_opening(&mut self) {
        self.opening_count = self.opening_count.saturating_sub(1);
    }

    /// Closes what has nothing left to say. The rest is closed when its output is sent, or at its deadline.
    pub(super) fn close_silent(&mut self, effects: &mut Effects) {
        for conn in self.to_close.drain(..) {
            let Some(session) = self.out.sessions.get(conn) else { continue };
            if !session.out.in_flight && session.out.is_empty() {
                effects.close(conn);
            }
        }
    }

    /// A connection is gone: forgets it.
    pub(super) fn closed(&mut self, now: Now, conn: ConnId, cause: CloseCause) {
        tracing::debug!(?cause, "connection closed");
        self.leave(now, conn);
        if let Some(session) = self.out.sessions.remove(conn) {
            self.sources.close(now.mono_us, &self.out.shared.sessions, session.peer);
            self.out.stats.link.connections_open.dec();
        }
    }

    /// Looks at some connections: closes those that do not log in in time, that take nothing, that say
    /// nothing, or whose goodbye takes too long.
    pub(super) fn inspect(&mut self, now: Now, effects: &mut Effects) {
        let end = self.out.sessions.slot_end();
        for _ in 0..end.min(INSPECT_PER_STEP) {
            self.inspect_slot = if self.inspect_slot + 1 >= end { 0 } else { self.inspect_slot + 1 };
            let deadlines = self.out.shared.deadlines;
            let Some(session) = self.out.sessions.at(self.inspect_slot) else { continue };
            let conn = session.conn;
            let stalled = session.out.in_flight && now.mono_us - session.progress_us > deadlines.stall_us;
            let late = now.mono_us > session.open_by_us;
            if matches!(session.phase, Phase::Closing) {
                if late {
                    effects.close(conn);
                }
            } else if late && session.identity().is_none() {
                let shaken_hands = session.link.as_deref().is_some_and(|link| link.is_established());
                let code = if shaken_hands { CloseCode::LoginTimeout } else { CloseCode::HandshakeTimeout };
                self.close_with(now, conn, code.into());
            } else if stalled {
                // Its own pipe is full: no frame could reach it.
                self.out.stats.link.connections_closed.inc(CloseCode::Stalled.code() as u8);
                effects.close(conn);
            } else if now.mono_us - session.heard_us > deadlines.idle_us {
                self.close_with(now, conn, CloseCode::Idle.into());
            }
        }
    }
}
