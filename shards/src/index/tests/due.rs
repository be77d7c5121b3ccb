//! What a due means, and the origin that it is relative to.

use super::*;
use crate::testing::Rng;

fn place(value: u64, hour: u64, origin: u64) -> Place {
    Place(value << Due::BITS).with_due(Due::of_hour(hour, origin))
}

#[test]
fn a_due_gives_back_its_hour_for_every_origin_from_which_it_can_be_told() {
    for origin in [0, 1, 8_190, 8_191, 8_192, 490_000, 490_001] {
        for after in [0, 1, 4_095, 7_999, Due::HORIZON_HOURS] {
            let due = Due::of_hour(origin + after, origin);
            assert_eq!(due.hour(origin), Some(origin + after));
            assert_eq!(
                due.hour(origin + after),
                Some(origin + after),
                "at its hour, the origin may stand there"
            );
            let earliest = (origin + after).saturating_sub(8_190);
            assert_eq!(due.hour(earliest), Some(origin + after), "it is the last hour that can be told");
        }
        assert_eq!(Due::of_hour(origin.saturating_sub(5), origin).hour(origin), Some(origin), "overdue");
        assert_eq!(Due::of_hour(origin + Due::HORIZON_HOURS + 1, origin), Due::LATER);
        assert_eq!(Due::of_hour(u64::MAX, origin), Due::LATER);
        assert_eq!(Due::LATER.hour(origin), None);
    }
}

#[test]
fn a_place_keeps_its_due_in_the_lowest_13_bits_and_nothing_else_there() {
    let full = Place(u64::MAX);
    assert_eq!(full.due(), Due::LATER);
    let due = Due::of_hour(490_123, 490_000);
    assert_eq!(full.with_due(due), Place((u64::MAX << 13) | (490_123 % 8_191)));
    assert_eq!(full.with_due(due).due(), due);
    assert_eq!(full.with_due(due).with_due(Due::LATER), full);
}

#[test]
fn what_is_never_due_is_never_given_as_due() {
    let mut index = KeyIndex::new(u64::MAX);
    for number in 0..1_000 {
        index.insert(Prefix(number), place(number, u64::MAX, 0)).unwrap();
    }
    assert_eq!((index.earliest_due(), index.due_by(u64::MAX)), (None, None));
    index.set_origin(500_000);
    assert_eq!((index.origin(), index.due_by(u64::MAX)), (500_000, None));
    let due = Entry { prefix: Prefix(567), place: place(1, 508_000, 500_000) };
    index.insert(due.prefix, due.place).unwrap();
    assert_eq!((index.earliest_due(), index.due_by(508_000)), (Some(508_000), Some(due)));
    assert_eq!(index.due_by(507_999), None);
}

#[test]
fn the_origin_moves_forward_only_and_not_beyond_the_first_due() {
    let mut index = KeyIndex::new(u64::MAX);
    index.set_origin(1_000);
    index.set_origin(10);
    assert_eq!(index.origin(), 1_000, "it does not move back");
    index.insert(Prefix(1), place(1, 1_500, 1_000)).unwrap();
    index.set_origin(2_000);
    assert_eq!((index.origin(), index.earliest_due()), (1_500, Some(1_500)), "it waits for what is overdue");
    assert!(index.remove(Prefix(1), place(1, 1_500, 1_000)));
    index.set_origin(u64::MAX);
    assert_eq!((index.origin(), index.due_by(u64::MAX)), (u64::MAX, None));
}

#[test]
fn records_expire_in_order_while_dues_go_round_many_times() {
    let (mut index, mut rng, mut waiting) = (KeyIndex::new(u64::MAX), Rng::new(3), 0);
    for now in (490_000..540_000).step_by(50) {
        index.set_origin(now);
        for _ in 0..20 {
            let due = Due::of_hour(now + rng.below(Due::HORIZON_HOURS + 1), index.origin());
            index.insert(Prefix(rng.next_u64()), Place(0).with_due(due)).unwrap();
            waiting += 1;
        }
        let mut last = 0;
        while let Some(entry) = index.due_by(now) {
            let due = entry.place.due().hour(index.origin()).unwrap();
            assert!((now - 49..=now).contains(&due) && last <= due, "{due} at {now}, after {last}");
            assert!(index.remove(entry.prefix, entry.place));
            (waiting, last) = (waiting - 1, due);
        }
        assert_eq!(index.len(), waiting);
    }
    model::assert_sound(&index);
}

/// An owner's fault, of which only the hour may be wrong.
#[test]
fn a_due_made_for_an_earlier_origin_is_late_by_a_round_but_its_record_is_kept() {
    let mut index = KeyIndex::new(u64::MAX);
    index.set_origin(20_000);
    let wrong = Entry { prefix: Prefix(500), place: place(1, 19_000, 18_000) };
    for number in 0..1_000 {
        index.insert(Prefix(number), place(2, 25_000, 20_000)).unwrap();
    }
    index.insert(wrong.prefix, wrong.place).unwrap();
    assert_eq!(index.due_by(24_999), None);
    assert!(index.candidates(wrong.prefix).any(|place| place == wrong.place));
    assert_eq!(index.fingerprint(Prefix::MIN, Prefix::MAX).count, 1_001);
    for _ in 0..1_000 {
        let entry = index.due_by(25_000).unwrap();
        assert!(index.remove(entry.prefix, entry.place));
    }
    assert_eq!((index.due_by(25_000), index.earliest_due()), (None, Some(19_000 + 8_191)));
    assert_eq!(index.due_by(30_000), Some(wrong));
    assert!(index.remove(wrong.prefix, wrong.place) && index.is_empty());
}
