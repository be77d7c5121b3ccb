//! Accepting, receiving and sending.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode, types};
use rustix::net::{RecvFlags, Shutdown};
use shards::io::Errno;

use super::buffers::GROUP;
use super::conn::{Input, Machine, RecvEnd, SendEnd};
use super::driver::{Driver, errno};
use super::op::{ConnKey, Op};
use crate::rt::api::{ConnId, CoreLogic, Event, Now};

/// Bytes read and thrown away at most when a connection is closed on request.
const DISCARD_MAX_BYTES: usize = 256 << 10;

impl<L: CoreLogic> Driver<L> {
    pub(super) fn arm_listener(&mut self, now: Now) {
        let Some(listener) = &mut self.listener else { return };
        if listener.arm_if_due(now.mono_us) {
            let entry = opcode::AcceptMulti::new(types::Fd(listener.fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(Op::Accept.pack());
            // SAFETY: an accept without an address points to nothing.
            unsafe { self.uring.push(entry) };
        }
    }

    pub(super) fn stop_listening(&mut self) {
        if self.listener.as_mut().is_some_and(super::listener::Listener::stop) {
            self.cancel(Op::Accept);
        }
    }

    pub(super) fn on_accept(&mut self, now: Now, result: i32, flags: u32) {
        let Some(listener) = &mut self.listener else { return };
        let stopped = listener.is_stopped();
        // A peer that gave up while it queued says nothing about the next one.
        let refused = result < 0 && ![-libc::ECONNABORTED, -libc::ECANCELED].contains(&result);
        if !cqueue::more(flags) {
            listener.ended(now.mono_us, refused);
        }
        if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            self.accept(now, fd, stopped);
        } else if refused && !stopped {
            self.stats.accepts_failed.add(1);
            self.emit(now, Event::AcceptFailed { errno: errno(result) });
        }
    }

    fn accept(&mut self, now: Now, fd: OwnedFd, stopped: bool) {
        if stopped || !self.table.has_room() {
            self.stats.accepts_shed.add(1);
            drop(fd);
            if !stopped {
                self.emit(now, Event::AcceptFailed { errno: Errno(libc::EMFILE) });
            }
            return;
        }
        // A peer that is gone already has no name, and is no connection.
        let Some(peer) = rustix::net::getpeername(&fd).ok().flatten() else { return };
        let Ok(peer) = SocketAddr::try_from(peer) else { return };
        let (machine, step) = Machine::open();
        let conn = self.table.insert(fd, peer, machine);
        self.stats.accepted.add(1);
        // The receive is queued before the logic hears of the connection: if the logic ends it at once, the
        // cancellation finds something to cancel.
        self.follow(conn, step);
        self.emit(now, Event::Accepted { conn, peer });
    }

    pub(super) fn submit_recv(&mut self, id: ConnId) {
        let Some(fd) = self.table.get(id).and_then(|conn| conn.fd.as_ref()) else { return };
        let fd = types::Fd(fd.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, GROUP).build().user_data(Op::Recv(id.into()).pack());
        // SAFETY: the kernel writes only to provided buffers, which live until the ring has drained, and the
        // descriptor is closed only after this operation has completed.
        unsafe { self.uring.push(entry) };
    }

    pub(super) fn on_recv(&mut self, now: Now, key: ConnKey, result: i32, flags: u32) {
        let conn = self.table.resolve(key);
        debug_assert!(conn.is_some(), "a receive outlived its connection");
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.take_received(now, conn, buffer, usize::try_from(result).unwrap_or(0));
        }
        if cqueue::more(flags) {
            return;
        }
        let end = match result {
            0 => RecvEnd::Eof,
            _ if result > 0 => RecvEnd::Interrupted,
            _ => self.recv_error(-result),
        };
        if let Some(id) = conn {
            self.input(id, Input::RecvEnded(end));
        }
    }

    fn recv_error(&mut self, error: i32) -> RecvEnd {
        if error == libc::ENOBUFS {
            self.stats.recv_starved.add(1);
        }
        match error {
            libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => RecvEnd::Interrupted,
            _ => RecvEnd::Failed(errno(-error)),
        }
    }

    /// Passes received bytes to whoever they are for, and the buffer back to the kernel.
    fn take_received(&mut self, now: Now, conn: Option<ConnId>, buffer: u16, len: usize) {
        self.stats.recv_bytes.add(len as u64);
        let data = self.buffers.hold(buffer, len);
        let state = conn.and_then(|id| self.table.get(id).map(|conn| (id, conn)));
        match state {
            Some((_, conn)) if len > 0 && conn.leaving.is_some() => {
                if let Some(leaving) = &mut conn.leaving {
                    leaving.residue.extend_from_slice(data);
                }
            }
            Some((id, conn)) if len > 0 && conn.machine.is_open() => {
                if let Some(logic) = &mut self.logic {
                    logic.on_event(now, Event::Received { conn: id, data }, &mut self.effects);
                }
            }
            _ => {}
        }
        self.buffers.recycle(buffer);
        self.apply_partings();
    }

    pub(super) fn submit_send(&mut self, id: ConnId) {
        let Some(conn) = self.table.get(id) else { return };
        let (Some(fd), Some(sending)) = (&conn.fd, &conn.sending) else { return };
        let rest = &sending.buf[sending.sent..];
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(fd.as_raw_fd()), rest.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(Op::Send(id.into()).pack());
        // SAFETY: the connection owns the buffer until the completion, untouched, and its heap memory does
        // not move; the descriptor is closed only after this operation has completed.
        unsafe { self.uring.push(entry) };
    }

    pub(super) fn on_send(&mut self, now: Now, key: ConnKey, result: i32) {
        let Some(id) = self.table.resolve(key) else {
            debug_assert!(false, "a send outlived its connection");
            return;
        };
        let Some(conn) = self.table.get(id) else { return };
        let Some(sending) = &mut conn.sending else { return };
        let end = match usize::try_from(result) {
            Ok(sent) => {
                self.stats.sent_bytes.add(sent as u64);
                sending.sent += sent;
                if sending.sent == sending.buf.len() { SendEnd::Whole } else { SendEnd::Short }
            }
            Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => SendEnd::Short,
            Err(_) => SendEnd::Failed(errno(result)),
        };
        let step = conn.machine.on(Input::SendEnded(end));
        if !step.resend
            && let Some(sending) = conn.sending.take()
        {
            let ok = end == SendEnd::Whole;
            self.emit(now, Event::Sent { conn: id, buf: sending.buf, ok });
        } else if step.resend && result > 0 {
            self.emit(now, Event::SendProgress { conn: id });
        }
        self.follow(id, step);
    }
}

/// Ends both directions so that what was sent last still arrives: closing a socket that holds unread bytes
/// resets the connection, and a reset discards what the peer has not read. So what has arrived by now is read
/// and thrown away.
pub(super) fn end_gracefully(fd: &OwnedFd) {
    if rustix::net::shutdown(fd, Shutdown::Write).is_err() {
        return;
    }
    let mut scratch = [0; 4_096];
    let mut discarded = 0;
    while discarded < DISCARD_MAX_BYTES {
        match rustix::net::recv(fd, &mut scratch[..], RecvFlags::DONTWAIT) {
            Ok((got, _)) if got > 0 => discarded += got,
            _ => break,
        }
    }
}
