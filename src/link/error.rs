//! What can go wrong with a link, and which TLS alert and close code say so.

use super::identity::KeyError;
use crate::wire::{CloseCode, NodeId};

/// TLS alert descriptions (RFC 8446 section 6) that this module sends or reads by itself.
pub(super) mod alert {
    pub(in crate::link) const CLOSE_NOTIFY: u8 = 0;
    pub(in crate::link) const UNEXPECTED_MESSAGE: u8 = 10;
    pub(in crate::link) const BAD_RECORD_MAC: u8 = 20;
    pub(in crate::link) const RECORD_OVERFLOW: u8 = 22;
    pub(in crate::link) const DECODE_ERROR: u8 = 50;
    pub(in crate::link) const INTERNAL_ERROR: u8 = 80;
    pub(in crate::link) const USER_CANCELED: u8 = 90;
    pub(in crate::link) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

/// Why a link failed. It is of no further use; what the failing call appended to the output is to be sent
/// before closing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// The bytes are not a TLS record.
    #[error("the peer does not speak TLS; connect with a trine client")]
    NotTls,
    /// A record's header claims more than TLS allows.
    #[error("a TLS record of {bytes} bytes is larger than TLS allows; the peer has a fault")]
    RecordTooLarge {
        /// What the header claims.
        bytes: usize,
    },
    /// The peer sent too much before the handshake was complete.
    #[error("the TLS handshake is larger than any this node accepts; the peer has a fault")]
    HandshakeTooLarge,
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The peer did not offer this protocol.
    #[error("the peer does not offer the protocol trine/1 (ALPN); use a trine client and node")]
    WrongProtocol,
    /// The other side is not the node that was expected.
    #[error("the node is {found}, expected was {expected}; check the address, or the node has a new key")]
    WrongNode {
        /// Who should be there.
        expected: NodeId,
        /// Who is there.
        found: NodeId,
    },
    /// The other side's key is not an Ed25519 key that can be accepted.
    #[error("the node's key cannot be accepted: it is not an Ed25519 raw public key of large order")]
    BadNodeKey,
    /// A record was changed on its way, or sealed with another key.
    #[error("a TLS record failed authentication: it was changed on its way")]
    BadRecord,
    /// A record of a kind that has no place after the handshake.
    #[error("an unexpected TLS record or message of type {message_type} after the handshake")]
    Unexpected {
        /// Content type, or handshake message type.
        message_type: u8,
    },
    /// A TLS message that is not well formed.
    #[error("a TLS alert or key update is not well formed")]
    Malformed,
    /// Too many records in a row without data.
    #[error("too many TLS records in a row carry no data")]
    TooManyEmptyRecords,
    /// The peer gave up with this alert.
    #[error("the peer ended the link with TLS alert {description}")]
    PeerAlert {
        /// RFC 8446 section 6.
        description: u8,
    },
    /// More arrived while the consumer was stopped than the link holds.
    #[error("more than {limit_bytes} bytes arrived while receiving was stopped")]
    HeldTooMuch {
        /// What the link holds at most.
        limit_bytes: usize,
    },
    /// Something was sent or received on a link that is not, or no longer, established.
    #[error("the link is not established or has failed; open a new one")]
    NotEstablished,
    /// A key could not be used or derived; a fault of this program.
    #[error("a key of the link could not be used: {0}")]
    Internal(&'static str),
    /// The node's own key cannot be used.
    #[error("the node's own key cannot be used: {0}")]
    OwnKey(#[from] KeyError),
}

impl LinkError {
    /// What to note, and to tell the peer if a CLOSE frame can still be sent.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Internal(_) | Self::OwnKey(_) | Self::NotEstablished => CloseCode::Internal,
            Self::HeldTooMuch { .. } => CloseCode::Overloaded,
            _ => CloseCode::Tls,
        }
    }

    /// The alert that tells the peer, on an established link.
    pub(super) fn alert(&self) -> Option<u8> {
        match self {
            Self::RecordTooLarge { .. } => Some(alert::RECORD_OVERFLOW),
            Self::BadRecord => Some(alert::BAD_RECORD_MAC),
            Self::NotTls | Self::Unexpected { .. } | Self::TooManyEmptyRecords => {
                Some(alert::UNEXPECTED_MESSAGE)
            }
            Self::Malformed => Some(alert::DECODE_ERROR),
            Self::Internal(_) | Self::HeldTooMuch { .. } => Some(alert::INTERNAL_ERROR),
            _ => None,
        }
    }
}

impl From<rustls::Error> for LinkError {
    /// Finds our own error again that the verifier had to wrap.
    fn from(error: rustls::Error) -> Self {
        if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = &error
            && let Some(own) = other.0.downcast_ref::<Self>()
        {
            return own.clone();
        }
        match error {
            rustls::Error::AlertReceived(description) => {
                Self::PeerAlert { description: u8::from(description) }
            }
            other => Self::Handshake(other),
        }
    }
}
