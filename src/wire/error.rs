//! What can be wrong with bytes from a peer.

use super::codes::CloseCode;

/// A frame that breaks the protocol. The link it came from is closed with [`WireError::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The header claims more than is allowed now.
    #[error("frame of {frame_bytes} bytes is over the limit of {limit_bytes}; send smaller frames")]
    TooLarge {
        /// Header plus claimed payload.
        frame_bytes: u64,
        /// What is allowed at this point of the link.
        limit_bytes: usize,
    },
    /// A header flag that this version does not define.
    #[error("frame header has unknown flags {flags:#04x}; only bit 0 is defined")]
    UnknownFlags {
        /// All eight bits.
        flags: u8,
    },
    /// A field for later use is not zero.
    #[error("reserved bytes of {frame} are not zero; set them to zero")]
    ReservedNotZero {
        /// Name of the frame.
        frame: &'static str,
    },
    /// A type that is not defined in this direction, and not marked skippable.
    #[error("frame type {frame_type:#04x} is not defined in this direction and not marked skippable")]
    UnknownType {
        /// The type byte.
        frame_type: u8,
    },
    /// The payload ends inside a field.
    #[error("{frame} ends inside a field; its payload is too short")]
    Truncated {
        /// Name of the frame.
        frame: &'static str,
    },
    /// The payload goes on after the last field.
    #[error("{frame} has bytes after its last field; its payload is too long")]
    TrailingBytes {
        /// Name of the frame.
        frame: &'static str,
    },
    /// A field holds a value that is not defined.
    #[error("field {field} of {frame} has the undefined value {value}")]
    BadValue {
        /// Name of the frame.
        frame: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// The header's request field is set on a frame that has no answer.
    #[error("{frame} must have request 0")]
    RequestNotZero {
        /// Name of the frame.
        frame: &'static str,
    },
    /// The selective part of an acknowledgement is not strictly rising above the cumulative part.
    #[error("selective acknowledgements must rise strictly and lie above the cumulative one")]
    AckNotRising,
    /// The selective part of an acknowledgement is too long.
    #[error("{count} selective acknowledgements are over the limit of 256; acknowledge more often")]
    AckTooMany {
        /// The count that was claimed.
        count: usize,
    },
    /// A text that is not UTF-8.
    #[error("text of {frame} is not UTF-8")]
    NotUtf8 {
        /// Name of the frame.
        frame: &'static str,
    },
    /// A text that is too long.
    #[error("text of {frame} has {bytes} bytes, over the limit of 200")]
    TextTooLong {
        /// Name of the frame.
        frame: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A login that does not begin with the protocol's magic.
    #[error("login does not begin with TRN1; this is not a trine client")]
    BadMagic,
}

impl WireError {
    /// What to tell the peer.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::TooLarge { .. } => CloseCode::TooLarge,
            Self::BadMagic => CloseCode::Magic,
            Self::UnknownType { .. } => CloseCode::UnexpectedFrame,
            _ => CloseCode::Protocol,
        }
    }
}
