//! x86-64 with GFNI: a product is one instruction that multiplies each byte by an 8x8 matrix of bits.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_si256, _mm512_gf2p8affine_epi64_epi8,
    _mm512_loadu_si512, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
};

use super::vector::{self, Vector};
use super::{Output, Tile};

pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("gfni")
}

pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni")
}

/// Computes a tile, 64 bytes at a time.
pub(super) fn combine_avx512(
    factors: &[u64],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    tile: Tile,
    output: Output,
) {
    #[target_feature(enable = "avx512f,gfni")]
    fn with_features(
        factors: &[u64],
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        tile: Tile,
        output: Output,
    ) {
        // SAFETY: this function has the instructions; the buffers were checked by `Coefficients::combine`.
        unsafe { vector::combine::<Wide>(factors, inputs, outputs, tile, output) }
    }
    // SAFETY: coefficients are made for this kernel only where `has_avx512` was true.
    unsafe { with_features(factors, inputs, outputs, tile, output) }
}

/// Computes a tile, 32 bytes at a time.
pub(super) fn combine_avx2(
    factors: &[u64],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    tile: Tile,
    output: Output,
) {
    #[target_feature(enable = "avx2,gfni")]
    fn with_features(
        factors: &[u64],
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        tile: Tile,
        output: Output,
    ) {
        // SAFETY: this function has the instructions; the buffers were checked by `Coefficients::combine`.
        unsafe { vector::combine::<Narrow>(factors, inputs, outputs, tile, output) }
    }
    // SAFETY: coefficients are made for this kernel only where `has_avx2` was true.
    unsafe { with_features(factors, inputs, outputs, tile, output) }
}

#[derive(Clone, Copy)]
struct Wide(__m512i);

// SAFETY: loads and stores are of 64 bytes and unaligned.
unsafe impl Vector for Wide {
    const BYTES: usize = 64;
    const REGISTERS: usize = 32;
    type Factor = u64;
    type Input = __m512i;

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm512_setzero_si512() })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller has the instructions and 64 readable bytes.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller has the instructions and 64 writable bytes.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
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
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn input(self) -> __m512i {
        self.0
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn times(input: __m512i, factor: &u64) -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(input, _mm512_set1_epi64(*factor as i64)) })
    }
}

#[derive(Clone, Copy)]
struct Narrow(__m256i);

// SAFETY: loads and stores are of 32 bytes and unaligned.
unsafe impl Vector for Narrow {
    const BYTES: usize = 32;
    const REGISTERS: usize = 16;
    type Factor = u64;
    type Input = __m256i;

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
    unsafe fn input(self) -> __m256i {
        self.0
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn times(input: __m256i, factor: &u64) -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm256_gf2p8affine_epi64_epi8::<0>(input, _mm256_set1_epi64x(*factor as i64)) })
    }
}
