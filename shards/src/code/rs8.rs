//! Code id 1: Reed-Solomon over GF(2^8).

use super::kernel::{Coefficients, Kernel, Output};
use super::matrix::Matrix;
use super::{CodeError, Plan, Shape, ShardSet, counted, one_size};

/// Reed-Solomon for one shape.
#[derive(Debug)]
pub struct Rs8 {
    shape: Shape,
    kernel: Kernel,
    /// One row per shard; the first ones are the identity.
    generator: Matrix,
    parity: Coefficients,
}

impl Rs8 {
    /// With the fastest kernel of this machine.
    pub fn new(shape: Shape) -> Self {
        Self::with_kernel(shape, Kernel::best())
    }

    /// With a kernel of choice, one of [`Kernel::available`].
    pub fn with_kernel(shape: Shape, kernel: Kernel) -> Self {
        let generator = Matrix::systematic(shape.data(), shape.shards());
        let parity = Coefficients::new(kernel, &generator.select(shape.data()..shape.shards()));
        Self { shape, kernel, generator, parity }
    }

    /// How its stripes are divided.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What it computes with.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// What parity shard `parity` takes data shard `data` times: for those who compare codes.
    ///
    /// # Panics
    /// If there are not so many shards of either kind.
    pub fn coefficient(&self, parity: usize, data: usize) -> u8 {
        self.generator.row(self.shape.data() + parity)[data]
    }

    pub(super) fn generator(&self) -> &Matrix {
        &self.generator
    }

    pub(super) fn parity_coefficients(&self) -> &Coefficients {
        &self.parity
    }

    /// Computes all parity shards from all data shards.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodeError> {
        self.check(data, parity)?;
        self.parity.combine(data, parity, Output::Replace);
        Ok(())
    }

    /// Checks the shards of a whole stripe, and returns their size.
    pub(super) fn check(&self, data: &[&[u8]], parity: &[&mut [u8]]) -> Result<usize, CodeError> {
        counted(data.len(), self.shape.data())?;
        counted(parity.len(), self.shape.parity())?;
        one_size(data.iter().map(|shard| shard.len()).chain(parity.iter().map(|shard| shard.len())))
    }

    /// How to get `wanted` from the first of `have`. [`super::PlanCache`] remembers it.
    pub fn plan(&self, have: ShardSet, wanted: ShardSet) -> Result<Plan, CodeError> {
        Plan::new(self, have, wanted)
    }

    /// Computes the wanted shards of a plan from its survivors: only those rows. `survivors` and `missing`
    /// are in the order of their indices. It cannot tell whether a survivor is what it should be; see
    /// [`super::Code::rebuild_verified`].
    pub fn rebuild(
        &self,
        plan: &Plan,
        survivors: &[&[u8]],
        missing: &mut [&mut [u8]],
    ) -> Result<(), CodeError> {
        counted(survivors.len(), plan.survivors().len())?;
        counted(missing.len(), plan.wanted().len())?;
        one_size(survivors.iter().map(|shard| shard.len()).chain(missing.iter().map(|shard| shard.len())))?;
        plan.coefficients.combine(survivors, missing, Output::Replace);
        Ok(())
    }
}
