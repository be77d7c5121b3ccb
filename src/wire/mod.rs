//! The frame codec of the `trine/1` protocol: bytes to typed frames and back, as described in `docs/WIRE.md`.
//!
//! Purpose: the one place that knows the byte layout of frames, codes and identifiers, for the node and its
//! clients.
//!
//! Promise: decoding borrows from the input and never allocates; a frame's length is judged from its header,
//! before any of its body is looked at; encoding appends exactly [`ClientFrame::encoded_bytes`] bytes. The
//! codec has no state; [`FrameStream`], which joins frames that straddle chunks, holds at most one frame and
//! only bytes that arrived.
//!
//! Failure model: every malformed input is a [`WireError`] that names its [`CloseCode`]. No input panics.
//!
//! Called by: `link` (login), `relay`, `client`, and the fuzz targets.

mod client_frame;
mod codes;
mod error;
mod field;
#[doc(hidden)]
pub mod fuzz;
mod header;
mod ids;
mod seq_list;
mod server_frame;
mod stream;

pub use client_frame::{Ack, ClientFrame, Login, MessageClass, Send, SendOptions, Subscribe};
pub use codes::{CloseCode, RejectReason};
pub use error::WireError;
pub use header::{Decoded, Frame, FrameHeader, HEADER_BYTES, Limit, decode_frame};
pub use ids::{Address, DeviceId, Epoch, IdTextError, MailboxSeq, MessageId, NodeId, RequestId};
pub use seq_list::{ACK_SELECTIVE_MAX, SeqIter, SeqList};
pub use server_frame::{Close, Deliver, DeliverFlags, Receipt, ReceiptStatus, ServerFrame, Welcome};
pub use stream::{Flow, FrameStream};

/// The only protocol version so far.
pub const PROTOCOL_VERSION: u16 = 1;
/// First bytes of a login.
pub const LOGIN_MAGIC: [u8; 4] = *b"TRN1";
/// Most bytes of a message's payload, so that it fits a DELIVER frame as well as the SEND that brought it.
pub const MESSAGE_BYTES_MAX: usize =
    header::FRAME_BYTES_MAX - HEADER_BYTES - server_frame::DELIVER_FIXED_BYTES;
/// Most bytes of the text in a CLOSE frame.
pub const CLOSE_DETAIL_BYTES_MAX: usize = 200;

/// Optional features, one bit each; both sides use the intersection. Version 1 defines none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// What this implementation can do.
    pub const SUPPORTED: Self = Self(0);

    /// The features that both sides have.
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

#[cfg(test)]
mod tests;
