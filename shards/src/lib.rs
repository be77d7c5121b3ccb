//! The durable store of one lane.

pub mod buffer;
pub mod io;

pub use buffer::AlignedBuf;
