//! Rebuilding while the survivors arrive.

use super::kernel::Output;
use super::{CodeError, Plan, ShardSet};

/// Missing shards that grow with each survivor that arrives, in any order: when the last is there, nothing is
/// left to do. The survivors must be known beforehand; if another comes in the place of one, start again.
#[derive(Debug)]
pub struct Progressive<'p> {
    plan: &'p Plan,
    taken: ShardSet,
    missing: Vec<Vec<u8>>,
}

impl<'p> Progressive<'p> {
    /// Takes shards of `shard_bytes` bytes each; needs as much memory for each wanted one.
    pub fn new(plan: &'p Plan, shard_bytes: usize) -> Self {
        let missing = plan.wanted().iter().map(|_| vec![0; shard_bytes]).collect();
        Self { plan, taken: ShardSet::EMPTY, missing }
    }

    /// Takes a survivor that has been compared with its root. One that was taken before changes nothing.
    pub fn add(&mut self, index: usize, bytes: &[u8]) -> Result<(), CodeError> {
        let Some(column) = self.plan.survivors().iter().position(|survivor| survivor == index) else {
            return Err(CodeError::NoSuchShard(index));
        };
        let wanted = self.missing.first().map_or(bytes.len(), Vec::len);
        if bytes.len() != wanted {
            return Err(CodeError::Size { given: bytes.len(), wanted });
        }
        if self.taken.contains(index) {
            return Ok(());
        }
        self.taken.insert(index);
        let mut outputs: Vec<&mut [u8]> = self.missing.iter_mut().map(Vec::as_mut_slice).collect();
        self.plan.coefficients.column(column).combine(&[bytes], &mut outputs, Output::Add);
        Ok(())
    }

    /// The survivors that are still to come.
    pub fn awaited(&self) -> ShardSet {
        self.plan.survivors().iter().filter(|index| !self.taken.contains(*index)).collect()
    }

    /// The wanted shards, in the order of their indices.
    ///
    /// # Errors
    /// Survivors are still to come.
    pub fn finish(self) -> Result<Vec<Vec<u8>>, CodeError> {
        let (have, need) = (self.taken.len(), self.plan.survivors().len());
        if have < need { Err(CodeError::TooFew { have, need }) } else { Ok(self.missing) }
    }
}
