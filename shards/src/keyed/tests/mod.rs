//! The store of keyed records on a simulated disk.

mod cases;
mod model;
mod rig;
mod scrub;
