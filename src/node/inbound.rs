//! From the bytes of a connection to whole frames, taken in as fast as they can be carried further and no
//! faster.

use super::core::Core;
use super::session::Phase;
use crate::link::LinkError;
use crate::rt::api::{ConnId, Effects, Now};
use crate::wire::{CloseCode, Flow, FrameStream, Limit, WireError, decode_frame};

/// Reads of connections that are not logged in, per turn: what they cost together stays below a few
/// milliseconds.
const OPENINGS_PER_TURN: u32 = 16;
/// Bytes kept of a connection whose turn to shake hands has not come. A handshake and a login are far
/// smaller.
const EARLY_BYTES_MAX: usize = 32 * 1024;

/// Why a connection is closed: the code and words for the peer.
#[derive(Debug)]
pub(super) struct Fatal {
    pub code: CloseCode,
    pub retry_ms: u32,
}

impl From<CloseCode> for Fatal {
    fn from(code: CloseCode) -> Self {
        Self { code, retry_ms: 0 }
    }
}

impl From<WireError> for Fatal {
    fn from(error: WireError) -> Self {
        error.close_code().into()
    }
}

impl From<LinkError> for Fatal {
    fn from(error: LinkError) -> Self {
        error.close_code().into()
    }
}

impl Core {
    /// Takes bytes from the network.
    pub(super) fn received(&mut self, now: Now, conn: ConnId, data: &mut [u8], effects: &mut Effects) {
        self.out.stats.link.bytes_in.add(data.len() as u64);
        let Some(session) = self.out.sessions.get(conn) else { return };
        session.heard_us = now.mono_us;
        if matches!(session.phase, Phase::Closing) {
            return;
        }
        if matches!(session.phase, Phase::Opening) {
            return self.opening_received(now, conn, data, effects);
        }
        self.take_in_and_go_on(now, conn, data, effects);
    }

    fn take_in_and_go_on(&mut self, now: Now, conn: ConnId, data: &mut [u8], effects: &mut Effects) {
        match self.take_in(now, conn, data) {
            Ok(()) => self.after_input(now, conn, effects),
            Err(fatal) => self.close_with(now, conn, fatal),
        }
    }

    /// Takes bytes of a connection that is not logged in: at once, if this turn may still spend time on
    /// those, else when its turn comes. Handshakes and logins cost a tenth of a millisecond each and anyone
    /// may ask for them.
    fn opening_received(&mut self, now: Now, conn: ConnId, data: &mut [u8], effects: &mut Effects) {
        let Some(session) = self.out.sessions.get(conn) else { return };
        if self.openings_left > 0 && session.early.is_empty() {
            self.openings_left -= 1;
            return self.take_in_and_go_on(now, conn, data, effects);
        }
        if session.early.len() + data.len() > EARLY_BYTES_MAX {
            return self.close_with(now, conn, CloseCode::Overloaded.into());
        }
        if session.early.is_empty() {
            self.openings.push_back(conn);
        }
        session.early.extend_from_slice(data);
    }

    /// Spends this turn's time for connections that are not logged in on those that have waited longest. True
    /// if more wait.
    pub(super) fn serve_openings(&mut self, now: Now, effects: &mut Effects) -> bool {
        self.openings_left = OPENINGS_PER_TURN;
        while self.openings_left > 0 {
            let Some(conn) = self.openings.pop_front() else { return false };
            let Some(session) = self.out.sessions.get(conn) else { continue };
            let mut early = std::mem::take(&mut session.early);
            if !matches!(session.phase, Phase::Closing) {
                self.openings_left -= 1;
                self.take_in_and_go_on(now, conn, &mut early, effects);
            }
        }
        !self.openings.is_empty()
    }

    /// Gives bytes to the link, and what they hold to [`Core::frame`], as far as it can be taken.
    fn take_in(&mut self, now: Now, conn: ConnId, data: &mut [u8]) -> Result<(), Fatal> {
        let Some(mut link) = self.out.sessions.get(conn).and_then(|session| session.link.take()) else {
            return Ok(());
        };
        let was_established = link.is_established();
        let mut said = self.out.pool.take();
        let result = link.receive(data, &mut said, &mut |plaintext| self.plaintext(now, conn, plaintext));
        let established = link.is_established();
        if let Some(session) = self.out.sessions.get(conn) {
            session.link = Some(link);
            if !said.is_empty() {
                session.out.add_link_bytes(&mut self.out.pool, &said);
                self.out.list(conn);
            }
        }
        self.out.pool.give(said);
        if established && !was_established {
            self.out.stats.link.handshakes.inc();
            let login_us = self.out.shared.deadlines.login_us;
            if let Some(session) = self.out.sessions.get(conn) {
                session.open_by_us = now.mono_us + login_us;
            }
        }
        result
    }

    /// Takes decrypted bytes: as many frames as possible. Returns how many bytes.
    fn plaintext(&mut self, now: Now, conn: ConnId, bytes: &[u8]) -> Result<usize, Fatal> {
        let Some(session) = self.out.sessions.get(conn) else { return Ok(bytes.len()) };
        if session.must_wait() {
            return Ok(0);
        }
        let limit = match session.phase {
            Phase::Opening => Limit::BeforeLogin,
            _ => Limit::AfterLogin,
        };
        let mut stream: FrameStream = std::mem::take(&mut session.frames);
        let taken = stream.feed(bytes, || limit, |frame| self.frame(now, conn, frame));
        if let Some(session) = self.out.sessions.get(conn) {
            session.frames = stream;
        }
        taken
    }

    /// After bytes were taken, or when something that held the connection up has gone: finishes a login, goes
    /// on with what the link holds, and stops or resumes receiving.
    pub(super) fn after_input(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        if let Err(fatal) = self.go_on(now, conn, effects) {
            return self.close_with(now, conn, fatal);
        }
        let Some(session) = self.out.sessions.get(conn) else { return };
        let pause = session.must_wait();
        if pause != session.paused {
            session.paused = pause;
            effects.receives.push((conn, !pause));
        }
    }

    fn go_on(&mut self, now: Now, conn: ConnId, effects: &mut Effects) -> Result<(), Fatal> {
        // Each round takes at least one frame that the link holds, or ends; the link holds a bounded number
        // of bytes.
        loop {
            self.finish_login(now, conn, effects)?;
            self.retry_blocked(now, conn)?;
            let Some(session) = self.out.sessions.get(conn) else { return Ok(()) };
            let held = session.link.as_deref().is_some_and(|link| link.is_stopped());
            if session.must_wait() || !held {
                return Ok(());
            }
            self.take_in(now, conn, &mut [])?;
        }
    }

    /// Tries again to take the frame that had to wait.
    fn retry_blocked(&mut self, now: Now, conn: ConnId) -> Result<(), Fatal> {
        let Some(session) = self.out.sessions.get(conn) else { return Ok(()) };
        let Some(bytes) = session.blocked.take() else { return Ok(()) };
        if let crate::wire::Decoded::Frame { frame, .. } = decode_frame(&bytes, Limit::AfterLogin)? {
            self.frame(now, conn, frame)?;
        }
        Ok(())
    }

    /// Keeps a frame that finds no room now, and stops the connection's input.
    pub(super) fn block(&mut self, conn: ConnId, frame: crate::wire::Frame<'_>) -> Flow {
        if let Some(session) = self.out.sessions.get(conn) {
            let mut bytes = Vec::with_capacity(crate::wire::HEADER_BYTES + frame.payload.len());
            frame.header.encode(&mut bytes);
            bytes.extend_from_slice(frame.payload);
            session.blocked = Some(bytes);
            if !std::mem::replace(&mut session.blocked_listed, true) {
                self.blocked.push_back(conn);
            }
        }
        Flow::Stop
    }
}
