//! A small logic that echoes, and what the tests of the runtime share.

#![allow(dead_code, reason = "every test binary uses a part")]

pub mod disk;
pub mod ping_pong;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use trine::rt::api::{ConnId, CoreId, CoreLogic, Effects, Event, HandOver, Next, Now};
use trine::rt::clock::Clock;
use trine::rt::crossing::{CoreCrossings, Port};
use trine::rt::executor::{CoreContext, NodeSetup, RunningNode, StartError, run};
use trine::rt::ring::RingConfig;

pub type Reply = [u8; 64];

/// What a logic saw, for the test's eyes.
#[derive(Debug, Default)]
pub struct Seen {
    pub accepted: AtomicU64,
    pub adopted: AtomicU64,
    pub closed: AtomicU64,
    pub accept_failed: AtomicU64,
    pub received_bytes: AtomicU64,
}

impl Seen {
    fn raise(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

struct Pipe {
    conn: ConnId,
    open: bool,
    sending: bool,
    queued: Vec<u8>,
}

/// Sends back what it receives. On a node of several cores, a connection whose first byte is `b'>'` moves to
/// the next core at once, and again each time one is received at the start of a chunk; the byte is echoed
/// like the others.
pub struct Echo {
    pub crossings: CoreCrossings<Reply>,
    pub seen: Arc<Seen>,
    pipes: Vec<Pipe>,
    open: usize,
    draining: bool,
}

impl Echo {
    pub fn new(context: CoreContext<Reply>, seen: Arc<Seen>) -> Self {
        Self { crossings: context.crossings, seen, pipes: Vec::new(), open: 0, draining: false }
    }

    fn begin(&mut self, conn: ConnId, queued: Vec<u8>, effects: &mut Effects) {
        let slot = conn.slot as usize;
        if self.pipes.len() <= slot {
            let conn = ConnId { slot: 0, generation: 0 };
            self.pipes.resize_with(slot + 1, || Pipe {
                conn,
                open: false,
                sending: false,
                queued: Vec::new(),
            });
        }
        self.pipes[slot] = Pipe { conn, open: true, sending: false, queued };
        self.open += 1;
        self.flush(conn, effects);
    }

    fn flush(&mut self, conn: ConnId, effects: &mut Effects) {
        let pipe = &mut self.pipes[conn.slot as usize];
        if pipe.open && !pipe.sending && !pipe.queued.is_empty() {
            pipe.sending = true;
            effects.send(conn, std::mem::take(&mut pipe.queued));
        }
    }

    fn received(&mut self, conn: ConnId, data: &[u8], effects: &mut Effects) {
        self.seen.received_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let cores = self.crossings.cores();
        let pipe = &mut self.pipes[conn.slot as usize];
        pipe.queued.extend_from_slice(data);
        if data.first() == Some(&b'>') && cores > 1 && !pipe.sending {
            pipe.open = false;
            self.open -= 1;
            let queued = std::mem::take(&mut pipe.queued);
            let to = CoreId((self.crossings.core().0 + 1) % cores);
            effects.hand_overs.push(HandOver { conn, to, state: Box::new(queued) });
        }
    }
}

impl CoreLogic for Echo {
    fn on_event(&mut self, _now: Now, event: Event<'_>, effects: &mut Effects) {
        match event {
            Event::Accepted { conn, .. } => {
                Seen::raise(&self.seen.accepted);
                self.begin(conn, Vec::new(), effects);
            }
            Event::Adopted { conn, state, .. } => {
                Seen::raise(&self.seen.adopted);
                let queued = *state.downcast::<Vec<u8>>().expect("the state that was attached");
                self.begin(conn, queued, effects);
            }
            Event::Received { conn, data } => {
                assert!(self.pipes[conn.slot as usize].open, "bytes of a connection that is not here");
                self.received(conn, data, effects);
                self.flush_if_here(conn, effects);
            }
            Event::SendProgress { .. } => {}
            Event::Sent { conn, .. } => {
                self.pipes[conn.slot as usize].sending = false;
                self.flush(conn, effects);
            }
            Event::Closed { conn, .. } => {
                Seen::raise(&self.seen.closed);
                let pipe = &mut self.pipes[conn.slot as usize];
                assert!(pipe.open && !pipe.sending, "closed once, and after its buffer had returned");
                pipe.open = false;
                self.open -= 1;
            }
            Event::AcceptFailed { .. } => Seen::raise(&self.seen.accept_failed),
            Event::Disk(done) => panic!("no disk operation was asked for: {done:?}"),
        }
    }

    fn turn(&mut self, _now: Now, effects: &mut Effects) -> Next {
        if self.draining {
            let here = self.pipes.iter().enumerate().filter(|(_, pipe)| pipe.open);
            effects.closes.extend(here.map(|(_, pipe)| pipe.conn));
        }
        if self.draining && self.open == 0 { Next::Done } else { Next::Event }
    }

    fn begin_shutdown(&mut self, _now: Now, _effects: &mut Effects) {
        self.draining = true;
    }

    fn port(&mut self) -> Option<&mut dyn Port> {
        Some(&mut self.crossings)
    }
}

impl Echo {
    fn flush_if_here(&mut self, conn: ConnId, effects: &mut Effects) {
        if self.pipes[conn.slot as usize].open {
            self.flush(conn, effects);
        }
    }
}

/// Moves each connection to the next core as soon as it hears of it, a number of times; then closes it, or
/// echoes what it receives first.
pub struct Restless {
    crossings: CoreCrossings<Reply>,
    seen: Arc<Seen>,
    moves: u64,
    echoes: bool,
    draining: bool,
}

impl Restless {
    fn arrived(&self, conn: ConnId, moved: u64, effects: &mut Effects) {
        if moved < self.moves {
            let to = CoreId((self.crossings.core().0 + 1) % self.crossings.cores());
            effects.hand_overs.push(HandOver { conn, to, state: Box::new(moved + 1) });
        } else if !self.echoes {
            effects.close(conn);
        }
    }
}

impl CoreLogic for Restless {
    fn on_event(&mut self, _now: Now, event: Event<'_>, effects: &mut Effects) {
        match event {
            Event::Accepted { conn, .. } => self.arrived(conn, 0, effects),
            Event::Adopted { conn, state, .. } => {
                Seen::raise(&self.seen.adopted);
                let moved = *state.downcast::<u64>().expect("the state that was attached");
                self.arrived(conn, moved, effects);
            }
            Event::Received { conn, data } => effects.send(conn, data.to_vec()),
            Event::Sent { ok, .. } => assert!(ok),
            Event::Closed { .. } => Seen::raise(&self.seen.closed),
            other => panic!("nothing else was asked for: {other:?}"),
        }
    }

    fn turn(&mut self, _now: Now, _effects: &mut Effects) -> Next {
        if self.draining { Next::Done } else { Next::Event }
    }

    fn begin_shutdown(&mut self, _now: Now, _effects: &mut Effects) {
        self.draining = true;
    }

    fn port(&mut self) -> Option<&mut dyn Port> {
        Some(&mut self.crossings)
    }
}

pub fn setup(ring: RingConfig) -> NodeSetup {
    let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    NodeSetup { listen, ring, crossings: None, volume: None, clock: Clock::start() }
}

/// An echo node. `None`, said loudly, if this machine lacks the processors.
pub fn start_echo(cores: u16, ring: RingConfig) -> Option<(RunningNode, Arc<Seen>)> {
    start(cores, ring, Echo::new)
}

/// A node whose connections move on; as [`start_echo`].
pub fn start_restless(cores: u16, moves: u64, echoes: bool) -> Option<(RunningNode, Arc<Seen>)> {
    start(cores, RingConfig::default(), move |context, seen| {
        let crossings = context.crossings;
        Restless { crossings, seen, moves, echoes, draining: false }
    })
}

fn start<L: CoreLogic + 'static>(
    cores: u16,
    ring: RingConfig,
    logic: impl Fn(CoreContext<Reply>, Arc<Seen>) -> L + Copy + Send + 'static,
) -> Option<(RunningNode, Arc<Seen>)> {
    let seen = Arc::new(Seen::default());
    let factories: Vec<_> = (0..cores)
        .map(|_| {
            let seen = Arc::clone(&seen);
            move |context: CoreContext<Reply>| Ok::<_, Infallible>(logic(context, seen))
        })
        .collect();
    match run(setup(ring), factories) {
        Ok(node) => Some((node, seen)),
        Err(error @ StartError::Processors { .. }) => {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub fn connect(node: &RunningNode) -> TcpStream {
    let stream = TcpStream::connect(node.address().expect("it listens")).expect("it accepts");
    stream.set_nodelay(true).expect("an option of every socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of every socket");
    stream
}

/// Bytes that differ from place to place and never start a hand-over.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + ((i * 7 + seed * 13) % 23) as u8).collect()
}

/// Writes `data` in pieces of `piece` bytes while reading it back, and compares.
pub fn round_trip(stream: &TcpStream, data: &[u8], piece: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in data.chunks(piece) {
                (&*stream).write_all(part).expect("the node takes bytes");
            }
        });
        let mut back = vec![0; data.len()];
        (&*stream).read_exact(&mut back).expect("the node sends bytes");
        assert!(back == data, "bytes were lost, doubled or moved");
    });
}

pub fn stop(node: RunningNode) {
    let stats = node.stats();
    node.shutdown();
    node.join().expect("every core ends well");
    for core in stats {
        assert_eq!(core.in_flight.get(), 0, "something stayed in the kernel");
        assert_eq!(core.connections.get(), 0);
    }
}

/// glommio 0.9 never closes one eventfd of each executor it has run (an empty executor shows it); a node
/// starts its executors once.
pub const GLOMMIO_LEAKS_PER_CORE: usize = 1;

/// Open descriptors of this process.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count()
}

/// Waits until `done`, looking often. Fails the test after 20 seconds.
pub fn eventually(what: &str, done: impl FnMut() -> bool) {
    eventually_within(20, what, done);
}

/// As [`eventually`], with a limit of its own.
#[allow(
    clippy::disallowed_methods,
    reason = "a deadline for a test, and a pause between looks at another thread"
)]
pub fn eventually_within(seconds: u64, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
