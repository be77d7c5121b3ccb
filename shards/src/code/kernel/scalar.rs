//! Any machine: a product is two look-ups of nibbles, a byte at a time.

use super::{Output, Tile};

/// Computes a tile.
pub(super) fn combine(
    factors: &[[u8; 32]],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    tile: Tile,
    output: Output,
) {
    let rows = outputs.len();
    for (row, out) in outputs.iter_mut().enumerate() {
        let out = &mut out[tile.start..tile.end];
        if output == Output::Replace {
            out.fill(0);
        }
        for (input, factors) in inputs.iter().zip(factors.chunks_exact(rows)) {
            let table = &factors[row];
            for (out, byte) in out.iter_mut().zip(&input[tile.start..tile.end]) {
                *out ^= table[usize::from(byte & 15)] ^ table[usize::from(16 + (byte >> 4))];
            }
        }
    }
}
