//! What a session has to send: frames are written straight into the buffer in which they will be sealed.
//!
//! The buffer begins with what the link said itself, if anything, and goes on with one run of plaintext
//! frames behind room for a record header. Sealing happens in place, once, when the session is flushed. While
//! one buffer is with the kernel the next fills.

use crate::link::{LinkError, RecordStart, ServerLink};
use crate::wire::ServerFrame;

/// Deliveries stop at this many bytes of unsent output: the session is then in cursor mode.
const DELIVERY_BYTES_MAX: usize = 64 * 1024;
/// Receiving from a session stops at this many bytes of unsent output, until it has drained.
const PAUSE_BYTES: usize = 192 * 1024;
/// Free buffers kept per core, and the largest that is kept.
const POOL_BUFFERS: usize = 1024;
const POOL_CAPACITY_MAX: usize = 256 * 1024;
/// A buffer starts with this much room.
const START_CAPACITY: usize = 4 * 1024;

/// Buffers that are free, so that a steady state allocates nothing.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    free: Vec<Vec<u8>>,
}

impl BufferPool {
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(START_CAPACITY))
    }

    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.free.len() < POOL_BUFFERS && (1..=POOL_CAPACITY_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.free.push(buffer);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.free.len()
    }
}

/// The unsent output of one session.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    bytes: Vec<u8>,
    /// Where the plaintext begins, once there is any. Everything before is sealed.
    begun: Option<RecordStart>,
    /// Bytes at the front that the link made itself.
    link_bytes: usize,
    /// A buffer is with the kernel.
    pub(super) in_flight: bool,
    /// The session is in the list of those to flush.
    pub(super) listed: bool,
}

impl Outbound {
    /// Writes a frame, whatever its size.
    pub(super) fn write(&mut self, pool: &mut BufferPool, frame: &ServerFrame<'_>) {
        self.make_room(pool);
        if self.begun.is_none() {
            self.begun = Some(RecordStart::begin(&mut self.bytes));
        }
        frame.encode(&mut self.bytes);
    }

    /// Adds what the link said itself: its handshake, a key update, an alert. It was sealed already, so it
    /// goes before the frames that were not.
    pub(super) fn add_link_bytes(&mut self, pool: &mut BufferPool, said: &[u8]) {
        self.make_room(pool);
        self.bytes.splice(self.link_bytes..self.link_bytes, said.iter().copied());
        self.link_bytes += said.len();
        if let Some(start) = &mut self.begun {
            start.shift(said.len());
        }
    }

    fn make_room(&mut self, pool: &mut BufferPool) {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
    }

    /// Seals what waits and takes it for sending. A link that has failed sends only its own last words.
    pub(super) fn take_sealed(&mut self, link: &mut ServerLink) -> Result<Vec<u8>, LinkError> {
        let begun = self.begun.take();
        let link_bytes = std::mem::take(&mut self.link_bytes);
        if link.is_failed() {
            self.bytes.truncate(link_bytes);
        } else if let Some(start) = begun {
            link.end_record(&mut self.bytes, start)?;
        }
        Ok(std::mem::take(&mut self.bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A delivery of `bytes` may be added.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.is_empty() || self.bytes.len() + bytes <= DELIVERY_BYTES_MAX
    }

    /// So much waits that nothing more is to be taken from this session.
    pub(super) fn is_congested(&self) -> bool {
        self.bytes.len() > PAUSE_BYTES
    }
}
