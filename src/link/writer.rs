//! Writes frames straight into an output buffer, and seals them there in records of at most 16 KiB.

use super::error::LinkError;
use super::handshake::Handshake;
use super::link_state::{Link, RecordStart};
use super::record::{RECORD_HEADER_BYTES, RECORD_PLAIN_BYTES_MAX};

/// Frames on their way into records. Ended by [`RecordWriter::finish`]; dropped without it, the frames since
/// the last whole record are taken back.
#[must_use = "frames are sealed by finish"]
pub struct RecordWriter<'a, H: Handshake> {
    link: &'a mut Link<H>,
    out: &'a mut Vec<u8>,
    begun: Option<RecordStart>,
}

impl<'a, H: Handshake> RecordWriter<'a, H> {
    pub(super) fn new(link: &'a mut Link<H>, out: &'a mut Vec<u8>) -> Self {
        Self { link, out, begun: None }
    }

    /// Appends a frame of `bytes` bytes by calling `encode`, which only appends. A frame that does not fit
    /// behind the ones before begins a new record; one that fits no record is cut over several.
    pub fn frame(&mut self, bytes: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), LinkError> {
        if let Some(start) = self.begun
            && self.out.len() - start.0 - RECORD_HEADER_BYTES + bytes > RECORD_PLAIN_BYTES_MAX
        {
            self.begun = None;
            self.link.end_record(self.out, start)?;
        }
        if self.begun.is_none() {
            self.begun = Some(self.link.begin_record(self.out));
        }
        encode(self.out);
        Ok(())
    }

    /// Seals what is left.
    pub fn finish(mut self) -> Result<(), LinkError> {
        match self.begun.take() {
            Some(start) => self.link.end_record(self.out, start),
            None => Ok(()),
        }
    }
}

impl<H: Handshake> Drop for RecordWriter<'_, H> {
    fn drop(&mut self) {
        if let Some(start) = self.begun {
            self.out.truncate(start.0);
        }
    }
}
