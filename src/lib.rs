//! Trine: message relay, erasure-coded mesh storage and Kademlia DHT in one thread-per-core node.

pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod link;
pub mod node;
pub mod relay;
pub mod rt;
#[cfg(test)]
mod sim;
pub mod stats;
pub mod wire;
