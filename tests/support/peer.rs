//! A client that does exactly what a test says, right or wrong: bytes over TCP, records over TLS, frames over
//! both.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use trine::link::{ClientLink, LinkError, UserIdentity, make_login};
use trine::rt::clock::Clock;
use trine::wire::{ClientFrame, CloseCode, HEADER_BYTES, Login, RejectReason};

use super::PATIENCE;
use super::people::any_node;

/// A TCP connection whose reads end in time.
pub fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads until the node closes; panics if it does not.
#[track_caller]
pub fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("the node did not close: {error}"),
    }
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    pub kind: u8,
    pub request: u64,
    pub payload: Vec<u8>,
}

/// The frames that a node sends.
pub mod kind {
    pub const WELCOME: u8 = 0x81;
    pub const RECEIPT: u8 = 0x90;
    pub const DELIVER: u8 = 0x91;
    pub const PONG: u8 = 0x93;
    pub const CLOSE: u8 = 0x9f;
}

/// A client at the other end of a link.
pub struct Peer {
    pub stream: TcpStream,
    pub link: ClientLink,
    plain: Vec<u8>,
}

impl Peer {
    /// Connects and shakes hands; not logged in.
    pub fn shake_hands(at: SocketAddr) -> Self {
        let (mut stream, mut out) = (connect(at), Vec::new());
        let link = ClientLink::new(&any_node(), &mut out).unwrap();
        stream.write_all(&out).unwrap();
        let mut peer = Self { stream, link, plain: Vec::new() };
        while !peer.link.is_established() {
            assert!(peer.read(), "the node closed during the handshake");
        }
        peer
    }

    /// Connects and logs in.
    pub fn log_in(at: SocketAddr, identity: &UserIdentity) -> Self {
        let mut peer = Self::shake_hands(at);
        let login = peer.login(identity);
        peer.send(&[ClientFrame::Login(login)]);
        assert_eq!(peer.expect().kind, kind::WELCOME);
        peer
    }

    /// A valid login for this link.
    pub fn login(&self, identity: &UserIdentity) -> Login {
        let (exporter, node) = (self.link.exporter().unwrap(), self.link.node_id().unwrap());
        make_login(identity, exporter, &node, Clock::start().now().wall_ms)
    }

    /// Sends frames in as few records as possible.
    pub fn send(&mut self, frames: &[ClientFrame<'_>]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.send_bytes(&bytes);
    }

    /// Sends plaintext, whatever it is.
    pub fn send_bytes(&mut self, plaintext: &[u8]) {
        let sealed = self.seal(plaintext);
        // The node may have closed already, and what it says then is what matters.
        let _ = self.stream.write_all(&sealed);
    }

    /// The records that carry `plaintext`.
    pub fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let start = self.link.begin_record(&mut out);
        out.extend_from_slice(plaintext);
        self.link.end_record(&mut out, start).unwrap();
        out
    }

    /// The next frame; `None` when the node has closed.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Raw> {
        loop {
            if let Some(raw) = self.take_frame() {
                return Some(raw);
            }
            if !self.read() {
                return None;
            }
        }
    }

    /// The next frame; panics when the node has closed.
    #[track_caller]
    pub fn expect(&mut self) -> Raw {
        match self.frame() {
            Some(raw) => raw,
            None => panic!("the node closed"),
        }
    }

    /// The code with which the node closes.
    #[track_caller]
    pub fn closed_with(&mut self) -> CloseCode {
        loop {
            match self.frame() {
                Some(raw) if raw.kind == kind::CLOSE => {
                    let code = u16::from_be_bytes([raw.payload[0], raw.payload[1]]);
                    assert_eq!(self.frame(), None, "the last word of a link");
                    return CloseCode::from_code(code).unwrap();
                }
                Some(_) => {}
                None => panic!("the node closed without a word"),
            }
        }
    }

    /// The answer to a SEND: why it was refused, and after how many milliseconds to try again.
    #[track_caller]
    pub fn receipt(&mut self) -> Option<(RejectReason, u32)> {
        loop {
            let raw = self.expect();
            if raw.kind == kind::RECEIPT {
                let retry_ms = u32::from_be_bytes(raw.payload[4..8].try_into().unwrap());
                return RejectReason::from_code(raw.payload[1]).map(|reason| (reason, retry_ms));
            }
        }
    }

    fn take_frame(&mut self) -> Option<Raw> {
        let length = u32::from_be_bytes(self.plain.get(..4)?.try_into().unwrap()) as usize;
        let bytes = HEADER_BYTES + length;
        if self.plain.len() < bytes {
            return None;
        }
        let frame: Vec<u8> = self.plain.drain(..bytes).collect();
        let request = u64::from_be_bytes(frame[8..16].try_into().unwrap());
        Some(Raw { kind: frame[4], request, payload: frame[HEADER_BYTES..].to_vec() })
    }

    /// Reads once. `false` when the node has closed.
    #[track_caller]
    fn read(&mut self) -> bool {
        let (mut buffer, mut out) = ([0; 16 * 1024], Vec::new());
        let got = match self.stream.read(&mut buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came from the node: {error}"),
        };
        let plain = &mut self.plain;
        let received = self.link.receive(&mut buffer[..got], &mut out, &mut |bytes| {
            plain.extend_from_slice(bytes);
            Ok::<_, LinkError>(bytes.len())
        });
        received.unwrap();
        let _ = self.stream.write_all(&out);
        got > 0
    }
}

/// Two users who exchange messages in a thread of their own and are not to be disturbed.
pub struct Undisturbed {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: std::sync::atomic::AtomicBool,
    delivered: std::sync::atomic::AtomicU64,
    slowest_us: std::sync::atomic::AtomicU64,
}

/// A message between two that are undisturbed takes less, on however busy a machine.
const DISTURBED: Duration = Duration::from_secs(5);

use std::sync::atomic::Ordering::Relaxed;

impl Undisturbed {
    /// Starts the exchange, and waits until it runs.
    pub fn start(at: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || super::people::block_on(exchange(at, &theirs))));
        let pair = Self { shared, thread };
        pair.flows();
        pair
    }

    /// Waits until messages have come through that were sent after this call.
    #[track_caller]
    pub fn flows(&self) {
        let before = self.shared.delivered.load(Relaxed);
        super::eventually("messages of the others flow", || {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the others were disturbed");
            (self.shared.delivered.load(Relaxed) > before + 3).then_some(())
        });
    }

    /// Ends the exchange; panics if anything ever went wrong or took long.
    pub fn end(mut self) {
        self.flows();
        self.shared.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let slowest = Duration::from_micros(self.shared.slowest_us.load(Relaxed));
        assert!(slowest < DISTURBED, "a message took {slowest:?}");
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

/// One message after the other; each must be accepted and arrive, on the connections of the beginning.
async fn exchange(at: SocketAddr, shared: &Shared) {
    use super::people::{driver, give, listener, next, user};
    use trine::client::ClientEvent;
    use trine::wire::ReceiptStatus;

    let (alice, bob) = (user(201), user(202));
    let (mut sender, mut receiver) = (driver(at, &alice, None), listener(at, &bob));
    let (mut logins, mut number) = (0, 0_u128);
    while !shared.stop.load(Relaxed) {
        number += 1;
        let begin_us = sender.clock().mono_us();
        give(&mut sender, bob.address(), number, &number.to_be_bytes());
        let (mut accepted, mut arrived) = (false, false);
        while !(accepted && arrived) {
            let event = tokio::select! {
                event = next(&mut sender) => event,
                event = next(&mut receiver) => event,
            };
            match event {
                ClientEvent::Sent(report) => {
                    assert_eq!(report.status, ReceiptStatus::Accepted);
                    accepted = true;
                }
                ClientEvent::Received(message) => {
                    assert_eq!(message.payload, number.to_be_bytes());
                    receiver.client().done(message.key());
                    arrived = true;
                }
                ClientEvent::Ready { .. } => {
                    logins += 1;
                    assert!(logins <= 2, "a connection of the others was lost");
                }
                ClientEvent::CaughtUp => {}
                other => panic!("{other:?}"),
            }
        }
        let took_us = sender.clock().mono_us() - begin_us;
        shared.slowest_us.fetch_max(took_us, Relaxed);
        shared.delivered.fetch_add(1, Relaxed);
    }
}
