//! One mailbox: the live messages of an address and the cursor of each of its devices.
//!
//! Invariants: `entries` rises strictly in `seq`; every entry lies above the floor, the lowest cursor of all
//! devices; `staged` counts messages that have a number but are not committed; a mailbox without devices
//! keeps everything until it expires.

use std::num::NonZeroU32;

use shards::RecordLoc;
use shards::io::{LaneId, SegmentId};

use super::attach::Attached;
use super::chunks::Chunks;
use super::quota::Usage;
use super::records::MESSAGE_HEAD_BYTES;
use crate::wire::{Address, DeviceId, Epoch, MessageId};

/// Slot of a mailbox on its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxKey(pub u32);

/// A committed message that is neither acknowledged by all devices nor expired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub seq: u64,
    pub loc: RecordLoc,
    pub expires_s: u32,
    pub accepted_s: u32,
    /// Its sender was told that a device acknowledged it, or never asked.
    pub notified: bool,
}

impl Entry {
    /// What counts against the limits of a mailbox: the payload without the record's own head.
    pub(super) fn payload_bytes(&self) -> u32 {
        self.loc.payload_bytes().saturating_sub(MESSAGE_HEAD_BYTES as u32)
    }
}

/// A message id in the dedup window, oldest first. There are millions: 32 bytes each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    pub id: MessageId,
    pub seq: u64,
    pub at_s: u32,
    pub proof: Proof,
}

const _: () = assert!(size_of::<Entry>() == 32 && size_of::<Remembered>() == 32);

/// Where the record stands that proves a remembered id: in a segment, or nowhere yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof(Option<NonZeroU32>);

impl Proof {
    /// Its record is not committed.
    pub(super) const NOT_YET: Self = Self(None);

    /// It is committed, in this segment.
    pub(super) fn in_segment(segment: SegmentId) -> Self {
        Self(NonZeroU32::MIN.checked_add(segment.0))
    }
}

/// One device of the mailbox's owner.
#[derive(Debug)]
pub(super) struct Device {
    pub id: DeviceId,
    /// Everything up to and including this number is acknowledged.
    pub cursor: u64,
    /// Highest number ever pushed to it since this process started.
    pub pushed: u64,
    pub last_seen_s: u32,
    pub session: Option<Box<Attached>>,
}

/// Where the state of a mailbox stands on disk.
#[derive(Debug, Default)]
pub(super) struct StateOnDisk {
    /// The newest committed state record.
    pub loc: Option<RecordLoc>,
    /// Memory is ahead of the newest staged or committed record.
    pub dirty: bool,
    /// It has an epoch that tells of a loss, and no record of that is committed.
    pub owes_epoch: bool,
    /// It waits in the lane's list of dirty mailboxes.
    pub listed: bool,
}

/// One mailbox.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub address: Address,
    pub lane: LaneId,
    pub epoch: Epoch,
    /// Number of the next message.
    pub next_seq: u64,
    /// Highest committed number.
    pub committed_seq: u64,
    pub entries: Chunks<Entry>,
    /// Payload bytes of `entries` and of what is staged.
    pub bytes: u64,
    pub staged: u32,
    /// Records that are on their way to the log and are no new messages: states, ids, copies.
    pub staged_else: u32,
    pub devices: Vec<Device>,
    pub remembered: Chunks<Remembered>,
    pub state: StateOnDisk,
    /// What its owner has used of a sender's rates.
    pub usage: Usage,
    /// Earliest expiry among `entries`; never later than the truth.
    pub expires_first_s: u32,
}

impl Mailbox {
    pub(super) fn new(address: Address, lane: LaneId, epoch: Epoch) -> Self {
        Self {
            address,
            lane,
            epoch,
            next_seq: 1,
            committed_seq: 0,
            entries: Chunks::new(),
            bytes: 0,
            staged: 0,
            staged_else: 0,
            devices: Vec::new(),
            remembered: Chunks::new(),
            state: StateOnDisk::default(),
            usage: Usage::default(),
            expires_first_s: u32::MAX,
        }
    }

    pub(super) fn device_index(&self, id: DeviceId) -> Option<usize> {
        self.devices.iter().position(|device| device.id == id)
    }

    /// Everything up to this number is acknowledged by all devices; 0 if there is none.
    pub(super) fn floor(&self) -> u64 {
        self.devices.iter().map(|device| device.cursor).min().unwrap_or(0)
    }

    /// Messages that count against the mailbox's limit.
    pub(super) fn held(&self) -> u64 {
        self.entries.len() as u64 + u64::from(self.staged)
    }

    /// Adds a committed message. Numbers are committed in rising order.
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.back().is_none_or(|last| last.seq < entry.seq));
        self.expires_first_s = self.expires_first_s.min(entry.expires_s);
        self.committed_seq = self.committed_seq.max(entry.seq);
        self.entries.push_back(entry);
    }

    /// Adds a message found while the log is replayed, where copies come later than what they stand among.
    /// Returns the place of the original if this is a copy of a message that is there.
    pub(super) fn place(&mut self, entry: Entry) -> Option<RecordLoc> {
        self.expires_first_s = self.expires_first_s.min(entry.expires_s);
        let at = self.position_from(entry.seq);
        match self.entries.get_mut(at).filter(|there| there.seq == entry.seq) {
            Some(there) => Some(std::mem::replace(&mut there.loc, entry.loc)),
            None => {
                self.entries.insert(at, entry);
                None
            }
        }
    }

    /// The remembered id of a message, by its number.
    pub(super) fn remembered_mut(&mut self, seq: u64) -> Option<&mut Remembered> {
        let at = self.remembered_at(seq)?;
        self.remembered.get_mut(at)
    }

    /// The remembered id of a message, by the low half of its number.
    pub(super) fn remembered_by_low(&self, seq_low: u32) -> Option<&Remembered> {
        let first = self.remembered.front()?.seq;
        let seq = first + u64::from(seq_low.wrapping_sub(first as u32));
        self.remembered.get(self.remembered_at(seq)?)
    }

    /// Where a number stands among the remembered. Numbers follow each other unless some were refused, so it
    /// is looked for first where it would be then.
    pub(super) fn remembered_at(&self, seq: u64) -> Option<usize> {
        let guess = usize::try_from(seq.checked_sub(self.remembered.front()?.seq)?).ok()?;
        if self.remembered.get(guess).is_some_and(|entry| entry.seq == seq) {
            return Some(guess);
        }
        let at = self.remembered.partition_point(|entry| entry.seq < seq);
        self.remembered.get(at).is_some_and(|entry| entry.seq == seq).then_some(at)
    }

    /// Index of the first entry numbered `seq` or higher.
    pub(super) fn position_from(&self, seq: u64) -> usize {
        self.entries.partition_point(|entry| entry.seq < seq)
    }

    /// Nothing refers to this mailbox any more and nothing would be forgotten with it.
    pub(super) fn is_idle(&self) -> bool {
        let rests = self.staged_else == 0 && !self.state.listed;
        self.held() == 0 && self.devices.is_empty() && self.remembered.is_empty() && rests
    }
}
