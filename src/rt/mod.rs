//! The runtime: the only place that names glommio, io_uring, clocks, threads, files, sockets or random
//! sources.

pub mod api;
pub mod clock;
pub mod crossing;
pub mod descriptors;
pub mod entropy;
pub mod executor;
pub mod files;
pub mod memory;
pub mod preflight;
pub mod ring;
pub mod volume;
