//! The primitives the queues are written against. `tests/loom_crossing.rs` compiles the same queues against
//! loom's instead, so the queues name nothing of `std::sync` themselves.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};

/// One place for a value that one side writes and the other takes.
pub(super) struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

impl<T> Slot<T> {
    pub(super) fn empty() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// # Safety
    /// The slot is empty and no one else touches it.
    pub(super) unsafe fn put(&self, value: T) {
        // SAFETY: the caller has the slot to itself.
        unsafe { (*self.0.get()).write(value) };
    }

    /// # Safety
    /// The slot is full and no one else touches it; it is empty afterwards.
    pub(super) unsafe fn take(&self) -> T {
        // SAFETY: the caller has the slot to itself and promises that it holds a value.
        unsafe { (*self.0.get()).assume_init_read() }
    }
}

/// Zeroed bytes of which producer and consumer use disjoint regions at any time.
pub(super) struct ByteStore(Box<[UnsafeCell<u64>]>);

impl ByteStore {
    /// `bytes` must be a multiple of 8. The pages are first touched by whoever writes to them.
    pub(super) fn zeroed(bytes: usize) -> Self {
        let words: Box<[u64]> = vec![0_u64; bytes / 8].into_boxed_slice();
        let words = Box::into_raw(words) as *mut [UnsafeCell<u64>];
        // SAFETY: UnsafeCell<u64> has the layout of u64, and the box was just given up by its only owner.
        Self(unsafe { Box::from_raw(words) })
    }

    /// Pointer to the region `at..at + len`, which the caller must have to itself.
    pub(super) fn region(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at + len <= self.0.len() * 8, "region {at}+{len} is outside the store");
        let base = self.0.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: the offset is inside the allocation, checked above.
        unsafe { base.add(at) }
    }
}
