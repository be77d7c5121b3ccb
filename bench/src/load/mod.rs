//! The load generator: one thread, one epoll, many connections, whatever the protocol.
//!
//! A *flow* is what load is counted by: a sender and the connection on which the end of its messages shows,
//! which is the same one for a publisher and another one for a pair. Closed loop keeps a window of messages
//! under way per flow and measures throughput and processor time only. Open loop sends by a schedule,
//! whatever comes back, and measures from the time at which a message was meant to be sent; only that is
//! called latency.

mod closed;
mod conn;
mod open;
mod storm;

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use trine::rt::api::Now;
use trine::rt::clock::Clock;

use crate::error::{BenchError, Context, Result};
use conn::Conn;

pub use closed::Throughput;
pub use open::Latency;

const READ_BYTES: usize = 64 * 1024;
const EVENTS: usize = 1024;
/// How long all connections together may take to log in.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Connections that are being set up at once.
const OPENING_AT_ONCE: usize = 256;

/// One connection's side of a protocol, without I/O.
pub trait Protocol {
    /// The transport is open. Writes the first bytes to `out`.
    fn open(&mut self, now: Now, out: &mut Vec<u8>) -> Result<()>;
    /// Set up and able to send and receive.
    fn is_ready(&self) -> bool;
    /// Sends one message that carries `stamp_ns`.
    fn send(&mut self, now: Now, stamp_ns: u64, out: &mut Vec<u8>) -> Result<()>;
    /// Takes bytes. The stamp of every message whose end shows here goes to `done`.
    fn receive(&mut self, now: Now, data: &mut [u8], done: &mut Vec<u64>, out: &mut Vec<u8>) -> Result<()>;
    /// Writes what became due by sending or receiving.
    fn flush(&mut self, now: Now, out: &mut Vec<u8>) -> Result<()>;
}

/// The protocols of one flow: one that sends, and one more if the end of a message shows elsewhere.
pub struct FlowSpec<P> {
    /// Sends; messages end here if there is no receiver.
    pub sender: P,
    /// Receives.
    pub receiver: Option<P>,
}

struct Flow {
    sender: usize,
    outstanding: u32,
}

/// All connections of a load and what drives them.
pub struct Load<P> {
    poll: OwnedFd,
    conns: Vec<Conn<P>>,
    flow_of: Vec<usize>,
    flows: Vec<Flow>,
    clock: Clock,
    start: Instant,
    events: Vec<MaybeUninit<epoll::Event>>,
    read: Vec<u8>,
    dirty: Vec<usize>,
    done: Vec<u64>,
    /// Time spent on input since it was last set to 0, in nanoseconds.
    work_ns: u64,
}

impl<P: Protocol> Load<P> {
    /// Connects every flow to `addr` and waits until all are ready.
    pub fn connect(addr: SocketAddr, flows: Vec<FlowSpec<P>>) -> Result<Self> {
        let mut load = Self::new()?;
        for FlowSpec { sender, receiver } in flows {
            let flow = load.flows.len();
            for protocol in receiver.into_iter().chain([sender]) {
                load.add(addr, flow, protocol)?;
            }
            load.flows.push(Flow { sender: load.conns.len() - 1, outstanding: 0 });
            if load.conns.len().is_multiple_of(OPENING_AT_ONCE) {
                load.await_ready()?;
            }
        }
        load.await_ready()?;
        Ok(load)
    }

    fn new() -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("making an epoll")?;
        Ok(Self {
            poll,
            conns: Vec::new(),
            flow_of: Vec::new(),
            flows: Vec::new(),
            clock: Clock::start(),
            start: Instant::now(),
            events: vec![MaybeUninit::uninit(); EVENTS],
            read: vec![0; READ_BYTES],
            dirty: Vec::new(),
            done: Vec::new(),
            work_ns: 0,
        })
    }

    fn add(&mut self, addr: SocketAddr, flow: usize, protocol: P) -> Result<()> {
        let index = self.conns.len();
        let mut conn = Conn::connect(source_of(index), addr, protocol)?;
        conn.protocol.open(self.clock.now(), &mut conn.unsent)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.poll, conn.stream.as_fd(), data, epoll::EventFlags::IN)
            .context("watching a connection")?;
        self.conns.push(conn);
        self.flow_of.push(flow);
        self.touch(index);
        Ok(())
    }

    fn await_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let mut from = 0;
        while from < self.conns.len() {
            self.flush()?;
            self.pump(Some(Duration::from_millis(100)), |_, _| {})?;
            while self.conns.get(from).is_some_and(|conn| conn.protocol.is_ready()) {
                from += 1;
            }
            if Instant::now() > until {
                let what = format!("setting up {} connections", self.conns.len());
                return Err(BenchError::TooLate { what, seconds: READY_WITHIN.as_secs() });
            }
        }
        self.flush()
    }

    /// Connections.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn touch(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(index);
        }
    }

    fn send(&mut self, flow: usize, stamp_ns: u64, now: Now) -> Result<()> {
        let index = self.flows[flow].sender;
        let conn = &mut self.conns[index];
        conn.protocol.send(now, stamp_ns, &mut conn.unsent)?;
        self.touch(index);
        Ok(())
    }

    /// Waits for input and takes it; `on_done` hears flow and stamp of every message that ended. Returns
    /// how many connections had something.
    fn pump(&mut self, timeout: Option<Duration>, mut on_done: impl FnMut(usize, u64)) -> Result<usize> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut events = std::mem::take(&mut self.events);
        let ready = match epoll::wait(&self.poll, &mut events[..], timeout.as_ref()) {
            Ok((ready, _)) => Ok(&*ready),
            Err(rustix::io::Errno::INTR) => Ok(&[][..]),
            Err(errno) => Err(errno),
        };
        let ready = ready.context("waiting for the connections")?;
        let (count, now, woken_ns) = (ready.len(), self.clock.now(), self.now_ns());
        for event in ready {
            self.take_in(event.data.u64() as usize, event.flags, now, &mut on_done)?;
        }
        if count > 0 {
            self.work_ns += self.now_ns() - woken_ns;
        }
        self.events = events;
        Ok(count)
    }

    fn take_in(
        &mut self,
        index: usize,
        flags: epoll::EventFlags,
        now: Now,
        on_done: &mut impl FnMut(usize, u64),
    ) -> Result<()> {
        let conn = &mut self.conns[index];
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            let got = conn.read(&mut self.read)?;
            conn.protocol.receive(now, &mut self.read[..got], &mut self.done, &mut conn.unsent)?;
            for stamp_ns in self.done.drain(..) {
                on_done(self.flow_of[index], stamp_ns);
            }
        }
        self.touch(index);
        Ok(())
    }

    /// Sends what every connection has to send, one write each.
    fn flush(&mut self) -> Result<()> {
        let now = self.clock.now();
        for at in 0..self.dirty.len() {
            let index = self.dirty[at];
            let conn = &mut self.conns[index];
            conn.dirty = false;
            conn.protocol.flush(now, &mut conn.unsent)?;
            if let Some(interest) = conn.write()? {
                let data = epoll::EventData::new_u64(index as u64);
                epoll::modify(&self.poll, conn.stream.as_fd(), data, interest)
                    .context("watching a connection")?;
            }
        }
        self.dirty.clear();
        Ok(())
    }
}

/// The source address of connection number `index`: another one for every few thousand, so that ports do
/// not run out.
pub fn source_of(index: usize) -> Ipv4Addr {
    const PER_ADDRESS: usize = 4096;
    Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + (index / PER_ADDRESS) as u32)
}
