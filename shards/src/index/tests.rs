//! The index against an ordered set, and its memory.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::Rng;

#[derive(Clone, Debug)]
enum Step {
    /// So many random entries, of so many possible prefixes.
    Insert(u16, u64),
    /// Every n-th entry goes.
    RemoveEvery(u16, usize),
    /// A range goes.
    RemoveRange(u64, u64),
    Swing(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..1_500u16, prop_oneof![Just(7), Just(1 << 10), Just(u64::MAX)])
            .prop_map(|(count, prefixes)| Step::Insert(count, prefixes)),
        (0..4u16, 1..5usize).prop_map(|(first, every)| Step::RemoveEvery(first, every)),
        (any::<u64>(), any::<u64>()).prop_map(|(from, to)| Step::RemoveRange(from, to)),
        any::<u64>().prop_map(Step::Swing),
    ]
}

fn assert_same(index: &KeyIndex, model: &BTreeSet<Entry>, rng: &mut Rng) {
    assert_eq!((index.len(), index.is_empty()), (model.len() as u64, model.is_empty()));
    assert!(index.range(Prefix::MIN, Prefix::MAX).eq(model.iter().copied()));
    for _ in 0..20 {
        let mut ends = [rng.next_u64(), rng.next_u64()].map(|end| end >> rng.below(64));
        ends.sort_unstable();
        let [from, to] = ends.map(Prefix);
        let within: Vec<Entry> =
            model.iter().copied().filter(|entry| (from..=to).contains(&entry.prefix)).collect();
        assert!(index.range(from, to).eq(within.iter().copied()), "{from:?} to {to:?}");
        let mut sum = Fingerprint::default();
        within.iter().for_each(|entry| sum += Fingerprint::of(entry.prefix));
        assert_eq!(index.fingerprint(from, to), sum, "{from:?} to {to:?}");
        assert_eq!(index.fingerprint(to, from).count, if from == to { sum.count } else { 0 });
        let rank = rng.below(model.len() as u64 + 3);
        assert_eq!(index.nth(rank), model.iter().nth(rank as usize).copied());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_answers_as_an_ordered_set_after_any_steps(
        steps in prop::collection::vec(step(), 1..12), seed: u64,
    ) {
        let (mut index, mut model, mut rng) = (KeyIndex::new(u64::MAX), BTreeSet::new(), Rng::new(seed));
        for step in steps {
            match step {
                Step::Insert(count, prefixes) => for number in 0..count {
                    let (prefix, place) = (Prefix(rng.below(prefixes)), Place(rng.below(prefixes.max(3))));
                    model.insert(Entry { prefix, place });
                    index.insert(prefix, place).unwrap();
                    prop_assert!(index.candidates(prefix).any(|there| there == place), "{number}");
                },
                Step::RemoveEvery(first, every) => {
                    let gone: Vec<Entry> =
                        model.iter().skip(usize::from(first)).step_by(every).copied().collect();
                    for entry in gone {
                        prop_assert!(index.remove(entry.prefix, entry.place) && model.remove(&entry));
                        prop_assert!(!index.remove(entry.prefix, entry.place), "it is gone");
                    }
                }
                Step::RemoveRange(from, to) => {
                    let gone: Vec<Entry> = index.range(Prefix(from), Prefix(to)).collect();
                    for entry in gone {
                        prop_assert!(index.remove(entry.prefix, entry.place) && model.remove(&entry));
                    }
                }
                Step::Swing(rank) => if let Some(entry) = index.nth(rank % (model.len() as u64 + 1)) {
                    let new = Place(!entry.place.0);
                    prop_assert!(index.swing(entry.prefix, entry.place, new));
                    prop_assert!(!index.swing(entry.prefix, entry.place, new), "it points elsewhere now");
                    model.remove(&entry);
                    model.insert(Entry { place: new, ..entry });
                }
            }
            assert_same(&index, &model, &mut rng);
        }
    }
}

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
fn an_entry_costs_less_than_32_bytes() {
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
