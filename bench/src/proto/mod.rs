//! What the generator says to each server. One message is 256 bytes of payload whose first eight carry a
//! time.

pub mod nats;
pub mod redis;
pub mod trine;

/// Size of the payload of every message.
pub const PAYLOAD_BYTES: usize = 256;
/// The time in front of it.
pub const STAMP_BYTES: usize = 8;

/// A payload that carries `stamp_ns`.
fn payload(stamp_ns: u64) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [b'x'; PAYLOAD_BYTES];
    payload[..STAMP_BYTES].copy_from_slice(&stamp_ns.to_be_bytes());
    payload
}

/// The time in a payload; `None` if it is too short to be one of ours.
fn stamp_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Bytes of a text protocol that wait for their rest.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    fn add(&mut self, data: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(data);
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// The next line without its end, if it is whole, and what follows it.
    fn line(&self) -> Option<(&[u8], &[u8])> {
        let rest = self.rest();
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        Some((&rest[..end], &rest[end + 2..]))
    }

    /// Takes everything but the last `left` bytes.
    fn take_until(&mut self, left: usize) {
        self.taken = self.bytes.len() - left;
    }
}
