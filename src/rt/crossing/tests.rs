//! The queues on one thread and on two; `tests/loom_crossing.rs` covers every interleaving of short runs.

use std::rc::Rc;

use super::*;
use crate::rt::api::CoreId;

/// A sequence of lengths without a pattern that the ring size could hide.
fn lengths(count: usize, max: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9E37_79B9_u64;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % (max + 1)
    })
}

fn fill(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + seed * 7) as u8).collect()
}

#[test]
fn records_of_every_length_come_out_as_they_went_in_across_many_wraps() {
    let (mut tx, mut rx) = bytes::channel(256);
    let mut queued = std::collections::VecDeque::new();
    let rounds = if cfg!(miri) { 300 } else { 20_000 };
    for (seed, len) in lengths(rounds, 124).enumerate() {
        let record = fill(len, seed);
        let (a, b) = record.split_at(len / 3);
        while tx.try_push(&[a, b]) == Err(PushError::Full) {
            let expected: Vec<u8> = queued.pop_front().expect("a full queue holds a record");
            tx.publish();
            assert_eq!(rx.peek().expect("published"), expected);
            assert!(rx.pop());
            rx.release();
        }
        queued.push_back(record);
    }
}

#[test]
fn a_record_of_half_the_ring_fits_wherever_the_empty_ring_stands() {
    for shift in 0..32 {
        let (mut tx, mut rx) = bytes::channel(256);
        for _ in 0..shift {
            tx.try_push(&[&[]]).expect("the ring is empty");
            tx.publish();
            assert!(rx.pop());
            rx.release();
        }
        let largest = fill(tx.max_record_bytes(), shift);
        tx.try_push(&[&largest]).expect("half the ring always fits");
        tx.publish();
        assert_eq!(rx.peek().expect("published"), largest);
    }
}

#[test]
fn a_record_that_can_never_fit_is_told_from_one_that_must_wait() {
    let (mut tx, _rx) = bytes::channel(64);
    assert_eq!(tx.try_push(&[&[0; 29]]), Err(PushError::TooLarge { bytes: 29, limit: 28 }));
    assert_eq!(tx.try_push(&[&[0; 28]]), Ok(()));
    assert_eq!(tx.try_push(&[&[0; 28]]), Ok(()));
    assert_eq!(tx.try_push(&[&[0; 1]]), Err(PushError::Full));
    assert_eq!(tx.refusals(), 1);
}

#[test]
fn nothing_is_seen_before_publish_and_no_room_comes_back_before_release() {
    let (mut tx, mut rx) = slots::channel(2);
    tx.try_push(1).expect("room");
    assert_eq!(rx.pop(), None);
    tx.try_push(2).expect("room");
    tx.publish();
    assert_eq!(rx.pop(), Some(1));
    assert_eq!(tx.try_push(3), Err(3));
    assert!(!tx.room_appeared());
    rx.release();
    assert!(rx.take_starved() && !rx.take_starved());
    assert!(tx.room_appeared());
    tx.try_push(3).expect("room came back");
    assert!(!tx.room_appeared());
}

#[test]
fn values_left_in_a_queue_are_dropped_once_also_those_never_published() {
    let witness = Rc::new(());
    let (mut tx, mut rx) = slots::channel(8);
    for _ in 0..5 {
        tx.try_push(Rc::clone(&witness)).expect("room");
    }
    tx.publish();
    drop(rx.pop());
    tx.try_push(Rc::clone(&witness)).expect("room");
    assert_eq!(Rc::strong_count(&witness), 6);
    drop(rx);
    drop(tx);
    assert_eq!(Rc::strong_count(&witness), 1);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test is about two threads")]
fn two_threads_exchange_records_in_order_and_whole() {
    let rounds = if cfg!(miri) { 200 } else { 50_000 };
    let (mut tx, mut rx) = bytes::channel(1024);
    let sender = std::thread::spawn(move || {
        for (seed, len) in lengths(rounds, 300).enumerate() {
            let record = fill(len, seed);
            while tx.try_push(&[&record]) == Err(PushError::Full) {
                tx.publish();
                std::thread::yield_now();
            }
            if seed % 5 == 0 {
                tx.publish();
            }
        }
        tx.publish();
    });
    for (seed, len) in lengths(rounds, 300).enumerate() {
        while !rx.ready() {
            rx.release();
            std::thread::yield_now();
        }
        assert_eq!(rx.peek().expect("ready"), fill(len, seed));
        assert!(rx.pop());
    }
    sender.join().expect("the sender does not panic");
}

fn small() -> CrossingSizes {
    CrossingSizes { request_bytes: 256, reply_slots: 4, control_slots: 2 }
}

#[test]
fn every_pair_of_a_mesh_is_joined_in_both_directions_and_in_every_class() {
    let mut cores = mesh::<u32>(3, small());
    for from in 0..3_u16 {
        for to in (0..3_u16).filter(|to| *to != from) {
            let tag = u32::from(from * 16 + to);
            let core = &mut cores[usize::from(from)];
            core.push_request(CoreId(to), &[&tag.to_le_bytes()]).expect("room");
            core.push_reply(CoreId(to), tag).expect("room");
            core.push_control(CoreId(to), Box::new(tag)).expect("room");
        }
    }
    for core in &mut cores {
        assert!(core.publish().is_empty(), "nobody sleeps");
    }
    for to in 0..3_u16 {
        let core = &mut cores[usize::from(to)];
        assert!(core.must_run());
        for from in core.others() {
            let tag = u32::from(from.0 * 16 + to);
            assert_eq!(core.peek_request(from).expect("arrived"), tag.to_le_bytes());
            assert!(core.pop_request(from));
            assert_eq!(core.pop_reply(from), Some(tag));
            let control = core.pop_control(from).expect("arrived");
            assert_eq!(control.downcast_ref::<u32>(), Some(&tag));
        }
        assert!(!core.must_run());
    }
}

#[test]
fn a_sleeping_core_is_rung_once_and_only_for_what_concerns_it() {
    let bells = mesh::doorbells(3);
    let mut cores = mesh_with::<u32>(3, small(), &bells);
    bells[1].park();
    bells[2].park();
    cores[0].push_reply(CoreId(1), 7).expect("room");
    let rung: Vec<_> = cores[0].publish().iter().collect();
    assert_eq!(rung, [CoreId(1)]);
    cores[0].push_reply(CoreId(1), 8).expect("room");
    assert!(cores[0].publish().is_empty(), "the ring is under way already");
    assert!(bells[1].unpark());
    assert!(!bells[2].unpark());
    assert_eq!(cores[0].stats().rings, 1);
}

#[test]
fn a_core_that_sleeps_for_want_of_room_is_rung_when_there_is_some() {
    let bells = mesh::doorbells(2);
    let mut cores = mesh_with::<u32>(2, small(), &bells);
    for reply in 0..4 {
        cores[0].push_reply(CoreId(1), reply).expect("room");
    }
    cores[0].publish();
    bells[0].park();
    assert_eq!(cores[1].pop_reply(CoreId(0)), Some(0));
    assert!(cores[1].publish().is_empty(), "the sender was not refused, so room is no news");
    bells[0].unpark();

    cores[0].push_reply(CoreId(1), 4).expect("room");
    assert_eq!(cores[0].push_reply(CoreId(1), 5), Err(5));
    bells[0].park();
    assert!(!cores[0].must_run());
    assert_eq!(cores[1].pop_reply(CoreId(0)), Some(1));
    assert!(cores[1].publish().contains(CoreId(0)));
    assert!(cores[0].must_run(), "also without the ring, room is found before sleeping");
}

#[test]
fn queues_shrink_as_cores_grow_and_still_take_the_largest_frame() {
    let (few, many) = (CrossingSizes::for_cores(2), CrossingSizes::for_cores(64));
    assert!(many.request_bytes < few.request_bytes && many.reply_slots < few.reply_slots);
    assert!(many.request_bytes / 2 > 65_536 + 64);
    assert_eq!(CrossingSizes::for_cores(1).memory_bytes::<[u8; 64]>(1), 0);
    assert!(few.memory_bytes::<[u8; 64]>(2) < 4 << 20);
}

#[test]
fn a_set_of_cores_holds_what_was_put_in() {
    let mut set = CoreSet::default();
    assert!(set.is_empty());
    for core in [0_u16, 63, 64, 255] {
        set.insert(CoreId(core));
    }
    let listed: Vec<u16> = set.iter().map(|core| core.0).collect();
    assert_eq!(listed, [0, 63, 64, 255]);
    assert!(set.contains(CoreId(64)) && !set.contains(CoreId(65)));
}
