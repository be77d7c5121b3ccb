//! A disk in memory that fails as disks do, for the tests of a lane and for the simulator of a whole node.
//!
//! Everything is decided by a seed or by the caller, so that a run can be repeated exactly.

mod disk;
mod rng;

pub use disk::{Fault, PendingOp, SECTOR_BYTES, SimDisk};
pub use rng::Rng;
