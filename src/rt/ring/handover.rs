//! Connections on their way from one core to another.
//!
//! A parcel owns the descriptor, so one that nobody unpacks (its target is shutting down, or full) closes it.

use std::any::Any;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::rt::api::{CloseCause, CoreId};
use crate::rt::crossing::slots::{self, SlotConsumer, SlotProducer};
use crate::rt::crossing::{CoreSet, Doorbell, Port};

/// Parcels under way from one core to another; more wait at the sender.
pub(in crate::rt) const PARCELS_MAX: usize = 64;

/// A connection under way.
pub(super) struct Parcel {
    pub fd: OwnedFd,
    pub peer: SocketAddr,
    pub state: Box<dyn Any + Send>,
    /// What was received after the old core's logic gave it away.
    pub residue: Vec<u8>,
    /// Set if the connection ended on the way.
    pub ended: Option<CloseCause>,
}

/// The queue ends of one core.
pub struct HandOvers {
    core: CoreId,
    out: Vec<Option<SlotProducer<Parcel>>>,
    incoming: Vec<Option<SlotConsumer<Parcel>>>,
    /// Parcels for a queue that was full, or for this core itself.
    waiting: VecDeque<(CoreId, Parcel)>,
    doorbells: Arc<[Doorbell]>,
}

impl HandOvers {
    /// The ends for every core that has a doorbell.
    pub fn mesh(doorbells: &Arc<[Doorbell]>) -> Vec<Self> {
        let count = doorbells.len();
        let mut ends: Vec<Self> = (0..count)
            .map(|core| Self {
                core: CoreId(core as u16),
                out: (0..count).map(|_| None).collect(),
                incoming: (0..count).map(|_| None).collect(),
                waiting: VecDeque::new(),
                doorbells: Arc::clone(doorbells),
            })
            .collect();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let (producer, consumer) = slots::channel(PARCELS_MAX);
                ends[from].out[to] = Some(producer);
                ends[to].incoming[from] = Some(consumer);
            }
        }
        ends
    }

    /// The doorbell of this core.
    pub(super) fn doorbell(&self) -> &Doorbell {
        &self.doorbells[usize::from(self.core.0)]
    }

    /// Sends `parcel` to `to`, now or as soon as there is room.
    pub(super) fn send(&mut self, to: CoreId, parcel: Parcel) {
        assert!(usize::from(to.0) < self.out.len(), "there is no {to:?}");
        self.waiting.push_back((to, parcel));
    }

    /// Moves waiting parcels into the queues. A queue that is full keeps its parcels waiting, in order.
    fn flush(&mut self) {
        let mut full = CoreSet::default();
        for _ in 0..self.waiting.len() {
            let Some((to, parcel)) = self.waiting.pop_front() else { break };
            let queue = self.out.get_mut(usize::from(to.0)).and_then(Option::as_mut);
            let kept = match queue {
                Some(queue) if !full.contains(to) => queue.try_push(parcel).err(),
                _ => Some(parcel),
            };
            if let Some(parcel) = kept {
                full.insert(to);
                self.waiting.push_back((to, parcel));
            }
        }
    }

    /// The next parcel for this core.
    pub(super) fn receive(&mut self) -> Option<Parcel> {
        if let Some(parcel) = self.incoming.iter_mut().flatten().find_map(SlotConsumer::pop) {
            return Some(parcel);
        }
        let own = self.waiting.iter().position(|(to, _)| *to == self.core)?;
        self.waiting.remove(own).map(|(_, parcel)| parcel)
    }
}

impl Port for HandOvers {
    fn publish(&mut self) -> CoreSet {
        self.flush();
        let (mut pushed, mut freed) = (CoreSet::default(), CoreSet::default());
        for (core, (out, incoming)) in self.out.iter_mut().zip(&mut self.incoming).enumerate() {
            if out.as_mut().is_some_and(SlotProducer::publish) {
                pushed.insert(CoreId(core as u16));
            }
            if incoming.as_mut().is_some_and(SlotConsumer::release) {
                freed.insert(CoreId(core as u16));
            }
        }
        if pushed.is_empty() && freed.is_empty() {
            return pushed;
        }
        fence(Ordering::SeqCst);
        let starved = |core: CoreId| {
            self.incoming[usize::from(core.0)].as_ref().is_some_and(SlotConsumer::take_starved)
        };
        let mut ring = CoreSet::default();
        for core in (0..self.out.len() as u16).map(CoreId) {
            let concerned = pushed.contains(core) || (freed.contains(core) && starved(core));
            if concerned && self.doorbells[usize::from(core.0)].claim_ring() {
                ring.insert(core);
            }
        }
        ring
    }

    fn must_run(&mut self) -> bool {
        self.incoming.iter_mut().flatten().any(SlotConsumer::ready)
            || self.out.iter().flatten().any(SlotProducer::room_appeared)
            || self.waiting.iter().any(|(to, _)| *to == self.core)
    }
}
