//! Runs a [`Client`] over TCP, and connects again when the connection breaks.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::machine::{Client, ClientError, ClientEvent, Stage};
use crate::rt::clock::Clock;
use crate::wire::CloseCode;

const READ_BYTES: usize = 64 * 1024;
/// A machine that waits for nothing is asked again after this.
const WAKE_LATEST: Duration = Duration::from_secs(60);

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

/// A connection that is being made. It is kept, so that an attempt survives a dropped [`Driver::next`].
type Opening = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + Sync>>;

enum Transport {
    None,
    Opening(Opening),
    Open(TcpStream),
}

/// A client and its connection. When to connect, to ask and to give up on a connection is the client's to
/// say.
pub struct Driver {
    addr: String,
    client: Client,
    clock: Clock,
    transport: Transport,
    unsent: Vec<u8>,
    read: Vec<u8>,
    give_up: Duration,
    /// Why the node said that it closes.
    closed: Option<CloseCode>,
    /// Why the last connection ended.
    cause: Option<io::Error>,
}

impl Driver {
    /// A driver for the node at `addr` (`host:port`), which fails when it cannot log in there for `give_up`.
    pub fn new(addr: String, client: Client, clock: Clock, give_up: Duration) -> Self {
        let (transport, read) = (Transport::None, vec![0; READ_BYTES]);
        Self { addr, client, clock, transport, unsent: Vec::new(), read, give_up, closed: None, cause: None }
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
                if let ClientEvent::Closed { code, .. } = event {
                    if is_final(code) {
                        return Err(DriverError::Refused(code));
                    }
                    self.closed = Some(code);
                }
                return Ok(event);
            }
            self.advance().await?;
        }
    }

    /// Acknowledges what the program is done with, says goodbye and waits until the node has closed, or
    /// `patience` is over. Messages without a receipt are not waited for. What arrives meanwhile is not
    /// acknowledged, and so arrives again at the next login.
    pub async fn finish(mut self, patience: Duration) {
        tokio::select! {
            _ = self.goodbye() => {}
            () = sleep(patience) => {}
        }
    }

    async fn goodbye(&mut self) -> Result<(), DriverError> {
        // A connection that broke just now may owe acknowledgements, which only another can bring.
        while !self.client.may_leave() && self.client.is_owing() {
            self.advance().await?;
            while self.client.poll(self.clock.now()).is_some() {}
        }
        self.client.bye();
        while self.client.stage() == Stage::Leaving && self.step().await.is_ok() {}
        Ok(())
    }

    /// One step, or what follows from its failure.
    async fn advance(&mut self) -> Result<(), DriverError> {
        match self.step().await {
            Ok(()) => {}
            Err(Step::Lost(cause)) => self.lost(cause),
            Err(Step::Fatal(error)) => return Err(error),
        }
        Ok(())
    }

    fn lost(&mut self, cause: io::Error) {
        tracing::debug!(%cause, "connection lost");
        self.transport = Transport::None;
        self.client.disconnected(self.clock.now());
        let said = self.closed.take().map(|code| format!("the node closed the connection: {}", code.words()));
        self.cause = Some(said.map_or(cause, io::Error::other));
    }

    /// Fails if there was no login for too long.
    fn check_reachable(&mut self) -> Result<(), DriverError> {
        let Some(since_us) = self.client.offline_since_us() else { return Ok(()) };
        let offline_us = self.clock.mono_us().saturating_sub(since_us);
        if Duration::from_micros(offline_us) < self.give_up {
            return Ok(());
        }
        let cause = self.cause.take().unwrap_or_else(|| io::ErrorKind::TimedOut.into());
        Err(DriverError::Unreachable { addr: self.addr.clone(), seconds: offline_us / 1_000_000, cause })
    }

    /// When to go on without input, from now.
    fn wake(&self) -> Duration {
        let give_up_us = u64::try_from(self.give_up.as_micros()).unwrap_or(u64::MAX);
        let gone = match self.transport {
            Transport::None => {
                self.client.offline_since_us().map(|since_us| since_us.saturating_add(give_up_us))
            }
            Transport::Opening(_) | Transport::Open(_) => None,
        };
        let at_us = gone.into_iter().chain(self.client.next_us()).min();
        at_us.map_or(WAKE_LATEST, |at_us| Duration::from_micros(at_us.saturating_sub(self.clock.mono_us())))
    }

    /// Goes on with the connection once, or waits until it can go on.
    async fn step(&mut self) -> Result<(), Step> {
        self.client.flush(self.clock.now(), &mut self.unsent)?;
        let wake = self.wake();
        match &mut self.transport {
            Transport::None => {
                self.check_reachable().map_err(Step::Fatal)?;
                if self.client.connect_us() > self.clock.mono_us() {
                    sleep(wake).await;
                    return Ok(());
                }
                self.client.connecting(self.clock.now());
                self.transport = Transport::Opening(Box::pin(TcpStream::connect(self.addr.clone())));
                Ok(())
            }
            Transport::Opening(opening) => {
                let stream = tokio::select! {
                    opened = opening => opened?,
                    () = sleep(wake) => return Ok(()),
                };
                let _ = stream.set_nodelay(true);
                self.unsent.clear();
                self.transport = Transport::Open(stream);
                let connected = self.client.connected(self.clock.now(), &mut self.unsent);
                connected.map_err(|error| Step::Fatal(error.into()))?;
                Ok(())
            }
            Transport::Open(_) => self.exchange(wake).await,
        }
    }

    /// Moves bytes both ways once, or waits until something can move.
    async fn exchange(&mut self, wake: Duration) -> Result<(), Step> {
        let Transport::Open(stream) = &self.transport else { return Ok(()) };
        let interest =
            if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = tokio::select! {
            // What arrived while the program was elsewhere is looked at before the time is.
            biased;
            ready = stream.ready(interest) => ready?,
            () = sleep(wake) => return Ok(()),
        };
        if ready.is_writable() {
            match stream.try_write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What the node said before it closed is read first: it may be why.
                Err(error) if !ready.is_readable() => return Err(error.into()),
                Err(_) => self.unsent.clear(),
            }
        }
        if ready.is_readable() {
            match stream.try_read(&mut self.read) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(got) => self.client.receive(self.clock.now(), &mut self.read[..got], &mut self.unsent)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
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
