//! The store of keyed records on a simulated disk.

mod cases;
mod checkpoint;
mod model;
mod rig;
