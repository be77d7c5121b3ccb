//! Frames that a client sends to a node.

use super::error::WireError;
use super::field::Reader;
use super::header::{Frame, FrameHeader, HEADER_BYTES};
use super::ids::{Address, Epoch, MailboxSeq, MessageId, RequestId};
use super::seq_list::{ACK_SELECTIVE_MAX, SeqList};
use super::{Capabilities, LOGIN_MAGIC};

pub(super) const LOGIN: u8 = 0x01;
pub(super) const SEND: u8 = 0x10;
pub(super) const SUBSCRIBE: u8 = 0x11;
pub(super) const ACK: u8 = 0x12;
pub(super) const PING: u8 = 0x13;
pub(super) const BYE: u8 = 0x14;

const LOGIN_BYTES: usize = 4 + 2 + 2 + 8 + 8 + 32 + 32 + 8 + 64 + 64;
const SEND_FIXED_BYTES: usize = 32 + 16 + 4 + 1 + 1 + 2 + 8;
const SUBSCRIBE_BYTES: usize = 4 + 4;
const ACK_FIXED_BYTES: usize = 8 + 8 + 2;
pub(super) const PING_BYTES: usize = 8;

/// The first frame of a link: who the client is, and the proof. See `link::login`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// Oldest protocol version the client speaks.
    pub version_min: u16,
    /// Newest protocol version the client speaks.
    pub version_max: u16,
    /// Features the client has.
    pub capabilities: Capabilities,
    /// The client's wall clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// Ed25519 public key of the user; its hash is the address.
    pub user_key: [u8; 32],
    /// Ed25519 public key of the device.
    pub device_key: [u8; 32],
    /// When the grant ends, in milliseconds since 1970.
    pub grant_expires_ms: u64,
    /// The user key's signature over the grant.
    pub grant_signature: [u8; 64],
    /// The device key's signature over this link and login.
    pub proof_signature: [u8; 64],
}

/// What becomes of a message when nobody is there to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageClass {
    /// Stored until acknowledged or expired.
    Durable,
    /// Handed over now or dropped; never written.
    Ephemeral,
}

impl MessageClass {
    /// The class as a number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Durable => 0,
            Self::Ephemeral => 1,
        }
    }
}

/// What a sender asks for besides delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// A second receipt, DELIVERED, when the recipient has acknowledged (bit 0).
    pub want_delivered: bool,
    /// Do not tell the recipient the sender's address (bit 1).
    pub anonymous: bool,
    /// A receipt for an ephemeral message, which has none otherwise (bit 2).
    pub want_ephemeral_receipt: bool,
}

impl SendOptions {
    fn code(self) -> u8 {
        u8::from(self.want_delivered)
            | u8::from(self.anonymous) << 1
            | u8::from(self.want_ephemeral_receipt) << 2
    }

    fn from_code(code: u8) -> Result<Self, WireError> {
        if code & !0b111 != 0 {
            return Err(WireError::BadValue { frame: "SEND", field: "options", value: code.into() });
        }
        Ok(Self {
            want_delivered: code & 1 != 0,
            anonymous: code & 2 != 0,
            want_ephemeral_receipt: code & 4 != 0,
        })
    }
}

/// A message for another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send<'a> {
    /// The sender's token, echoed in every receipt for this message.
    pub request: RequestId,
    /// Recipient.
    pub to: Address,
    /// Chosen by the sender; the same id again is the same message.
    pub id: MessageId,
    /// Seconds after which the message may be dropped unread. Without meaning for the ephemeral class.
    pub ttl_s: u32,
    /// Durable or ephemeral.
    pub class: MessageClass,
    /// Receipts and privacy.
    pub options: SendOptions,
    /// The sender's wall clock, in milliseconds since 1970; told to the recipient unchanged.
    pub sent_ms: u64,
    /// The message; opaque to the node.
    pub payload: &'a [u8],
}

/// Starts delivery to this device, or changes its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Most unacknowledged messages; not 0.
    pub window_messages: u32,
    /// Most unacknowledged payload bytes; not 0. One message may always be under way.
    pub window_bytes: u32,
}

/// What this device has taken over from its mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Epoch of the positions, from WELCOME.
    pub epoch: Epoch,
    /// Everything up to and including this position.
    pub cumulative: MailboxSeq,
    /// Single positions above.
    pub selective: SeqList<'a>,
}

/// A frame from a client, typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// Who is there; the first frame, and only that.
    Login(Login),
    /// A message for another user.
    Send(Send<'a>),
    /// Starts or changes delivery.
    Subscribe(Subscribe),
    /// Takes messages over.
    Ack(Ack<'a>),
    /// Asks for a sign of life.
    Ping {
        /// Echoed.
        request: RequestId,
        /// Echoed.
        opaque: [u8; PING_BYTES],
    },
    /// The client is about to close.
    Bye,
}

impl<'a> ClientFrame<'a> {
    /// Reads the payload of `frame`. `None` is a frame of an unknown type that may be skipped.
    pub fn parse(frame: Frame<'a>) -> Result<Option<Self>, WireError> {
        let parsed = match frame.header.frame_type {
            LOGIN => Self::Login(parse_login(frame)?),
            SEND => Self::Send(parse_send(frame)?),
            SUBSCRIBE => Self::Subscribe(parse_subscribe(frame)?),
            ACK => Self::Ack(parse_ack(frame)?),
            PING => {
                let opaque = parse_opaque("PING", frame)?;
                Self::Ping { request: frame.header.request, opaque }
            }
            BYE => {
                no_request("BYE", frame)?;
                Reader::new("BYE", frame.payload).finish()?;
                Self::Bye
            }
            _ if frame.header.skippable => return Ok(None),
            frame_type => return Err(WireError::UnknownType { frame_type }),
        };
        Ok(Some(parsed))
    }

    /// Exact bytes that [`ClientFrame::encode`] appends, header included.
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES
            + match self {
                Self::Login(_) => LOGIN_BYTES,
                Self::Send(send) => SEND_FIXED_BYTES + send.payload.len(),
                Self::Subscribe(_) => SUBSCRIBE_BYTES,
                Self::Ack(ack) => ACK_FIXED_BYTES + 8 * ack.selective.len(),
                Self::Ping { .. } => PING_BYTES,
                Self::Bye => 0,
            }
    }

    /// Appends the frame. The caller keeps SEND payloads within [`super::MESSAGE_BYTES_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (frame_type, request) = match self {
            Self::Login(_) => (LOGIN, RequestId(0)),
            Self::Send(send) => (SEND, send.request),
            Self::Subscribe(_) => (SUBSCRIBE, RequestId(0)),
            Self::Ack(_) => (ACK, RequestId(0)),
            Self::Ping { request, .. } => (PING, *request),
            Self::Bye => (BYE, RequestId(0)),
        };
        encode_header(frame_type, request, self.encoded_bytes(), out);
        match self {
            Self::Login(login) => encode_login(login, out),
            Self::Send(send) => encode_send(send, out),
            Self::Subscribe(subscribe) => {
                out.extend_from_slice(&subscribe.window_messages.to_be_bytes());
                out.extend_from_slice(&subscribe.window_bytes.to_be_bytes());
            }
            Self::Ack(ack) => encode_ack(ack, out),
            Self::Ping { opaque, .. } => out.extend_from_slice(opaque),
            Self::Bye => {}
        }
    }
}

/// Appends the header of a frame that is `frame_bytes` long in all.
pub(super) fn encode_header(frame_type: u8, request: RequestId, frame_bytes: usize, out: &mut Vec<u8>) {
    debug_assert!(frame_bytes <= super::header::FRAME_BYTES_MAX, "the caller keeps payloads in bounds");
    let payload_bytes = (frame_bytes - HEADER_BYTES) as u32;
    FrameHeader { payload_bytes, frame_type, skippable: false, request }.encode(out);
}

/// Checks that a frame without an answer has no request.
pub(super) fn no_request(name: &'static str, frame: Frame<'_>) -> Result<(), WireError> {
    if frame.header.request == RequestId(0) { Ok(()) } else { Err(WireError::RequestNotZero { frame: name }) }
}

/// Reads the payload of PING and PONG.
pub(super) fn parse_opaque(name: &'static str, frame: Frame<'_>) -> Result<[u8; PING_BYTES], WireError> {
    let mut reader = Reader::new(name, frame.payload);
    let opaque = reader.array()?;
    reader.finish()?;
    Ok(opaque)
}

fn parse_login(frame: Frame<'_>) -> Result<Login, WireError> {
    no_request("LOGIN", frame)?;
    let mut reader = Reader::new("LOGIN", frame.payload);
    if reader.array()? != LOGIN_MAGIC {
        return Err(WireError::BadMagic);
    }
    let login = Login {
        version_min: reader.u16()?,
        version_max: reader.u16()?,
        capabilities: Capabilities(reader.u64()?),
        time_ms: reader.u64()?,
        user_key: reader.array()?,
        device_key: reader.array()?,
        grant_expires_ms: reader.u64()?,
        grant_signature: reader.array()?,
        proof_signature: reader.array()?,
    };
    reader.finish()?;
    Ok(login)
}

fn encode_login(login: &Login, out: &mut Vec<u8>) {
    out.extend_from_slice(&LOGIN_MAGIC);
    out.extend_from_slice(&login.version_min.to_be_bytes());
    out.extend_from_slice(&login.version_max.to_be_bytes());
    out.extend_from_slice(&login.capabilities.0.to_be_bytes());
    out.extend_from_slice(&login.time_ms.to_be_bytes());
    out.extend_from_slice(&login.user_key);
    out.extend_from_slice(&login.device_key);
    out.extend_from_slice(&login.grant_expires_ms.to_be_bytes());
    out.extend_from_slice(&login.grant_signature);
    out.extend_from_slice(&login.proof_signature);
}

fn parse_send(frame: Frame<'_>) -> Result<Send<'_>, WireError> {
    let mut reader = Reader::new("SEND", frame.payload);
    let to = Address(reader.array()?);
    let id = MessageId(reader.array()?);
    let ttl_s = reader.u32()?;
    let class = match reader.u8()? {
        0 => MessageClass::Durable,
        1 => MessageClass::Ephemeral,
        other => return Err(WireError::BadValue { frame: "SEND", field: "class", value: other.into() }),
    };
    let options = SendOptions::from_code(reader.u8()?)?;
    reader.reserved::<2>()?;
    let sent_ms = reader.u64()?;
    Ok(Send { request: frame.header.request, to, id, ttl_s, class, options, sent_ms, payload: reader.rest() })
}

fn encode_send(send: &Send<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&send.to.0);
    out.extend_from_slice(&send.id.0);
    out.extend_from_slice(&send.ttl_s.to_be_bytes());
    out.extend_from_slice(&[send.class.code(), send.options.code(), 0, 0]);
    out.extend_from_slice(&send.sent_ms.to_be_bytes());
    out.extend_from_slice(send.payload);
}

fn parse_subscribe(frame: Frame<'_>) -> Result<Subscribe, WireError> {
    no_request("SUBSCRIBE", frame)?;
    let mut reader = Reader::new("SUBSCRIBE", frame.payload);
    let window_messages = reader.u32()?;
    let window_bytes = reader.u32()?;
    reader.finish()?;
    for (field, value) in [("window_messages", window_messages), ("window_bytes", window_bytes)] {
        if value == 0 {
            return Err(WireError::BadValue { frame: "SUBSCRIBE", field, value: 0 });
        }
    }
    Ok(Subscribe { window_messages, window_bytes })
}

fn parse_ack(frame: Frame<'_>) -> Result<Ack<'_>, WireError> {
    no_request("ACK", frame)?;
    let mut reader = Reader::new("ACK", frame.payload);
    let epoch = Epoch(reader.u64()?);
    let cumulative = MailboxSeq(reader.u64()?);
    let count = usize::from(reader.u16()?);
    if count > ACK_SELECTIVE_MAX {
        return Err(WireError::AckTooMany { count });
    }
    let seqs = reader.slice(8 * count)?;
    reader.finish()?;
    Ok(Ack { epoch, cumulative, selective: SeqList::from_wire(cumulative, seqs)? })
}

fn encode_ack(ack: &Ack<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&ack.epoch.0.to_be_bytes());
    out.extend_from_slice(&ack.cumulative.0.to_be_bytes());
    out.extend_from_slice(&(ack.selective.len() as u16).to_be_bytes());
    ack.selective.encode(out);
}
