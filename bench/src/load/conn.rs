//! One connection of the generator: its socket and what it could not send yet.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::event::epoll::EventFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{BenchError, Context, Result};

/// A connection.
pub struct Conn<P> {
    pub stream: TcpStream,
    pub protocol: P,
    /// Bytes to send.
    pub unsent: Vec<u8>,
    /// Listed among those to flush.
    pub dirty: bool,
    /// It is being watched for room to write.
    wants_room: bool,
}

impl<P> Conn<P> {
    /// Connects from `source`, waits for the connection, then never blocks again.
    pub fn connect(source: Ipv4Addr, to: SocketAddr, protocol: P) -> Result<Self> {
        let stream = dial(source, to).context(format!("connecting to {to} from {source}"))?;
        Ok(Self { stream, protocol, unsent: Vec::new(), dirty: false, wants_room: false })
    }

    /// Reads what is there; 0 if nothing is. The end of the connection is an error: no scenario expects it.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        match self.stream.read(into) {
            Ok(0) => Err(BenchError::Peer {
                peer: "server",
                what: "closed a connection in the middle of a run".into(),
            }),
            Ok(got) => Ok(got),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(error).context("reading from a server"),
        }
    }

    /// Writes what can be written. Returns what to watch the connection for from now on, if that changes.
    pub fn write(&mut self) -> Result<Option<EventFlags>> {
        if !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) if sent == self.unsent.len() => self.unsent.clear(),
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("writing to a server"),
            }
        }
        let wants_room = !self.unsent.is_empty();
        let changed = wants_room != self.wants_room;
        self.wants_room = wants_room;
        let interest = if wants_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(changed.then_some(interest))
    }
}

/// A connected socket that does not block. It ends with a reset, so that thousands per second leave no port
/// waiting.
pub fn dial(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(std::time::Duration::ZERO))?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&to.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
