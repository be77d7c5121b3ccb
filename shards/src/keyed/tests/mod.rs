//! The store of keyed records on a simulated disk.

mod cases;
mod faults;
mod harm;
mod model;
mod rig;
