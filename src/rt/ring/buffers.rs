//! The buffers that the kernel fills with received bytes, and the ring through which it gets them back.
//!
//! A buffer is in the kernel's hands, or held here for the length of one event. Both counts are checked every
//! turn in debug builds: a buffer that gets lost would one day stop all receiving.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use shards::AlignedBuf;
use shards::io::BLOCK_BYTES;

use super::uring::Uring;

/// The group id under which the kernel knows the buffers; a core has one group.
pub(super) const GROUP: u16 = 0;

/// The pool of provided buffers of a core.
pub(super) struct RecvBuffers {
    ring: AlignedBuf,
    memory: AlignedBuf,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
    held: u16,
}

impl RecvBuffers {
    /// Registers `count` (a power of two) buffers of `buffer_bytes` (a multiple of the block size) with
    /// `uring`.
    pub fn register(uring: &Uring, count: u16, buffer_bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15 && buffer_bytes.is_multiple_of(BLOCK_BYTES));
        let ring_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let mut buffers = Self {
            ring: AlignedBuf::zeroed(ring_bytes.next_multiple_of(BLOCK_BYTES)),
            memory: AlignedBuf::zeroed(usize::from(count) * buffer_bytes),
            count,
            buffer_bytes,
            tail: 0,
            held: 0,
        };
        let address = buffers.ring.as_ptr() as u64;
        // SAFETY: the ring memory lives as long as `self`, and the driver keeps `self` until the kernel ring
        // is gone.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0)? };
        for id in 0..count {
            buffers.provide(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The first `len` bytes of a buffer that the kernel has just filled.
    pub fn hold(&mut self, id: u16, len: usize) -> &mut [u8] {
        assert!(id < self.count && len <= self.buffer_bytes, "the kernel named a buffer it does not have");
        self.held += 1;
        let start = usize::from(id) * self.buffer_bytes;
        &mut self.memory[start..start + len]
    }

    /// Gives a held buffer back. The kernel sees it at the next [`RecvBuffers::publish`].
    pub fn recycle(&mut self, id: u16) {
        assert!(self.held > 0, "buffer {id} is given back twice");
        self.held -= 1;
        self.provide(id);
    }

    fn provide(&mut self, id: u16) {
        let address = self.memory[usize::from(id) * self.buffer_bytes..].as_ptr() as u64;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is inside the ring, which is aligned and large enough for `count` entries; the
        // kernel reads an entry only after the tail has passed it, and an entry is free when its buffer is
        // held here.
        let entry = unsafe { &mut *self.ring.as_mut_ptr().cast::<BufRingEntry>().add(slot) };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel everything given back so far.
    pub fn publish(&mut self) {
        let base = self.ring.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `base` is the ring's first entry; its reserved field is the tail, aligned for a u16, and
        // only this thread and the kernel use it, both atomically.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Buffers that are neither with the kernel nor given back. 0 between turns.
    pub fn held(&self) -> u16 {
        self.held
    }
}
