//! Identity, login and the encrypted transport between a client and a node.
//!
//! Purpose: turn bytes from the network into the plaintext of an authenticated peer, and back, without
//! touching a socket, a clock or a random source: bytes and time come in, bytes go out.
//!
//! Promise: TLS 1.3 only, with the node's Ed25519 key as its identity; a login that is bound to the one link
//! it was made for. rustls does the handshake; afterwards a link is two AEAD keys that seal and open records
//! in place, without allocation and without a copy, except for bytes that must wait. Memory is bounded:
//! [`HANDSHAKE_BYTES_MAX`] before the handshake is complete, one record front, and [`HELD_BYTES_MAX`] for a
//! consumer that stopped.
//!
//! Failure model: the peer may send anything. A link fails with a [`LinkError`], which has a close code,
//! leaves the alert to be sent in the output, and never recovers. A link may move between threads, but a call
//! uses one thread only.
//!
//! Called by: the node's sessions and the client library. Deadlines are theirs.

mod client;
mod crypto;
mod error;
mod established;
mod exporter;
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod identity;
pub mod key_file;
mod link_state;
mod login;
mod record;
mod server;
mod spki;
mod writer;

pub use client::{ClientHandshake, ClientLink, ClientLinkConfig, Expect};
pub use crypto::LinkCrypto;
pub use error::LinkError;
pub use established::HELD_BYTES_MAX;
pub use handshake::{HANDSHAKE_BYTES_MAX, Handshake};
pub use identity::{
    Grant, KEY_BYTES, KeyError, NodeKey, PublicKey, SIGNATURE_BYTES, SecretKey, Seed, UserIdentity,
};
pub use link_state::{Link, RecordStart};
pub use login::{CLOCK_SKEW_MS_MAX, Exporter, LoggedIn, login_proof_message, make_login, verify_login};
pub use record::{RECORD_OVERHEAD_BYTES, RECORD_PLAIN_BYTES_MAX};
pub use server::{ServerHandshake, ServerLink, ServerLinkConfig};
pub use writer::RecordWriter;

#[cfg(test)]
mod tests;
