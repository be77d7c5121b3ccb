//! All crossings of a node, grouped by the core that uses them.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::bytes::{self, BytesConsumer, BytesProducer, PushError};
use super::doorbell::Doorbell;
use super::set::{CoreSet, MAX_CORES};
use super::slots::{self, SlotConsumer, SlotProducer};
use crate::rt::api::CoreId;

/// A message of the control class.
pub type Control = Box<dyn Any + Send>;

/// Capacity of the three queues of each ordered pair of cores. All are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossingSizes {
    /// Bytes of the request queue; a request may take at most half.
    pub request_bytes: usize,
    /// Replies in flight. Whoever admits requests must not have more outstanding with one core than this.
    pub reply_slots: usize,
    /// Control messages in flight.
    pub control_slots: usize,
}

impl CrossingSizes {
    /// Sizes that keep the sum over all pairs in bounds: the more cores, the smaller each queue. The floor of
    /// the request queue still takes a request of 64 KiB.
    pub fn for_cores(cores: u16) -> Self {
        let cores = usize::from(cores.max(1)).next_power_of_two();
        Self {
            request_bytes: ((4 << 20) / cores).clamp(256 << 10, 1 << 20),
            reply_slots: (16_384 / cores).clamp(512, 4_096),
            control_slots: 64,
        }
    }

    /// Memory of the queues between `cores` cores, in bytes, when replies are `R`.
    pub fn memory_bytes<R>(&self, cores: u16) -> usize {
        let pairs = usize::from(cores) * usize::from(cores.saturating_sub(1));
        let slots = self.reply_slots * size_of::<R>() + self.control_slots * size_of::<Control>();
        pairs * (self.request_bytes + slots)
    }
}

/// Counters of one core's crossings, summed over its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrossingStats {
    /// Bytes in outgoing request queues now.
    pub request_depth_bytes: usize,
    /// Values in outgoing reply queues now.
    pub reply_depth: usize,
    /// Requests refused because a queue was full.
    pub requests_refused: u64,
    /// Replies refused. Anything but 0 means that credits were sized wrongly.
    pub replies_refused: u64,
    /// Control messages refused because a queue was full.
    pub controls_refused: u64,
    /// Cores this core had to wake.
    pub rings: u64,
}

/// The six queue ends that join a core with one other core.
struct Peer<R> {
    request_out: BytesProducer,
    reply_out: SlotProducer<R>,
    control_out: SlotProducer<Control>,
    request_in: BytesConsumer,
    reply_in: SlotConsumer<R>,
    control_in: SlotConsumer<Control>,
}

impl<R> Peer<R> {
    /// Makes pushes visible and gives drained room back. Says whether there was anything to push, and to give
    /// back.
    fn publish(&mut self) -> (bool, bool) {
        let pushed = self.request_out.publish() | self.reply_out.publish() | self.control_out.publish();
        let freed = self.request_in.release() | self.reply_in.release() | self.control_in.release();
        (pushed, freed)
    }

    /// After the fence that follows `publish`: true if the other core waits for room that was made.
    fn take_starved(&self) -> bool {
        self.request_in.take_starved() | self.reply_in.take_starved() | self.control_in.take_starved()
    }

    fn must_run(&mut self) -> bool {
        self.reply_in.ready()
            || self.control_in.ready()
            || self.request_in.ready()
            || self.request_out.room_appeared()
            || self.reply_out.room_appeared()
            || self.control_out.room_appeared()
    }
}

/// What the runtime needs of a core's crossings, whatever its reply type.
pub trait Port {
    /// Makes the turn's pushes visible and gives drained room back. Returns the sleeping cores that the
    /// caller must ring now.
    fn publish(&mut self) -> CoreSet;
    /// True if something has arrived, or room has appeared where a push was refused. Checked between
    /// [`Doorbell::park`] and sleep.
    fn must_run(&mut self) -> bool;
}

/// The ends of all crossings that belong to one core. Indexed by the other core.
pub struct CoreCrossings<R> {
    core: CoreId,
    peers: Box<[Option<Peer<R>>]>,
    doorbells: Arc<[Doorbell]>,
    rings: u64,
}

/// Crossings between `cores` cores, one set per core, with doorbells of their own.
pub fn mesh<R: Send>(cores: u16, sizes: CrossingSizes) -> Vec<CoreCrossings<R>> {
    mesh_with(cores, sizes, &doorbells(cores))
}

/// One doorbell per core.
pub(in crate::rt) fn doorbells(cores: u16) -> Arc<[Doorbell]> {
    (0..cores).map(|_| Doorbell::default()).collect()
}

/// As [`mesh`], over the doorbells of the runtime, of which there is one per core.
pub fn mesh_with<R: Send>(
    cores: u16,
    sizes: CrossingSizes,
    doorbells: &Arc<[Doorbell]>,
) -> Vec<CoreCrossings<R>> {
    let count = usize::from(cores);
    assert!((1..=MAX_CORES).contains(&count) && doorbells.len() == count, "{count} cores");
    let mut rows: Vec<Vec<Option<Peer<R>>>> =
        (0..count).map(|_| (0..count).map(|_| None).collect()).collect();
    let pairs = (0..count).flat_map(|low| (low + 1..count).map(move |high| (low, high)));
    for (low, high) in pairs {
        let (a, b) = joined(sizes);
        rows[low][high] = Some(a);
        rows[high][low] = Some(b);
    }
    let build = |(core, peers): (usize, Vec<Option<Peer<R>>>)| CoreCrossings {
        core: CoreId(core as u16),
        peers: peers.into(),
        doorbells: Arc::clone(doorbells),
        rings: 0,
    };
    rows.into_iter().enumerate().map(build).collect()
}

/// The two ends of a pair of cores.
fn joined<R>(sizes: CrossingSizes) -> (Peer<R>, Peer<R>) {
    let requests = (bytes::channel(sizes.request_bytes), bytes::channel(sizes.request_bytes));
    let replies = (slots::channel(sizes.reply_slots), slots::channel(sizes.reply_slots));
    let controls = (slots::channel(sizes.control_slots), slots::channel(sizes.control_slots));
    let a = Peer {
        request_out: requests.0.0,
        reply_out: replies.0.0,
        control_out: controls.0.0,
        request_in: requests.1.1,
        reply_in: replies.1.1,
        control_in: controls.1.1,
    };
    let b = Peer {
        request_out: requests.1.0,
        reply_out: replies.1.0,
        control_out: controls.1.0,
        request_in: requests.0.1,
        reply_in: replies.0.1,
        control_in: controls.0.1,
    };
    (a, b)
}

impl<R: Send> CoreCrossings<R> {
    /// The core these ends belong to.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Number of cores of the node, this one included.
    pub fn cores(&self) -> u16 {
        self.peers.len() as u16
    }

    /// The other cores, in rising order.
    pub fn others(&self) -> impl Iterator<Item = CoreId> + use<R> {
        let me = self.core.0;
        (0..self.cores()).filter(move |core| *core != me).map(CoreId)
    }

    fn peer(&mut self, core: CoreId) -> &mut Peer<R> {
        let peer = self.peers.get_mut(usize::from(core.0)).and_then(Option::as_mut);
        peer.unwrap_or_else(|| panic!("core {} has no crossing to {core:?}", self.core.0))
    }

    /// Longest request, in bytes; 0 on a node of one core.
    pub fn max_request_bytes(&self) -> usize {
        self.peers.iter().flatten().map(|peer| peer.request_out.max_record_bytes()).next().unwrap_or(0)
    }

    /// Pushes a request made of `parts` for `to`, another core.
    pub fn push_request(&mut self, to: CoreId, parts: &[&[u8]]) -> Result<(), PushError> {
        self.peer(to).request_out.try_push(parts)
    }

    /// Pushes a reply for `to`, another core; gives it back if the queue is full.
    pub fn push_reply(&mut self, to: CoreId, reply: R) -> Result<(), R> {
        self.peer(to).reply_out.try_push(reply)
    }

    /// Pushes a control message for `to`, another core; gives it back if the queue is full.
    pub fn push_control(&mut self, to: CoreId, message: Control) -> Result<(), Control> {
        self.peer(to).control_out.try_push(message)
    }

    /// The next request from `from`, in place, until [`CoreCrossings::pop_request`].
    pub fn peek_request(&mut self, from: CoreId) -> Option<&mut [u8]> {
        self.peer(from).request_in.peek()
    }

    /// Takes the request that [`CoreCrossings::peek_request`] shows; false if there is none.
    pub fn pop_request(&mut self, from: CoreId) -> bool {
        self.peer(from).request_in.pop()
    }

    /// Takes the next reply from `from`.
    pub fn pop_reply(&mut self, from: CoreId) -> Option<R> {
        self.peer(from).reply_in.pop()
    }

    /// Takes the next control message from `from`.
    pub fn pop_control(&mut self, from: CoreId) -> Option<Control> {
        self.peer(from).control_in.pop()
    }

    /// Depths and refusals now.
    pub fn stats(&self) -> CrossingStats {
        let mut stats = CrossingStats { rings: self.rings, ..CrossingStats::default() };
        for peer in self.peers.iter().flatten() {
            stats.request_depth_bytes += peer.request_out.depth_bytes();
            stats.reply_depth += peer.reply_out.depth();
            stats.requests_refused += peer.request_out.refusals();
            stats.replies_refused += peer.reply_out.refusals();
            stats.controls_refused += peer.control_out.refusals();
        }
        stats
    }
}

impl<R: Send> Port for CoreCrossings<R> {
    fn publish(&mut self) -> CoreSet {
        let (mut pushed, mut freed) = (CoreSet::default(), CoreSet::default());
        for (core, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            let (has_pushed, has_freed) = peer.publish();
            if has_pushed {
                pushed.insert(CoreId(core as u16));
            }
            if has_freed {
                freed.insert(CoreId(core as u16));
            }
        }
        let mut touched = pushed;
        touched.merge(freed);
        if touched.is_empty() {
            return touched;
        }
        // One fence for the whole batch: it stands between the stores above and the looks at `starved` and at
        // the doorbells below.
        fence(Ordering::SeqCst);
        let mut ring = CoreSet::default();
        for core in touched.iter() {
            let index = usize::from(core.0);
            let starved = freed.contains(core) && self.peers[index].as_ref().is_some_and(Peer::take_starved);
            if (pushed.contains(core) || starved) && self.doorbells[index].claim_ring() {
                self.rings += 1;
                ring.insert(core);
            }
        }
        ring
    }

    fn must_run(&mut self) -> bool {
        self.peers.iter_mut().flatten().any(Peer::must_run)
    }
}
