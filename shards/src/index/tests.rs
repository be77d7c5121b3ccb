//! The limit of the index, its fingerprints, and its memory.

mod build;
mod due;
mod model;

use super::*;
use crate::testing::Rng;

#[test]
fn it_refuses_beyond_its_limit_and_changes_nothing() {
    let mut index = KeyIndex::new(2);
    index.insert(Prefix(1), Place(1)).unwrap();
    index.insert(Prefix(2), Place(2)).unwrap();
    assert_eq!(index.insert(Prefix(3), Place(3)), Err(IndexFull { entries_max: 2 }));
    assert_eq!((index.len(), index.candidates(Prefix(3)).count()), (2, 0));
    assert_eq!(index.insert(Prefix(2), Place(2)), Ok(()), "it is there already");
    assert_eq!(index.len(), 2);
    assert!(index.remove(Prefix(1), Place(1)));
    index.insert(Prefix(3), Place(3)).unwrap();
}

#[test]
fn equal_sets_have_equal_fingerprints_in_whatever_order_they_came() {
    let mut keys: Vec<u64> = (0..5_000u64).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let sum_of = |keys: &[u64]| {
        let mut index = KeyIndex::new(u64::MAX);
        keys.iter().for_each(|key| index.insert(Prefix(*key), Place(0)).unwrap());
        index.fingerprint(Prefix::MIN, Prefix::MAX)
    };
    let forward = sum_of(&keys);
    keys.reverse();
    assert_eq!(sum_of(&keys), forward);
    keys[17] ^= 1;
    assert_ne!(sum_of(&keys), forward);
    assert_eq!(
        Fingerprint::of(Prefix(1)).sum,
        0x5692_161D_100B_05E5_0777_6F16_1BD8_EA27,
        "nodes agree on it"
    );
}

/// Bytes per entry after so many random insertions.
fn bytes_per_entry(entries: u64) -> f64 {
    let (mut index, mut rng) = (KeyIndex::new(entries), Rng::new(1));
    for place in 0..entries {
        index.insert(Prefix(rng.next_u64()), Place(place)).unwrap();
    }
    index.heap_bytes() as f64 / entries as f64
}

#[test]
fn an_entry_costs_less_than_27_bytes() {
    let bytes = bytes_per_entry(1_000_000);
    assert!(bytes < 27.0, "{bytes} bytes per entry");
}

#[test]
fn memory_of_what_was_deleted_is_used_again() {
    let (mut index, mut rng) = (KeyIndex::new(u64::MAX), Rng::new(2));
    let mut live = std::collections::VecDeque::new();
    let mut fill = |index: &mut KeyIndex, rounds: u64| {
        for place in 0..rounds {
            let prefix = Prefix(rng.next_u64());
            index.insert(prefix, Place(place)).unwrap();
            live.push_back((prefix, Place(place)));
            if live.len() > 50_000 {
                let (prefix, place) = live.pop_front().unwrap();
                assert!(index.remove(prefix, place));
            }
        }
    };
    fill(&mut index, 100_000);
    let early = index.heap_bytes();
    fill(&mut index, 1_000_000);
    assert!(index.heap_bytes() <= early * 5 / 4, "{} after {early}", index.heap_bytes());
    let gone: Vec<Entry> = index.range(Prefix::MIN, Prefix::MAX).collect();
    gone.iter().for_each(|entry| assert!(index.remove(entry.prefix, entry.place)));
    assert_eq!((index.len(), index.levels, index.heap_bytes() > 0), (0, 0, true));
}
