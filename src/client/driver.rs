//! Runs a [`Client`] over TCP, and connects again when the connection breaks.

use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::machine::{Client, ClientError, ClientEvent, Stage};
use crate::rt::clock::Clock;
use crate::wire::CloseCode;

/// First and longest pause before connecting again.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LONGEST: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 64 * 1024;
/// Sealed bytes kept for a transport that takes none.
const UNSENT_BYTES_MAX: usize = 512 * 1024;

/// Why a client stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The node cannot be talked to, whatever is tried: another identity, a refused key.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node refuses this client for a reason that trying again does not change.
    #[error("the node closed the connection: {}", .0.words())]
    Refused(CloseCode),
    /// The node could not be reached within the time given.
    #[error("cannot reach the node at {addr} for {seconds} s: {cause}; is it running?")]
    Unreachable {
        /// Where it should be.
        addr: String,
        /// For how long it was tried.
        seconds: u64,
        /// What the last attempt said.
        cause: io::Error,
    },
}

/// A client and its connection.
pub struct Driver {
    addr: String,
    client: Client,
    clock: Clock,
    stream: Option<TcpStream>,
    unsent: Vec<u8>,
    read: Vec<u8>,
    backoff: Duration,
    offline_since_us: u64,
    give_up: Duration,
}

impl Driver {
    /// A driver for the node at `addr` (`host:port`), which fails when it cannot reach it for `give_up`.
    pub fn new(addr: String, client: Client, clock: Clock, give_up: Duration) -> Self {
        let offline_since_us = clock.now().mono_us;
        Self {
            addr,
            client,
            clock,
            stream: None,
            unsent: Vec::new(),
            read: vec![0; READ_BYTES],
            backoff: BACKOFF_FIRST,
            offline_since_us,
            give_up,
        }
    }

    /// The state machine, for sending and acknowledging. Call [`Driver::next`] afterwards.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The time of this driver.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The next event. May be dropped at any time and called again.
    pub async fn next(&mut self) -> Result<ClientEvent, DriverError> {
        loop {
            if let Some(event) = self.client.poll(self.clock.now()) {
                if let ClientEvent::Closed { code, .. } = event
                    && is_final(code)
                {
                    return Err(DriverError::Refused(code));
                }
                return Ok(event);
            }
            if self.stream.is_none() {
                self.connect().await?;
                continue;
            }
            match self.step().await {
                Ok(()) => {}
                Err(Step::Lost(cause)) => self.lost(cause),
                Err(Step::Fatal(error)) => return Err(error),
            }
        }
    }

    /// Sends what is left and waits until the node has closed, or `patience` is over.
    pub async fn finish(mut self, patience: Duration) {
        self.client.bye();
        let closed = async { while self.stream.is_some() && self.step().await.is_ok() {} };
        tokio::select! {
            () = closed => {}
            () = sleep(patience) => {}
        }
    }

    async fn connect(&mut self) -> Result<(), DriverError> {
        match TcpStream::connect(&self.addr).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                self.unsent.clear();
                self.client.connected(&mut self.unsent)?;
                self.stream = Some(stream);
                Ok(())
            }
            Err(cause) => {
                let offline_us = self.clock.now().mono_us.saturating_sub(self.offline_since_us);
                if Duration::from_micros(offline_us) >= self.give_up {
                    let (addr, seconds) = (self.addr.clone(), offline_us / 1_000_000);
                    return Err(DriverError::Unreachable { addr, seconds, cause });
                }
                sleep(self.backoff).await;
                self.backoff = (self.backoff * 2).min(BACKOFF_LONGEST);
                Ok(())
            }
        }
    }

    fn lost(&mut self, cause: io::Error) {
        tracing::debug!(%cause, "connection lost");
        self.stream = None;
        self.client.disconnected();
        self.offline_since_us = self.clock.now().mono_us;
    }

    /// Moves bytes both ways once, or waits until something can move.
    async fn step(&mut self) -> Result<(), Step> {
        if self.unsent.len() < UNSENT_BYTES_MAX {
            self.client.flush(self.clock.now(), &mut self.unsent)?;
        }
        let Some(stream) = &self.stream else { return Ok(()) };
        let interest =
            if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let wake_us = self.client.next_us().map(|at_us| at_us.saturating_sub(self.clock.now().mono_us));
        let wake = sleep(Duration::from_micros(wake_us.unwrap_or_default()));
        let ready = tokio::select! {
            ready = stream.ready(interest) => ready?,
            () = wake, if wake_us.is_some() => return Ok(()),
        };
        if ready.is_writable() {
            match stream.try_write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        if ready.is_readable() {
            match stream.try_read(&mut self.read) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(got) => self.client.receive(self.clock.now(), &mut self.read[..got], &mut self.unsent)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if self.client.stage() == Stage::Ready {
                self.backoff = BACKOFF_FIRST;
            }
        }
        Ok(())
    }
}

/// Why a step ended.
enum Step {
    /// The connection is gone; another may do better.
    Lost(io::Error),
    /// No connection will do better.
    Fatal(DriverError),
}

impl From<io::Error> for Step {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<ClientError> for Step {
    fn from(error: ClientError) -> Self {
        if error.is_final() { Self::Fatal(error.into()) } else { Self::Lost(io::Error::other(error)) }
    }
}

/// A close that will come again however often one connects.
fn is_final(code: CloseCode) -> bool {
    use CloseCode as C;
    matches!(
        code,
        C::AuthFailed
            | C::Version
            | C::Magic
            | C::GrantExpired
            | C::ClockSkew
            | C::Displaced
            | C::UnexpectedFrame
    )
}
