//! What cores say to each other: requests as bytes, replies as values.
//!
//! A request that wants a reply takes a credit of the pair of cores; the reply gives it back. There are as
//! many credits as reply slots, so a reply always fits. Requests without reply need room in the request queue
//! only.

use crate::relay::{Incoming, Origin, Receipt};
use crate::rt::api::{ConnId, CoreId};
use crate::wire::{Address, MessageId};

const HEAD_BYTES: usize = 136;
const KIND_DURABLE: u8 = 1;
const KIND_EPHEMERAL: u8 = 2;
const KIND_DELIVERED: u8 = 3;
const FLAG_REPLY: u8 = 1;
const FLAG_NOTIFY: u8 = 2;
const FLAG_ANONYMOUS: u8 = 4;

/// Answer to a request: the receipt of one message for the session that sent it.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// Connection of the sender's session on the asking core.
    pub conn: ConnId,
    /// The sender's number of the request.
    pub token: u64,
    /// What became of it.
    pub receipt: Receipt,
}

/// A request to the core that is home to an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    /// Keep this message for its recipient; the receipt is the reply.
    Durable { message: Incoming<'a>, origin: Origin },
    /// Hand this message to connected devices; a reply only if asked for.
    Ephemeral { message: Incoming<'a>, origin: Option<Origin> },
    /// A device acknowledged a message of `sender`, who wanted to know.
    Delivered { sender: Address, id: MessageId },
}

impl<'a> Request<'a> {
    /// The fixed part of the encoding; the payload of a message follows it.
    pub(super) fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        match self {
            Self::Durable { message, origin } => put_message(&mut head, KIND_DURABLE, message, Some(*origin)),
            Self::Ephemeral { message, origin } => put_message(&mut head, KIND_EPHEMERAL, message, *origin),
            Self::Delivered { sender, id } => {
                head[0] = KIND_DELIVERED;
                head[24..56].copy_from_slice(&sender.0);
                head[88..104].copy_from_slice(&id.0);
            }
        }
        head
    }

    /// What follows the head.
    pub(super) fn payload(&self) -> &'a [u8] {
        match self {
            Self::Durable { message, .. } | Self::Ephemeral { message, .. } => message.payload,
            Self::Delivered { .. } => &[],
        }
    }

    /// True if a reply will come, and so a credit is needed.
    pub(super) fn wants_reply(&self) -> bool {
        match self {
            Self::Durable { .. } => true,
            Self::Ephemeral { origin, .. } => origin.is_some(),
            Self::Delivered { .. } => false,
        }
    }

    /// Reads what another core of this process wrote. `None` means a defect of this program.
    pub(super) fn decode(bytes: &'a [u8], from: CoreId) -> Option<Self> {
        let (head, payload) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let flags = head[1];
        let sender = Address(take(head, 24));
        let id = MessageId(take(head, 88));
        if head[0] == KIND_DELIVERED {
            return Some(Self::Delivered { sender, id });
        }
        let conn =
            ConnId { slot: u32::from_le_bytes(take(head, 4)), generation: u32::from_le_bytes(take(head, 8)) };
        let origin = Origin { core: from, conn, token: u64::from_le_bytes(take(head, 16)) };
        let anonymous = flags & FLAG_ANONYMOUS != 0;
        let message = Incoming {
            to: Address(take(head, 56)),
            id,
            dedup: MessageId(take(head, 116)),
            from: if anonymous { Address::NONE } else { sender },
            notify: (flags & FLAG_NOTIFY != 0).then_some(sender),
            sent_ms: u64::from_le_bytes(take(head, 104)),
            ttl_s: u32::from_le_bytes(take(head, 112)),
            payload,
        };
        match head[0] {
            KIND_DURABLE => Some(Self::Durable { message, origin }),
            KIND_EPHEMERAL => {
                Some(Self::Ephemeral { message, origin: (flags & FLAG_REPLY != 0).then_some(origin) })
            }
            _ => None,
        }
    }
}

fn put_message(head: &mut [u8; HEAD_BYTES], kind: u8, message: &Incoming<'_>, origin: Option<Origin>) {
    let anonymous = message.from == Address::NONE;
    head[0] = kind;
    head[1] = u8::from(origin.is_some()) * FLAG_REPLY
        + u8::from(message.notify.is_some()) * FLAG_NOTIFY
        + u8::from(anonymous) * FLAG_ANONYMOUS;
    if let Some(origin) = origin {
        head[4..8].copy_from_slice(&origin.conn.slot.to_le_bytes());
        head[8..12].copy_from_slice(&origin.conn.generation.to_le_bytes());
        head[16..24].copy_from_slice(&origin.token.to_le_bytes());
    }
    head[24..56].copy_from_slice(&message.notify.unwrap_or(message.from).0);
    head[56..88].copy_from_slice(&message.to.0);
    head[88..104].copy_from_slice(&message.id.0);
    head[104..112].copy_from_slice(&message.sent_ms.to_le_bytes());
    head[112..116].copy_from_slice(&message.ttl_s.to_le_bytes());
    head[116..132].copy_from_slice(&message.dedup.0);
}

fn take<const N: usize>(head: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Incoming<'_> {
        Incoming {
            to: Address([1; 32]),
            id: MessageId([2; 16]),
            dedup: MessageId([8; 16]),
            from: Address::NONE,
            notify: Some(Address([3; 32])),
            sent_ms: 4,
            ttl_s: 5,
            payload,
        }
    }

    #[test]
    fn a_request_reaches_the_other_core_as_it_was_sent() {
        let conn = ConnId { slot: 7, generation: 8 };
        let origin = Origin { core: CoreId(3), conn, token: 9 };
        let requests = [
            Request::Durable { message: message(b"sealed"), origin },
            Request::Ephemeral { message: message(b""), origin: Some(origin) },
            Request::Ephemeral {
                message: Incoming { from: Address([6; 32]), notify: None, ..message(b"x") },
                origin: None,
            },
            Request::Delivered { sender: Address([1; 32]), id: MessageId([2; 16]) },
        ];
        for request in requests {
            let bytes = [&request.head()[..], request.payload()].concat();
            let decoded = Request::decode(&bytes, CoreId(3)).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{request:?}"));
        }
    }

    #[test]
    fn a_short_or_unknown_request_is_no_request() {
        assert!(Request::decode(&[0; HEAD_BYTES - 1], CoreId(0)).is_none());
        assert!(Request::decode(&[0; HEAD_BYTES], CoreId(0)).is_none());
    }
}
