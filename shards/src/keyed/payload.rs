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
//! | 48 | 32 | BLAKE3 of the body; of a lease the serial of the record that it extends, then zeros |
//! | 80 | 8 | serial: position in the order in which this partition took records |
//! | 88 | 8 | birth: serial of the first of the records that replaced each other up to this one; 0 if not
//! known |
//! | 96 | 2 | length of the lease |
//! | 98 | 1 | family, as [`Family`] numbers them |
//! | 99 | 1 | zero |
//! | 100 | 4 | CRC32C of kind and expiry, as in the record's own header, and of the head before it |
//! | 104 | | card, lease, body, then zeros |
//!
//! The head has its own checksum, so that it can be read without the body.

use crate::checksum::crc32c;
use crate::format::field::{bytes_at, put, u16_at, u32_at, u64_at};
use crate::format::record::{Kind, RECORD_HEADER_BYTES, RecordView};
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
    /// Serial of the first of the records that replaced each other, without a time at which there was nothing
    /// of the identity, up to this one. 0 if not known.
    pub(crate) birth: u64,
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
        put(&mut out, 48, &self.root);
        put(&mut out, 80, &self.serial.to_le_bytes());
        put(&mut out, 88, &self.birth.to_le_bytes());
        put(&mut out, 96, &self.lease_bytes.to_le_bytes());
        put(&mut out, 98, &[self.identity.family as u8]);
        let crc = checksum(self.kind, self.expires_s, &out);
        put(&mut out, CRC_AT, &crc.to_le_bytes());
        out
    }

    /// The head at the front of the payload of a record of this kind and expiry; `None` if it is damaged, or
    /// none that belongs to such a record.
    pub(super) fn decode(kind: Kind, expires_s: u32, payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = payload.first_chunk()?;
        if u32_at(bytes, CRC_AT) != checksum(kind, expires_s, bytes) {
            return None;
        }
        let family = Family::from_byte(bytes[98])?;
        let fits = kind == family.kind() || matches!(kind, Kind::Tombstone | Kind::Lease);
        fits.then(|| Self {
            identity: Identity { family, key: bytes_at(bytes, 0), index: bytes[32] },
            kind,
            expires_s,
            code: bytes[33],
            card_bytes: u16_at(bytes, 34),
            body_bytes: u32_at(bytes, 36),
            sequence: u64_at(bytes, 40),
            root: bytes_at(bytes, 48),
            serial: u64_at(bytes, 80),
            birth: u64_at(bytes, 88),
            lease_bytes: u16_at(bytes, 96),
        })
    }

    /// The head of the record at the front of `bytes`, of which no more than the head need be there.
    pub(super) fn of_record(bytes: &[u8]) -> Option<Self> {
        let (header, payload) = bytes.split_at_checked(RECORD_HEADER_BYTES)?;
        Self::decode(Kind::from_byte(header[4])?, u32_at(header, 12), payload)
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
    pub fn parse(record: &RecordView<'a>) -> Option<Self> {
        let bytes = record.payload;
        let head = Head::decode(record.kind, record.expires_s, bytes)?;
        let (card, rest) = bytes[HEAD_BYTES..].split_at_checked(usize::from(head.card_bytes))?;
        let (lease, rest) = rest.split_at_checked(usize::from(head.lease_bytes))?;
        let (body, padding) = rest.split_at_checked(head.body_bytes as usize)?;
        padding.iter().all(|byte| *byte == 0).then_some(Self { head, card, lease, body })
    }
}

fn checksum(kind: Kind, expires_s: u32, head: &[u8; HEAD_BYTES]) -> u32 {
    let mut bytes = [0; 5 + CRC_AT];
    put(&mut bytes, 0, &[kind as u8]);
    put(&mut bytes, 1, &expires_s.to_le_bytes());
    put(&mut bytes, 5, &head[..CRC_AT]);
    crc32c(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Lsn;
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
            birth: 10,
            root: [5; 32],
        }
    }

    fn encoded() -> Vec<u8> {
        [&head().encode()[..], b"card", b"le", b"body!", &[0; 13]].concat()
    }

    fn parse(payload: &[u8]) -> Option<Payload<'_>> {
        Payload::parse(&RecordView { lsn: Lsn(1), kind: Kind::Shard, expires_s: 77, payload })
    }

    #[test]
    fn what_was_written_is_read_and_belongs_to_its_record() {
        let bytes = encoded();
        let payload = Payload { head: head(), card: b"card", lease: b"le", body: b"body!" };
        assert_eq!(parse(&bytes), Some(payload));
        for (kind, expires_s) in [(Kind::Shard, 78), (Kind::Tombstone, 77), (Kind::DhtRecord, 77)] {
            assert_eq!(Head::decode(kind, expires_s, &bytes), None);
        }
    }

    #[test]
    fn the_layout_is_what_it_was() {
        let digest = blake3::hash(&encoded()).to_hex();
        assert_eq!(digest.as_str(), "7b9a31ac59dd5f5f0fe38f21bdcf700a883f84637f584a58210fa7f9f4f50711");
    }

    #[test]
    fn any_flipped_bit_of_the_head_is_noticed_and_any_length_that_does_not_fit() {
        for bit in 0..HEAD_BYTES * 8 {
            let mut bytes = encoded();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bytes), None, "bit {bit}");
        }
        for cut in 0..HEAD_BYTES + 11 {
            assert_eq!(parse(&encoded()[..cut]), None, "{cut} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
