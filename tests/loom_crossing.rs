//! The crossings under every interleaving that the memory model allows, for short runs.
//!
//! The sources of the queues are compiled here a second time, against loom's atomics, so that the crate
//! itself needs no build for loom. `LOOM_MAX_PREEMPTIONS` bounds the search; 3 is the default here.

#![allow(dead_code, reason = "the models use part of each queue")]

#[path = "../src/rt/crossing/bytes.rs"]
mod bytes;
#[path = "../src/rt/crossing/cursor.rs"]
mod cursor;
#[path = "../src/rt/crossing/doorbell.rs"]
mod doorbell;
#[path = "../src/rt/crossing/slots.rs"]
mod slots;

/// The loom side of `src/rt/crossing/sync.rs`. Every access to shared memory also touches a loom cell, so
/// that loom sees an access without a happens-before edge as the data race it is.
mod sync {
    use std::mem::MaybeUninit;

    use loom::cell::UnsafeCell;

    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};

    pub(super) struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

    impl<T> Slot<T> {
        pub(super) fn empty() -> Self {
            Self(UnsafeCell::new(MaybeUninit::uninit()))
        }

        /// # Safety
        /// As in the original; loom checks it.
        pub(super) unsafe fn put(&self, value: T) {
            // SAFETY: as promised by the caller; loom checks the promise.
            self.0.with_mut(|slot| unsafe { (*slot).write(value) });
        }

        /// # Safety
        /// As in the original; loom checks it.
        pub(super) unsafe fn take(&self) -> T {
            // SAFETY: as promised by the caller; loom checks the promise.
            self.0.with_mut(|slot| unsafe { (*slot).assume_init_read() })
        }
    }

    pub(super) struct ByteStore {
        memory: std::cell::UnsafeCell<Box<[u64]>>,
        words: Vec<UnsafeCell<()>>,
    }

    impl ByteStore {
        pub(super) fn zeroed(bytes: usize) -> Self {
            let words = (0..bytes / 8).map(|_| UnsafeCell::new(())).collect();
            Self { memory: std::cell::UnsafeCell::new(vec![0; bytes / 8].into()), words }
        }

        pub(super) fn region(&self, at: usize, len: usize) -> *mut u8 {
            for word in &self.words[at / 8..(at + len).div_ceil(8)] {
                word.with_mut(|_| ());
            }
            // SAFETY: only a pointer is made; loom runs one thread at a time.
            unsafe { (*self.memory.get()).as_mut_ptr().cast::<u8>().add(at) }
        }
    }
}

use loom::sync::atomic::{Ordering, fence};
use loom::sync::{Arc, Notify};
use loom::thread;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(f);
}

#[test]
fn values_cross_whole_in_order_and_their_slots_come_back() {
    model(|| {
        let (mut tx, mut rx) = slots::channel::<Box<u32>>(2);
        let sender = thread::spawn(move || {
            for value in 0..3 {
                let mut value = Box::new(value);
                while let Err(back) = tx.try_push(value) {
                    value = back;
                    thread::yield_now();
                }
                tx.publish();
            }
        });
        for expected in 0..3 {
            let value = loop {
                if let Some(value) = rx.pop() {
                    break value;
                }
                thread::yield_now();
            };
            assert_eq!(*value, expected);
            rx.release();
        }
        sender.join().unwrap();
    });
}

#[test]
fn records_cross_whole_and_in_order_over_the_end_of_the_ring() {
    model(|| {
        let (mut tx, mut rx) = bytes::channel(64);
        let sender = thread::spawn(move || {
            for seed in 0..3_u8 {
                while tx.try_push(&[&[seed; 20]]).is_err() {
                    thread::yield_now();
                }
                tx.publish();
            }
        });
        for seed in 0..3_u8 {
            while !rx.ready() {
                thread::yield_now();
            }
            assert_eq!(rx.peek().unwrap(), [seed; 20]);
            assert!(rx.pop());
            rx.release();
        }
        sender.join().unwrap();
    });
}

#[test]
fn values_left_behind_by_both_sides_are_dropped_exactly_once() {
    model(|| {
        let witness = std::sync::Arc::new(());
        let (mut tx, mut rx) = slots::channel(2);
        let given = std::sync::Arc::clone(&witness);
        let sender = thread::spawn(move || {
            let _ = tx.try_push(std::sync::Arc::clone(&given));
            tx.publish();
            let _ = tx.try_push(given);
        });
        drop(rx.pop());
        drop(rx);
        sender.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&witness), 1);
    });
}

/// Stands for the ring: set by the sender that claims it, and what the sleeping receiver waits for.
struct Sleep {
    bell: doorbell::Doorbell,
    rung: Notify,
}

impl Sleep {
    fn new() -> Arc<Self> {
        Arc::new(Self { bell: doorbell::Doorbell::default(), rung: Notify::new() })
    }

    fn ring_if_asleep(&self) {
        fence(Ordering::SeqCst);
        if self.bell.claim_ring() {
            self.rung.notify();
        }
    }

    /// Sleeps unless `ready`, until rung. Loom's sleepers also wake for nothing at times, so callers loop.
    fn park_unless(&self, ready: impl FnOnce() -> bool) {
        self.bell.park();
        if !ready() {
            // A wake-up that never comes leaves loom without a runnable thread, which it reports as a
            // deadlock.
            self.rung.wait();
        }
        self.bell.unpark();
    }
}

#[test]
fn a_receiver_that_goes_to_sleep_is_woken_for_what_was_published() {
    model(|| {
        let (mut tx, mut rx) = slots::channel::<u32>(2);
        let sleep = Sleep::new();
        let theirs = Arc::clone(&sleep);
        let sender = thread::spawn(move || {
            tx.try_push(7).unwrap();
            tx.publish();
            theirs.ring_if_asleep();
            tx
        });
        while !rx.ready() {
            sleep.park_unless(|| rx.ready());
        }
        assert_eq!(rx.pop(), Some(7));
        sender.join().unwrap();
    });
}

#[test]
fn two_senders_ring_a_sleeping_receiver_at_most_once_and_neither_is_missed() {
    model(|| {
        let sleep = Sleep::new();
        let mut ends = Vec::new();
        let mut senders = Vec::new();
        for value in 0..2_u32 {
            let (mut tx, rx) = slots::channel::<u32>(1);
            ends.push(rx);
            let theirs = Arc::clone(&sleep);
            senders.push(thread::spawn(move || {
                tx.try_push(value).unwrap();
                tx.publish();
                theirs.ring_if_asleep();
                tx
            }));
        }
        let mut taken = 0;
        while taken < 2 {
            sleep.park_unless(|| ends.iter_mut().any(|rx| rx.ready()));
            taken += ends.iter_mut().filter_map(|rx| rx.pop()).count();
        }
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn a_sender_that_sleeps_because_the_queue_is_full_is_woken_when_there_is_room() {
    model(|| {
        let (mut tx, mut rx) = slots::channel::<u32>(1);
        tx.try_push(0).unwrap();
        tx.publish();
        let sleep = Sleep::new();
        let theirs = Arc::clone(&sleep);
        let receiver = thread::spawn(move || {
            assert_eq!(rx.pop(), Some(0));
            rx.release();
            fence(Ordering::SeqCst);
            if rx.take_starved() && theirs.bell.claim_ring() {
                theirs.rung.notify();
            }
            rx
        });
        while tx.try_push(1).is_err() {
            sleep.park_unless(|| tx.room_appeared());
        }
        receiver.join().unwrap();
    });
}
