//! Where the records of a lane lie, by key: an ordered index that also knows sums of ranges.
//!
//! **Promise.** Insert, swing, remove, look up, count and sum of any range, the next key from anywhere, and
//! the record that is due first: each in logarithmic time, and none moves more than a few kilobytes. From
//! records in order it is built in linear time. A record costs at most 27 bytes of memory at the fill that
//! random keys give (`tests`). The index refuses beyond the number of entries that it was made for, and grows
//! by small blocks, never by doubling.
//!
//! **What it keeps of a key** are its first 8 bytes. Keys are hashes, so two that share them are a rarity
//! that must be asked for; both are kept, and [`KeyIndex::candidates`] gives all places of a prefix: whoever
//! reads a record compares the whole key that stands there. A clash costs a read, never a wrong answer.
//!
//! **Failure model.** It is derived: everything in it comes from the log and can be made anew. It does no
//! I/O.
//!
//! **How.** A B+ tree in memory. A leaf holds up to 64 prefixes and places, sorted; an inner node knows for
//! each child how many entries are below it, their [`Fingerprint`] and the first [`Due`] of them. Nodes lie
//! in arenas of small blocks and name each other by number.

mod arena;
mod build;
mod due;
mod fingerprint;
mod inner;
mod leaf;
#[cfg(test)]
mod tests;
mod walk;

pub use build::BuildError;
pub use due::Due;
pub use fingerprint::Fingerprint;
pub use walk::Entries;

use arena::{Arena, NodeId};
use due::Origin;
use inner::{Inner, Summary};
use leaf::Leaf;

/// Children of an inner node, and entries of a leaf, at most.
const FANOUT: usize = 64;
/// A node and its neighbour become one when both together hold at most this: some room remains, so that the
/// next insertion does not part them again.
const MERGE_AT: usize = FANOUT * 3 / 4;
/// Levels of inner nodes: more than any memory fills.
const LEVELS_MAX: usize = 8;

/// The first 8 bytes of a key, as a number that sorts like the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(pub u64);

impl Prefix {
    /// The lowest.
    pub const MIN: Self = Self(0);
    /// The highest.
    pub const MAX: Self = Self(u64::MAX);

    /// Of a key.
    pub fn of(key: &[u8; 32]) -> Self {
        Self(u64::from_be_bytes(crate::format::field::bytes_at(key, 0)))
    }
}

/// Where a record lies and what must be known without reading it. The lowest [`Due::BITS`] bits are when it
/// is due; what the others mean is the owner's matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u64);

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Of its key.
    pub prefix: Prefix,
    /// Where it lies.
    pub place: Place,
}

/// The index holds as many entries as it was made for. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the index holds {entries_max} records, as many as it may; raise the limit or delete some")]
pub struct IndexFull {
    /// As configured.
    pub entries_max: u64,
}

/// The index of one lane.
#[derive(Debug)]
pub struct KeyIndex {
    leaves: Arena<Leaf>,
    inners: Arena<Inner>,
    root: NodeId,
    /// Levels of inner nodes above the leaves.
    levels: usize,
    len: u64,
    entries_max: u64,
    origin: Origin,
}

/// The way from the root to a leaf: inner nodes, and which child was taken at each.
#[derive(Clone, Copy)]
struct Path {
    steps: [(NodeId, usize); LEVELS_MAX],
    leaf: NodeId,
}

impl KeyIndex {
    /// Empty, for at most `entries_max` entries. Its origin is hour 0 until [`Self::set_origin`].
    pub fn new(entries_max: u64) -> Self {
        let mut leaves = Arena::new();
        let root = leaves.add(Leaf::EMPTY);
        Self { leaves, inners: Arena::new(), root, levels: 0, len: 0, entries_max, origin: Origin::at(0) }
    }

    /// Entries in it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory that it holds, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.leaves.heap_bytes() + self.inners.heap_bytes()
    }

    /// Adds an entry. The prefix may be there before, with other places. An entry that is there already
    /// changes nothing.
    pub fn insert(&mut self, prefix: Prefix, place: Place) -> Result<(), IndexFull> {
        let entry = Entry { prefix, place };
        let path = self.path_to(entry);
        if self.leaves[path.leaf].holds(entry) {
            return Ok(());
        }
        if self.len >= self.entries_max {
            return Err(IndexFull { entries_max: self.entries_max });
        }
        self.count_along(&path, |inner, child| inner.add(child, Fingerprint::of(prefix)));
        self.lower_dues(&path, place.due());
        self.len += 1;
        if !self.leaves[path.leaf].insert(entry) {
            let mut upper = self.leaves[path.leaf].split();
            let separator = upper.first();
            let half = if entry < separator { &mut self.leaves[path.leaf] } else { &mut upper };
            half.insert(entry);
            let right = self.leaves.add(upper);
            // An entry below all of the upper half went to the lower one; so the separator still holds.
            self.grow(&path, separator, right);
        }
        Ok(())
    }

    /// Takes an entry out. `false` if it is not there.
    pub fn remove(&mut self, prefix: Prefix, place: Place) -> bool {
        let entry = Entry { prefix, place };
        let path = self.path_to(entry);
        if !self.leaves[path.leaf].remove(entry) {
            return false;
        }
        self.count_along(&path, |inner, child| inner.subtract(child, Fingerprint::of(prefix)));
        self.raise_dues(&path, place.due());
        self.len -= 1;
        self.shrink(&path);
        true
    }

    /// Lets an entry point to another place, if it still points to `old`: for records that were moved. Never
    /// refused for want of room. Where another entry points already, one remains.
    pub fn swing(&mut self, prefix: Prefix, old: Place, new: Place) -> bool {
        let entry = Entry { prefix, place: old };
        let path = self.path_to(entry);
        if !self.leaves[path.leaf].holds(entry) {
            return false;
        }
        if self.leaves[path.leaf].swing(entry, new) {
            // A record that is moved keeps its due: nearly always nothing above the leaf is touched.
            if new.due() != old.due() {
                self.lower_dues(&path, new.due());
                self.raise_dues(&path, old.due());
            }
            return true;
        }
        self.remove(prefix, old);
        let inserted = self.insert(prefix, new);
        debug_assert!(inserted.is_ok(), "an entry was just taken out");
        true
    }

    /// True if this entry is there.
    pub fn holds(&self, prefix: Prefix, place: Place) -> bool {
        let entry = Entry { prefix, place };
        self.leaves[self.path_to(entry).leaf].holds(entry)
    }

    /// The places of all records whose keys begin like this: nearly always one or none.
    pub fn candidates(&self, prefix: Prefix) -> impl Iterator<Item = Place> {
        self.range(prefix, prefix).map(|entry| entry.place)
    }

    /// The way to the leaf in which an entry is or belongs.
    fn path_to(&self, entry: Entry) -> Path {
        let mut path = Path { steps: [(NodeId::NONE, 0); LEVELS_MAX], leaf: self.root };
        for step in &mut path.steps[..self.levels] {
            let child = self.inners[path.leaf].child_of(entry);
            *step = (path.leaf, child);
            path.leaf = self.inners[path.leaf].child(child);
        }
        path
    }

    fn count_along(&mut self, path: &Path, mut change: impl FnMut(&mut Inner, usize)) {
        for (inner, child) in &path.steps[..self.levels] {
            change(&mut self.inners[*inner], *child);
        }
    }

    /// Count and sum of a node, `level` levels above the leaves.
    fn total(&self, node: NodeId, level: usize) -> Fingerprint {
        if level == 0 { self.leaves[node].total() } else { self.inners[node].total() }
    }

    /// What the parent of a node is to know of it.
    fn summary(&self, node: NodeId, level: usize) -> Summary {
        Summary { total: self.total(node, level), due: self.due(node, level) }
    }

    /// Gives the parent of a node that was split its new right half, and so on upwards.
    fn grow(&mut self, path: &Path, mut separator: Entry, mut right: NodeId) {
        let mut left = path.leaf;
        for level in 0..self.levels {
            let (parent, child) = path.steps[self.levels - 1 - level];
            let summaries = (self.summary(left, level), self.summary(right, level));
            let inner = &mut self.inners[parent];
            inner.set_summary(child, summaries.0);
            if inner.insert(child + 1, separator, right, summaries.1) {
                return;
            }
            let (middle, mut upper) = inner.split();
            if child < inner.len() {
                inner.insert(child + 1, separator, right, summaries.1);
            } else {
                upper.insert(child + 1 - inner.len(), separator, right, summaries.1);
            }
            (left, separator, right) = (parent, middle, self.inners.add(upper));
        }
        assert!(self.levels < LEVELS_MAX, "no memory holds so many entries");
        let summaries = (self.summary(left, self.levels), self.summary(right, self.levels));
        self.root = self.inners.add(Inner::root((left, summaries.0), separator, (right, summaries.1)));
        self.levels += 1;
    }

    /// Joins a node that has become small with a neighbour under the same parent, and so on upwards.
    fn shrink(&mut self, path: &Path) {
        for level in 0..self.levels {
            let (parent, child) = path.steps[self.levels - 1 - level];
            let left = child.saturating_sub(usize::from(child + 1 == self.inners[parent].len()));
            if left + 1 >= self.inners[parent].len() || !self.join(parent, left, level) {
                return;
            }
        }
        while self.levels > 0 && self.inners[self.root].len() == 1 {
            let only = self.inners[self.root].child(0);
            self.inners.free(std::mem::replace(&mut self.root, only));
            self.levels -= 1;
        }
    }

    /// Joins the children `left` and the one after it, if they fit in one node.
    fn join(&mut self, parent: NodeId, left: usize, level: usize) -> bool {
        let inner = &self.inners[parent];
        let (a, b, separator) = (inner.child(left), inner.child(left + 1), inner.separator(left + 1));
        if level == 0 {
            let (len_a, len_b) = (self.leaves[a].len(), self.leaves[b].len());
            if len_a > 0 && len_b > 0 && len_a + len_b > MERGE_AT {
                return false;
            }
            let upper = self.leaves.free(b);
            self.leaves[a].append(&upper);
        } else {
            if self.inners[a].len() + self.inners[b].len() > MERGE_AT {
                return false;
            }
            let upper = self.inners.free(b);
            self.inners[a].append(separator, &upper);
        }
        let summary = self.summary(a, level);
        let inner = &mut self.inners[parent];
        inner.remove(left + 1);
        inner.set_summary(left, summary);
        true
    }
}
