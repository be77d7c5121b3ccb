//! The relay's records in a lane log. `docs/ON_DISK.md` has the tables; all integers are little-endian.
//!
//! Decoding never panics and never allocates more than the bytes it was given: a record has passed its
//! checksum, but a checksum proves only that the disk gave back what some version of this program wrote.

use crate::wire::{Address, DeviceId, Epoch, MessageId};

/// Bytes before the payload of a message record.
pub(super) const MESSAGE_HEAD_BYTES: usize = 128;
const STATE_HEAD_BYTES: usize = 64;
const DEVICE_BYTES: usize = 32;
const DEDUP_HEAD_BYTES: usize = 48;
const DEDUP_ENTRY_BYTES: usize = 32;
/// Ids in one dedup record.
const DEDUP_IDS_MAX: usize = 512;

const FLAG_NOTIFY: u8 = 1;
const FLAG_ANONYMOUS: u8 = 2;

/// The record of a durable message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageRecord<'a> {
    pub to: Address,
    /// Sender; zero if it is neither to be told to the recipient nor needed for a DELIVERED receipt.
    pub from: Address,
    pub id: MessageId,
    /// The id as dedup knows it, mixed with who sent it.
    pub dedup: MessageId,
    pub seq: u64,
    pub sent_ms: u64,
    pub accepted_ms: u64,
    /// The sender wants a DELIVERED receipt.
    pub notify: bool,
    /// The recipient is not told who sent it.
    pub anonymous: bool,
    pub payload: &'a [u8],
}

impl<'a> MessageRecord<'a> {
    pub(super) fn head(&self) -> [u8; MESSAGE_HEAD_BYTES] {
        let mut head = [0; MESSAGE_HEAD_BYTES];
        head[..32].copy_from_slice(&self.to.0);
        head[32..64].copy_from_slice(&self.from.0);
        head[64..80].copy_from_slice(&self.id.0);
        head[80..88].copy_from_slice(&self.seq.to_le_bytes());
        head[88..96].copy_from_slice(&self.sent_ms.to_le_bytes());
        head[96..104].copy_from_slice(&self.accepted_ms.to_le_bytes());
        head[104] = u8::from(self.notify) * FLAG_NOTIFY + u8::from(self.anonymous) * FLAG_ANONYMOUS;
        head[112..128].copy_from_slice(&self.dedup.0);
        head
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (head, payload) = bytes.split_first_chunk::<MESSAGE_HEAD_BYTES>()?;
        Some(Self {
            to: Address(array(head, 0)),
            from: Address(array(head, 32)),
            id: MessageId(array(head, 64)),
            dedup: MessageId(array(head, 112)),
            seq: u64::from_le_bytes(array(head, 80)),
            sent_ms: u64::from_le_bytes(array(head, 88)),
            accepted_ms: u64::from_le_bytes(array(head, 96)),
            notify: head[104] & FLAG_NOTIFY != 0,
            anonymous: head[104] & FLAG_ANONYMOUS != 0,
            payload,
        })
    }

    /// The sender as the recipient may know it.
    pub(super) fn shown_from(&self) -> Address {
        if self.anonymous { Address([0; 32]) } else { self.from }
    }
}

/// A device in a state record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceState {
    pub id: DeviceId,
    pub cursor: u64,
    pub last_seen_s: u32,
}

/// Everything about a mailbox that is not a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StateRecord {
    pub address: Address,
    pub epoch: Epoch,
    pub next_seq: u64,
    pub devices: Vec<DeviceState>,
}

impl StateRecord {
    /// Appends the encoding of a state to `out`.
    pub(super) fn encode(
        address: &Address,
        epoch: Epoch,
        next_seq: u64,
        devices: impl ExactSizeIterator<Item = DeviceState>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(&address.0);
        out.extend_from_slice(&epoch.0.to_le_bytes());
        out.extend_from_slice(&next_seq.to_le_bytes());
        out.extend_from_slice(&(devices.len() as u64).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        for device in devices {
            out.extend_from_slice(&device.id.0);
            out.extend_from_slice(&device.cursor.to_le_bytes());
            out.extend_from_slice(&u64::from(device.last_seen_s).to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<STATE_HEAD_BYTES>()?;
        let count = usize::try_from(u64::from_le_bytes(array(head, 48))).ok()?;
        if rest.len() != count.checked_mul(DEVICE_BYTES)? {
            return None;
        }
        let devices = rest.as_chunks::<DEVICE_BYTES>().0.iter().map(|bytes| DeviceState {
            id: DeviceId(array(bytes, 0)),
            cursor: u64::from_le_bytes(array(bytes, 16)),
            last_seen_s: u32::try_from(u64::from_le_bytes(array(bytes, 24))).unwrap_or(u32::MAX),
        });
        Some(Self {
            address: Address(array(head, 0)),
            epoch: Epoch(u64::from_le_bytes(array(head, 32))),
            next_seq: u64::from_le_bytes(array(head, 40)),
            devices: devices.collect(),
        })
    }
}

/// An id carried out of a segment that is about to be reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DedupEntry {
    pub id: MessageId,
    pub seq: u64,
    pub at_s: u32,
}

/// How many ids a dedup record may hold in a lane whose records have at most this payload.
pub(super) fn dedup_ids_within(payload_bytes_max: usize) -> usize {
    (payload_bytes_max.saturating_sub(DEDUP_HEAD_BYTES) / DEDUP_ENTRY_BYTES).clamp(1, DEDUP_IDS_MAX)
}

/// Appends the encoding of a dedup record to `out`.
pub(super) fn encode_dedup(address: &Address, entries: impl Iterator<Item = DedupEntry>, out: &mut Vec<u8>) {
    out.extend_from_slice(&address.0);
    out.extend_from_slice(&[0; DEDUP_HEAD_BYTES - 32]);
    for entry in entries {
        out.extend_from_slice(&entry.id.0);
        out.extend_from_slice(&entry.seq.to_le_bytes());
        out.extend_from_slice(&u64::from(entry.at_s).to_le_bytes());
    }
}

/// The mailbox and the ids of a dedup record.
pub(super) fn decode_dedup(bytes: &[u8]) -> Option<(Address, impl Iterator<Item = DedupEntry>)> {
    let (head, rest) = bytes.split_first_chunk::<DEDUP_HEAD_BYTES>()?;
    let (entries, tail) = rest.as_chunks::<DEDUP_ENTRY_BYTES>();
    if !tail.is_empty() {
        return None;
    }
    let entries = entries.iter().map(|bytes| DedupEntry {
        id: MessageId(array(bytes, 0)),
        seq: u64::from_le_bytes(array(bytes, 16)),
        at_s: u32::try_from(u64::from_le_bytes(array(bytes, 24))).unwrap_or(u32::MAX),
    });
    Some((Address(array(head, 0)), entries))
}

/// Decodes any bytes as every record of the relay: for the fuzz target, and for the random test that stands
/// in for it.
pub fn fuzz_records(bytes: &[u8]) {
    if let Some(message) = MessageRecord::decode(bytes) {
        assert_eq!(message.payload.len() + MESSAGE_HEAD_BYTES, bytes.len());
    }
    if let Some(state) = StateRecord::decode(bytes) {
        assert_eq!(STATE_HEAD_BYTES + state.devices.len() * DEVICE_BYTES, bytes.len());
    }
    if let Some((_, entries)) = decode_dedup(bytes) {
        assert_eq!(DEDUP_HEAD_BYTES + entries.count() * DEDUP_ENTRY_BYTES, bytes.len());
    }
}

/// `N` bytes at a constant offset of a fixed-size head.
fn array<const N: usize, const M: usize>(bytes: &[u8; M], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::any;

    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_understood(bytes in collection::vec(any::<u8>(), 0..400)) {
            fuzz_records(&bytes);
        }
    }

    fn message() -> MessageRecord<'static> {
        MessageRecord {
            to: Address([1; 32]),
            from: Address([2; 32]),
            id: MessageId([3; 16]),
            dedup: MessageId([7; 16]),
            seq: 4,
            sent_ms: 5,
            accepted_ms: 6,
            notify: true,
            anonymous: true,
            payload: b"sealed",
        }
    }

    fn state() -> (Vec<u8>, StateRecord) {
        let device = DeviceState { id: DeviceId([9; 16]), cursor: 7, last_seen_s: 8 };
        let state =
            StateRecord { address: Address([1; 32]), epoch: Epoch(2), next_seq: 3, devices: vec![device] };
        let mut bytes = Vec::new();
        StateRecord::encode(&state.address, state.epoch, 3, [device].into_iter(), &mut bytes);
        (bytes, state)
    }

    #[test]
    fn a_message_survives_the_round_trip() {
        let record = message();
        let bytes = [&record.head()[..], record.payload].concat();
        assert_eq!(MessageRecord::decode(&bytes), Some(record));
        assert_eq!(record.shown_from(), Address([0; 32]));
    }

    #[test]
    fn a_state_survives_the_round_trip() {
        let (bytes, state) = state();
        assert_eq!(StateRecord::decode(&bytes), Some(state));
    }

    #[test]
    fn dedup_entries_survive_the_round_trip() {
        let entries: Vec<_> =
            (0..5u8).map(|n| DedupEntry { id: MessageId([n; 16]), seq: n.into(), at_s: n.into() }).collect();
        let mut bytes = Vec::new();
        encode_dedup(&Address([4; 32]), entries.iter().copied(), &mut bytes);
        let (address, decoded) = decode_dedup(&bytes).unwrap();
        assert_eq!((address, decoded.collect::<Vec<_>>()), (Address([4; 32]), entries));
    }

    #[test]
    fn every_truncation_is_refused_or_shortens_only_a_payload() {
        let (bytes, _) = state();
        for cut in 0..bytes.len() {
            assert_eq!(StateRecord::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        let head = message().head();
        for cut in 0..head.len() {
            assert_eq!(MessageRecord::decode(&head[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_state_that_claims_more_devices_than_it_has_is_refused() {
        let (mut bytes, _) = state();
        bytes[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(StateRecord::decode(&bytes), None);
    }

    #[test]
    fn the_formats_have_not_changed_unseen() {
        let mut bytes = [&message().head()[..], message().payload].concat();
        bytes.extend(state().0);
        let entry = DedupEntry { id: MessageId([1; 16]), seq: 2, at_s: 3 };
        encode_dedup(&Address([4; 32]), [entry].into_iter(), &mut bytes);
        let digest = blake3::hash(&bytes).to_hex();
        assert_eq!(
            digest.as_str(),
            "5c9db7050199c629e91c02d8a4d117f208d70967e32d60ddbf0a2a0e8544388a",
            "a new format needs a new record version"
        );
    }
}
