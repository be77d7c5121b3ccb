//! Trine: message relay, erasure-coded mesh storage and Kademlia DHT in one thread-per-core node.

pub mod link;
pub mod rt;
pub mod wire;
