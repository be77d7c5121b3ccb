//! A set of shards of one stripe, by their indices.

use super::SHARDS_MAX;

/// Some of the shards of a stripe. An index of [`SHARDS_MAX`] or more is never in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ShardSet([u64; 4]);

impl ShardSet {
    /// Without shards.
    pub const EMPTY: Self = Self([0; 4]);

    /// The first `count` shards.
    pub fn first(count: usize) -> Self {
        (0..count).collect()
    }

    /// Adds a shard.
    pub fn insert(&mut self, index: usize) {
        if index < SHARDS_MAX {
            self.0[index / 64] |= 1 << (index % 64);
        }
    }

    /// Takes a shard out.
    pub fn remove(&mut self, index: usize) {
        if index < SHARDS_MAX {
            self.0[index / 64] &= !(1 << (index % 64));
        }
    }

    /// True if it is in the set.
    pub fn contains(&self, index: usize) -> bool {
        index < SHARDS_MAX && self.0[index / 64] >> (index % 64) & 1 == 1
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// True without shards.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// Their indices, rising.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let set = *self;
        (0..SHARDS_MAX).filter(move |index| set.contains(*index))
    }

    /// The highest index.
    pub fn last(&self) -> Option<usize> {
        (0..SHARDS_MAX).rev().find(|index| self.contains(*index))
    }
}

impl FromIterator<usize> for ShardSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut set = Self::EMPTY;
        indices.into_iter().for_each(|index| set.insert(index));
        set
    }
}

impl std::fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
