//! Frames that a node sends to a client.

use super::client_frame::{PING_BYTES, encode_header, no_request, parse_opaque};
use super::codes::{CloseCode, RejectReason};
use super::error::WireError;
use super::field::Reader;
use super::header::{Frame, HEADER_BYTES};
use super::ids::{Address, Epoch, MailboxSeq, MessageId, RequestId};
use super::{CLOSE_DETAIL_BYTES_MAX, Capabilities};

pub(super) const WELCOME: u8 = 0x81;
pub(super) const RECEIPT: u8 = 0x90;
pub(super) const DELIVER: u8 = 0x91;
pub(super) const CAUGHT_UP: u8 = 0x92;
pub(super) const PONG: u8 = 0x93;
pub(super) const GOAWAY: u8 = 0x9e;
pub(super) const CLOSE: u8 = 0x9f;

const WELCOME_BYTES: usize = 2 + 8 + 8 + 8 + 8 + 8 + 4 + 4;
const RECEIPT_BYTES: usize = 1 + 1 + 2 + 4 + 8 + 16;
pub(super) const DELIVER_FIXED_BYTES: usize = 8 + 16 + 32 + 8 + 1 + 7;
const CLOSE_FIXED_BYTES: usize = 2 + 4;

/// The answer to a login that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version both sides use from here on.
    pub version: u16,
    /// The features both sides have.
    pub capabilities: Capabilities,
    /// The node's wall clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// Incarnation of the client's mailbox.
    pub mailbox_epoch: Epoch,
    /// Position that the mailbox's next message will get.
    pub next_seq: MailboxSeq,
    /// Up to where this device has acknowledged.
    pub cursor: MailboxSeq,
    /// Most bytes of a frame, header included.
    pub max_frame_bytes: u32,
    /// Most sends without a receipt.
    pub send_window: u32,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptStatus {
    /// Stored durably on the node.
    Accepted,
    /// Acknowledged by the recipient.
    Delivered,
    /// Refused; nothing was stored.
    Rejected(RejectReason),
    /// Ephemeral: handed to a connected device, not stored.
    Relayed,
}

impl ReceiptStatus {
    /// The status as a number on the wire, without the reason.
    pub fn code(self) -> u8 {
        self.codes()[0]
    }

    fn codes(self) -> [u8; 2] {
        match self {
            Self::Accepted => [1, 0],
            Self::Delivered => [2, 0],
            Self::Rejected(reason) => [3, reason.code()],
            Self::Relayed => [4, 0],
        }
    }

    fn from_codes(status: u8, reason: u8) -> Result<Self, WireError> {
        let bad_reason = WireError::BadValue { frame: "RECEIPT", field: "reason", value: reason.into() };
        match (status, reason) {
            (1, 0) => Ok(Self::Accepted),
            (2, 0) => Ok(Self::Delivered),
            (3, reason) => RejectReason::from_code(reason).map(Self::Rejected).ok_or(bad_reason),
            (4, 0) => Ok(Self::Relayed),
            (1 | 2 | 4, _) => Err(bad_reason),
            _ => Err(WireError::BadValue { frame: "RECEIPT", field: "status", value: status.into() }),
        }
    }
}

/// Tells a sender what became of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The token of the SEND.
    pub request: RequestId,
    /// What became of it.
    pub status: ReceiptStatus,
    /// When rejected: milliseconds after which trying again may help; 0 = no hint.
    pub retry_ms: u32,
    /// Its position in the recipient's mailbox; 0 if it has none.
    pub seq: MailboxSeq,
    /// The message's id.
    pub id: MessageId,
}

/// How a delivery came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliverFlags {
    /// Never stored; needs no acknowledgement (bit 0).
    pub ephemeral: bool,
    /// This device may have seen it before (bit 1).
    pub maybe_redelivery: bool,
}

impl DeliverFlags {
    fn code(self) -> u8 {
        u8::from(self.ephemeral) | u8::from(self.maybe_redelivery) << 1
    }

    fn from_code(code: u8) -> Result<Self, WireError> {
        if code & !0b11 != 0 {
            return Err(WireError::BadValue { frame: "DELIVER", field: "flags", value: code.into() });
        }
        Ok(Self { ephemeral: code & 1 != 0, maybe_redelivery: code & 2 != 0 })
    }
}

/// A message for this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// Position in the mailbox, to be acknowledged; 0 for ephemeral ones.
    pub seq: MailboxSeq,
    /// The sender's id for it; duplicates are told by it.
    pub id: MessageId,
    /// The sender, or [`Address::NONE`] if not told.
    pub from: Address,
    /// The sender's wall clock, in milliseconds since 1970; not checked by the node.
    pub sent_ms: u64,
    /// How this delivery came about.
    pub flags: DeliverFlags,
    /// The message.
    pub payload: &'a [u8],
}

/// The node is about to close the link, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// The coded reason.
    pub code: CloseCode,
    /// Milliseconds after which to reconnect; 0 = no hint.
    pub retry_ms: u32,
    /// For people; at most [`CLOSE_DETAIL_BYTES_MAX`] bytes, the encoder cuts.
    pub detail: &'a str,
}

/// A frame from a node, typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerFrame<'a> {
    /// The login was accepted.
    Welcome(Welcome),
    /// What became of a sent message.
    Receipt(Receipt),
    /// A message for this client.
    Deliver(Deliver<'a>),
    /// Everything up to here has been delivered; what follows is live.
    CaughtUp {
        /// Last position delivered.
        seq: MailboxSeq,
    },
    /// A sign of life.
    Pong {
        /// From the PING.
        request: RequestId,
        /// From the PING.
        opaque: [u8; PING_BYTES],
    },
    /// The node is going away; reconnect elsewhere or later.
    GoAway {
        /// Choose a moment at random within so many milliseconds.
        spread_ms: u32,
    },
    /// The node closes the link now.
    Close(Close<'a>),
}

impl<'a> ServerFrame<'a> {
    /// Reads the payload of `frame`. `None` is a frame of an unknown type that may be skipped.
    pub fn parse(frame: Frame<'a>) -> Result<Option<Self>, WireError> {
        let parsed = match frame.header.frame_type {
            WELCOME => Self::Welcome(parse_welcome(frame)?),
            RECEIPT => Self::Receipt(parse_receipt(frame)?),
            DELIVER => Self::Deliver(parse_deliver(frame)?),
            CAUGHT_UP => {
                no_request("CAUGHT_UP", frame)?;
                let mut reader = Reader::new("CAUGHT_UP", frame.payload);
                let seq = MailboxSeq(reader.u64()?);
                reader.finish()?;
                Self::CaughtUp { seq }
            }
            PONG => Self::Pong { request: frame.header.request, opaque: parse_opaque("PONG", frame)? },
            GOAWAY => {
                no_request("GOAWAY", frame)?;
                let mut reader = Reader::new("GOAWAY", frame.payload);
                let spread_ms = reader.u32()?;
                reader.finish()?;
                Self::GoAway { spread_ms }
            }
            CLOSE => Self::Close(parse_close(frame)?),
            _ if frame.header.skippable => return Ok(None),
            frame_type => return Err(WireError::UnknownType { frame_type }),
        };
        Ok(Some(parsed))
    }

    /// Exact bytes that [`ServerFrame::encode`] appends, header included.
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES
            + match self {
                Self::Welcome(_) => WELCOME_BYTES,
                Self::Receipt(_) => RECEIPT_BYTES,
                Self::Deliver(deliver) => DELIVER_FIXED_BYTES + deliver.payload.len(),
                Self::CaughtUp { .. } => 8,
                Self::Pong { .. } => PING_BYTES,
                Self::GoAway { .. } => 4,
                Self::Close(close) => CLOSE_FIXED_BYTES + cut_detail(close.detail).len(),
            }
    }

    /// Appends the frame. The caller keeps DELIVER payloads within [`super::MESSAGE_BYTES_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (frame_type, request) = match self {
            Self::Welcome(_) => (WELCOME, RequestId(0)),
            Self::Receipt(receipt) => (RECEIPT, receipt.request),
            Self::Deliver(_) => (DELIVER, RequestId(0)),
            Self::CaughtUp { .. } => (CAUGHT_UP, RequestId(0)),
            Self::Pong { request, .. } => (PONG, *request),
            Self::GoAway { .. } => (GOAWAY, RequestId(0)),
            Self::Close(_) => (CLOSE, RequestId(0)),
        };
        encode_header(frame_type, request, self.encoded_bytes(), out);
        match self {
            Self::Welcome(welcome) => encode_welcome(welcome, out),
            Self::Receipt(receipt) => encode_receipt(receipt, out),
            Self::Deliver(deliver) => encode_deliver(deliver, out),
            Self::CaughtUp { seq } => out.extend_from_slice(&seq.0.to_be_bytes()),
            Self::Pong { opaque, .. } => out.extend_from_slice(opaque),
            Self::GoAway { spread_ms } => out.extend_from_slice(&spread_ms.to_be_bytes()),
            Self::Close(close) => {
                out.extend_from_slice(&close.code.code().to_be_bytes());
                out.extend_from_slice(&close.retry_ms.to_be_bytes());
                out.extend_from_slice(cut_detail(close.detail).as_bytes());
            }
        }
    }
}

/// The longest front of `detail` that fits and ends between characters.
fn cut_detail(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(CLOSE_DETAIL_BYTES_MAX)]
}

fn parse_welcome(frame: Frame<'_>) -> Result<Welcome, WireError> {
    no_request("WELCOME", frame)?;
    let mut reader = Reader::new("WELCOME", frame.payload);
    let welcome = Welcome {
        version: reader.u16()?,
        capabilities: Capabilities(reader.u64()?),
        time_ms: reader.u64()?,
        mailbox_epoch: Epoch(reader.u64()?),
        next_seq: MailboxSeq(reader.u64()?),
        cursor: MailboxSeq(reader.u64()?),
        max_frame_bytes: reader.u32()?,
        send_window: reader.u32()?,
    };
    reader.finish()?;
    Ok(welcome)
}

fn encode_welcome(welcome: &Welcome, out: &mut Vec<u8>) {
    out.extend_from_slice(&welcome.version.to_be_bytes());
    out.extend_from_slice(&welcome.capabilities.0.to_be_bytes());
    out.extend_from_slice(&welcome.time_ms.to_be_bytes());
    out.extend_from_slice(&welcome.mailbox_epoch.0.to_be_bytes());
    out.extend_from_slice(&welcome.next_seq.0.to_be_bytes());
    out.extend_from_slice(&welcome.cursor.0.to_be_bytes());
    out.extend_from_slice(&welcome.max_frame_bytes.to_be_bytes());
    out.extend_from_slice(&welcome.send_window.to_be_bytes());
}

fn parse_receipt(frame: Frame<'_>) -> Result<Receipt, WireError> {
    let mut reader = Reader::new("RECEIPT", frame.payload);
    let status = ReceiptStatus::from_codes(reader.u8()?, reader.u8()?)?;
    reader.reserved::<2>()?;
    let retry_ms = reader.u32()?;
    let seq = MailboxSeq(reader.u64()?);
    let id = MessageId(reader.array()?);
    reader.finish()?;
    Ok(Receipt { request: frame.header.request, status, retry_ms, seq, id })
}

fn encode_receipt(receipt: &Receipt, out: &mut Vec<u8>) {
    out.extend_from_slice(&receipt.status.codes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&receipt.retry_ms.to_be_bytes());
    out.extend_from_slice(&receipt.seq.0.to_be_bytes());
    out.extend_from_slice(&receipt.id.0);
}

fn parse_deliver(frame: Frame<'_>) -> Result<Deliver<'_>, WireError> {
    no_request("DELIVER", frame)?;
    let mut reader = Reader::new("DELIVER", frame.payload);
    let seq = MailboxSeq(reader.u64()?);
    let id = MessageId(reader.array()?);
    let from = Address(reader.array()?);
    let sent_ms = reader.u64()?;
    let flags = DeliverFlags::from_code(reader.u8()?)?;
    reader.reserved::<7>()?;
    Ok(Deliver { seq, id, from, sent_ms, flags, payload: reader.rest() })
}

fn encode_deliver(deliver: &Deliver<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&deliver.seq.0.to_be_bytes());
    out.extend_from_slice(&deliver.id.0);
    out.extend_from_slice(&deliver.from.0);
    out.extend_from_slice(&deliver.sent_ms.to_be_bytes());
    out.extend_from_slice(&[deliver.flags.code(), 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(deliver.payload);
}

fn parse_close(frame: Frame<'_>) -> Result<Close<'_>, WireError> {
    no_request("CLOSE", frame)?;
    let mut reader = Reader::new("CLOSE", frame.payload);
    let number = reader.u16()?;
    let retry_ms = reader.u32()?;
    let text = reader.rest();
    let code = CloseCode::from_code(number).ok_or(WireError::BadValue {
        frame: "CLOSE",
        field: "code",
        value: number.into(),
    })?;
    if text.len() > CLOSE_DETAIL_BYTES_MAX {
        return Err(WireError::TextTooLong { frame: "CLOSE", bytes: text.len() });
    }
    let detail = std::str::from_utf8(text).map_err(|_| WireError::NotUtf8 { frame: "CLOSE" })?;
    Ok(Close { code, retry_ms, detail })
}
