//! The index against an ordered map from entries to the hours at which they are due.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::Rng;

/// Hours until dues repeat.
pub const ROUND: u64 = 8_191;

/// Entries, and the hour that was meant by the due of each. An hour that is kept here stays, whatever the
/// origin becomes.
pub type Model = BTreeMap<Entry, Option<u64>>;

/// Places of few or many values, due at few or many hours that can be told, or never.
pub fn place(rng: &mut Rng, values: u64, origin: u64) -> (Place, Option<u64>) {
    let high = rng.below(values) << 13;
    let hour = match rng.below(8) {
        0 => return (Place(high | ROUND), None),
        1..5 => origin + rng.below(ROUND),
        5 => origin + ROUND - 1,
        _ => origin + rng.below(3),
    };
    (Place(high | (hour % ROUND)), Some(hour))
}

/// Checks of every node what its parent says of it, and that entries stand where a search looks for them.
pub fn assert_sound(index: &KeyIndex) {
    let bounds = (None, None);
    assert_sound_below(index, index.root, index.levels, bounds);
}

fn assert_sound_below(index: &KeyIndex, node: NodeId, level: usize, bounds: (Option<Entry>, Option<Entry>)) {
    let (from, to) = bounds;
    if level == 0 {
        let leaf = &index.leaves[node];
        let entries: Vec<Entry> = (0..leaf.len()).map(|at| leaf.get(at).unwrap()).collect();
        assert!(entries.is_sorted_by(|a, b| a < b));
        assert!(entries.iter().all(|entry| from.is_none_or(|from| from <= *entry)));
        assert!(entries.iter().all(|entry| to.is_none_or(|to| *entry < to)));
        return;
    }
    let inner = &index.inners[node];
    for at in 0..inner.len() {
        let child = inner.child(at);
        let summary = index.summary(child, level - 1);
        assert_eq!((inner.sum(at..at + 1), inner.due(at)), (summary.total, summary.due));
        let from = if at == 0 { from } else { Some(inner.separator(at)) };
        let to = if at + 1 == inner.len() { to } else { Some(inner.separator(at + 1)) };
        assert_sound_below(index, child, level - 1, (from, to));
    }
}

pub fn assert_same(index: &KeyIndex, model: &Model, rng: &mut Rng) {
    assert_sound(index);
    assert_eq!((index.len(), index.is_empty()), (model.len() as u64, model.is_empty()));
    assert!(index.range(Prefix::MIN, Prefix::MAX).eq(model.keys().copied()));
    for _ in 0..20 {
        let mut ends = [rng.next_u64(), rng.next_u64()].map(|end| end >> rng.below(64));
        ends.sort_unstable();
        let [from, to] = ends.map(Prefix);
        let within: Vec<Entry> =
            model.keys().copied().filter(|entry| (from..=to).contains(&entry.prefix)).collect();
        assert!(index.range(from, to).eq(within.iter().copied()), "{from:?} to {to:?}");
        let mut sum = Fingerprint::default();
        within.iter().for_each(|entry| sum += Fingerprint::of(entry.prefix));
        assert_eq!(index.fingerprint(from, to), sum, "{from:?} to {to:?}");
        assert_eq!(index.fingerprint(to, from).count, if from == to { sum.count } else { 0 });
        let rank = rng.below(model.len() as u64 + 3);
        assert_eq!(index.nth(rank), model.keys().nth(rank as usize).copied());
    }
    let earliest = model.values().flatten().min().copied();
    assert_eq!(index.earliest_due(), earliest);
    for hour in [0, index.origin() + rng.below(ROUND), u64::MAX].into_iter().chain(earliest) {
        let due = index.due_by(hour);
        assert_eq!(due.is_some(), earliest.is_some_and(|earliest| earliest <= hour), "by {hour}");
        assert!(due.is_none_or(|entry| model[&entry] == earliest), "by {hour}");
    }
    for hour in earliest.into_iter().filter_map(|earliest| earliest.checked_sub(1)) {
        assert_eq!(index.due_by(hour), None, "nothing is due before the first");
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// So many random entries, of so many possible prefixes.
    Insert(u16, u64),
    /// Every n-th entry goes.
    RemoveEvery(u16, usize),
    /// A range goes.
    RemoveRange(u64, u64),
    /// Every n-th entry is moved to another place.
    Swing(u16, usize),
    /// An entry is moved to where another of its prefix, if there is one, points already.
    SwingOnto(u64),
    /// Entries that are due within so many hours of the first go, but not more than this.
    Expire(u16, u16),
    /// The origin is asked to go so many hours ahead.
    Origin(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..4_000u16, prop_oneof![Just(7), Just(1 << 10), Just(u64::MAX)])
            .prop_map(|(count, prefixes)| Step::Insert(count, prefixes)),
        (0..4u16, 1..5usize).prop_map(|(first, every)| Step::RemoveEvery(first, every)),
        (any::<u64>(), any::<u64>()).prop_map(|(from, to)| Step::RemoveRange(from, to)),
        (0..4u16, 1..200usize).prop_map(|(first, every)| Step::Swing(first, every)),
        any::<u64>().prop_map(Step::SwingOnto),
        (0..9_000u16, 0..4_000u16).prop_map(|(hours, count)| Step::Expire(hours, count)),
        prop_oneof![0..10u64, 0..20_000u64].prop_map(Step::Origin),
    ]
}

/// Does a step with both.
fn take(step: &Step, index: &mut KeyIndex, model: &mut Model, rng: &mut Rng) {
    let every = |model: &Model, first: u16, every| -> Vec<Entry> {
        model.keys().skip(usize::from(first)).step_by(every).copied().collect()
    };
    match *step {
        Step::Insert(count, prefixes) => (0..count).for_each(|_| insert(index, model, rng, prefixes)),
        Step::RemoveEvery(first, n) => {
            every(model, first, n).iter().for_each(|entry| remove(index, model, *entry));
        }
        Step::RemoveRange(from, to) => {
            let gone: Vec<Entry> = index.range(Prefix(from), Prefix(to)).collect();
            gone.iter().for_each(|entry| remove(index, model, *entry));
        }
        Step::Swing(first, n) => {
            every(model, first, n).iter().for_each(|entry| swing(index, model, rng, *entry));
        }
        Step::SwingOnto(rank) => {
            let Some(entry) = index.nth(rank % (model.len() as u64 + 1)) else { return };
            let places: Vec<Place> = index.candidates(entry.prefix).collect();
            let onto = places[rng.below(places.len() as u64) as usize];
            assert!(index.swing(entry.prefix, entry.place, onto));
            if onto != entry.place {
                model.remove(&entry);
            }
        }
        Step::Expire(hours, count) => expire(index, model, hours, count),
        Step::Origin(hours) => {
            let asked = index.origin() + hours;
            index.set_origin(asked);
            let first = model.values().flatten().min().copied();
            assert_eq!(index.origin(), first.map_or(asked, |first| first.min(asked)));
        }
    }
}

fn insert(index: &mut KeyIndex, model: &mut Model, rng: &mut Rng, prefixes: u64) {
    let prefix = Prefix(rng.below(prefixes));
    let (place, due) = place(rng, (prefixes >> 13).max(40), index.origin());
    index.insert(prefix, place).unwrap();
    let before = model.insert(Entry { prefix, place }, due);
    assert!(before.is_none_or(|before| before == due), "one due means one hour");
    assert!(index.candidates(prefix).any(|there| there == place));
}

fn remove(index: &mut KeyIndex, model: &mut Model, entry: Entry) {
    assert!(index.remove(entry.prefix, entry.place) && model.remove(&entry).is_some());
    assert!(!index.remove(entry.prefix, entry.place), "it is gone");
}

fn swing(index: &mut KeyIndex, model: &mut Model, rng: &mut Rng, entry: Entry) {
    let (new, due) = place(rng, 1 << 40, index.origin());
    if index.candidates(entry.prefix).any(|there| there == new) {
        return;
    }
    assert!(index.swing(entry.prefix, entry.place, new));
    assert!(!index.swing(entry.prefix, entry.place, new), "it points elsewhere now");
    model.remove(&entry);
    model.insert(Entry { place: new, ..entry }, due);
}

fn expire(index: &mut KeyIndex, model: &mut Model, hours: u16, count: u16) {
    let Some(until) = index.earliest_due().map(|first| first + u64::from(hours)) else { return };
    let mut dues: Vec<u64> = model.values().flatten().copied().filter(|due| *due <= until).collect();
    dues.sort_unstable();
    for due in dues.iter().take(usize::from(count)) {
        let entry = index.due_by(until).unwrap();
        assert_eq!(model.get(&entry), Some(&Some(*due)), "the first of those that are left");
        remove(index, model, entry);
    }
    assert_eq!(index.due_by(until).is_some(), dues.len() > usize::from(count));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn it_answers_as_an_ordered_map_after_any_steps(
        steps in prop::collection::vec(step(), 1..16), origin in 0..1_000_000u64, built: bool, seed: u64,
    ) {
        let (mut index, mut model, mut rng) = (KeyIndex::new(u64::MAX), Model::new(), Rng::new(seed));
        index.set_origin(origin);
        for step in steps {
            take(&step, &mut index, &mut model, &mut rng);
            assert_same(&index, &model, &mut rng);
            if built {
                index = KeyIndex::build(u64::MAX, index.origin(), model.keys().copied()).unwrap();
                assert_same(&index, &model, &mut rng);
            }
        }
    }
}
