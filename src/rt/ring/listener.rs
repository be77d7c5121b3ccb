//! The listening socket of a core, and when it may be armed.
//!
//! When the kernel refuses a connection for want of descriptors or memory, the accept stays down for a while
//! or until a descriptor is freed. It is never tried in a loop, and never given up.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// How long an accept stays down after the kernel refused one, in microseconds.
const RETRY_US: u64 = 100_000;
/// Connections that the kernel may complete before they are accepted.
const BACKLOG: i32 = 4_096;
/// How often, and after which pause, an address in use is tried again: two seconds in all. The kernel takes the rings
/// of a killed process down, and lets go of its sockets, some milliseconds after that process was reaped.
const BIND_TRIES: u32 = 200;
const BIND_PAUSE: Duration = Duration::from_millis(10);

/// Sockets bound to one address, one per core; the kernel spreads connections over them once they listen.
///
/// `SO_REUSEPORT` would let a second process of the same user take a share of the connections unseen, so a
/// socket without it is bound and listens first: it fails if anyone listens there.
pub fn bind(address: SocketAddr, count: u16) -> io::Result<(Vec<Socket>, SocketAddr)> {
    if address.port() != 0 {
        await_free(address, BIND_TRIES)?;
    }
    let (mut sockets, mut bound) = (Vec::new(), address);
    for _ in 0..count {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(bound))?;
        if bound.port() == 0 {
            let actual = socket.local_addr()?.as_socket();
            bound = actual.ok_or_else(|| io::Error::other("a bound socket has no address"))?;
        }
        sockets.push(socket);
    }
    Ok((sockets, bound))
}

/// Waits until nobody listens on `address`, so that a node which was killed can be started again at once.
#[allow(clippy::disallowed_methods, reason = "there is no event for an address that becomes free")]
fn await_free(address: SocketAddr, tries: u32) -> io::Result<()> {
    let probe = || {
        let socket = socket(address)?;
        socket.bind(&address.into())?;
        socket.listen(1)
    };
    for _ in 1..tries {
        match probe() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(BIND_PAUSE),
            other => return other,
        }
    }
    probe()
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Connections inherit it from the listener.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Armed,
    /// Down until this monotonic time.
    Down {
        until_us: u64,
    },
    /// Down for good; an accept may still be in the kernel.
    Stopped {
        armed: bool,
    },
}

/// A listening socket and the state of its multishot accept.
pub(super) struct Listener {
    socket: TcpListener,
    state: State,
}

impl Listener {
    /// Listens on a bound socket. The accept is due at once.
    pub fn listen(socket: Socket) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        Ok(Self { socket: TcpListener::from(OwnedFd::from(socket)), state: State::Down { until_us: 0 } })
    }

    /// Its descriptor; open for as long as the listener lives.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// True once when the accept shall be armed.
    pub fn arm_if_due(&mut self, now_us: u64) -> bool {
        let due = matches!(self.state, State::Down { until_us } if until_us <= now_us);
        if due {
            self.state = State::Armed;
        }
        due
    }

    /// When the accept is due, if it is down.
    pub fn due_us(&self) -> Option<u64> {
        if let State::Down { until_us } = self.state { Some(until_us) } else { None }
    }

    /// The accept left the kernel, after a refusal or by itself.
    pub fn ended(&mut self, now_us: u64, refused: bool) {
        self.state = match self.state {
            State::Stopped { .. } => State::Stopped { armed: false },
            _ => State::Down { until_us: if refused { now_us + RETRY_US } else { 0 } },
        };
    }

    /// A descriptor was freed, so an accept that is down may be tried again.
    pub fn descriptor_freed(&mut self) {
        if let State::Down { until_us } = &mut self.state {
            *until_us = 0;
        }
    }

    /// No further connections. True if the accept must be cancelled.
    pub fn stop(&mut self) -> bool {
        let armed = matches!(self.state, State::Armed | State::Stopped { armed: true });
        let newly = !matches!(self.state, State::Stopped { .. });
        self.state = State::Stopped { armed };
        armed && newly
    }

    /// True if connections are no longer taken.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Listener {
        let (mut sockets, _) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).expect("a free port");
        Listener::listen(sockets.remove(0)).expect("it can listen")
    }

    #[test]
    fn an_accept_that_was_refused_waits_for_time_or_a_descriptor_and_then_is_armed_once() {
        let mut listener = listener();
        assert!(listener.arm_if_due(0) && !listener.arm_if_due(0));
        listener.ended(5, true);
        assert!(!listener.arm_if_due(5 + RETRY_US - 1));
        assert_eq!(listener.due_us(), Some(5 + RETRY_US));
        assert!(listener.arm_if_due(5 + RETRY_US));
        listener.ended(9, true);
        listener.descriptor_freed();
        assert!(listener.arm_if_due(9));
        listener.ended(9, false);
        assert!(listener.arm_if_due(9), "one that stopped by itself is armed at once");
    }

    #[test]
    fn an_accepted_connection_sends_without_delay_as_its_listener_was_told() {
        let listener = listener();
        let address = listener.socket.local_addr().expect("it is bound");
        let _client = std::net::TcpStream::connect(address).expect("it listens");
        let (accepted, _) = listener.socket.accept().expect("one waits");
        assert!(accepted.nodelay().expect("an option of every socket"));
    }

    #[test]
    fn a_stopped_listener_is_never_armed_again() {
        let mut listener = listener();
        assert!(listener.arm_if_due(0));
        assert!(listener.stop() && !listener.stop());
        listener.ended(1, true);
        assert!(!listener.arm_if_due(u64::MAX) && listener.is_stopped());
    }

    #[test]
    fn an_address_on_which_someone_listens_is_refused_and_one_port_serves_every_core() {
        let (sockets, address) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3).expect("a free port");
        assert_eq!(sockets.len(), 3);
        let listening: Vec<_> = sockets.into_iter().map(|s| Listener::listen(s).expect("listens")).collect();
        let refused = await_free(address, 3).expect_err("someone listens");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(listening);
        bind(address, 2).expect("free again");
    }

    #[test]
    fn an_address_that_becomes_free_a_little_later_is_had() {
        let holder = listener();
        let address = holder.socket.local_addr().expect("it is bound");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| bind(address, 1));
            drop(holder);
            waiting.join().expect("no panic").expect("free in time");
        });
    }
}
