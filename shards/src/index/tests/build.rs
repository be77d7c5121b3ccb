//! Indexes that were built at once.

use std::collections::BTreeSet;

use super::model::{assert_sound, place};
use super::*;
use crate::testing::Rng;

fn entry(prefix: u64, place: u64) -> Entry {
    Entry { prefix: Prefix(prefix), place: Place(place) }
}

/// Random entries in order.
fn sorted(count: u64, rng: &mut Rng) -> BTreeSet<Entry> {
    (0..count).map(|place| entry(rng.next_u64(), place)).collect()
}

/// Checks that no node but the root is nearly empty.
fn assert_filled(index: &KeyIndex, node: NodeId, level: usize) {
    let (len, root) = if level == 0 {
        (index.leaves[node].len(), node == index.root)
    } else {
        (index.inners[node].len(), node == index.root)
    };
    assert!(len >= 5 || root && (level == 0 || len >= 2), "{len} at level {level} of {}", index.len());
    for at in 0..if level == 0 { 0 } else { len } {
        assert_filled(index, index.inners[node].child(at), level - 1);
    }
}

#[test]
fn it_is_sound_and_filled_at_every_size_at_which_a_node_begins_or_ends() {
    let mut rng = Rng::new(4);
    let entries: Vec<Entry> = (0..210_000)
        .map(|number| {
            let (place, _) = place(&mut rng, 50, 77_777);
            // Three of each prefix.
            entry((number / 3) << 40, place.0 | ((number % 3) << 40))
        })
        .collect();
    let sizes = (0..300).chain((300..5_000).step_by(13)).chain((90_000..210_000).step_by(10_007));
    for size in sizes {
        let entries = &entries[..size];
        let index = KeyIndex::build(size as u64, 77_777, entries.iter().copied()).unwrap();
        assert_eq!(index.len(), size as u64);
        assert!(index.range(Prefix::MIN, Prefix::MAX).eq(entries.iter().copied()));
        assert_sound(&index);
        assert_filled(&index, index.root, index.levels);
    }
}

#[test]
fn entries_that_do_not_rise_are_refused() {
    let build = |entries: &[Entry]| KeyIndex::build(10, 0, entries.iter().copied());
    let (low, high) = (entry(5, 5), entry(5, 6));
    assert_eq!(build(&[low, high]).unwrap().len(), 2);
    assert_eq!(build(&[low, low]).unwrap_err(), BuildError::NotRising { before: low, entry: low });
    let refused = build(&[entry(1, 1), high, low]).unwrap_err();
    assert_eq!(refused, BuildError::NotRising { before: high, entry: low });
    assert!(build(&[]).unwrap().is_empty());
}

#[test]
fn more_entries_than_it_may_hold_are_refused_and_the_limit_stays() {
    let entries = || (0..1_000).map(|number| entry(number, 0));
    let refused = KeyIndex::build(999, 0, entries()).unwrap_err();
    assert_eq!(refused, BuildError::Full(IndexFull { entries_max: 999 }));
    let mut index = KeyIndex::build(1_000, 0, entries()).unwrap();
    assert_eq!(index.insert(Prefix(7), Place(7)), Err(IndexFull { entries_max: 1_000 }));
    assert!(index.swing(Prefix(7), Place(0), Place(7)), "it takes no room");
    assert!(index.swing(Prefix(0), Place(0), Place(7)) && index.swing(Prefix(0), Place(7), Place(3)));
    assert_eq!(index.len(), 1_000);
}

#[test]
fn an_entry_costs_less_than_24_bytes_when_built_and_27_while_it_grows_to_twice_as_many() {
    let (count, mut rng) = (1_000_000, Rng::new(5));
    let mut index = KeyIndex::build(u64::MAX, 0, sorted(count, &mut rng).into_iter()).unwrap();
    let cost = |index: &KeyIndex| index.heap_bytes() as f64 / index.len() as f64;
    assert!(cost(&index) < 24.0, "{} bytes per entry", cost(&index));
    for place in count..count * 2 {
        index.insert(Prefix(rng.next_u64()), Place(place)).unwrap();
        if place % 1_024 == 0 {
            let cost = cost(&index);
            assert!(cost < 27.0, "{cost} bytes per entry of {}", index.len());
        }
    }
    assert_sound(&index);
}

#[test]
fn it_empties_to_a_single_leaf() {
    let entries = sorted(20_000, &mut Rng::new(6));
    let mut index = KeyIndex::build(u64::MAX, 0, entries.iter().copied()).unwrap();
    assert!(index.levels > 1);
    for (number, entry) in entries.iter().enumerate() {
        assert!(index.remove(entry.prefix, entry.place));
        if number % 1_000 == 0 {
            assert_sound(&index);
        }
    }
    assert_eq!((index.len(), index.levels), (0, 0));
}
