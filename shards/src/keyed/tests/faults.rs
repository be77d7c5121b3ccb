//! Faults of single operations as the store of keyed records meets them, each against the rule that handles
//! it. The comment of a test names that rule; without it the test fails.

use super::rig::*;
use crate::index::Prefix;
use crate::io::{BLOCK_BYTES, Errno, SegmentId};
use crate::keyed::place::unpack;
use crate::keyed::read::Lock;
use crate::keyed::{Begun, Class, Event, Family, Got, KeyedConfig, KnownLost, LookupError};
use crate::lane::RecordLoc;
use crate::testing::{Fault, PendingOp, SECTOR_BYTES};

const DAY_S: u64 = 24 * 3_600;
/// The head of a record of this size is read apart from most of its body.
const LONG: usize = 6_000;
/// One of this size lies in the blocks that its head is read from.
const SHORT: usize = 100;
/// A write of so few sectors is that of a segment header.
const HEADER_SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;

/// Where the record of a key lies.
fn loc(rig: &Rig, key: u64) -> (Class, RecordLoc) {
    unpack(rig.store.entries_of(Family::Shard, Prefix(key), Prefix(key)).next().unwrap().place)
}

fn body(sequence: u64, bytes: usize) -> Vec<u8> {
    vec![sequence as u8; bytes]
}

fn put(rig: &mut Rig, key: u64, sequence: u64, bytes: usize) {
    rig.put(shard(key), &record(sequence, START_S + DAY_S, &body(sequence, bytes)));
}

/// Replaces a record until it lies where an earlier one of its key lay, in an earlier use of the segment.
/// Gives its sequence number.
fn same_place_again(rig: &mut Rig, bytes: usize) -> u64 {
    let mut seen = Vec::new();
    for sequence in 1.. {
        put(rig, 1, sequence, bytes);
        let place = loc(rig, 1);
        if seen.contains(&place) {
            return sequence;
        }
        seen.push(place);
    }
    unreachable!("segments are few")
}

/// The sequence number of what there is of key 1, as a lookup with these faults finds it.
fn looked_up(rig: &mut Rig, faults: &[Fault]) -> Option<u64> {
    faults.iter().for_each(|fault| rig.disk.inject(*fault));
    let (hold, existing) = rig.hold(shard(1));
    rig.store.release(hold);
    assert_eq!(existing.lease.or(existing.tombstone), None);
    existing.live.map(|live| live.sequence)
}

fn named_as_lost(rig: &Rig) -> usize {
    rig.events
        .iter()
        .filter(|event| matches!(event, Event::Lost(KnownLost { prefix: Prefix(1), .. })))
        .count()
}

/// Rule: the checksum of a record is bound to the use of its segment.
#[test]
fn a_stale_read_of_a_reused_segment_does_not_bring_back_an_earlier_record_of_the_key() {
    for bytes in [SHORT, LONG] {
        let mut rig = Rig::new(1);
        let newest = same_place_again(&mut rig, bytes);
        rig.disk.inject(Fault::StaleRead);
        assert_eq!(rig.get(shard(1)), got(newest, &body(newest, bytes)));
        rig.disk.inject(Fault::StaleRead);
        rig.disk.inject(Fault::StaleRead);
        assert_eq!((rig.get(shard(1)), named_as_lost(&rig)), (Answer::Lost, 1));
    }
}

/// Rule: a head counts only with an LSN of the present use of its segment.
#[test]
fn a_stale_read_in_a_lookup_does_not_bring_back_an_earlier_record_of_the_key() {
    for bytes in [SHORT, LONG] {
        let mut rig = Rig::new(1);
        let newest = same_place_again(&mut rig, bytes);
        assert_eq!(looked_up(&mut rig, &[Fault::StaleRead]), Some(newest), "{bytes} bytes");
        assert_eq!(named_as_lost(&rig), 0);
    }
}

/// Rule: what a read brings wrong is read once more before the record is given up.
#[test]
fn a_stale_read_in_a_lookup_does_not_make_a_key_look_vacant() {
    for bytes in [SHORT, LONG] {
        let mut rig = Rig::new(1);
        put(&mut rig, 1, 7, bytes);
        assert_eq!(looked_up(&mut rig, &[Fault::StaleRead]), Some(7));
        assert_eq!(named_as_lost(&rig), 0);
    }
}

/// Rule: a record that is given up is named, and what is put in its place lives as long as it might.
#[test]
fn a_key_whose_record_reads_wrong_twice_is_vacant_but_not_silently() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + 9 * DAY_S, &body(1, LONG)));
    assert_eq!(looked_up(&mut rig, &[Fault::StaleRead, Fault::StaleRead]), None);
    assert_eq!(named_as_lost(&rig), 1);
    rig.assert_counters();
    put(&mut rig, 1, 2, SHORT);
    rig.pass_hours(2 * 24);
    rig.restart();
    assert_eq!(rig.get(shard(1)), got(2, &body(2, SHORT)), "or the stale one's record would come back");
}

/// Rule: the checksum of a record is bound to its offset, also where only its head is asked for.
#[test]
fn a_misdirected_read_does_not_bring_an_earlier_record_of_the_key() {
    let mut rig = Rig::new(1);
    put(&mut rig, 1, 1, SHORT);
    let (_, old) = loc(&rig, 1);
    put(&mut rig, 1, 2, SHORT);
    let (_, new) = loc(&rig, 1);
    let astray = Fault::MisdirectedRead(i64::from(old.offset) - i64::from(new.offset));
    assert_eq!(
        (old.segment, old.offset as usize % BLOCK_BYTES),
        (new.segment, new.offset as usize % BLOCK_BYTES)
    );
    rig.disk.inject(astray);
    assert_eq!(rig.get(shard(1)), got(2, &body(2, SHORT)));
    assert_eq!(looked_up(&mut rig, &[astray]), Some(2));
    assert_eq!(named_as_lost(&rig), 0);
}

/// Rule: of a failed write nothing is believed; the record goes to a fresh segment before it is stored.
#[test]
fn what_a_failed_write_left_in_a_cache_is_not_what_was_stored() {
    let mut rig = Rig::new(1);
    put(&mut rig, 1, 1, LONG);
    rig.disk.inject(Fault::ErrorThenClean);
    put(&mut rig, 1, 2, LONG);
    rig.disk.crash(|_| true);
    rig.restart();
    assert_eq!(rig.get(shard(1)), got(2, &body(2, LONG)));
}

/// Rule: what recovery once took is owed from then on: the next header says so, and it is named when it is
/// gone.
#[test]
fn what_was_refused_and_seems_to_be_there_is_whole_or_named_when_it_goes() {
    let mut rig = Rig::new(1);
    put(&mut rig, 1, 1, LONG);
    let (hold, _) = rig.hold(shard(1));
    let ticket = rig.store.put(hold, &record(2, START_S + DAY_S, &body(2, LONG))).unwrap();
    let is_refused = |event: &Event| matches!(event, Event::Refused { ticket: it } if *it == ticket);
    while !rig.events.iter().any(is_refused) {
        rig.poll();
        rig.disk.clear_faults();
        if rig.disk.pending().iter().any(|op| op.sectors > HEADER_SECTORS) {
            rig.disk.inject(Fault::ErrorThenClean);
        }
        assert!(rig.step());
    }
    assert_eq!(rig.get(shard(1)), got(1, &body(1, LONG)));
    // The process dies, the machine does not: the pages are still there, and clean.
    rig.restart();
    assert_eq!(rig.get(shard(1)), got(2, &body(2, LONG)));
    put(&mut rig, 2, 1, SHORT);
    rig.disk.crash(|_| true);
    let restored = rig.reopen();
    let lost: u64 = restored.reports.iter().map(|report| report.lost_records).sum();
    assert_eq!(lost, 1, "{:?}", restored.reports);
    rig.store = restored.store;
    assert_eq!(rig.get(shard(2)), got(1, &body(1, SHORT)));
}

/// A partition in which most is deleted, so that compaction has to copy what is left: a quarter of the keys.
fn full_of_holes(rig: &mut Rig) -> Vec<u64> {
    let expires_s = START_S + 400 * DAY_S;
    let is_kept = |key: &u64| key % 8 >= 6;
    (0..84).for_each(|key| rig.put(shard(key), &record(key, expires_s, &body(key, LONG))));
    (0..84).filter(|key| !is_kept(key)).for_each(|key| rig.delete(shard(key)));
    (0..84).filter(is_kept).collect()
}

fn assert_kept(rig: &mut Rig, kept: &[u64]) {
    for key in kept {
        assert_eq!(rig.get(shard(*key)), got(*key, &body(*key, LONG)), "key {key}");
    }
    rig.assert_counters();
}

/// Rule: a key whose record is being copied is not changed, and its record is read where it was.
#[test]
fn a_copy_that_is_slow_and_never_ends_costs_nothing() {
    let mut rig = Rig::new(1);
    let kept = full_of_holes(&mut rig);
    let copies = |rig: &Rig| {
        let pending = rig.disk.pending();
        let writes = pending.iter().enumerate().filter(|(_, op)| op.sectors > HEADER_SECTORS);
        writes.map(|(at, _)| at).collect::<Vec<_>>()
    };
    let is_moved = |rig: &Rig, key: &u64| {
        matches!(rig.store.locks.get(&(Family::Shard, Prefix(*key))), Some(Lock::Moving(_)))
    };
    // Until there is so little left that something is copied, and the copy is on its way to the disk.
    let years = record(1, START_S + 400 * DAY_S, &[1; LONG]);
    for further in 200..100_000 {
        rig.now_us += 500;
        rig.poll();
        if kept.iter().any(|key| is_moved(&rig, key)) && !copies(&rig).is_empty() {
            break;
        }
        if !rig.step()
            && let Ok(Begun::Held(hold)) = rig.store.begin(shard(further))
            && let Err((_, hold)) = rig.store.put(hold, &years)
        {
            rig.store.release(hold);
        }
    }
    let moved: Vec<u64> = kept.iter().copied().filter(|key| is_moved(&rig, key)).collect();
    assert!(!moved.is_empty());
    for key in moved {
        assert_eq!(rig.store.begin(shard(key)).unwrap_err(), LookupError::Busy);
        let buf = crate::AlignedBuf::zeroed(BATCH_BYTES + BLOCK_BYTES);
        let wanted = rig.store.get(shard(key), buf).unwrap();
        rig.poll();
        copies(&rig).into_iter().for_each(|at| rig.disk.hold_back(at, 1_000));
        let is_got = |event: &Event| matches!(event, Event::Got { ticket, .. } if *ticket == wanted);
        while !rig.events.iter().any(is_got) {
            assert!(rig.step());
            rig.poll();
        }
        let is_it = |event: &Event| matches!(event, Event::Got { got: Got::Record(_), .. });
        assert!(rig.events.drain(..).any(|event| is_it(&event)));
    }
    assert!(!copies(&rig).is_empty(), "they are still under way");
    rig.disk.crash(|_| false);
    rig.restart();
    assert_kept(&mut rig, &kept);
}

/// Rule: a batch counts for compaction only in the use of the segment that it names.
#[test]
fn compaction_does_not_copy_what_an_earlier_use_of_a_segment_left() {
    let mut rig = Rig::new(1);
    let newest = same_place_again(&mut rig, LONG);
    // Enough lives to make every segment worth emptying, and the one that key 1 is in gets no more records.
    (100..170).for_each(|key| rig.put(shard(key), &record(1, START_S + 400 * DAY_S, &body(1, LONG))));
    (200..208).for_each(|key| put(&mut rig, key, 1, LONG));
    (200..208).for_each(|key| rig.delete(shard(key)));
    let before = loc(&rig, 1);
    rig.disk.clear_faults();
    for _ in 0..100 {
        rig.disk.inject(Fault::StaleRead);
        rig.settle();
    }
    rig.disk.clear_faults();
    assert_eq!(rig.get(shard(1)), got(newest, &body(newest, LONG)));
    let patience_us = 3_700_000_000;
    rig.now_us += patience_us;
    (0..100).for_each(|_| rig.settle());
    assert_ne!(loc(&rig, 1), before, "it is copied when the disk reads right");
    assert_eq!(rig.get(shard(1)), got(newest, &body(newest, LONG)));
}

/// Rule: a segment is free when nothing in it lives by the index's count, whatever compaction saw of it.
#[test]
fn compaction_gives_nothing_up_that_it_could_not_read() {
    for fault in [Fault::StaleRead, Fault::MisdirectedRead(2 * BLOCK_BYTES as i64), Fault::ReadError] {
        let mut rig = Rig::new(1);
        let kept = full_of_holes(&mut rig);
        // Half of the reads go wrong.
        for _ in 0..400 {
            rig.disk.inject(fault);
            rig.settle();
            rig.disk.clear_faults();
            rig.settle();
        }
        assert!(rig.store.compacted_bytes() > 0);
        assert_kept(&mut rig, &kept);
        rig.restart();
        assert_kept(&mut rig, &kept);
    }
}

/// Rule: a record that cannot be read stays in the index, and its segment in use, until a restart names it.
#[test]
fn a_latent_error_under_a_live_record_is_told_and_the_others_are_kept() {
    let mut rig = Rig::new(1);
    let kept = full_of_holes(&mut rig);
    let (class, bad) = loc(&rig, kept[3]);
    rig.disk.make_unreadable(class.lane(PARTITION), bad.segment, u64::from(bad.offset) + 4_096);
    assert_eq!(rig.get(shard(kept[3])), Answer::Unreadable);
    for round in 0..200 {
        rig.put(shard(1_000 + round % 20), &record(round, START_S + 400 * DAY_S, &body(round, LONG)));
    }
    assert_eq!(rig.get(shard(kept[3])), Answer::Unreadable, "not written over");
    rig.assert_counters();
    let restored = rig.reopen();
    let lost: u64 = restored.reports.iter().map(|report| report.lost_records).sum();
    assert!((1..=2).contains(&lost), "{:?}", restored.reports);
    rig.store = restored.store;
    let others: Vec<u64> = kept.iter().copied().filter(|key| *key != kept[3]).collect();
    assert_kept(&mut rig, &others);
    assert_eq!(rig.get(shard(kept[3])), Answer::Absent);
}

/// Rule: a key whose lookup fails is let go, and a disk that comes round is asked again.
#[test]
fn a_lookup_that_the_disk_refuses_leaves_the_key_as_it_was() {
    let mut rig = Rig::new(1);
    put(&mut rig, 1, 1, LONG);
    rig.disk.inject(Fault::ReadError);
    rig.disk.inject(Fault::ReadError);
    let Ok(Begun::Reading(wanted)) = rig.store.begin(shard(1)) else { panic!("it must be read") };
    rig.settle();
    let failed =
        |event: &Event| matches!(event, Event::LookupFailed { ticket, errno: Errno(5) } if *ticket == wanted);
    assert!(rig.events.iter().any(failed), "{:?}", rig.events);
    assert_eq!(looked_up(&mut rig, &[]), Some(1));
}

/// Rule: a batch of a use later than the newest header proves that use, also if an earlier header stands
/// before it.
#[test]
fn records_behind_a_header_that_was_never_written_are_found() {
    let mut rig = Rig::new(1);
    let newest = same_place_again(&mut rig, LONG);
    let lane = Class::Hours.lane(PARTITION);
    let mut sequence = newest;
    // Until a segment is opened whose header is lost on the way.
    loop {
        sequence += 1;
        let before = loc(&rig, 1).1.segment;
        let (hold, _) = rig.hold(shard(1));
        let asked = rig.store.put(hold, &record(sequence, START_S + DAY_S, &body(sequence, LONG))).unwrap();
        rig.poll();
        let opens = |segment: SegmentId| segment != before;
        if rig
            .disk
            .pending()
            .iter()
            .any(|op| op.lane == lane && op.sectors == HEADER_SECTORS && opens(op.segment))
        {
            rig.disk.inject(Fault::LostWrite);
            assert!(rig.stored(asked));
            break;
        }
        assert!(rig.stored(asked));
    }
    rig.disk.crash(|_| false);
    rig.restart();
    assert_eq!(rig.get(shard(1)), got(sequence, &body(sequence, LONG)));
    rig.assert_counters();
}

/// Rule: a lease whose record is lost is a tombstone: what that record had replaced does not come back. It
/// counts as one, also when compaction has moved it.
#[test]
fn a_lease_whose_record_is_lost_overrules_what_came_before_wherever_it_is_copied() {
    let mut rig = Rig::new(1);
    put(&mut rig, 1, 1, LONG);
    put(&mut rig, 1, 2, LONG);
    let (class, second) = loc(&rig, 1);
    let (hold, _) = rig.hold(shard(1));
    let ticket = rig.store.extend(hold, 3, (START_S + 30 * DAY_S) as u32, b"lease").unwrap();
    assert!(rig.stored(ticket));
    rig.disk.flip_bit(class.lane(PARTITION), second.segment, u64::from(second.offset) + 3_000, 0);
    rig.restart();
    assert_eq!(rig.get(shard(1)), Answer::Absent);
    let mark = |rig: &Rig| {
        let marks = &rig.store.families[Family::Shard.at()].marks;
        marks.range(Prefix(1), Prefix(1)).next().map(|entry| unpack(entry.place))
    };
    let before = mark(&rig).expect("it overrules the first record");
    rig.pass_hours(25);
    let years = record(1, START_S + 400 * DAY_S, &[1; LONG]);
    assert!((100..280).any(|key| rig.try_put(shard(key), &years).is_err()), "it is full");
    (0..100).for_each(|_| rig.settle());
    assert!(mark(&rig).is_some() && mark(&rig) != Some(before), "it was copied");
    rig.assert_counters();
    rig.pass_hours(30 * 24);
    assert_eq!(mark(&rig), None);
    rig.assert_counters();
}

/// Rule: compaction goes on only while the segment is in the use that it began with.
#[test]
fn a_segment_that_dies_while_it_is_compacted_is_used_again_undisturbed() {
    let mut rig = Rig::with(1, KeyedConfig { segments_max: 24, ..config() });
    let years = START_S + 400 * DAY_S;
    (0..84).for_each(|key| rig.put(shard(key), &record(key, years, &body(key, LONG))));
    let (class, victim) = loc(&rig, 1);
    // Of what shares its segment only key 1 lives, and is held: compaction waits for it.
    let (hold, _) = rig.hold(shard(1));
    let mates = (0..84).filter(|key| *key != 1 && loc(&rig, *key).1.segment == victim.segment);
    mates.collect::<Vec<_>>().into_iter().for_each(|key| rig.delete(shard(key)));
    (0..20).for_each(|_| rig.settle());
    // Now it has to pause, and meanwhile the segment dies.
    rig.store.compactor.pace.spend(1 << 20);
    let ticket = rig.store.delete(hold, 0, years as u32, b"proof").unwrap();
    assert!(rig.stored(ticket));
    assert_eq!(rig.store.usage(class).spares, 2);
    let is_of_victim = |op: &PendingOp| (op.lane, op.segment) == (class.lane(PARTITION), victim.segment);
    let mut is_opened = false;
    for key in 100..200 {
        rig.now_us += 20_000;
        let (hold, _) = rig.hold(shard(key));
        let ticket = rig.store.put(hold, &record(key, years, &body(key, LONG))).unwrap();
        rig.poll();
        // Whatever is read is slow.
        while let Some(write) = rig.disk.pending().iter().position(|op| op.sectors > 0) {
            is_opened |= is_of_victim(&rig.disk.pending()[write]);
            let done = rig.disk.complete(write).unwrap();
            rig.store.complete(rig.now_us, done, &mut rig.events);
            rig.poll();
        }
        if is_opened {
            assert!(rig.stored(ticket));
            return rig.assert_counters();
        }
    }
    panic!("the segment was not used again");
}
