//! The io_uring driver of a core: carries out what a [`CoreLogic`](super::api::CoreLogic) wants of network
//! and disk.
//!
//! *Shape.* One raw ring per core, made and used on that core's thread only. One turn: reap completions, hand
//! them to the logic as events, let it take its turn, queue all its effects, wake the cores that wait for
//! something, and make one `io_uring_enter`, which also sleeps if there is nothing to do.
//!
//! *Promise.* Every buffer handed in comes back exactly once. A connection's descriptor is closed, or given
//! to another core, only when nothing of it is left in the kernel. Running out of provided buffers,
//! descriptors or completion room slows down; it never loses data, spins or ends the node. Dropping a driver
//! cancels and drains everything.
//!
//! *Failure model.* Errors of a connection or a file are events. An `io_uring_enter` that fails for a reason
//! that is not transient ends the process, because what the kernel holds is then unknown.
//!
//! *Callers.* [`executor`](super::executor) runs one driver per core; tests run one on their own thread.

mod buffers;
mod cold;
mod conn;
mod control;
mod disk;
mod driver;
mod effects;
mod enter;
mod handover;
mod listener;
mod network;
mod op;
mod retry;
mod stats;
mod table;
mod uring;

pub use cold::ColdQueue;
pub(in crate::rt) use control::AbortOnPanic;
pub use control::CoreControl;
pub use disk::DiskSetup;
pub use driver::{Driver, DriverSetup, PeerCore, Turn};
pub use handover::HandOvers;
pub(in crate::rt) use handover::PARCELS_MAX;
pub use listener::bind;
pub use stats::{Counter, RingStats, TURN_BUCKETS};

/// Sizes of a core's ring and pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Submissions per enter, a power of two. More are submitted early.
    pub submission_entries: u32,
    /// Completions that can wait, a power of two. More wait in the kernel's overflow list, which is slower.
    pub completion_entries: u32,
    /// Buffers for receiving, a power of two of at most 32,768.
    pub recv_buffers: u16,
    /// Size of each, in bytes, a multiple of 4,096.
    pub recv_buffer_bytes: usize,
    /// Connections per core; further ones are closed at once. The executor lowers it to what the limit of
    /// descriptors leaves.
    pub connections_max: usize,
    /// Segment files that are kept open per core. The executor sets it to what the store may have.
    pub segment_files_max: usize,
    /// Buffers for disk writes and reads that are registered with the kernel, which pins them: they count
    /// against the limit of locked memory.
    pub disk_buffers: u16,
    /// Size of each, in bytes, a multiple of 4,096.
    pub disk_buffer_bytes: usize,
    /// How long to look for work before going to sleep, in microseconds. Keep 0 where cores are shared.
    pub spin_us: u64,
}

impl Default for RingConfig {
    /// Fits 8 MiB of locked memory with two cores.
    fn default() -> Self {
        Self {
            submission_entries: 256,
            completion_entries: 4_096,
            recv_buffers: 128,
            recv_buffer_bytes: 8 << 10,
            connections_max: 65_536,
            segment_files_max: 1_024,
            disk_buffers: 0,
            disk_buffer_bytes: 256 << 10,
            spin_us: 0,
        }
    }
}
