//! The erasure code: from `k` data shards to `m` parity shards, and back from any `k` of them.
//!
//! **Promise.** Any `k` of the `k + m` shards of a stripe give back all the others, byte for byte, on every
//! machine and with every kernel. Only the rows that are asked for are computed.
//!
//! **Two codes, one interface** ([`Code`]). Their parities differ, so the id of the code is part of what a
//! stripe's description says:
//!
//! * id 1, [`Rs8`]: systematic Reed-Solomon over GF(2^8) with the polynomial 0x11D and a Vandermonde matrix;
//!   what most others write. Made for (10,5), right for anything up to 255 shards. Its cost per byte grows
//!   with the number of rows to compute.
//! * id 2, [`Wide`]: an FFT code for wide stripes, from the crate `reed-solomon-simd`.
//!
//! **Failure model.** A code corrects *missing* shards. It cannot tell a wrong one from a right one, and one
//! wrong shard spoils everything computed from it: so [`Code::rebuild_verified`] compares each survivor with
//! its BLAKE3 root before it is used. Sizes that do not fit are refused before anything is written.
//!
//! Called by whoever codes stripes; uses no state of the store, allocates nothing per byte.

mod field;
mod fused;
pub mod kernel;
mod matrix;
mod plan;
mod progressive;
mod rs8;
mod set;
#[cfg(test)]
mod tests;
mod wide;

pub use kernel::Kernel;
pub use plan::{Plan, PlanCache};
pub use progressive::Progressive;
pub use rs8::Rs8;
pub use set::ShardSet;
pub use wide::Wide;

/// Most shards of a stripe, data and parity together.
pub const SHARDS_MAX: usize = 255;

/// How a stripe is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    data: u8,
    parity: u8,
}

impl Shape {
    /// Ten data shards and five of parity: what the mesh writes.
    pub const MESH: Self = Self { data: 10, parity: 5 };

    /// `data` and `parity` shards, each at least one, together at most [`SHARDS_MAX`].
    pub fn new(data: usize, parity: usize) -> Option<Self> {
        let fits = data > 0 && parity > 0 && data.checked_add(parity)? <= SHARDS_MAX;
        fits.then_some(Self { data: data as u8, parity: parity as u8 })
    }

    /// Data shards; as many of any kind give back all.
    pub fn data(self) -> usize {
        usize::from(self.data)
    }

    /// Parity shards; as many may be lost.
    pub fn parity(self) -> usize {
        usize::from(self.parity)
    }

    /// All shards.
    pub fn shards(self) -> usize {
        self.data() + self.parity()
    }

    /// Bytes of each shard of an object of `object_bytes`: it is cut into equal parts, the last filled up
    /// with zeros.
    pub fn shard_bytes(self, object_bytes: usize) -> usize {
        object_bytes.div_ceil(self.data())
    }
}

/// Which code made a stripe. Parities of different codes never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CodeId {
    /// [`Rs8`].
    Rs8 = 1,
    /// [`Wide`].
    Wide = 2,
}

impl CodeId {
    /// The code with this number on disk and on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Rs8),
            2 => Some(Self::Wide),
            _ => None,
        }
    }
}

/// Why shards were not coded. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not as many shards as the shape or the plan says.
    #[error("{given} shards were given where {wanted} belong")]
    Count {
        /// As given.
        given: usize,
        /// As the shape or the plan says.
        wanted: usize,
    },
    /// Shards of different sizes, or of none.
    #[error(
        "a shard has {given} bytes, the others {wanted}; shards of a stripe are of one size, from 1 byte"
    )]
    Size {
        /// Of the odd one.
        given: usize,
        /// Of the first.
        wanted: usize,
    },
    /// The wide code takes whole pairs of bytes.
    #[error("shards of {bytes} bytes: this code takes an even number; fill up with a zero")]
    OddSize {
        /// As given.
        bytes: usize,
    },
    /// Fewer shards than data shards are left.
    #[error("{have} shards are left and {need} are needed")]
    TooFew {
        /// Usable ones.
        have: usize,
        /// Data shards of the shape.
        need: usize,
    },
    /// The wide code's library refused what had been checked.
    #[error("the code refused shards whose number and size fit; this is a defect, please report it")]
    Library,
    /// There is no such shard in the shape, or it is not one of those the plan reads.
    #[error("there is no shard {0} here")]
    NoSuchShard(usize),
    /// A shard is not what its root says.
    #[error("shard {0} does not match its root; leave it out and use another")]
    Corrupt(usize),
}

/// One of the codes, for one shape.
#[derive(Debug)]
pub enum Code {
    /// Id 1.
    Rs8(Rs8),
    /// Id 2.
    Wide(Wide),
}

/// A shard that came from somewhere, and what it must be.
#[derive(Clone, Copy, Debug)]
pub struct Survivor<'a> {
    /// Its place in the stripe.
    pub index: usize,
    /// As received.
    pub bytes: &'a [u8],
    /// BLAKE3 of the right bytes.
    pub root: blake3::Hash,
}

impl Code {
    /// The code with this id.
    pub fn new(id: CodeId, shape: Shape) -> Self {
        match id {
            CodeId::Rs8 => Self::Rs8(Rs8::new(shape)),
            CodeId::Wide => Self::Wide(Wide::new(shape)),
        }
    }

    /// Which one it is.
    pub fn id(&self) -> CodeId {
        match self {
            Self::Rs8(_) => CodeId::Rs8,
            Self::Wide(_) => CodeId::Wide,
        }
    }

    /// How its stripes are divided.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Rs8(code) => code.shape(),
            Self::Wide(code) => code.shape(),
        }
    }

    /// Computes all parity shards from all data shards, which are of one size.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodeError> {
        match self {
            Self::Rs8(code) => code.encode(data, parity),
            Self::Wide(code) => code.encode(data, parity),
        }
    }

    /// As [`Code::encode`]; `roots` gets the BLAKE3 hash of each shard, data first. Memory is read once where
    /// the code allows it.
    pub fn encode_hashed(
        &self,
        data: &[&[u8]],
        parity: &mut [&mut [u8]],
        roots: &mut [blake3::Hash],
    ) -> Result<(), CodeError> {
        let (given, wanted) = (roots.len(), self.shape().shards());
        if given != wanted {
            return Err(CodeError::Count { given, wanted });
        }
        match self {
            Self::Rs8(code) => code.encode_hashed(data, parity, roots),
            Self::Wide(code) => {
                code.encode(data, parity)?;
                let shards = data.iter().copied().chain(parity.iter().map(|shard| &**shard));
                shards.zip(roots).for_each(|(shard, root)| *root = blake3::hash(shard));
                Ok(())
            }
        }
    }

    /// Computes the shards `wanted` from the first usable of `survivors`, each of which is compared with its
    /// root before anything is computed from it. `plans` remembers what survivors call for.
    ///
    /// `missing` are the buffers of the wanted shards, in the order of their indices.
    ///
    /// # Errors
    /// [`CodeError::Corrupt`] names the first survivor that is not what its root says: leave it out and try
    /// again. The others say what does not fit.
    pub fn rebuild_verified(
        &self,
        plans: &mut PlanCache,
        survivors: &[Survivor<'_>],
        wanted: ShardSet,
        missing: &mut [&mut [u8]],
    ) -> Result<(), CodeError> {
        if let Some(beyond) = survivors.iter().find(|survivor| survivor.index >= self.shape().shards()) {
            return Err(CodeError::NoSuchShard(beyond.index));
        }
        let have: ShardSet = survivors.iter().map(|survivor| survivor.index).collect();
        let used = plan::choose(self.shape(), have, wanted)?;
        let bytes_of = |index: usize| survivors.iter().find(|survivor| survivor.index == index);
        let chosen: Vec<&Survivor<'_>> = used.iter().filter_map(bytes_of).collect();
        let wrong = |survivor: &&&Survivor<'_>| blake3::hash(survivor.bytes) != survivor.root;
        if let Some(wrong) = chosen.iter().find(wrong) {
            return Err(CodeError::Corrupt(wrong.index));
        }
        let inputs: Vec<&[u8]> = chosen.iter().map(|survivor| survivor.bytes).collect();
        match self {
            Self::Rs8(code) => code.rebuild(&*plans.plan(code, used, wanted)?, &inputs, missing),
            Self::Wide(code) => code.rebuild(used, &inputs, wanted, missing),
        }
    }
}

/// Checks that all shards are of one size and returns it.
fn one_size<'a>(mut sizes: impl Iterator<Item = usize> + 'a) -> Result<usize, CodeError> {
    let wanted = sizes.next().unwrap_or(0);
    match sizes.find(|given| *given != wanted) {
        Some(given) => Err(CodeError::Size { given, wanted }),
        None if wanted == 0 => Err(CodeError::Size { given: 0, wanted: 1 }),
        None => Ok(wanted),
    }
}

/// Checks a number of shards.
fn counted(given: usize, wanted: usize) -> Result<(), CodeError> {
    if given == wanted { Ok(()) } else { Err(CodeError::Count { given, wanted }) }
}
