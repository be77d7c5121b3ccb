//! Verifying what is stored, one behaviour at a time.

use super::rig::*;
use crate::index::{Due, Prefix};
use crate::io::{BLOCK_BYTES, Errno, SegmentId};
use crate::keyed::place::unpack;
use crate::keyed::{Class, Event, Family, InFlight, KeyedConfig, KnownLost, LostReason, NewRecord};
use crate::lane::RecordLoc;
use crate::testing::{Fault, PendingOp};

const YEAR_S: u64 = 400 * 24 * 3_600;
const WITHIN_S: u64 = 100;
const WITHIN_US: u64 = WITHIN_S * 1_000_000;

fn rig() -> Rig {
    Rig::with(1, KeyedConfig { scrub_within_s: WITHIN_S, segments_max: 30, ..config() })
}

fn body(number: u64, bytes: usize) -> Vec<u8> {
    vec![number as u8; bytes]
}

/// Puts records of a year, each in a batch of its own.
fn fill(rig: &mut Rig, numbers: std::ops::Range<u64>, bytes: usize) {
    numbers.for_each(|n| rig.put(shard(n), &record(n, START_S + YEAR_S, &body(n, bytes))));
}

/// Puts records of a year, all in one batch.
fn put_together(rig: &mut Rig, numbers: std::ops::Range<u64>, bytes: usize) {
    let tickets: Vec<_> = numbers
        .map(|n| {
            let (hold, _) = rig.hold(shard(n));
            rig.store.put(hold, &record(n, START_S + YEAR_S, &body(n, bytes))).unwrap()
        })
        .collect();
    tickets.into_iter().for_each(|ticket| assert!(rig.stored(ticket)));
}

/// Where the live record of a key lies.
fn place(rig: &Rig, number: u64) -> (Class, RecordLoc) {
    let mut entries = rig.store.entries_of(Family::Shard, Prefix(number), Prefix(number));
    unpack(entries.next().expect("it is there").place)
}

fn overwrite(rig: &mut Rig, (class, loc): (Class, RecordLoc), at: i64, bytes: &[u8]) {
    let offset = u64::from(loc.offset).checked_add_signed(at).unwrap();
    rig.disk.overwrite(class.lane(PARTITION), loc.segment, offset, bytes);
}

fn rot(rig: &mut Rig, number: u64) {
    let (class, loc) = place(rig, number);
    rig.disk.flip_bit(class.lane(PARTITION), loc.segment, u64::from(loc.offset + loc.len) - 200, 3);
}

/// Sleeps until the store wants to be polled, then runs until nothing is in flight.
fn wake(rig: &mut Rig) {
    let next_us = rig.store.next_deadline().expect("there is always something to verify");
    rig.now_us = rig.now_us.max(next_us);
    rig.poll();
    while rig.step() {
        rig.poll();
    }
}

/// Runs until the pass after the present one is through: all that is sealed now was read then.
fn run_pass(rig: &mut Rig) {
    let pass = rig.store.scrub_progress().pass;
    for _ in 0..200_000 {
        wake(rig);
        let now = rig.store.scrub_progress();
        let is_through = now.done_bytes == now.total_bytes;
        if now.pass > pass + 1 || (now.pass > pass && is_through) {
            return;
        }
    }
    panic!("the pass does not end: {:?}", rig.store.scrub_progress());
}

/// What was named as lost since it was asked last.
fn lost(rig: &mut Rig) -> Vec<KnownLost> {
    let events = std::mem::take(&mut rig.events);
    let lost = events.into_iter().filter_map(|event| match event {
        Event::Lost(lost) => Some(lost),
        _ => None,
    });
    lost.collect()
}

fn numbers(lost: &[KnownLost]) -> Vec<u64> {
    let mut numbers: Vec<u64> = lost.iter().map(|lost| lost.prefix.0).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_pass_takes_the_time_it_has_and_finds_nothing_wrong_where_nothing_is() {
    let mut rig = rig();
    fill(&mut rig, 0..60, 6_000);
    run_pass(&mut rig);
    for pass in rig.store.scrub_progress().pass + 1..5 {
        while rig.store.scrub_progress().pass < pass {
            wake(&mut rig);
        }
        let (began_us, before) = (rig.now_us, rig.store.scrub_progress());
        assert_eq!(before.due_s - before.began_s, WITHIN_S);
        assert!(before.total_bytes > 7 * u64::from(SEGMENT_BYTES), "{before:?}");
        let mut half_us = 0;
        let is_on = |rig: &Rig| {
            let now = rig.store.scrub_progress();
            now.pass == pass && now.done_bytes < now.total_bytes
        };
        while is_on(&rig) {
            wake(&mut rig);
            if is_on(&rig) && rig.store.scrub_progress().done_bytes < before.total_bytes / 2 {
                half_us = rig.now_us - began_us;
            }
        }
        let took_us = rig.now_us - began_us;
        assert!((WITHIN_US * 8 / 10..=WITHIN_US).contains(&took_us), "{took_us}");
        assert!((WITHIN_US * 4 / 10..=WITHIN_US * 6 / 10).contains(&half_us), "evenly: {half_us}");
    }
    assert_eq!((lost(&mut rig), rig.store.scrub_progress().faults), (vec![], 0));
    rig.assert_counters();
}

#[test]
fn rot_in_every_segment_is_found_within_the_deadline_the_oldest_segment_first() {
    let mut rig = rig();
    fill(&mut rig, 0..60, 6_000);
    let active = place(&rig, 59).1.segment;
    let rotten: Vec<u64> = (0..60).step_by(7).filter(|n| place(&rig, *n).1.segment != active).collect();
    let mut segments: Vec<_> = rotten.iter().map(|n| place(&rig, *n).1.segment).collect();
    segments.dedup();
    assert!(segments.len() >= 7, "{segments:?}");
    rotten.iter().for_each(|n| rot(&mut rig, *n));
    let began_us = rig.now_us;
    run_pass(&mut rig);
    assert!(rig.now_us - began_us <= 2 * WITHIN_US, "at most the rest of one pass, and another");
    let lost = lost(&mut rig);
    assert!(lost.iter().map(|lost| lost.prefix.0).eq(rotten.iter().copied()), "in the order of {segments:?}");
    for (lost, number) in lost.iter().zip(&rotten) {
        assert_eq!((lost.identity, lost.reason), (Some(shard(*number)), LostReason::Damaged));
        assert_eq!((lost.family, lost.class), (Family::Shard, Class::Years));
    }
    assert!(rig.store.known_lost().eq(lost.iter()));
    for number in 0..60 {
        let answer =
            if rotten.contains(&number) { Answer::Absent } else { got(number, &body(number, 6_000)) };
        assert_eq!(rig.get(shard(number)), answer);
    }
    rig.assert_counters();
    run_pass(&mut rig);
    assert_eq!(rig.store.scrub_progress().lost, rotten.len() as u64, "each is named once");
    rig.put(shard(0), &record(1, START_S + 3_600, b"again"));
    rig.restart();
    assert_eq!(rig.get(shard(0)), got(1, b"again"));
    assert_eq!(rig.get(shard(7)), Answer::Absent);
}

#[test]
fn rot_in_what_is_dead_is_of_no_interest_and_what_lives_next_to_it_is_carried_away() {
    let mut rig = rig();
    put_together(&mut rig, 0..4, 1_000);
    let before = place(&rig, 2);
    let (class, dead) = place(&rig, 1);
    rig.delete(shard(1));
    rig.disk.flip_bit(class.lane(PARTITION), dead.segment, u64::from(dead.offset + dead.len) - 200, 3);
    fill(&mut rig, 10..20, 6_000);
    run_pass(&mut rig);
    assert_eq!((lost(&mut rig), rig.store.scrub_progress().faults), (vec![], 0));
    assert_ne!(place(&rig, 2), before, "a batch with rot in it is no place for it");
    for number in [0, 2, 3] {
        assert_eq!(rig.get(shard(number)), got(number, &body(number, 1_000)));
    }
    rig.assert_counters();
    rig.restart();
    assert_eq!((rig.get(shard(1)), rig.get(shard(3))), (Answer::Absent, got(3, &body(3, 1_000))));
    rig.assert_counters();
}

#[test]
fn what_cannot_be_read_is_lost_alone_and_named_if_its_head_can_be_read() {
    let mut rig = rig();
    fill(&mut rig, 0..20, 6_000);
    for (number, further) in [(1, 0), (4, BLOCK_BYTES as u64)] {
        let (class, loc) = place(&rig, number);
        let offset = u64::from(loc.offset) + further;
        rig.disk.make_unreadable(class.lane(PARTITION), loc.segment, offset);
    }
    run_pass(&mut rig);
    let mut found = lost(&mut rig);
    found.sort_by_key(|lost| lost.prefix);
    assert_eq!(numbers(&found), [1, 4]);
    assert!(found.iter().all(|lost| lost.reason == LostReason::Unreadable(Errno(5))), "{found:?}");
    assert_eq!((found[0].identity, found[1].identity), (None, Some(shard(4))));
    for number in (0..20).filter(|n| ![1, 4].contains(n)) {
        assert_eq!(rig.get(shard(number)), got(number, &body(number, 6_000)));
    }
    rig.assert_counters();
}

#[test]
fn one_bad_read_costs_nothing() {
    let mut rig = rig();
    fill(&mut rig, 0..20, 6_000);
    let places = |rig: &Rig| (0..20).map(|n| place(rig, n)).collect::<Vec<_>>();
    let before = places(&rig);
    run_pass(&mut rig);
    // A read that fails, and one that brings rot which is not there when it is read again.
    rig.disk.inject(Fault::ReadError);
    run_pass(&mut rig);
    let (class, loc) = place(&rig, 1);
    let is_it = |op: &PendingOp| op.lane == class.lane(PARTITION) && op.segment == loc.segment;
    let mut waits = 0;
    while rig.disk.pending().first().is_none_or(|op| !is_it(op)) {
        waits += 1;
        assert!(waits < 10_000, "the segment is never read");
        while rig.step() {}
        rig.now_us = rig.now_us.max(rig.store.next_deadline().unwrap());
        rig.poll();
    }
    let spots: Vec<_> = before.iter().filter(|(_, it)| it.segment == loc.segment).copied().collect();
    let flip = |rig: &mut Rig| {
        for (class, loc) in &spots {
            rig.disk.flip_bit(class.lane(PARTITION), loc.segment, u64::from(loc.offset) + 300, 1);
        }
    };
    flip(&mut rig);
    assert!(rig.step());
    flip(&mut rig);
    run_pass(&mut rig);
    assert_eq!((lost(&mut rig), rig.store.scrub_progress().faults), (vec![], 0));
    assert_eq!(places(&rig), before, "nothing had to be saved");
}

#[test]
fn after_the_first_fault_the_rest_of_a_pass_takes_half_the_time() {
    let mut rig = rig();
    fill(&mut rig, 0..60, 6_000);
    rot(&mut rig, 0);
    // So that a pass begins now, with the oldest.
    rig.restart();
    rot(&mut rig, 1);
    let began_us = rig.now_us;
    while rig.store.scrub_progress().pass < 2 {
        wake(&mut rig);
    }
    assert_eq!(numbers(&lost(&mut rig)), [1]);
    let took_us = rig.now_us - began_us;
    assert!((WITHIN_US * 45 / 100..WITHIN_US * 65 / 100).contains(&took_us), "{took_us}");
}

#[test]
fn no_piece_is_read_while_compaction_empties_a_segment() {
    let mut rig = Rig::with(1, KeyedConfig { scrub_within_s: 1, segments_max: 250, ..config() });
    fill(&mut rig, 0..840, 6_000);
    (0..840).filter(|n| n % 8 < 7).for_each(|n| rig.delete(shard(n)));
    // So that a pass begins now, and is not behind.
    rig.restart();
    let (mut working, mut pieces) = (0, 0);
    for _ in 0..300 {
        rig.now_us += 1_000;
        let before = rig.store.compactor.is_working();
        rig.poll();
        let is_verifying = rig.store.in_flight.values().any(|read| matches!(read, InFlight::Scrub));
        if before && rig.store.compactor.is_working() {
            working += 1;
            assert!(!is_verifying);
        }
        pieces += u64::from(is_verifying);
        while rig.step() {}
    }
    assert!(working >= 5 && pieces > 100, "{working} {pieces}");
}

#[test]
fn a_wrong_root_under_a_right_checksum_is_found_in_ten_passes_and_then_every_one_of_its_segment() {
    let mut rig = rig();
    for number in 0..30u64 {
        let body = body(number, 6_000);
        let root = if number < 5 { [7; 32] } else { *blake3::hash(&body).as_bytes() };
        rig.put(shard(number), &NewRecord { root, ..record(number, START_S + YEAR_S, &body) });
    }
    assert_eq!(place(&rig, 0).1.segment, place(&rig, 4).1.segment);
    let found = (0..11).map(|_| {
        run_pass(&mut rig);
        lost(&mut rig)
    });
    let found: Vec<_> = found.filter(|lost| !lost.is_empty()).collect();
    assert_eq!(found.len(), 1, "all in the pass that found the first: {found:?}");
    assert_eq!(numbers(&found[0]), [0, 1, 2, 3, 4]);
    for lost in &found[0] {
        assert_eq!((lost.identity, lost.reason), (Some(shard(lost.prefix.0)), LostReason::RootMismatch));
    }
    assert_eq!(rig.store.scrub_progress().faults, 5);
    assert_eq!(rig.get(shard(3)), Answer::Absent);
    rig.assert_counters();
}

#[test]
fn behind_a_damaged_batch_header_what_is_sound_is_saved_and_all_else_is_named() {
    let header = -(crate::format::batch::BATCH_HEADER_BYTES as i64);
    let mut rig = rig();
    put_together(&mut rig, 0..5, 1_000);
    put_together(&mut rig, 5..10, 1_000);
    put_together(&mut rig, 10..15, 1_000);
    fill(&mut rig, 20..40, 6_000);
    let first = |rig: &Rig, numbers: std::ops::Range<u64>| {
        numbers.map(|n| place(rig, n)).min_by_key(|(_, loc)| loc.offset).unwrap()
    };
    // Only the header; header and bodies; everything.
    let at = first(&rig, 0..5);
    overwrite(&mut rig, at, header, &[0xFF; 128]);
    let at = first(&rig, 5..10);
    overwrite(&mut rig, at, header, &[0xFF; 128]);
    for number in 5..10 {
        let at = place(&rig, number);
        overwrite(&mut rig, at, 500, b"rot");
    }
    let at = first(&rig, 10..15);
    overwrite(&mut rig, at, header, &[0; 2 * BLOCK_BYTES]);
    run_pass(&mut rig);
    let found = lost(&mut rig);
    assert_eq!(numbers(&found), (5..15).collect::<Vec<_>>());
    for lost in &found {
        let identity = (lost.prefix.0 < 10).then(|| shard(lost.prefix.0));
        assert_eq!((lost.identity, lost.reason), (identity, LostReason::Damaged));
    }
    assert_eq!(rig.store.scrub_progress().faults, 1, "the three batches lie side by side");
    for number in 0..5 {
        assert_eq!(rig.get(shard(number)), got(number, &body(number, 1_000)));
    }
    rig.assert_counters();
    rig.restart();
    assert_eq!(rig.get(shard(4)), got(4, &body(4, 1_000)));
    rig.assert_counters();
}

#[test]
fn ten_faults_put_a_segment_out_of_use_and_what_lives_in_it_elsewhere() {
    let mut rig = rig();
    fill(&mut rig, 0..60, 3_000);
    let bad = place(&rig, 2).1.segment;
    let inmates: Vec<u64> = (0..60).filter(|n| place(&rig, *n).1.segment == bad).collect();
    assert!(inmates.len() > 12, "{inmates:?}");
    // Neighbours would be one damaged range.
    let rot_some = |rig: &mut Rig, some: &[u64]| some.iter().for_each(|n| rot(rig, *n));
    let (first, rest): (Vec<u64>, Vec<u64>) = inmates.iter().partition(|n| *n % 2 == 0);
    rot_some(&mut rig, &first[..5]);
    run_pass(&mut rig);
    assert_eq!(numbers(&lost(&mut rig)), first[..5]);
    assert_eq!((rig.store.scrub_progress().faults, rig.store.scrub_progress().condemned), (5, 0));
    rot_some(&mut rig, &rest[..5]);
    run_pass(&mut rig);
    assert_eq!(numbers(&lost(&mut rig)), rest[..5]);
    assert_eq!((rig.store.scrub_progress().faults, rig.store.scrub_progress().condemned), (10, 1));
    (0..200).for_each(|_| rig.settle());
    assert_eq!(rig.store.usage(Class::Years).retired, 1);
    for number in first[5..].iter().chain(&rest[5..]) {
        assert_ne!(place(&rig, *number).1.segment, bad);
        assert_eq!(rig.get(shard(*number)), got(*number, &body(*number, 3_000)));
    }
    rig.assert_counters();
    for round in 0..300 {
        rig.put(shard(1_000 + round % 40), &record(round, START_S + YEAR_S, &body(round, 6_000)));
        assert_ne!(place(&rig, 1_000 + round % 40).1.segment, bad, "it is never written again");
    }
    rig.assert_counters();
}

#[test]
fn a_due_that_could_not_be_said_is_said_when_it_can_be() {
    let mut rig = rig();
    rig.put(shard(1), &record(1, START_S + 8_100 * 3_600, b"alone"));
    rig.put(shard(2), &record(1, START_S + 8_100 * 3_600, b"leased"));
    let (hold, _) = rig.hold(shard(2));
    let ticket = rig.store.extend(hold, 2, (START_S + 8_150 * 3_600) as u32, b"lease").unwrap();
    assert!(rig.stored(ticket));
    fill(&mut rig, 10..20, 6_000);
    let due = |rig: &Rig, number| {
        let mut entries = rig.store.entries_of(Family::Shard, Prefix(number), Prefix(number));
        entries.next().map(|entry| entry.place.due() != Due::LATER)
    };
    run_pass(&mut rig);
    assert_eq!([due(&rig, 1), due(&rig, 2)], [Some(false); 2]);
    // A key that somebody holds stays as that one knows it.
    let (hold, _) = rig.hold(shard(1));
    rig.pass_hours(120);
    run_pass(&mut rig);
    assert_eq!(due(&rig, 1), Some(false));
    rig.store.release(hold);
    run_pass(&mut rig);
    assert_eq!([due(&rig, 1), due(&rig, 2)], [Some(true), Some(false)], "the lease is still out of sight");
    rig.pass_hours(80);
    run_pass(&mut rig);
    assert_eq!(due(&rig, 2), Some(true));
    rig.assert_counters();
    rig.pass_hours(8_100 - 200 - 1);
    assert_eq!(rig.get(shard(1)), got(1, b"alone"));
    rig.pass_hours(1);
    assert_eq!((rig.get(shard(1)), rig.get(shard(2))), (Answer::Absent, got(1, b"leased")));
    rig.pass_hours(49);
    assert_eq!(rig.get(shard(2)), got(1, b"leased"));
    rig.pass_hours(1);
    assert_eq!(rig.get(shard(2)), Answer::Absent);
    rig.assert_counters();
}

#[test]
fn puts_and_gets_go_on_while_everything_is_verified() {
    let mut rig = Rig::with(1, KeyedConfig { scrub_within_s: 1, ..config() });
    for round in 0..600u64 {
        rig.now_us += 5_000;
        let number = round * 7 % 40;
        rig.put(shard(number), &record(round, START_S + YEAR_S, &body(round, 6_000)));
        assert_eq!(rig.get(shard(number)), got(round, &body(round, 6_000)));
    }
    let progress = rig.store.scrub_progress();
    assert!(progress.pass >= 3 && progress.faults == 0, "{progress:?}");
    assert_eq!(lost(&mut rig), []);
    rig.assert_counters();
}

#[test]
fn a_device_that_gives_nothing_any_more_is_reported_and_costs_no_entry() {
    let mut rig = rig();
    fill(&mut rig, 0..60, 6_000);
    for segment in 0..rig.store.usage(Class::Years).segments {
        for offset in (0..u64::from(SEGMENT_BYTES)).step_by(BLOCK_BYTES) {
            rig.disk.make_unreadable(Class::Years.lane(PARTITION), SegmentId(segment), offset);
        }
    }
    let began_us = rig.now_us;
    while rig.now_us < began_us + 20 * WITHIN_US {
        wake(&mut rig);
    }
    assert_eq!((lost(&mut rig), rig.store.entries()), (vec![], 60));
    for number in 0..60 {
        assert_eq!(rig.get(shard(number)), Answer::Unreadable);
    }
    let failing = rig.events.iter().filter(|event| matches!(event, Event::DeviceFailing { .. }));
    assert_eq!(failing.count(), 1);
    rig.assert_counters();
}

#[test]
fn a_bad_spot_that_is_read_again_and_again_is_no_failing_device() {
    let mut rig = rig();
    rig.put(shard(1), &record(1, START_S + YEAR_S, b"one"));
    let (class, loc) = place(&rig, 1);
    rig.disk.make_unreadable(class.lane(PARTITION), loc.segment, u64::from(loc.offset));
    (0..100).for_each(|_| assert_eq!(rig.get(shard(1)), Answer::Unreadable));
    assert!(!rig.events.iter().any(|event| matches!(event, Event::DeviceFailing { .. })));
}

#[test]
fn a_store_that_shuts_down_verifies_no_more() {
    let mut rig = Rig::with(1, KeyedConfig { scrub_within_s: 1, ..config() });
    fill(&mut rig, 0..20, 6_000);
    rig.now_us += 100_000;
    rig.poll();
    rig.store.begin_shutdown();
    for _ in 0..100 {
        rig.settle();
        rig.now_us += 100_000;
    }
    assert!(rig.store.is_drained());
    let progress = rig.store.scrub_progress();
    rig.settle();
    assert_eq!(rig.store.scrub_progress(), progress);
}
