//! The store of keyed records on a simulated disk.

mod cases;
mod checkpoint;
mod crash;
mod faults;
mod harm;
mod model;
mod rig;
mod scrub;
