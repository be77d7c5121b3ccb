//! AArch64: a product is two look-ups of nibbles in tables of 16 bytes.

use std::arch::aarch64::{
    uint8x16_t, vandq_u8, vdupq_n_u8, veorq_u8, vld1q_u8, vqtbl1q_u8, vshrq_n_u8, vst1q_u8,
};

use super::vector::{self, Vector};
use super::{Output, Tile};

pub(super) fn is_there() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

/// Computes a tile, 16 bytes at a time.
pub(super) fn combine(
    factors: &[[u8; 32]],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    tile: Tile,
    output: Output,
) {
    #[target_feature(enable = "neon")]
    fn with_features(
        factors: &[[u8; 32]],
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        tile: Tile,
        output: Output,
    ) {
        // SAFETY: this function has the instructions; the buffers were checked by `Coefficients::combine`.
        unsafe { vector::combine::<Looked>(factors, inputs, outputs, tile, output) }
    }
    // SAFETY: coefficients are made for this kernel only where `is_there` was true.
    unsafe { with_features(factors, inputs, outputs, tile, output) }
}

#[derive(Clone, Copy)]
struct Looked(uint8x16_t);

/// The low and the high nibbles of a vector.
#[derive(Clone, Copy)]
struct Nibbles(uint8x16_t, uint8x16_t);

// SAFETY: loads and stores are of 16 bytes and unaligned.
unsafe impl Vector for Looked {
    const BYTES: usize = 16;
    const REGISTERS: usize = 32;
    type Factor = [u8; 32];
    type Input = Nibbles;

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { vdupq_n_u8(0) })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller has the instructions and 16 readable bytes.
        Self(unsafe { vld1q_u8(from) })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller has the instructions and 16 writable bytes.
        unsafe { vst1q_u8(to, self.0) }
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn prefetch(_from: *const u8) {
        // The intrinsic is not stable on this processor; its own prefetcher must do.
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { veorq_u8(self.0, other.0) })
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn input(self) -> Nibbles {
        // SAFETY: the caller has the instructions.
        unsafe { Nibbles(vandq_u8(self.0, vdupq_n_u8(0x0F)), vshrq_n_u8::<4>(self.0)) }
    }

    // SAFETY: the contract is that of the trait.
    #[inline(always)]
    unsafe fn times(input: Nibbles, factor: &[u8; 32]) -> Self {
        // SAFETY: the caller has the instructions; both tables of 16 bytes lie in the factor.
        unsafe {
            let (low, high) = (vld1q_u8(factor.as_ptr()), vld1q_u8(factor.as_ptr().add(16)));
            Self(veorq_u8(vqtbl1q_u8(low, input.0), vqtbl1q_u8(high, input.1)))
        }
    }
}
