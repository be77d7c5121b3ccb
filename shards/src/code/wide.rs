//! Code id 2: Reed-Solomon by FFT over GF(2^16), from the crate `reed-solomon-simd`.
//!
//! Its cost per byte grows with the logarithm of the number of shards, where that of code id 1 grows with
//! the number of rows to compute; so it wins for wide stripes. It allocates working space of about the size
//! of the stripe for each call.

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use super::{CodeError, Shape, ShardSet, counted, one_size, plan};

/// The wide code for one shape.
#[derive(Debug)]
pub struct Wide {
    shape: Shape,
}

impl Wide {
    /// For a shape.
    pub fn new(shape: Shape) -> Self {
        Self { shape }
    }

    /// How its stripes are divided.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Computes all parity shards from all data shards.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodeError> {
        counted(data.len(), self.shape.data())?;
        counted(parity.len(), self.shape.parity())?;
        let bytes =
            one_size(data.iter().map(|shard| shard.len()).chain(parity.iter().map(|shard| shard.len())))?;
        self.encode_all(even(bytes)?, data, |index, shard| parity[index].copy_from_slice(shard))
    }

    /// Computes the wanted shards from the survivors of a plan. Both are in the order of their indices.
    pub fn rebuild(
        &self,
        have: ShardSet,
        survivors: &[&[u8]],
        wanted: ShardSet,
        missing: &mut [&mut [u8]],
    ) -> Result<(), CodeError> {
        let used = plan::choose(self.shape, have, wanted)?;
        counted(survivors.len(), used.len())?;
        counted(missing.len(), wanted.len())?;
        let sizes = survivors.iter().map(|shard| shard.len());
        let bytes = even(one_size(sizes.chain(missing.iter().map(|shard| shard.len())))?)?;
        let data = self.all_data(bytes, used, survivors)?;
        let mut put = |index: usize, shard: &[u8]| {
            if let Some(at) = wanted.iter().position(|wanted| wanted == index) {
                missing[at].copy_from_slice(shard);
            }
        };
        data.iter().enumerate().for_each(|(index, shard)| put(index, shard));
        if wanted.last().is_some_and(|last| last >= self.shape.data()) {
            let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            self.encode_all(bytes, &data, |index, shard| put(self.shape.data() + index, shard))?;
        }
        Ok(())
    }

    fn encode_all(
        &self,
        bytes: usize,
        data: &[&[u8]],
        mut put: impl FnMut(usize, &[u8]),
    ) -> Result<(), CodeError> {
        let encoder = ReedSolomonEncoder::new(self.shape.data(), self.shape.parity(), bytes);
        let mut encoder = encoder.map_err(|_| CodeError::Library)?;
        for shard in data {
            encoder.add_original_shard(shard).map_err(|_| CodeError::Library)?;
        }
        let result = encoder.encode().map_err(|_| CodeError::Library)?;
        result.recovery_iter().enumerate().for_each(|(index, shard)| put(index, shard));
        Ok(())
    }

    /// All data shards.
    fn all_data(&self, bytes: usize, used: ShardSet, survivors: &[&[u8]]) -> Result<Vec<Vec<u8>>, CodeError> {
        let k = self.shape.data();
        let decoder = ReedSolomonDecoder::new(k, self.shape.parity(), bytes);
        let mut decoder = decoder.map_err(|_| CodeError::Library)?;
        let mut data = vec![Vec::new(); k];
        for (index, shard) in used.iter().zip(survivors) {
            let added = if index < k {
                data[index] = shard.to_vec();
                decoder.add_original_shard(index, shard)
            } else {
                decoder.add_recovery_shard(index - k, shard)
            };
            added.map_err(|_| CodeError::Library)?;
        }
        let result = decoder.decode().map_err(|_| CodeError::Library)?;
        for (index, shard) in result.restored_original_iter() {
            data[index] = shard.to_vec();
        }
        Ok(data)
    }
}

fn even(bytes: usize) -> Result<usize, CodeError> {
    if bytes.is_multiple_of(2) { Ok(bytes) } else { Err(CodeError::OddSize { bytes }) }
}
