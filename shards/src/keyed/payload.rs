//! The payload of a keyed record: a head of fixed size, then card, lease and body.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | key |
//! | 32 | 1 | index of the shard in its stripe, 255 for what is no shard |
//! | 33 | 1 | id of the code that made the stripe, 0 for what is no shard |
//! | 34 | 2 | length of the card |
//! | 36 | 4 | length of the body |
//! | 40 | 8 | sequence number, its owner's |
//! | 48 | 8 | serial: position in the order in which this partition took records |
//! | 56 | 2 | length of the lease |
//! | 58 | 1 | family, as [`Family`] numbers them |
//! | 59 | 1 | kind, as in the record's own header |
//! | 60 | 4 | expiry, as in the record's own header |
//! | 64 | 32 | BLAKE3 of the body; of a lease the serial of the record that it extends, then zeros |
//! | 96 | 4 | zero |
//! | 100 | 4 | CRC32C of the head before it |
//! | 104 | | card, lease, body, then zeros |
//!
//! The head has its own checksum and repeats what it needs of the record's header, so that it can be read
//! without the body.

use crate::checksum::crc32c;
use crate::format::field::{bytes_at, put, u16_at, u32_at, u64_at};
use crate::format::record::Kind;
use crate::index::Prefix;
use crate::keyed::{Family, Identity};

/// Bytes of the head.
pub const HEAD_BYTES: usize = 104;
const CRC_AT: usize = HEAD_BYTES - 4;

/// What stands before card, lease and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whose record it is.
    pub identity: Identity,
    /// What it is: the family's own kind, a tombstone or a lease.
    pub kind: Kind,
    /// It is kept until the end of the hour in which this lies, in seconds since 1970.
    pub expires_s: u32,
    /// Code that made the stripe, 0 for what is no shard.
    pub code: u8,
    /// Length of the card, in bytes.
    pub card_bytes: u16,
    /// Length of the lease, in bytes.
    pub lease_bytes: u16,
    /// Length of the body, in bytes.
    pub body_bytes: u32,
    /// Its owner's sequence number.
    pub sequence: u64,
    /// Position in the order in which the partition took it. A copy keeps it.
    pub(crate) serial: u64,
    /// BLAKE3 of the body; of a lease the serial of the record that it extends, then zeros.
    pub root: [u8; 32],
}

/// A whole payload, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Its head.
    pub head: Head,
    /// The signed description of the stripe, or what proves a deletion.
    pub card: &'a [u8],
    /// The signed lease that came with it.
    pub lease: &'a [u8],
    /// The shard, or the record.
    pub body: &'a [u8],
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        put(&mut out, 0, &self.identity.key);
        put(&mut out, 32, &[self.identity.index, self.code]);
        put(&mut out, 34, &self.card_bytes.to_le_bytes());
        put(&mut out, 36, &self.body_bytes.to_le_bytes());
        put(&mut out, 40, &self.sequence.to_le_bytes());
        put(&mut out, 48, &self.serial.to_le_bytes());
        put(&mut out, 56, &self.lease_bytes.to_le_bytes());
        put(&mut out, 58, &[self.identity.family as u8, self.kind as u8]);
        put(&mut out, 60, &self.expires_s.to_le_bytes());
        put(&mut out, 64, &self.root);
        let crc = crc32c(&out[..CRC_AT]);
        put(&mut out, CRC_AT, &crc.to_le_bytes());
        out
    }

    /// The head at the front of `bytes`; `None` if it is damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        if u32_at(bytes, CRC_AT) != crc32c(&bytes[..CRC_AT]) {
            return None;
        }
        let family = Family::from_byte(bytes[58])?;
        Some(Self {
            identity: Identity { family, key: bytes_at(bytes, 0), index: bytes[32] },
            kind: Kind::from_byte(bytes[59])?,
            expires_s: u32_at(bytes, 60),
            code: bytes[33],
            card_bytes: u16_at(bytes, 34),
            body_bytes: u32_at(bytes, 36),
            sequence: u64_at(bytes, 40),
            serial: u64_at(bytes, 48),
            lease_bytes: u16_at(bytes, 56),
            root: bytes_at(bytes, 64),
        })
    }

    /// Serial of the record that a lease extends.
    pub(super) fn extends(&self) -> u64 {
        u64_at(&self.root, 0)
    }

    /// First bytes of the key.
    pub(super) fn prefix(&self) -> Prefix {
        Prefix::of(&self.identity.key)
    }
}

impl<'a> Payload<'a> {
    /// Takes a payload apart; `None` if it is none. What follows the body must be zero.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head = Head::decode(bytes)?;
        let (card, rest) = bytes[HEAD_BYTES..].split_at_checked(usize::from(head.card_bytes))?;
        let (lease, rest) = rest.split_at_checked(usize::from(head.lease_bytes))?;
        let (body, padding) = rest.split_at_checked(head.body_bytes as usize)?;
        padding.iter().all(|byte| *byte == 0).then_some(Self { head, card, lease, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        Head {
            identity: Identity { family: Family::Shard, key: [7; 32], index: 3 },
            kind: Kind::Shard,
            expires_s: 77,
            code: 1,
            card_bytes: 4,
            lease_bytes: 2,
            body_bytes: 5,
            sequence: 9,
            serial: 11,
            root: [5; 32],
        }
    }

    fn encoded() -> Vec<u8> {
        [&head().encode()[..], b"card", b"le", b"body!", &[0; 13]].concat()
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = encoded();
        let payload = Payload { head: head(), card: b"card", lease: b"le", body: b"body!" };
        assert_eq!(Payload::parse(&bytes), Some(payload));
    }

    #[test]
    fn the_layout_is_what_it_was() {
        let digest = blake3::hash(&encoded()).to_hex();
        assert_eq!(digest.as_str(), "1efe273a2d7b02cf2da8f3947b90a6bf40bcc99adba8ab2dfa72a59ed30e53f7");
    }

    #[test]
    fn any_flipped_bit_of_the_head_is_noticed_and_any_length_that_does_not_fit() {
        for bit in 0..HEAD_BYTES * 8 {
            let mut bytes = encoded();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Payload::parse(&bytes), None, "bit {bit}");
        }
        for cut in 0..HEAD_BYTES + 11 {
            assert_eq!(Payload::parse(&encoded()[..cut]), None, "{cut} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Payload::parse(&bytes);
        }
    }
}
