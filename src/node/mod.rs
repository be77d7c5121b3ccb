//! One core of the node: connections, the relay and the lanes put together, as one state machine.
//!
//! # Purpose
//! Bytes of a connection become frames, frames become calls of the relay or crossings to the core that is
//! home to the recipient, and what the relay answers becomes frames again. Nothing here knows sockets, files
//! or clocks: the runtime, or the simulator, drives it through [`CoreLogic`](crate::rt::api::CoreLogic).
//!
//! # Promises
//! * A connection logs in anywhere and lives at home: after login it moves to the core that owns its mailbox.
//! * No frame is dropped: one that finds no room on its way to another core waits, and its connection is not
//!   read
//!   meanwhile; nobody else is held up.
//! * Whatever arrives is bounded before it is believed: frame sizes, windows, rates, connections per source.
//!
//! # Failure model
//! Any malformed input closes its own connection with a coded reason. A failing disk turns into refusals. A
//! defect of the program ends the process: half of a state that is not shared cannot be trusted.

mod assembly;
mod closing;
mod core;
mod crossing;
mod frames;
mod homes;
mod inbound;
mod outbound;
mod outlet;
mod recovery;
mod session;
mod shared;
mod sources;

pub use assembly::{Assembly, AssemblyError};
pub use core::Core;
pub use crossing::Reply;
pub use recovery::{Recovery, RecoveryPlan};
pub use shared::{Deadlines, SessionLimits, Shared};
