//! The runtime: the only place that names glommio, io_uring, clocks, threads, files, sockets or random
//! sources.

pub mod api;
pub mod crossing;
