//! A disk in memory that fails as disks do, for the tests of a lane and for the simulator of a whole node.
//!
//! Everything is decided by a seed or by the caller, so that a run can be repeated exactly.

mod disk;
mod fault;
mod medium;
mod rng;
#[cfg(test)]
mod tests;

pub use disk::{PendingOp, SimDisk};
pub use fault::Fault;
pub use rng::Rng;

/// What a crash keeps or loses as one.
pub const SECTOR_BYTES: usize = 512;
