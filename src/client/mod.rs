//! The client library: what a program needs to send and receive messages through a node.
//!
//! # Purpose
//! [`Client`] is a state machine without I/O: it logs in, keeps what was not acknowledged, and turns frames
//! into events. [`Driver`] runs it over a TCP connection and connects again when that breaks. The simulator
//! and the benchmarks run the same state machine over their own transports.
//!
//! # Promises
//! * A message that was given to the client is sent again, under the same id, until the node has given a
//!   final receipt: nothing is lost and nothing is stored twice when a connection or the node goes away in
//!   between.
//! * Two messages to one recipient change places only if both were under way when the node refused the first
//!   for a while. Who needs more than that gives the second when the first has its receipt.
//! * A message that arrives twice is shown once, as long as it is among the last [`SEEN_IDS_MAX`]. It is
//!   acknowledged only after [`Client::done`].
//! * A node is not called again at once: a random part of a pause passes that doubles from 50 ms to 5 s with
//!   every attempt that ends before the login is accepted, or the longer time that the node named.
//! * A node that is silent for a minute, or does not accept the login within 10 s, is taken for gone.
//!
//! # Failure model
//! The node may vanish at any moment and come back. It may refuse messages; refusals that are worth repeating
//! are repeated after the time the node named. A node with another identity than expected is never talked to.

mod driver;
mod hold;
mod inbox;
mod liveness;
mod machine;
mod outbox;
mod reconnect;
#[cfg(test)]
mod tests;

pub use driver::{Driver, DriverError};
pub use inbox::{MessageKey, SEEN_IDS_MAX};
pub use machine::{Client, ClientConfig, ClientError, ClientEvent, ReceivedMessage, Stage};
pub use outbox::{NewMessage, SendReport};
