//! One behaviour at a time.

use super::rig::*;
use crate::index::Prefix;
use crate::keyed::{
    CapacityState, ChangeError, Class, Event, Family, Identity, KeyedConfig, KeyedStore, KnownLost,
    LookupError, RestoreError,
};
use crate::testing::Fault;

const DAY_S: u64 = 24 * 3_600;

fn body(text: &str) -> Answer {
    got(1, text.as_bytes())
}

#[test]
fn what_was_put_is_got_with_card_and_lease_also_after_a_restart() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + DAY_S, b"one"));
    assert_eq!(rig.get(shard(1)), body("one"));
    assert_eq!(rig.get(shard(2)), Answer::Absent);
    rig.restart();
    assert_eq!(rig.get(shard(1)), body("one"));
    let (hold, existing) = rig.hold(shard(1));
    let live = existing.live.unwrap();
    assert_eq!((live.sequence, live.expires_s as u64), (1, START_S + DAY_S));
    assert_eq!(live.root, *blake3::hash(b"one").as_bytes());
    rig.store.release(hold);
    rig.assert_counters();
}

#[test]
fn keys_that_begin_alike_and_shards_of_one_stripe_are_told_apart() {
    let mut rig = Rig::new(1);
    let other_index = Identity { index: 7, ..shard(1) };
    let mut other_key = shard(1);
    other_key.key[31] ^= 1;
    let bundle = Identity { family: Family::KeyBundle, ..shard(1) };
    let all = [shard(1), other_index, other_key, bundle];
    for (at, identity) in all.into_iter().enumerate() {
        rig.put(identity, &record(at as u64, START_S + DAY_S, &[at as u8; 100]));
    }
    for round in 0..2 {
        for (at, identity) in all.into_iter().enumerate() {
            assert_eq!(rig.get(identity), got(at as u64, &[at as u8; 100]), "round {round}");
        }
        let all = (Prefix::MIN, Prefix::MAX);
        assert_eq!(rig.store.fingerprint(Family::Shard, all.0, all.1).count, 3);
        assert_eq!(rig.store.entries_of(Family::KeyBundle, all.0, all.1).count(), 1);
        rig.assert_counters();
        rig.restart();
    }
    rig.delete(other_index);
    rig.restart();
    assert_eq!(rig.get(other_index), Answer::Absent);
    assert_eq!(rig.get(shard(1)), got(0, &[0; 100]));
}

#[test]
fn the_later_record_of_a_key_counts_and_lives_as_long_as_what_it_replaced() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + 50 * DAY_S, b"long"));
    rig.put(shard(1), &record(2, START_S + DAY_S, b"short"));
    assert_eq!(rig.get(shard(1)), got(2, b"short"));
    rig.assert_counters();
    rig.pass_hours(49 * 24);
    assert_eq!(rig.get(shard(1)), got(2, b"short"), "or the longer one would come back");
    rig.pass_hours(24);
    assert_eq!(rig.get(shard(1)), Answer::Absent);
    rig.restart();
    assert_eq!((rig.get(shard(1)), rig.store.entries()), (Answer::Absent, 0));
}

#[test]
fn what_was_deleted_does_not_come_back_for_as_long_as_its_record_would_have_lived() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + 50 * DAY_S, b"one"));
    rig.delete(shard(1));
    assert_eq!(rig.store.fingerprint(Family::Shard, Prefix::MIN, Prefix::MAX).count, 0);
    for _ in 0..3 {
        rig.restart();
        assert_eq!(rig.get(shard(1)), Answer::Absent);
        let (hold, existing) = rig.hold(shard(1));
        let tombstone = existing.tombstone.expect("it overrules the record");
        assert_eq!(u64::from(tombstone.expires_s), START_S + 50 * DAY_S);
        rig.store.release(hold);
        rig.pass_hours(16 * 24);
    }
    rig.pass_hours(2 * 24);
    assert_eq!(rig.store.entries(), 0, "the tombstone has done its work");
    rig.assert_counters();
    rig.restart();
    assert_eq!(rig.store.entries(), 0);
}

#[test]
fn a_lease_lengthens_a_life_and_only_lengthens() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + DAY_S, b"one"));
    let (hold, _) = rig.hold(shard(1));
    let (refused, hold) = rig.store.extend(hold, 2, (START_S + DAY_S) as u32, b"same").unwrap_err();
    assert_eq!(refused, ChangeError::NotLonger { until_s: (START_S + DAY_S) as u32 });
    let ticket = rig.store.extend(hold, 2, (START_S + 9 * DAY_S) as u32, b"longer").unwrap();
    assert!(rig.stored(ticket));
    let (hold, existing) = rig.hold(shard(1));
    assert_eq!(existing.lease.map(|lease| lease.sequence), Some(2));
    let ticket = rig.store.extend(hold, 3, (START_S + 10 * DAY_S) as u32, b"longest").unwrap();
    assert!(rig.stored(ticket));
    rig.assert_counters();
    assert_eq!(rig.store.entries(), 2, "the record and its lease");
    rig.pass_hours(9 * 24 + 23);
    rig.restart();
    assert_eq!(rig.get(shard(1)), body("one"));
    rig.assert_counters();
    rig.pass_hours(1);
    assert_eq!((rig.get(shard(1)), rig.store.entries()), (Answer::Absent, 0));
}

#[test]
fn a_record_is_there_until_the_end_of_its_hour_and_not_after() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + 5_400, b"one"));
    rig.pass_hours(1);
    assert_eq!(rig.get(shard(1)), body("one"));
    rig.now_s += 3_599;
    rig.settle();
    assert_eq!(rig.get(shard(1)), body("one"));
    rig.now_s += 1;
    rig.settle();
    assert_eq!(rig.get(shard(1)), Answer::Absent);
    let (hold, _) = rig.hold(shard(1));
    let (refused, hold) = rig.store.put(hold, &record(1, rig.now_s, b"late")).unwrap_err();
    assert_eq!(refused, ChangeError::Expired { expires_s: rig.now_s as u32 });
    rig.store.release(hold);
}

#[test]
fn nobody_else_changes_a_key_that_is_held() {
    let mut rig = Rig::new(1);
    let (hold, _) = rig.hold(shard(1));
    assert_eq!(rig.store.begin(shard(1)).unwrap_err(), LookupError::Busy);
    let ticket = rig.store.put(hold, &record(1, START_S + DAY_S, b"one")).unwrap();
    assert_eq!(rig.store.begin(shard(1)).unwrap_err(), LookupError::Busy, "until it is durable");
    assert!(rig.stored(ticket));
    let (hold, _) = rig.hold(shard(1));
    rig.store.release(hold);
    let (hold, _) = rig.hold(shard(1));
    rig.store.release(hold);
}

#[test]
fn classes_keep_apart_what_dies_together_and_a_dead_segment_is_used_again() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + 2 * 3_600, b"hours"));
    rig.put(shard(2), &record(1, START_S + 40 * DAY_S, b"days"));
    rig.put(shard(3), &record(1, START_S + 400 * DAY_S, b"years"));
    let live = Class::ALL.map(|class| rig.store.usage(class).live_bytes);
    assert!(live.iter().all(|bytes| *bytes == live[0] && *bytes > 0), "{live:?}");
    // Seven records fit into a segment. Nine segments full of them that live two hours, four times over.
    for round in 0..4u64 {
        for number in 0..60 {
            let expires_s = rig.now_s + 2 * 3_600;
            rig.put(shard(100 + 1_000 * round + number), &record(1, expires_s, &[1; 5_000]));
        }
        rig.pass_hours(3);
        assert_eq!(rig.store.usage(Class::Hours).live_bytes, 0);
    }
    assert_eq!(rig.get(shard(2)), body("days"));
    assert_eq!(rig.get(shard(3)), body("years"));
    rig.assert_counters();
}

#[test]
fn a_full_class_uses_the_space_of_the_others_and_a_full_store_still_deletes() {
    let mut rig = Rig::new(1);
    let mut number = 0;
    let refused = loop {
        if let Err(error) = rig.try_put(shard(number), &record(1, START_S + 400 * DAY_S, &[2; 6_000])) {
            break error;
        }
        number += 1;
    };
    assert!(matches!(refused, ChangeError::Capacity(_)), "{refused}");
    let segments: u32 = Class::ALL.map(|class| rig.store.usage(class).segments).iter().sum();
    assert!(segments + 6 >= rig.config.segments_max, "the rest is for deletions and a checkpoint");
    assert!(number >= 12 * 7, "{number} records of 6 KiB fill most of 18 segments of 64 KiB");
    rig.restart();
    for victim in 0..number {
        rig.delete(shard(victim));
    }
    rig.assert_counters();
    rig.put(shard(9_999), &record(1, START_S + DAY_S, &[2; 6_000]));
    rig.restart();
    assert_eq!(rig.get(shard(9_999)), got(1, &[2; 6_000]));
    assert_eq!(rig.get(shard(0)), Answer::Absent);
}

#[test]
fn a_damaged_record_is_named_once_and_can_be_put_again() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + DAY_S, &[7; 5_000]));
    let lane = Class::Hours.lane(PARTITION);
    let place = rig.store.entries_of(Family::Shard, Prefix::MIN, Prefix::MAX).next().unwrap().place;
    let loc = crate::keyed::place::unpack(place).1;
    rig.disk.flip_bit(lane, loc.segment, u64::from(loc.offset) + 3_000, 3);
    assert_eq!(rig.get(shard(1)), Answer::Lost);
    assert!(matches!(
        rig.events[..],
        [Event::Lost(KnownLost { family: Family::Shard, prefix: Prefix(1), .. })]
    ));
    assert_eq!(rig.get(shard(1)), Answer::Absent);
    rig.assert_counters();
    rig.put(shard(1), &record(2, START_S + DAY_S, b"again"));
    rig.restart();
    assert_eq!(rig.get(shard(1)), got(2, b"again"));
}

#[test]
fn one_bad_read_is_not_a_loss() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + DAY_S, b"one"));
    rig.disk.inject(Fault::ReadError);
    assert_eq!(rig.get(shard(1)), body("one"));
    rig.disk.inject(Fault::ReadError);
    rig.disk.inject(Fault::ReadError);
    assert_eq!(rig.get(shard(1)), Answer::Unreadable);
    assert_eq!(rig.get(shard(1)), body("one"), "the disk may come round");
}

#[test]
fn limits_are_kept() {
    let mut rig = Rig::with(1, KeyedConfig { entries_max: 2, ..config() });
    rig.put(shard(1), &record(1, START_S + DAY_S, b"one"));
    let (second, _) = rig.hold(shard(2));
    let (third, _) = rig.hold(shard(3));
    let ticket = rig.store.put(second, &record(1, START_S + DAY_S, b"two")).unwrap();
    let (refused, third) = rig.store.put(third, &record(1, START_S + DAY_S, b"three")).unwrap_err();
    assert_eq!(refused, ChangeError::IndexFull { entries_max: 2 });
    rig.store.release(third);
    assert!(rig.stored(ticket));
    let long = vec![0; 70_000];
    let (hold, _) = rig.hold(shard(4));
    let too_long = crate::keyed::NewRecord { card: &long, ..record(1, START_S + DAY_S, b"") };
    let (refused, hold) = rig.store.put(hold, &too_long).unwrap_err();
    assert_eq!(refused, ChangeError::AttachmentTooLong { bytes: 70_000 });
    rig.store.release(hold);
    let few = KeyedConfig { segments_max: 5, ..config() };
    let refused = KeyedStore::restore(&rig.disk, few).unwrap_err();
    assert!(matches!(refused, RestoreError::TooFewSegments { least: 8, given: 5 }));
    let refused = KeyedStore::restore(&rig.disk, KeyedConfig { entries_max: 1, ..config() }).unwrap_err();
    assert!(matches!(refused, RestoreError::Index { .. }), "{refused}");
}

#[test]
fn a_lane_that_turned_read_only_refuses_what_waits_and_lets_go_of_its_keys() {
    let mut rig = Rig::new(1);
    rig.put(shard(1), &record(1, START_S + DAY_S, b"one"));
    let (hold, _) = rig.hold(shard(1));
    rig.disk.inject(Fault::WriteError);
    rig.disk.inject(Fault::WriteError);
    let ticket = rig.store.put(hold, &record(2, START_S + DAY_S, b"two")).unwrap();
    assert!(!rig.stored(ticket));
    assert!(rig.events.iter().any(|e| matches!(e, Event::Refused { ticket: t } if *t == ticket)));
    assert_eq!(rig.get(shard(1)), body("one"), "as it was");
    let (hold, _) = rig.hold(shard(1));
    let (refused, hold) = rig.store.put(hold, &record(2, START_S + DAY_S, b"two")).unwrap_err();
    assert!(matches!(refused, ChangeError::Append(crate::AppendError::ReadOnly(_))));
    rig.store.release(hold);
    rig.assert_counters();
}

/// Puts records of a year that fill most of the partition, then deletes six of eight, spread over all.
fn full_of_holes(rig: &mut Rig) -> Vec<u64> {
    let numbers: Vec<u64> = (0..84).collect();
    numbers.iter().for_each(|n| rig.put(shard(*n), &record(*n, START_S + 400 * DAY_S, &[*n as u8; 6_000])));
    numbers.iter().filter(|n| **n % 8 < 6).for_each(|n| rig.delete(shard(*n)));
    numbers.into_iter().filter(|n| n % 8 >= 6).collect()
}

#[test]
fn what_lives_in_sparse_segments_is_moved_and_their_space_is_used_again() {
    let mut rig = Rig::new(1);
    let kept = full_of_holes(&mut rig);
    (0..100).for_each(|_| rig.settle());
    let after = rig.store.capacity();
    assert!(after.free_bytes + after.kept_bytes >= after.total_bytes * 2 / 5, "{after:?}");
    assert!(rig.store.compacted_bytes() > 0);
    for round in 0..2 {
        for number in &kept {
            assert_eq!(rig.get(shard(*number)), got(*number, &[*number as u8; 6_000]), "round {round}");
        }
        rig.assert_counters();
        rig.restart();
    }
}

#[test]
fn a_partition_that_is_overwritten_for_ever_is_never_full() {
    let mut rig = Rig::new(1);
    for round in 0..1_000u64 {
        rig.put(shard(round * 7 % 40), &record(round, START_S + 400 * DAY_S, &[round as u8; 6_000]));
    }
    rig.assert_counters();
    for number in 0..40u64 {
        assert!(matches!(rig.get(shard(number)), Answer::Record(..)));
    }
}

#[test]
fn a_held_key_is_not_moved_until_it_is_let_go() {
    let mut rig = Rig::new(1);
    rig.put(shard(6), &record(6, START_S + 400 * DAY_S, &[6; 6_000]));
    let (hold, existing) = rig.hold(shard(6));
    let place = existing.live.unwrap().place;
    let overwrite = |rig: &mut Rig| {
        for round in 0..500 {
            rig.put(shard(100 + round % 60), &record(round, START_S + 400 * DAY_S, &[1; 6_000]));
        }
    };
    overwrite(&mut rig);
    let there = |rig: &Rig| rig.store.entries_of(Family::Shard, Prefix(6), Prefix(6)).next().unwrap().place;
    assert_eq!(there(&rig), place);
    rig.store.release(hold);
    overwrite(&mut rig);
    assert_ne!(there(&rig), place);
    assert_eq!(rig.get(shard(6)), got(6, &[6; 6_000]));
    rig.assert_counters();
}

#[test]
fn a_partition_refuses_shards_before_it_is_full_and_takes_them_again_when_it_is_emptier() {
    let lane = crate::LaneConfig { segment_bytes: 256 << 10, ..config().lane };
    let mut rig = Rig::with(1, KeyedConfig { segments_max: 60, lane, ..config() });
    let mut number = 0;
    let mut states = vec![];
    loop {
        if let Err(error) = rig.try_put(shard(number), &record(1, START_S + 400 * DAY_S, &[2; 3_880])) {
            assert_eq!(error, ChangeError::Capacity(CapacityState::Red), "{:?}", rig.store.capacity());
            break;
        }
        states.push(rig.store.capacity().state);
        number += 1;
    }
    states.dedup();
    use CapacityState::{Green, Orange, Red, Yellow};
    assert_eq!(states, [Green, Yellow, Orange, Red]);
    let bundle = Identity { family: Family::KeyBundle, ..shard(1) };
    rig.put(bundle, &record(1, START_S + DAY_S, b"still taken"));
    for victim in 0..number / 2 {
        rig.delete(shard(victim));
    }
    assert_eq!(rig.store.capacity().state, Green);
    rig.put(shard(5), &record(1, START_S + DAY_S, b"taken again"));
    let it = rig.store.capacity();
    assert_eq!(
        it.live_bytes + it.dead_bytes + it.free_bytes + it.kept_bytes + it.retired_bytes,
        it.total_bytes
    );
    rig.assert_counters();
}

#[test]
fn a_partition_filled_to_the_brim_can_be_emptied_one_deletion_at_a_time() {
    for segments_max in [22, 60, 130] {
        let mut rig = Rig::with(1, KeyedConfig { segments_max, ..config() });
        let mut number = 0;
        while rig.try_put(shard(number), &record(1, START_S + 400 * DAY_S, &[2; 6_000])).is_ok() {
            number += 1;
        }
        (0..number).filter(|n| n % 8 < 6).for_each(|n| rig.delete(shard(n)));
        (0..number).filter(|n| n % 8 >= 6).for_each(|n| assert_eq!(rig.get(shard(n)), got(1, &[2; 6_000])));
        rig.assert_counters();
    }
}

#[test]
fn overwriting_at_random_with_many_changes_under_way_never_comes_to_a_stop() {
    let mut rig = Rig::with(1, KeyedConfig { segments_max: 110, batch_buffers: 5, ..config() });
    let mut rng = crate::testing::Rng::new(1);
    let usable = 102 * u64::from(SEGMENT_BYTES - 8_192);
    let keys = usable * 55 / 100 / 2_048;
    let (mut stored, mut under_way, mut last) = (0u64, 0u64, 0u64);
    for step in 0..150_000u64 {
        rig.now_us += 20;
        while under_way < 24 {
            let key = if stored < keys { stored + under_way } else { rng.below(keys) };
            match rig.store.begin(shard(key)) {
                Ok(crate::keyed::Begun::Held(hold)) => {
                    match rig.store.put(hold, &record(step, START_S + 400 * DAY_S, &[1; 1_850])) {
                        Ok(_) => under_way += 1,
                        Err((_, hold)) => {
                            rig.store.release(hold);
                            break;
                        }
                    }
                }
                Ok(crate::keyed::Begun::Reading(_)) => under_way += 1,
                Err(_) => break,
            }
        }
        rig.poll();
        rig.step();
        for event in std::mem::take(&mut rig.events) {
            match event {
                Event::Stored { .. } => {
                    (stored, under_way, last) = (stored + 1, under_way - 1, step);
                }
                Event::Held { hold, .. } => {
                    match rig.store.put(hold, &record(step, START_S + 400 * DAY_S, &[1; 1_850])) {
                        Ok(_) => {}
                        Err((_, hold)) => {
                            rig.store.release(hold);
                            under_way -= 1;
                        }
                    }
                }
                _ => {}
            }
        }
        assert!(step - last < 20_000, "{stored} stored, then nothing: {:?}", rig.store.capacity());
    }
    assert!(stored > 2 * keys, "{stored} of {keys}");
}
