//! A set of cores, as bits.

use crate::rt::api::CoreId;

/// The most cores a node can have.
pub const MAX_CORES: usize = 256;
const WORDS: usize = MAX_CORES / 64;

/// A set of cores of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreSet([u64; WORDS]);

impl CoreSet {
    /// Adds `core`.
    pub fn insert(&mut self, core: CoreId) {
        self.0[core.0 as usize / 64] |= 1 << (core.0 % 64);
    }

    /// True if `core` is in the set.
    pub fn contains(&self, core: CoreId) -> bool {
        self.0[core.0 as usize / 64] & (1 << (core.0 % 64)) != 0
    }

    /// True if no core is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Adds every core of `other`.
    pub fn merge(&mut self, other: CoreSet) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    /// The cores of the set, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = CoreId> + use<> {
        let words = self.0;
        (0..MAX_CORES).filter(move |i| words[i / 64] & (1 << (i % 64)) != 0).map(|i| CoreId(i as u16))
    }
}
