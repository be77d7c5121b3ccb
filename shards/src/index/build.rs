//! An index made at once from entries that come in order: after a restart, from a checkpoint.
//!
//! Nodes are filled one after the other and given to their parents when they are full: no entry is searched
//! for, nothing is moved, and beside the index itself a few numbers per level are kept.
//!
//! **How full.** From 36 to 60 of 64, by turns. Were all nodes filled alike, random insertions would part
//! nearly all of them within a short time, and memory would rise by four tenths. So a built index costs 23
//! bytes per entry and never more than 27 while it grows to twice as many (`tests::build`), and no node but
//! the last of a level parts before it took 5 more.

use super::arena::NodeId;
use super::due::Origin;
use super::inner::Inner;
use super::leaf::Leaf;
use super::{Entry, FANOUT, IndexFull, KeyIndex};

/// Why no index was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// More entries than it may hold.
    #[error(transparent)]
    Full(#[from] IndexFull),
    /// An entry is not above the one before it.
    #[error("the entries are not in strictly rising order: {entry:?} after {before:?}; sort them")]
    NotRising {
        /// The one before it.
        before: Entry,
        /// The entry.
        entry: Entry,
    },
}

impl KeyIndex {
    /// Of entries in strictly rising order, at most `entries_max`, with dues relative to `origin_hour`.
    /// Linear.
    pub fn build(
        entries_max: u64,
        origin_hour: u64,
        sorted: impl Iterator<Item = Entry>,
    ) -> Result<Self, BuildError> {
        let mut index = Self::new(entries_max);
        index.origin = Origin::at(origin_hour);
        let mut builder = Builder { levels: vec![Level::new(index.root)], index };
        let mut last = None;
        for entry in sorted {
            if let Some(before) = last.replace(entry).filter(|before| *before >= entry) {
                return Err(BuildError::NotRising { before, entry });
            }
            if builder.index.len >= entries_max {
                return Err(IndexFull { entries_max }.into());
            }
            builder.add_entry(entry);
        }
        Ok(builder.finish())
    }
}

/// Entries or children of the least filled nodes.
const FILL_MIN: usize = 36;
/// Of the fullest ones.
const FILL_MAX: usize = 60;

/// The youngest nodes of a level, of which their parent does not know yet.
struct Level {
    /// One that is filled, but takes what remains at the end if that fits.
    closed: Option<NodeId>,
    /// The one that is being filled.
    open: NodeId,
    /// With how many entries or children it is full.
    fill: usize,
}

impl Level {
    fn new(open: NodeId) -> Self {
        Self { closed: None, open, fill: FILL_MIN }
    }

    /// Goes on with an empty node. The one that is now to be given to its parent is returned.
    fn go_on(&mut self, empty: NodeId) -> Option<NodeId> {
        self.fill = if self.fill == FILL_MAX { FILL_MIN } else { self.fill + 1 };
        self.closed.replace(std::mem::replace(&mut self.open, empty))
    }
}

/// An index that is being made, and its levels, the leaves first.
struct Builder {
    index: KeyIndex,
    levels: Vec<Level>,
}

impl Builder {
    fn add_entry(&mut self, entry: Entry) {
        let leaves = &mut self.index.leaves;
        if leaves[self.levels[0].open].len() == self.levels[0].fill {
            let empty = leaves.add(Leaf::EMPTY);
            if let Some(filled) = self.levels[0].go_on(empty) {
                self.add_child(0, filled);
            }
        }
        self.index.leaves[self.levels[0].open].push(entry);
        self.index.len += 1;
    }

    /// Gives a node of a level to its parent in the level above.
    fn add_child(&mut self, level: usize, child: NodeId) {
        let above = level + 1;
        if above == self.levels.len() {
            self.levels.push(Level::new(self.index.inners.add(Inner::EMPTY)));
        }
        if self.index.inners[self.levels[above].open].len() == self.levels[above].fill {
            let empty = self.index.inners.add(Inner::EMPTY);
            if let Some(filled) = self.levels[above].go_on(empty) {
                self.add_child(above, filled);
            }
        }
        let (separator, summary) = (self.lowest(level, child), self.index.summary(child, level));
        let parent = &mut self.index.inners[self.levels[above].open];
        parent.insert(parent.len(), separator, child, summary);
    }

    /// The lowest entry below a node. In an inner node that was made here, it stands before the first child.
    fn lowest(&self, level: usize, node: NodeId) -> Entry {
        if level == 0 { self.index.leaves[node].first() } else { self.index.inners[node].separator(0) }
    }

    /// Gives the last nodes of all levels to their parents. The level that needs none has the root.
    fn finish(mut self) -> KeyIndex {
        let mut level = 0;
        loop {
            let last = self.last_of(level);
            if self.levels.len() == level + 1 {
                (self.index.root, self.index.levels) = (last, level);
                return self.index;
            }
            self.add_child(level, last);
            level += 1;
        }
    }

    /// The last node of a level, after the one before it was given its parent, or both became one.
    fn last_of(&mut self, level: usize) -> NodeId {
        let Level { closed, open, .. } = self.levels[level];
        let Some(closed) = closed else { return open };
        let KeyIndex { leaves, inners, .. } = &mut self.index;
        if level == 0 && leaves[closed].len() + leaves[open].len() <= FANOUT {
            let rest = leaves.free(open);
            leaves[closed].append(&rest);
        } else if level > 0 && inners[closed].len() + inners[open].len() <= FANOUT {
            let rest = inners.free(open);
            inners[closed].append(rest.separator(0), &rest);
        } else {
            self.add_child(level, closed);
            return open;
        }
        closed
    }
}
