//! A bounded queue of values from one core to another, for replies and control.

use super::cursor::{Positions, ReadSide, WriteSide};
use super::sync::{Arc, Slot};

struct Shared<T> {
    at: Positions,
    slots: Box<[Slot<T>]>,
}

// SAFETY: values move from one thread to another, hence `T: Send`; a slot is touched by one side at a time,
// because `Positions` hands it over with release/acquire.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let mut left = self.at.remaining();
        while left.start != left.end {
            // SAFETY: both ends are gone and told their last positions in their own drop; these slots are
            // full.
            drop(unsafe { self.slot(left.start).take() });
            left.start = left.start.wrapping_add(1);
        }
    }
}

/// The pushing end.
pub struct SlotProducer<T> {
    side: WriteSide,
    shared: Arc<Shared<T>>,
    refusals: u64,
}

/// The draining end.
pub struct SlotConsumer<T> {
    side: ReadSide,
    shared: Arc<Shared<T>>,
}

/// A queue of `capacity` values, a power of two.
pub fn channel<T>(capacity: usize) -> (SlotProducer<T>, SlotConsumer<T>) {
    assert!(capacity.is_power_of_two(), "capacity {capacity} is no power of two");
    let slots = (0..capacity).map(|_| Slot::empty()).collect();
    let shared = Arc::new(Shared { at: Positions::new(), slots });
    let producer = SlotProducer { side: WriteSide::new(capacity), shared: Arc::clone(&shared), refusals: 0 };
    (producer, SlotConsumer { side: ReadSide::new(), shared })
}

impl<T> SlotProducer<T> {
    /// Appends `value`, or gives it back if the queue is full. It becomes visible at the next publish.
    pub fn try_push(&mut self, value: T) -> Result<(), T> {
        if !self.side.has_room(&self.shared.at, 1) {
            self.refusals += 1;
            return Err(value);
        }
        // SAFETY: `has_room` proved that the consumer has emptied and released this slot.
        unsafe { self.shared.slot(self.side.tail()).put(value) };
        self.side.advance(1);
        Ok(())
    }

    /// Shows all values pushed so far to the receiver. True if there were any new ones.
    pub fn publish(&mut self) -> bool {
        self.side.publish(&self.shared.at)
    }

    /// True if the last push was refused and room has appeared since.
    pub fn room_appeared(&self) -> bool {
        self.side.room_appeared(&self.shared.at)
    }

    /// Values that the receiver has not yet given back.
    pub fn depth(&self) -> usize {
        self.side.depth(&self.shared.at)
    }

    /// Values refused because the queue was full.
    pub fn refusals(&self) -> u64 {
        self.refusals
    }
}

impl<T> Drop for SlotProducer<T> {
    fn drop(&mut self) {
        // What was pushed and not published must still be dropped, by the consumer or with the queue.
        self.publish();
    }
}

impl<T> SlotConsumer<T> {
    /// Takes the next value. Its slot is given back at the next [`SlotConsumer::release`].
    pub fn pop(&mut self) -> Option<T> {
        if !self.side.ready(&self.shared.at) {
            return None;
        }
        // SAFETY: the slot was published full, and this side takes each position once.
        let value = unsafe { self.shared.slot(self.side.head()).take() };
        self.side.advance(1);
        Some(value)
    }

    /// True if a value is waiting.
    pub fn ready(&mut self) -> bool {
        self.side.ready(&self.shared.at)
    }

    /// Gives the slots of all popped values back to the sender. True if there were any.
    pub fn release(&mut self) -> bool {
        self.side.release(&self.shared.at)
    }

    /// True once for each time the sender was refused. Call after [`SlotConsumer::release`] and a `SeqCst`
    /// fence.
    pub fn take_starved(&self) -> bool {
        self.side.take_starved(&self.shared.at)
    }
}

impl<T> Drop for SlotConsumer<T> {
    fn drop(&mut self) {
        self.release();
    }
}
