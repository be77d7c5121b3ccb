//! Positions of a single-producer single-consumer ring: who owns which part of it, and who waits for whom.
//!
//! Positions only grow; the place in the ring is the position modulo the capacity. `tail..head + capacity`
//! belongs to the producer, `head..tail` to the consumer. Each side keeps its own position privately and
//! tells the other only when it publishes, so that a batch costs one cache-line transfer.

use super::sync::{AtomicBool, AtomicUsize, Ordering};

/// Keeps what two cores write apart: two lines of 64 bytes, because the adjacent-line prefetcher pulls pairs.
#[repr(align(128))]
struct Line<T>(T);

/// The part both sides see.
pub(super) struct Positions {
    tail: Line<AtomicUsize>,
    head: Line<AtomicUsize>,
    /// Set by a producer that was refused, taken by the consumer that made room.
    starved: Line<AtomicBool>,
}

impl Positions {
    pub(super) fn new() -> Self {
        Self {
            tail: Line(AtomicUsize::new(0)),
            head: Line(AtomicUsize::new(0)),
            starved: Line(AtomicBool::new(false)),
        }
    }

    /// Positions at a moment when neither side is active any more.
    pub(super) fn remaining(&self) -> std::ops::Range<usize> {
        self.head.0.load(Ordering::Acquire)..self.tail.0.load(Ordering::Acquire)
    }
}

/// The producer's private half.
pub(super) struct WriteSide {
    tail: usize,
    published: usize,
    head_seen: usize,
    capacity: usize,
    refused: bool,
}

impl WriteSide {
    pub(super) fn new(capacity: usize) -> Self {
        Self { tail: 0, published: 0, head_seen: 0, capacity, refused: false }
    }

    pub(super) fn tail(&self) -> usize {
        self.tail
    }

    /// True if `units` fit. When not, the consumer will be asked to wake this side once it has made room.
    pub(super) fn has_room(&mut self, shared: &Positions, units: usize) -> bool {
        if self.fits(units) {
            return true;
        }
        self.head_seen = shared.head.0.load(Ordering::Acquire);
        if self.fits(units) {
            return true;
        }
        // No fence here: before this side sleeps it fences (`Doorbell::park`) and asks `room_appeared`, so
        // that either the consumer sees the flag or this side sees the room.
        shared.starved.0.store(true, Ordering::Relaxed);
        self.refused = true;
        false
    }

    fn fits(&self, units: usize) -> bool {
        let used = self.tail.wrapping_sub(self.head_seen);
        debug_assert!(used <= self.capacity);
        self.capacity - used >= units
    }

    pub(super) fn advance(&mut self, units: usize) {
        self.tail = self.tail.wrapping_add(units);
        self.refused = false;
    }

    /// Shows everything pushed so far to the consumer. True if there was something new.
    pub(super) fn publish(&mut self, shared: &Positions) -> bool {
        let fresh = self.published != self.tail;
        if fresh {
            shared.tail.0.store(self.tail, Ordering::Release);
            self.published = self.tail;
        }
        fresh
    }

    /// True if the last push was refused and the consumer has made room since.
    pub(super) fn room_appeared(&self, shared: &Positions) -> bool {
        self.refused && shared.head.0.load(Ordering::Relaxed) != self.head_seen
    }

    /// Units pushed and not yet released by the consumer.
    pub(super) fn depth(&self, shared: &Positions) -> usize {
        self.tail.wrapping_sub(shared.head.0.load(Ordering::Relaxed))
    }
}

/// The consumer's private half.
pub(super) struct ReadSide {
    head: usize,
    released: usize,
    tail_seen: usize,
}

impl ReadSide {
    pub(super) fn new() -> Self {
        Self { head: 0, released: 0, tail_seen: 0 }
    }

    pub(super) fn head(&self) -> usize {
        self.head
    }

    /// True if something is there to take; looks at the shared position only when the known part is used up.
    pub(super) fn ready(&mut self, shared: &Positions) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = shared.tail.0.load(Ordering::Acquire);
        }
        self.head != self.tail_seen
    }

    pub(super) fn advance(&mut self, units: usize) {
        self.head = self.head.wrapping_add(units);
        debug_assert!(
            self.tail_seen.wrapping_sub(self.head) <= usize::MAX / 2,
            "took more than was published"
        );
    }

    /// Gives back what was taken. True if there was something to give back.
    pub(super) fn release(&mut self, shared: &Positions) -> bool {
        let fresh = self.released != self.head;
        if fresh {
            shared.head.0.store(self.head, Ordering::Release);
            self.released = self.head;
        }
        fresh
    }

    /// True once per refusal on the other side. Call after [`ReadSide::release`] and a `SeqCst` fence.
    pub(super) fn take_starved(&self, shared: &Positions) -> bool {
        shared.starved.0.load(Ordering::Relaxed) && shared.starved.0.swap(false, Ordering::Relaxed)
    }
}
