//! Identifiers, a type per meaning. Those that people copy have a text form with a checksum (bech32m, BIP
//! 350).

use std::fmt;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};

/// A text that is not an identifier of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTextError {
    /// Not bech32m at all, or mistyped.
    #[error("this is not a valid {expected}: the checksum or a character is wrong; copy it again")]
    Malformed {
        /// What was asked for.
        expected: &'static str,
    },
    /// Valid text of another kind of identifier.
    #[error("this is not a {expected}: it must begin with {prefix}1")]
    WrongPrefix {
        /// What was asked for.
        expected: &'static str,
        /// How its text begins.
        prefix: &'static str,
    },
    /// Right prefix and checksum, but not 32 bytes.
    #[error("this is not a valid {expected}: it does not hold 32 bytes")]
    WrongLength {
        /// What was asked for.
        expected: &'static str,
    },
}

/// Longest text that can be valid: prefix, separator, 52 data characters, 6 of checksum.
const TEXT_BYTES_MAX: usize = 9 + 1 + 52 + 6;

fn text_to_bytes(text: &str, prefix: &'static str, expected: &'static str) -> Result<[u8; 32], IdTextError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(IdTextError::Malformed { expected });
    }
    let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| IdTextError::Malformed { expected })?;
    if checked.hrp() != Hrp::parse_unchecked(prefix) {
        return Err(IdTextError::WrongPrefix { expected, prefix });
    }
    let mut bytes = [0; 32];
    let mut found = 0;
    for byte in checked.byte_iter() {
        let slot = bytes.get_mut(found).ok_or(IdTextError::WrongLength { expected })?;
        *slot = byte;
        found += 1;
    }
    if found != bytes.len() {
        return Err(IdTextError::WrongLength { expected });
    }
    // The last character carries four bits of padding. Only zero is accepted, so that an id has one text.
    let canonical = bech32::encode_lower::<Bech32m>(Hrp::parse_unchecked(prefix), &bytes);
    match canonical {
        Ok(canonical) if canonical.eq_ignore_ascii_case(text) => Ok(bytes),
        _ => Err(IdTextError::Malformed { expected }),
    }
}

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal, $expected:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// How the text form begins, before the separator `1`.
            pub const PREFIX: &'static str = $prefix;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hrp = Hrp::parse_unchecked(Self::PREFIX);
                bech32::encode_lower_to_fmt::<Bech32m, _>(f, hrp, &self.0).map_err(|_| fmt::Error)
            }
        }

        impl FromStr for $name {
            type Err = IdTextError;

            fn from_str(text: &str) -> Result<Self, IdTextError> {
                text_to_bytes(text, Self::PREFIX, $expected).map(Self)
            }
        }
    };
}

text_id! {
    /// A user: the hash of the user's Ed25519 public key. Text form `trine1…`.
    Address, "trine", "address"
}

text_id! {
    /// A node: the hash of the node's Ed25519 public key. Text form `trinenode1…`.
    NodeId, "trinenode", "node id"
}

impl Address {
    /// Stands for "not told" where a frame has an optional address.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Debug for Address {
    /// Two bytes only: addresses do not belong in logs, and `Debug` output ends up there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// Writes bytes as hexadecimal digits.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A device of a user: the front half of a hash of the device's Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 16]);

impl fmt::Debug for DeviceId {
    /// Two bytes only, for the reason given for [`Address`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// A message, as its sender named it. Repeats within a mailbox's window are the same message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// Position of a message in its mailbox, from 1; 0 stands for "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxSeq(pub u64);

/// Incarnation of a mailbox. It changes when the mailbox may have lost messages; positions of different
/// epochs do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// A token of whoever asks, echoed in the answer; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);
