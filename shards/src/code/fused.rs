//! Coding and hashing in one pass: a tile of every shard is coded and hashed while the caches hold it.

use blake3::Hasher;

use super::kernel::Output;
use super::{CodeError, Rs8};

/// Columns per tile, in bytes: as many chunks of BLAKE3 as the widest of its kernels hashes at once. Fifteen
/// shards of it fit in a second-level cache.
const TILE_BYTES: usize = 16 * 1024;

impl Rs8 {
    /// Computes all parity shards, and the BLAKE3 hash of every shard into `roots`, data shards first.
    pub fn encode_hashed(
        &self,
        data: &[&[u8]],
        parity: &mut [&mut [u8]],
        roots: &mut [blake3::Hash],
    ) -> Result<(), CodeError> {
        let size = self.check(data, parity)?;
        super::counted(roots.len(), self.shape().shards())?;
        let mut hashers = vec![Hasher::new(); roots.len()];
        let (of_data, of_parity) = hashers.split_at_mut(data.len());
        for start in (0..size).step_by(TILE_BYTES) {
            let tile = start..(start + TILE_BYTES).min(size);
            let inputs = data.iter().map(|shard| &shard[tile.clone()]);
            let mut inputs_left = of_data.iter_mut();
            let inputs: Vec<&[u8]> = inputs
                .inspect(|bytes| {
                    inputs_left.next().map(|hasher| hasher.update(bytes));
                })
                .collect();
            let mut outputs: Vec<&mut [u8]> =
                parity.iter_mut().map(|shard| &mut shard[tile.clone()]).collect();
            self.parity_coefficients().combine(&inputs, &mut outputs, Output::Replace);
            for (hasher, bytes) in of_parity.iter_mut().zip(&outputs) {
                hasher.update(bytes);
            }
        }
        hashers.iter().zip(roots).for_each(|(hasher, root)| *root = hasher.finalize());
        Ok(())
    }
}
