//! Joins frames that straddle the chunks in which plaintext arrives.

use super::error::WireError;
use super::header::{Decoded, Frame, HEADER_BYTES, Limit, decode_frame};

/// Whether a consumer wants more now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop after what was just handed over.
    Stop,
}

/// The front of a frame whose rest has not arrived. Holds only bytes that arrived, at most one frame, and no
/// memory between frames.
#[derive(Debug, Default)]
pub struct FrameStream {
    partial: Vec<u8>,
}

impl FrameStream {
    /// A stream at a frame boundary.
    pub const fn new() -> Self {
        Self { partial: Vec::new() }
    }

    /// True if no frame is half read.
    pub fn is_at_boundary(&self) -> bool {
        self.partial.is_empty()
    }

    /// Bytes of memory held.
    pub fn heap_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Takes `chunk` and hands each whole frame to `sink`, until it says stop or `chunk` is used up; an
    /// incomplete frame at the end is kept. Returns the bytes of `chunk` taken: all of them, unless `sink`
    /// stopped; the rest is the caller's to offer again. `limit` is asked for before each frame, as a login
    /// changes it.
    ///
    /// After an error the stream is of no further use; the link is to be closed.
    pub fn feed<E: From<WireError>>(
        &mut self,
        chunk: &[u8],
        mut limit: impl FnMut() -> Limit,
        mut sink: impl FnMut(Frame<'_>) -> Result<Flow, E>,
    ) -> Result<usize, E> {
        let mut taken = 0;
        if !self.partial.is_empty() {
            match self.complete_partial(chunk, limit(), &mut taken, &mut sink)? {
                Flow::Continue => {}
                Flow::Stop => return Ok(taken),
            }
        }
        while taken < chunk.len() {
            match decode_frame(&chunk[taken..], limit())? {
                Decoded::Frame { frame, consumed } => {
                    taken += consumed;
                    if sink(frame)? == Flow::Stop {
                        return Ok(taken);
                    }
                }
                Decoded::Incomplete { .. } => {
                    self.partial.extend_from_slice(&chunk[taken..]);
                    taken = chunk.len();
                }
            }
        }
        Ok(taken)
    }

    /// Adds what the half-read frame lacks, first up to its header, then up to its end.
    fn complete_partial<E: From<WireError>>(
        &mut self,
        chunk: &[u8],
        limit: Limit,
        taken: &mut usize,
        sink: &mut impl FnMut(Frame<'_>) -> Result<Flow, E>,
    ) -> Result<Flow, E> {
        // Twice at most: once for the header, once for the body that the header announces.
        for _ in 0..2 {
            let need = match decode_frame(&self.partial, limit)? {
                Decoded::Incomplete { need } => need,
                Decoded::Frame { .. } => break,
            };
            let missing = need - self.partial.len();
            let part = missing.min(chunk.len() - *taken);
            self.partial.extend_from_slice(&chunk[*taken..*taken + part]);
            *taken += part;
            debug_assert!(self.partial.len() >= HEADER_BYTES || *taken == chunk.len());
        }
        match decode_frame(&self.partial, limit)? {
            Decoded::Incomplete { .. } => Ok(Flow::Continue),
            Decoded::Frame { frame, .. } => {
                let flow = sink(frame);
                self.partial = Vec::new();
                flow
            }
        }
    }
}
