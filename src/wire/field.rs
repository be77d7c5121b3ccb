//! Reading fixed-width big-endian fields, with an error that says which frame was short.

use super::error::WireError;

/// Walks over the payload of one frame.
pub(super) struct Reader<'a> {
    frame: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads the payload of the frame with this name.
    pub(super) fn new(frame: &'static str, payload: &'a [u8]) -> Self {
        Self { frame, rest: payload }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated { frame: self.frame })?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next `bytes` bytes.
    pub(super) fn slice(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) =
            self.rest.split_at_checked(bytes).ok_or(WireError::Truncated { frame: self.frame })?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// `N` bytes that this version has no use for, so that a later one can.
    pub(super) fn reserved<const N: usize>(&mut self) -> Result<(), WireError> {
        if self.array::<N>()? == [0; N] {
            Ok(())
        } else {
            Err(WireError::ReservedNotZero { frame: self.frame })
        }
    }

    /// Everything that is left: a payload of free length.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Ends a frame of fixed length.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::TrailingBytes { frame: self.frame }) }
    }
}
