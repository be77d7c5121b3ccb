//! Ranges of the index: their entries, their count and sum, and the entry at a rank.

use super::arena::NodeId;
use super::{Entry, Fingerprint, KeyIndex, LEVELS_MAX, Place, Prefix};

impl KeyIndex {
    /// The entries from `from` to `to`, both included, in order. Taking the first costs a search; each next
    /// one is near. To go on later, begin with the last prefix seen.
    pub fn range(&self, from: Prefix, to: Prefix) -> Entries<'_> {
        let lowest = Entry { prefix: from, place: Place(0) };
        let path = self.path_to(lowest);
        let at = self.leaves[path.leaf].rank(lowest);
        Entries { index: self, steps: path.steps, leaf: path.leaf, at, to }
    }

    /// Count and sum of the entries from `from` to `to`, both included.
    pub fn fingerprint(&self, from: Prefix, to: Prefix) -> Fingerprint {
        if from > to {
            return Fingerprint::default();
        }
        let mut total = match to.0.checked_add(1) {
            Some(end) => self.below(Prefix(end)),
            None => self.total(self.root, self.levels),
        };
        total -= self.below(from);
        total
    }

    /// Count and sum of all entries whose prefix is below `end`.
    fn below(&self, end: Prefix) -> Fingerprint {
        let end = Entry { prefix: end, place: Place(0) };
        let path = self.path_to(end);
        let leaf = &self.leaves[path.leaf];
        let mut total = leaf.sum(0..leaf.rank(end));
        for (inner, child) in &path.steps[..self.levels] {
            total += self.inners[*inner].sum(0..*child);
        }
        total
    }

    /// The entry that has `rank` entries before it: where to cut a range in parts of one size.
    pub fn nth(&self, mut rank: u64) -> Option<Entry> {
        let mut node = self.root;
        for _ in 0..self.levels {
            let inner = &self.inners[node];
            let mut child = 0;
            while child < inner.len() && inner.sum(child..child + 1).count <= rank {
                rank -= inner.sum(child..child + 1).count;
                child += 1;
            }
            if child == inner.len() {
                return None;
            }
            node = inner.child(child);
        }
        self.leaves[node].get(usize::try_from(rank).ok()?)
    }
}

/// Entries of a range, in order.
#[derive(Clone)]
pub struct Entries<'i> {
    index: &'i KeyIndex,
    steps: [(NodeId, usize); LEVELS_MAX],
    leaf: NodeId,
    at: usize,
    to: Prefix,
}

impl Entries<'_> {
    /// Goes to the leaf after this one. `false` if it is the last.
    fn next_leaf(&mut self) -> bool {
        let levels = self.index.levels;
        let inners = &self.index.inners;
        let up = self.steps[..levels].iter().rposition(|(inner, child)| child + 1 < inners[*inner].len());
        let Some(up) = up else { return false };
        self.steps[up].1 += 1;
        let mut node = inners[self.steps[up].0].child(self.steps[up].1);
        for step in &mut self.steps[up + 1..levels] {
            *step = (node, 0);
            node = inners[node].child(0);
        }
        (self.leaf, self.at) = (node, 0);
        true
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.index.leaves[self.leaf].get(self.at) {
                self.at += 1;
                return (entry.prefix <= self.to).then_some(entry);
            }
            if !self.next_leaf() {
                return None;
            }
        }
    }
}
