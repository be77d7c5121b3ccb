//! The 16-byte frame header and the split of a byte run into frames.

use super::error::WireError;
use super::field::Reader;
use super::ids::RequestId;

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 16;
/// Most bytes of a frame, header included, after login.
pub(super) const FRAME_BYTES_MAX: usize = 65_536;
/// Most bytes of a frame, header included, before login.
const FRAME_BYTES_MAX_BEFORE_LOGIN: usize = 512;

const FLAG_SKIPPABLE: u8 = 1;

/// How large a frame may be at this point of the link's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The peer is not known yet: 512 bytes.
    BeforeLogin,
    /// The peer is logged in: 65,536 bytes.
    AfterLogin,
}

impl Limit {
    /// Most bytes of a frame, header included.
    pub const fn frame_bytes(self) -> usize {
        match self {
            Self::BeforeLogin => FRAME_BYTES_MAX_BEFORE_LOGIN,
            Self::AfterLogin => FRAME_BYTES_MAX,
        }
    }
}

/// The fields of a frame header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes after the header.
    pub payload_bytes: u32,
    /// Which frame this is.
    pub frame_type: u8,
    /// Whether a receiver that does not know the type may skip the frame.
    pub skippable: bool,
    /// Ties an answer to its question; zero where there is none.
    pub request: RequestId,
}

impl FrameHeader {
    /// Reads and judges a header.
    pub fn parse(bytes: &[u8; HEADER_BYTES], limit: Limit) -> Result<Self, WireError> {
        let mut reader = Reader::new("header", bytes);
        let payload_bytes = reader.u32()?;
        let frame_type = reader.u8()?;
        let flags = reader.u8()?;
        let reserved = reader.u16()?;
        let request = RequestId(reader.u64()?);

        let frame_bytes = u64::from(payload_bytes) + HEADER_BYTES as u64;
        if frame_bytes > limit.frame_bytes() as u64 {
            return Err(WireError::TooLarge { frame_bytes, limit_bytes: limit.frame_bytes() });
        }
        if flags & !FLAG_SKIPPABLE != 0 {
            return Err(WireError::UnknownFlags { flags });
        }
        if reserved != 0 {
            return Err(WireError::ReservedNotZero { frame: "header" });
        }
        Ok(Self { payload_bytes, frame_type, skippable: flags & FLAG_SKIPPABLE != 0, request })
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.payload_bytes.to_be_bytes());
        out.push(self.frame_type);
        out.push(if self.skippable { FLAG_SKIPPABLE } else { 0 });
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.request.0.to_be_bytes());
    }
}

/// A whole frame whose payload has not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The checked header.
    pub header: FrameHeader,
    /// Exactly `header.payload_bytes` bytes of the input.
    pub payload: &'a [u8],
}

/// What the front of a byte run holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame, and how many bytes of the input it took.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Header and payload bytes.
        consumed: usize,
    },
    /// Not yet a whole frame; nothing can be said before the input has `need` bytes in total. At most the
    /// limit.
    Incomplete {
        /// Total input length at which to ask again.
        need: usize,
    },
}

/// Takes one frame from the front of `input`. The claimed length is judged before the body arrives.
pub fn decode_frame(input: &[u8], limit: Limit) -> Result<Decoded<'_>, WireError> {
    let Some((head, body)) = input.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Decoded::Incomplete { need: HEADER_BYTES });
    };
    let header = FrameHeader::parse(head, limit)?;
    let payload_bytes = header.payload_bytes as usize;
    let consumed = HEADER_BYTES + payload_bytes;
    match body.get(..payload_bytes) {
        Some(payload) => Ok(Decoded::Frame { frame: Frame { header, payload }, consumed }),
        None => Ok(Decoded::Incomplete { need: consumed }),
    }
}
