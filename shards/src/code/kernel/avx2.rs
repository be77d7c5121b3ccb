//! x86-64 with AVX2: a product is two look-ups of nibbles in tables of 16 bytes.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256,
    _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_storeu_si256,
    _mm256_xor_si256,
};

use super::vector::{self, Vector};
use super::{Output, Tile};

pub(super) fn is_there() -> bool {
    is_x86_feature_detected!("avx2")
}

/// Computes a tile, 32 bytes at a time.
pub(super) fn combine(
    factors: &[[u8; 32]],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    tile: Tile,
    output: Output,
) {
    #[target_feature(enable = "avx2")]
    fn with_features(
        factors: &[[u8; 32]],
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        tile: Tile,
        output: Output,
    ) {
        // SAFETY: this function has the instructions; the buffers were checked by `Coefficients::combine`.
        unsafe { vector::combine::<Shuffled>(factors, inputs, outputs, tile, output) }
    }
    // SAFETY: coefficients are made for this kernel only where `is_there` was true.
    unsafe { with_features(factors, inputs, outputs, tile, output) }
}

#[derive(Clone, Copy)]
struct Shuffled(__m256i);

/// The low and the high nibbles of a vector.
#[derive(Clone, Copy)]
struct Nibbles(__m256i, __m256i);

// SAFETY: loads and stores are of 32 bytes and unaligned.
unsafe impl Vector for Shuffled {
    const BYTES: usize = 32;
    const REGISTERS: usize = 16;
    type Factor = [u8; 32];
    type Input = Nibbles;

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm256_setzero_si256() })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller has the instructions and 32 readable bytes.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller has the instructions and 32 writable bytes.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a prefetch has no effect that a program can see.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.cast()) }
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn input(self) -> Nibbles {
        // SAFETY: the caller has the instructions.
        unsafe {
            let mask = _mm256_set1_epi8(0x0F);
            let high = _mm256_srli_epi16::<4>(self.0);
            Nibbles(_mm256_and_si256(self.0, mask), _mm256_and_si256(high, mask))
        }
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn times(input: Nibbles, factor: &[u8; 32]) -> Self {
        // SAFETY: the caller has the instructions; both tables of 16 bytes lie in the factor.
        unsafe {
            let low = _mm256_broadcastsi128_si256(_mm_loadu_si128(factor.as_ptr().cast()));
            let high = _mm256_broadcastsi128_si256(_mm_loadu_si128(factor.as_ptr().add(16).cast()));
            let (low, high) = (_mm256_shuffle_epi8(low, input.0), _mm256_shuffle_epi8(high, input.1));
            Self(_mm256_xor_si256(low, high))
        }
    }
}
