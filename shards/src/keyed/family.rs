//! The families of keyed records, and what is in memory of each.

use crate::format::record::Kind;
use crate::index::{KeyIndex, Prefix};

/// Records that are found, listed and compared together. One key may have a record in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Shards of stripes; the key is the stripe's id.
    Shard = 1,
    /// Signed records of the DHT.
    DhtRecord = 2,
    /// Public keys of somebody.
    KeyBundle = 3,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 3] = [Self::Shard, Self::DhtRecord, Self::KeyBundle];

    /// The family with this number on disk.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| *family as u8 == byte)
    }

    /// What its records are in the log.
    pub fn kind(self) -> Kind {
        match self {
            Self::Shard => Kind::Shard,
            Self::DhtRecord => Kind::DhtRecord,
            Self::KeyBundle => Kind::KeyBundle,
        }
    }

    pub(super) fn at(self) -> usize {
        self as usize - 1
    }
}

/// Whose record it is. There is at most one live record of an identity in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Its family.
    pub family: Family,
    /// Its key.
    pub key: [u8; 32],
    /// Which shard of the stripe; [`Identity::NO_INDEX`] for what is no shard.
    pub index: u8,
}

impl Identity {
    /// The index of what is no shard.
    pub const NO_INDEX: u8 = 255;

    pub(super) fn prefix(&self) -> Prefix {
        Prefix::of(&self.key)
    }
}

/// Which of the two trees of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tree {
    /// The records themselves.
    Live,
    /// Tombstones, and leases that lengthen a record's life.
    Marks,
}

impl Tree {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Live, Self::Marks];

    /// The tree that records of a kind belong in.
    pub fn of(kind: Kind) -> Self {
        if kind.is_metadata() { Self::Marks } else { Self::Live }
    }

    /// A kind that the ledger of a lane counts as it counts those of this tree.
    pub fn counted_as(self, family: Family) -> Kind {
        match self {
            Self::Live => family.kind(),
            Self::Marks => Kind::Tombstone,
        }
    }
}

/// The index of one family. Marks stand apart, so that sums and counts are those of what lives.
#[derive(Debug)]
pub(super) struct Trees {
    pub live: KeyIndex,
    pub marks: KeyIndex,
}

impl Trees {
    /// One of the two.
    pub fn get(&self, tree: Tree) -> &KeyIndex {
        match tree {
            Tree::Live => &self.live,
            Tree::Marks => &self.marks,
        }
    }

    /// One of the two.
    pub fn get_mut(&mut self, tree: Tree) -> &mut KeyIndex {
        match tree {
            Tree::Live => &mut self.live,
            Tree::Marks => &mut self.marks,
        }
    }

    /// Entries of both.
    pub fn len(&self) -> u64 {
        self.live.len() + self.marks.len()
    }
}
