//! What a set of keys adds up to.

use std::ops::{AddAssign, SubAssign};

use super::Prefix;

/// How many keys a range holds, and a sum of them: equal for equal sets, in whatever order they came. Two
/// nodes that compare fingerprints of ranges find where they differ without listing what they share.
///
/// Whoever can make very many keys can make two sets of one sum. So fingerprints save traffic; what must be
/// certain compares keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Keys.
    pub count: u64,
    /// Sum of a mix of each, modulo 2^128.
    pub sum: u128,
}

impl Fingerprint {
    /// Of one key.
    pub(crate) fn of(prefix: Prefix) -> Self {
        Self { count: 1, sum: mix(prefix.0) }
    }
}

impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl SubAssign for Fingerprint {
    fn sub_assign(&mut self, other: Self) {
        self.count -= other.count;
        self.sum = self.sum.wrapping_sub(other.sum);
    }
}

/// Spreads a prefix over 128 bits, so that sums of near keys are not near: the finaliser of SplitMix64,
/// twice. Part of what nodes must agree on.
fn mix(prefix: u64) -> u128 {
    let high = spread(prefix);
    u128::from(high) << 64 | u128::from(spread(high ^ 0x9E37_79B9_7F4A_7C15))
}

fn spread(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}
