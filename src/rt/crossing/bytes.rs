//! A bounded queue of records of bytes from one core to another.
//!
//! A record is a 4-byte length and its bytes, padded to 8. Records lie in one piece so that the receiver
//! works on them in place; what is left at the end of the ring is skipped by a marker. A record may take up
//! to half the ring, which guarantees that it fits whenever the ring is empty, wherever its positions stand.

use super::cursor::{Positions, ReadSide, WriteSide};
use super::sync::{Arc, ByteStore};

const HEADER_BYTES: usize = 4;
const ALIGN_BYTES: usize = 8;
/// A length no record can have: the rest of the ring up to its end is unused.
const SKIP: u32 = u32::MAX;

struct Shared {
    at: Positions,
    store: ByteStore,
    capacity: usize,
}

// SAFETY: the store is reached only through the one producer and the one consumer, and `Positions` keeps the
// regions they touch disjoint, with release/acquire on every change of owner.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// No room now. The receiver wakes this core when there is some.
    #[error("the crossing is full; stop reading from the source until the receiver has drained it")]
    Full,
    /// It can never fit.
    #[error("a record of {bytes} bytes is larger than the crossing's limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
}

/// The pushing end.
pub struct BytesProducer {
    side: WriteSide,
    shared: Arc<Shared>,
    refusals: u64,
}

/// The draining end.
pub struct BytesConsumer {
    side: ReadSide,
    shared: Arc<Shared>,
}

/// A queue of `capacity` bytes, a power of two of at least 64.
pub fn channel(capacity: usize) -> (BytesProducer, BytesConsumer) {
    assert!(capacity.is_power_of_two() && capacity >= 64, "capacity {capacity} is no power of two from 64");
    assert!(capacity <= 1 << 31, "record lengths are 32 bit");
    let shared = Arc::new(Shared { at: Positions::new(), store: ByteStore::zeroed(capacity), capacity });
    let producer = BytesProducer { side: WriteSide::new(capacity), shared: Arc::clone(&shared), refusals: 0 };
    (producer, BytesConsumer { side: ReadSide::new(), shared })
}

/// Bytes of the ring that a record of `len` bytes takes.
fn footprint(len: usize) -> usize {
    (HEADER_BYTES + len).next_multiple_of(ALIGN_BYTES)
}

impl Shared {
    fn place(&self, position: usize) -> usize {
        position & (self.capacity - 1)
    }

    /// # Safety
    /// The caller owns the 4 bytes at `at`.
    unsafe fn write_len(&self, at: usize, len: u32) {
        // SAFETY: `region` checks the bounds and the caller owns the bytes; places are multiples of 8.
        unsafe { self.store.region(at, HEADER_BYTES).cast::<u32>().write(len) };
    }

    /// # Safety
    /// The caller owns the 4 bytes at `at`.
    unsafe fn read_len(&self, at: usize) -> u32 {
        // SAFETY: as in `write_len`.
        unsafe { self.store.region(at, HEADER_BYTES).cast::<u32>().read() }
    }
}

impl BytesProducer {
    /// The longest record this queue takes, in bytes.
    pub fn max_record_bytes(&self) -> usize {
        self.shared.capacity / 2 - HEADER_BYTES
    }

    /// Appends one record made of `parts` in order. It becomes visible at the next
    /// [`BytesProducer::publish`].
    pub fn try_push(&mut self, parts: &[&[u8]]) -> Result<(), PushError> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let limit = self.max_record_bytes();
        if bytes > limit {
            return Err(PushError::TooLarge { bytes, limit });
        }
        let need = footprint(bytes);
        let at = self.shared.place(self.side.tail());
        let to_end = self.shared.capacity - at;
        let skipped = if need <= to_end { 0 } else { to_end };
        if !self.side.has_room(&self.shared.at, skipped + need) {
            self.refusals += 1;
            return Err(PushError::Full);
        }
        if skipped > 0 {
            // SAFETY: `at..capacity` is free and at least 8 bytes long.
            unsafe { self.shared.write_len(at, SKIP) };
        }
        self.write_record(if skipped > 0 { 0 } else { at }, bytes as u32, parts);
        self.side.advance(skipped + need);
        Ok(())
    }

    fn write_record(&mut self, at: usize, bytes: u32, parts: &[&[u8]]) {
        // SAFETY: `has_room` proved that the consumer has released this region.
        unsafe { self.shared.write_len(at, bytes) };
        let mut to = at + HEADER_BYTES;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let target = self.shared.store.region(to, part.len());
            // SAFETY: as above; `region` checked the bounds, and a caller's slice cannot overlap the private
            // ring.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), target, part.len()) };
            to += part.len();
        }
    }

    /// Shows all records pushed so far to the receiver. True if there were any new ones.
    pub fn publish(&mut self) -> bool {
        self.side.publish(&self.shared.at)
    }

    /// True if the last push was refused and room has appeared since.
    pub fn room_appeared(&self) -> bool {
        self.side.room_appeared(&self.shared.at)
    }

    /// Bytes that the receiver has not yet given back.
    pub fn depth_bytes(&self) -> usize {
        self.side.depth(&self.shared.at)
    }

    /// Records refused because the queue was full.
    pub fn refusals(&self) -> u64 {
        self.refusals
    }
}

impl BytesConsumer {
    /// The next record, in place; the bytes are the receiver's to change until [`BytesConsumer::pop`].
    pub fn peek(&mut self) -> Option<&mut [u8]> {
        let at = self.next_record()?;
        // SAFETY: `next_record` found a published record at `at`.
        let len = unsafe { self.shared.read_len(at) } as usize;
        let start = self.shared.store.region(at + HEADER_BYTES, len);
        // SAFETY: the record is published and not released, so this side alone touches it; `region` checked
        // the bounds, and the borrow of `self` keeps `pop` and `release` away while the slice lives.
        Some(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }

    /// Takes the record that [`BytesConsumer::peek`] shows; false if there is none. Its room is given back at
    /// the next [`BytesConsumer::release`].
    pub fn pop(&mut self) -> bool {
        let Some(at) = self.next_record() else { return false };
        // SAFETY: as in `peek`.
        let len = unsafe { self.shared.read_len(at) } as usize;
        self.side.advance(footprint(len));
        true
    }

    /// Place of the next record, past a skip marker if one is in the way.
    fn next_record(&mut self) -> Option<usize> {
        if !self.side.ready(&self.shared.at) {
            return None;
        }
        let at = self.shared.place(self.side.head());
        // SAFETY: something is published at `at`: a record or a marker, both start with a length.
        if unsafe { self.shared.read_len(at) } != SKIP {
            return Some(at);
        }
        // A marker is published together with the record behind it, so there is one at the start of the ring.
        self.side.advance(self.shared.capacity - at);
        debug_assert!(self.side.ready(&self.shared.at));
        Some(0)
    }

    /// True if a record is waiting.
    pub fn ready(&mut self) -> bool {
        self.side.ready(&self.shared.at)
    }

    /// Gives the room of all popped records back to the sender. True if there was any.
    pub fn release(&mut self) -> bool {
        self.side.release(&self.shared.at)
    }

    /// True once for each time the sender was refused. Call after [`BytesConsumer::release`] and a `SeqCst`
    /// fence.
    pub fn take_starved(&self) -> bool {
        self.side.take_starved(&self.shared.at)
    }
}
