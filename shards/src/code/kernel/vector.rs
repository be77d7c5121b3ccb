//! The loop that all vector instruction sets share.

use super::{Output, Tile};

/// What an instruction set brings.
///
/// # Safety
/// `load` reads and `store` writes exactly `BYTES` bytes, at any alignment. All of them may be called only
/// where the processor has the instructions.
pub(super) unsafe trait Vector: Copy {
    /// Bytes in a vector, at most [`VECTOR_BYTES_MAX`].
    const BYTES: usize;
    /// Registers for vectors.
    const REGISTERS: usize;
    /// A factor as it lies in memory.
    type Factor;
    /// What is made of a vector once, for all its products.
    type Input: Copy;

    /// All zeros.
    ///
    /// # Safety
    /// See [`Vector`].
    unsafe fn zero() -> Self;
    /// Reads a vector.
    ///
    /// # Safety
    /// See [`Vector`]; `from` points to `BYTES` readable bytes.
    unsafe fn load(from: *const u8) -> Self;
    /// Writes a vector.
    ///
    /// # Safety
    /// See [`Vector`]; `to` points to `BYTES` writable bytes.
    unsafe fn store(self, to: *mut u8);
    /// Asks for the cache line at `from`, which may point anywhere.
    ///
    /// # Safety
    /// See [`Vector`].
    unsafe fn prefetch(from: *const u8);
    /// Sum.
    ///
    /// # Safety
    /// See [`Vector`].
    unsafe fn plus(self, other: Self) -> Self;
    /// Makes it ready to be multiplied.
    ///
    /// # Safety
    /// See [`Vector`].
    unsafe fn input(self) -> Self::Input;
    /// Product of every byte.
    ///
    /// # Safety
    /// See [`Vector`].
    unsafe fn times(input: Self::Input, factor: &Self::Factor) -> Self;
}

/// How far ahead of the loads memory is asked for, in bytes: the processor's own prefetchers lose so many
/// streams, and begin anew with every page. Encoding (10,5) of 64 KiB from a second-level cache went from 28
/// to 65 GB/s by it.
const AHEAD: usize = 1024;

/// Bytes of the widest vector.
pub(super) const VECTOR_BYTES_MAX: usize = 64;

/// Computes the columns of a tile, for as many rows as there are outputs.
///
/// # Safety
/// The processor has the instructions of `V`. Every buffer holds the whole tile; there are as many factors as
/// inputs times outputs, and one to five outputs.
#[inline(always)]
pub(super) unsafe fn combine<V: Vector>(
    factors: &[V::Factor],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    tile: Tile,
    output: Output,
) {
    // SAFETY: the caller keeps the contract; each arm is for its number of outputs.
    unsafe {
        match outputs.len() {
            1 => rows::<V, 1>(factors, inputs, outputs, tile, output),
            2 => rows::<V, 2>(factors, inputs, outputs, tile, output),
            3 => rows::<V, 3>(factors, inputs, outputs, tile, output),
            4 => rows::<V, 4>(factors, inputs, outputs, tile, output),
            _ => rows::<V, 5>(factors, inputs, outputs, tile, output),
        }
    }
}

/// As [`combine`], for `R` rows.
///
/// # Safety
/// See [`combine`]; there are `R` outputs.
#[inline(always)]
unsafe fn rows<V: Vector, const R: usize>(
    factors: &[V::Factor],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    tile: Tile,
    output: Output,
) {
    let Tile { start: mut at, end } = tile;
    // The sums of all rows stay in registers, beside the inputs. A single row takes long runs of each input,
    // for which the processor's own prefetcher is better than asking ahead.
    let widest = V::REGISTERS / if R == 1 { 2 } else { 8 };
    while at + widest * V::BYTES <= end {
        // SAFETY: so many vectors fit before the end of the tile.
        unsafe {
            match widest {
                16 => columns::<V, R, 16>(factors, inputs, outputs, at, output),
                8 => columns::<V, R, 8>(factors, inputs, outputs, at, output),
                4 => columns::<V, R, 4>(factors, inputs, outputs, at, output),
                _ => columns::<V, R, 2>(factors, inputs, outputs, at, output),
            }
        };
        at += widest * V::BYTES;
    }
    while at + V::BYTES <= end {
        // SAFETY: one vector fits before the end of the tile.
        unsafe { columns::<V, R, 1>(factors, inputs, outputs, at, output) };
        at += V::BYTES;
    }
    if at < end {
        // SAFETY: less than one vector remains.
        unsafe { rest::<V, R>(factors, inputs, outputs, Tile { start: at, end }, output) };
    }
}

/// Computes `W` vectors of each row at `at`.
///
/// # Safety
/// See [`rows`]; `W` vectors fit into every buffer at `at`.
#[inline(always)]
unsafe fn columns<V: Vector, const R: usize, const W: usize>(
    factors: &[V::Factor],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    at: usize,
    output: Output,
) {
    // SAFETY: the vectors lie inside of the buffers, and the processor has the instructions.
    unsafe {
        let mut sums = [[V::zero(); W]; R];
        if output == Output::Add {
            for (sums, output) in sums.iter_mut().zip(outputs.iter()) {
                for (column, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(output.as_ptr().add(at + column * V::BYTES));
                }
            }
        }
        for (input, factors) in inputs.iter().zip(factors.chunks_exact(R)) {
            let mut vectors = [V::zero().input(); W];
            for (column, vector) in vectors.iter_mut().enumerate() {
                if R > 1 {
                    V::prefetch(input.as_ptr().wrapping_add(at + column * V::BYTES + AHEAD));
                }
                *vector = V::load(input.as_ptr().add(at + column * V::BYTES)).input();
            }
            for (sums, factor) in sums.iter_mut().zip(factors) {
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = sum.plus(V::times(vector, factor));
                }
            }
        }
        for (sums, output) in sums.iter().zip(outputs.iter_mut()) {
            for (column, sum) in sums.iter().enumerate() {
                sum.store(output.as_mut_ptr().add(at + column * V::BYTES));
            }
        }
    }
}

/// Computes less than a vector of each row, through copies that are as long as one.
///
/// # Safety
/// See [`rows`]; the tile is shorter than a vector.
#[inline(always)]
unsafe fn rest<V: Vector, const R: usize>(
    factors: &[V::Factor],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    tile: Tile,
    output: Output,
) {
    let bytes = tile.end - tile.start;
    let mut whole = [0; VECTOR_BYTES_MAX];
    // SAFETY: vectors are read from and written to `whole`, which is as long as the longest.
    unsafe {
        let mut sums = [V::zero(); R];
        for (input, factors) in inputs.iter().zip(factors.chunks_exact(R)) {
            whole[..bytes].copy_from_slice(&input[tile.start..tile.end]);
            let vector = V::load(whole.as_ptr()).input();
            for (sum, factor) in sums.iter_mut().zip(factors) {
                *sum = sum.plus(V::times(vector, factor));
            }
        }
        for (sum, out) in sums.iter().zip(outputs.iter_mut()) {
            sum.store(whole.as_mut_ptr());
            for (out, byte) in out[tile.start..tile.end].iter_mut().zip(whole) {
                *out = if output == Output::Add { *out ^ byte } else { byte };
            }
        }
    }
}
