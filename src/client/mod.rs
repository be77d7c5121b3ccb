//! The client library: what a program needs to send and receive messages through a node.
//!
//! # Purpose
//! [`Client`] is a state machine without I/O: it logs in, keeps what was not acknowledged, and turns frames
//! into events. [`Driver`] runs it over a TCP connection and connects again when that breaks. The simulator
//! and the benchmarks run the same state machine over their own transports.
//!
//! # Promises
//! * A message that was given to the client is sent again, under the same id, until the node has given a
//!   final
//!   receipt: nothing is lost and nothing is stored twice when a connection or the node goes away in between.
//! * A message that arrives twice is shown once, as long as its id is among the last [`SEEN_IDS_MAX`].
//!
//! # Failure model
//! The node may vanish at any moment and come back. It may refuse messages; refusals that are worth repeating
//! are repeated after the time the node named. A node with another identity than expected is never talked to.

mod driver;
mod inbox;
mod machine;
mod outbox;

pub use driver::{Driver, DriverError};
pub use inbox::SEEN_IDS_MAX;
pub use machine::{Client, ClientConfig, ClientError, ClientEvent, ReceivedMessage, Stage};
pub use outbox::{NewMessage, SendReport};
