//! Coding and hashing in one pass: a tile of every shard is coded and hashed while the caches hold it.

use blake3::Hasher;

use super::kernel::Output;
use super::{CodeError, Rs8};

/// Columns per tile, in bytes. Smaller ones lose more by interrupting BLAKE3, which hashes 16 chunks of 1 KiB
/// at once: 8 KiB cost 2.2 times hashing alone, 16 KiB 1.25, this 1.1. Fifteen shards of it fit in a cache of
/// 1 MiB.
const TILE_BYTES: usize = 64 * 1024;

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
        for start in (0..size).step_by(TILE_BYTES) {
            let tile = start..(start + TILE_BYTES).min(size);
            let inputs: Vec<&[u8]> = data.iter().map(|shard| &shard[tile.clone()]).collect();
            let mut outputs: Vec<&mut [u8]> =
                parity.iter_mut().map(|shard| &mut shard[tile.clone()]).collect();
            // Coding comes first: it asks for memory ahead, hashing does not.
            self.parity_coefficients().combine(&inputs, &mut outputs, Output::Replace);
            let coded = inputs.into_iter().chain(outputs.iter().map(|shard| &**shard));
            hashers.iter_mut().zip(coded).for_each(|(hasher, bytes)| {
                hasher.update(bytes);
            });
        }
        hashers.iter().zip(roots).for_each(|(hasher, root)| *root = hasher.finalize());
        Ok(())
    }
}
