//! Up to 64 entries, sorted by prefix, then by place.

use super::due::{Due, Origin};
use super::{Entry, FANOUT, Fingerprint, Place, Prefix};

/// Prefixes and places stand apart: a search touches only the former.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    len: u8,
    prefixes: [Prefix; FANOUT],
    places: [Place; FANOUT],
}

impl Leaf {
    pub(super) const EMPTY: Self =
        Self { len: 0, prefixes: [Prefix::MIN; FANOUT], places: [Place(0); FANOUT] };

    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn get(&self, at: usize) -> Option<Entry> {
        (at < self.len()).then(|| Entry { prefix: self.prefixes[at], place: self.places[at] })
    }

    /// The lowest entry of a leaf that has any.
    pub(super) fn first(&self) -> Entry {
        Entry { prefix: self.prefixes[0], place: self.places[0] }
    }

    /// How many entries are lower.
    pub(super) fn rank(&self, entry: Entry) -> usize {
        let mut at = self.prefixes[..self.len()].partition_point(|prefix| *prefix < entry.prefix);
        while self.get(at).is_some_and(|there| there < entry) {
            at += 1;
        }
        at
    }

    pub(super) fn holds(&self, entry: Entry) -> bool {
        self.get(self.rank(entry)) == Some(entry)
    }

    /// Sum of the entries at these positions.
    pub(super) fn sum(&self, range: std::ops::Range<usize>) -> Fingerprint {
        let mut total = Fingerprint::default();
        self.prefixes[range].iter().for_each(|prefix| total += Fingerprint::of(*prefix));
        total
    }

    pub(super) fn total(&self) -> Fingerprint {
        self.sum(0..self.len())
    }

    fn dues(&self) -> impl Iterator<Item = Due> {
        self.places[..self.len()].iter().map(|place| place.due())
    }

    /// The first due of its entries.
    pub(super) fn earliest_due(&self, origin: Origin) -> Due {
        origin.earliest(self.dues())
    }

    /// The entry that is due first. `None` without entries.
    pub(super) fn earliest(&self, origin: Origin) -> Option<Entry> {
        let due = self.earliest_due(origin);
        self.dues().position(|there| there == due).and_then(|at| self.get(at))
    }

    /// `false` if it is full.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        let (at, len) = (self.rank(entry), self.len());
        if len == FANOUT {
            return false;
        }
        self.prefixes.copy_within(at..len, at + 1);
        self.places.copy_within(at..len, at + 1);
        (self.prefixes[at], self.places[at]) = (entry.prefix, entry.place);
        self.len += 1;
        true
    }

    /// Adds an entry that is above all others. It fits.
    pub(super) fn push(&mut self, entry: Entry) {
        let at = self.len();
        (self.prefixes[at], self.places[at]) = (entry.prefix, entry.place);
        self.len += 1;
    }

    /// `false` if it is not here.
    pub(super) fn remove(&mut self, entry: Entry) -> bool {
        let (at, len) = (self.rank(entry), self.len());
        if self.get(at) != Some(entry) {
            return false;
        }
        self.prefixes.copy_within(at + 1..len, at);
        self.places.copy_within(at + 1..len, at);
        self.len -= 1;
        true
    }

    /// Gives an entry that is here another place. `false`, and nothing is changed, if another entry has it,
    /// or if the new place sorts before or after all that are here: then it may belong to another leaf.
    pub(super) fn swing(&mut self, old: Entry, new: Place) -> bool {
        let new = Entry { place: new, ..old };
        let (from, to) = (self.rank(old), self.rank(new));
        if to == 0 || self.get(to).is_none_or(|there| there == new) {
            return false;
        }
        // Whatever lies between the two has their prefix; so only places move.
        if from < to {
            self.places[from..to].rotate_left(1);
            self.places[to - 1] = new.place;
        } else {
            self.places[to..=from].rotate_right(1);
            self.places[to] = new.place;
        }
        true
    }

    /// Takes the upper half out.
    pub(super) fn split(&mut self) -> Self {
        let (half, mut upper) = (self.len() / 2, Self::EMPTY);
        let moved = self.len() - half;
        upper.prefixes[..moved].copy_from_slice(&self.prefixes[half..half + moved]);
        upper.places[..moved].copy_from_slice(&self.places[half..half + moved]);
        (self.len, upper.len) = (half as u8, moved as u8);
        upper
    }

    /// Adds all entries of a leaf whose entries are higher. Both fit.
    pub(super) fn append(&mut self, upper: &Self) {
        let (len, more) = (self.len(), upper.len());
        self.prefixes[len..len + more].copy_from_slice(&upper.prefixes[..more]);
        self.places[len..len + more].copy_from_slice(&upper.places[..more]);
        self.len += upper.len;
    }
}
