//! Crossings: the one-way queues between cores, and the doorbell that wakes a sleeping receiver.
//!
//! *Purpose.* Cores share nothing; what one core wants of another crosses here. For every ordered pair of
//! cores there are three bounded queues without locks: **requests** (bytes, refused when full, which pushes
//! back on the source connection only), **replies** (fixed-size values, sized so that a reply to an admitted
//! request always fits) and **control** (boxed values, rare).
//!
//! *Promise.* A queue keeps order, never blocks, never allocates after it was made, and publishes in batches:
//! what a core pushes in a turn becomes visible at [`CoreCrossings::publish`]. A core that sleeps when
//! something is published for it, or that waits for room in a full queue, is named in the set which `publish`
//! returns; the runtime rings it. No wake-up is lost (checked under every interleaving in
//! `tests/loom_crossing.rs`).
//!
//! *Failure model.* A full queue refuses and counts; nothing is dropped. Values left in a queue are dropped
//! with it.
//!
//! *Callers.* A core's logic owns its [`CoreCrossings`] and pushes and drains in its turn. The io_uring
//! driver and the simulator publish, sleep and wake through [`Port`]. Nothing here needs a ring or a thread.

pub mod bytes;
mod cursor;
pub mod doorbell;
mod mesh;
mod set;
pub mod slots;
mod sync;
#[cfg(test)]
mod tests;

pub use bytes::PushError;
pub use doorbell::Doorbell;
pub(super) use mesh::doorbells;
pub use mesh::{Control, CoreCrossings, CrossingSizes, CrossingStats, Port, mesh, mesh_with};
pub use set::{CoreSet, MAX_CORES};
