//! Giving space back from segments in which few messages live: they are copied to the end of the log.
//!
//! A segment is reused only when nothing in it lives, so one message that nobody fetches holds a whole
//! segment. And every restart begins a fresh segment, however little was in the last one. When a lane has no
//! more segments to add and few spares, its emptiest segment is walked through, mailbox by mailbox; what
//! lives is read and appended again. The old record is released when the copy is durable, so a crash finds
//! one of them or both.
//!
//! One segment per core at a time and one read in flight; a pass may be given up at any point and begun
//! again.

use shards::io::{BLOCK_BYTES, DiskOp, LaneId, OpId, SegmentId};
use shards::{AlignedBuf, AppendError, Kind, LaneSet, Lsn, Reserve};

use super::catch_up::ReadEnd;
use super::mailbox::{Entry, MailboxKey, Proof};
use super::{Relay, Staged};

/// Bytes of one read; the largest record fits, whatever its position in a block.
const READ_BYTES: usize = 128 * 1024;
/// A lane with at most so many spares, and no way to get more, is worked on.
const SPARES_LOW: usize = 2;
/// A segment is worth copying only if what lives in it is at most this part of it.
const WORTH_COPYING: u64 = 2;
/// Segments remembered as impossible to empty.
const STUCK_MAX: usize = 256;
/// Mailboxes looked at per step.
const MAILBOXES_PER_STEP: u32 = 16 * 1024;

/// Where the walk through a segment stands.
#[derive(Debug)]
pub(super) struct Walk {
    lane: LaneId,
    segment: SegmentId,
    key: MailboxKey,
    /// The next entry of that mailbox is this one or later.
    seq: u64,
    /// Something could not be read and stays where it is.
    left_behind: bool,
    /// The lane takes nothing before its next commit.
    waits: bool,
}

impl Walk {
    /// A walk that has not begun.
    pub(super) fn through(lane: LaneId, segment: SegmentId) -> Self {
        Self { lane, segment, key: MailboxKey(0), seq: 0, left_behind: false, waits: false }
    }
}

/// A read for the walk.
#[derive(Debug)]
struct Read {
    op: OpId,
    start: u64,
    bytes: usize,
}

/// Copying of one core.
pub(super) struct CopyForward {
    pub(super) walk: Option<Walk>,
    read: Option<Read>,
    buffer: Option<AlignedBuf>,
    /// Segments that a pass could not empty. They are not tried again before the next start.
    stuck: Vec<(LaneId, SegmentId)>,
}

impl CopyForward {
    pub(super) fn new() -> Self {
        Self { walk: None, read: None, buffer: Some(AlignedBuf::zeroed(READ_BYTES)), stuck: Vec::new() }
    }

    /// True if this read was started here.
    pub(super) fn owns(&self, lane: LaneId, op: OpId) -> bool {
        let lane_is = self.walk.as_ref().is_some_and(|walk| walk.lane == lane);
        lane_is && self.read.as_ref().is_some_and(|read| read.op == op)
    }
}

impl Relay {
    /// Begins with the lane that is shortest of segments, if there is one and no pass is under way.
    pub(super) fn choose_copying(&mut self, lanes: &LaneSet) {
        if self.copying.walk.is_none() {
            self.copying.walk = choose(lanes, &self.copying.stuck);
        }
    }

    /// Goes on with a pass, if there is one. Emits at most one read.
    pub fn copy_forward(&mut self, lanes: &mut LaneSet, ops: &mut Vec<DiskOp>) {
        let waits = self.copying.walk.as_ref().is_some_and(|walk| walk.waits);
        if self.copying.read.is_some() || waits {
            return;
        }
        let Some(mut walk) = self.copying.walk.take() else { return };
        let end = self.mailboxes.key_end();
        for _ in 0..MAILBOXES_PER_STEP {
            if walk.key.0 >= end {
                // The pass is over. What was copied is released as it becomes durable.
                if walk.left_behind && self.copying.stuck.len() < STUCK_MAX {
                    self.copying.stuck.push((walk.lane, walk.segment));
                }
                return;
            }
            if let Some(first) = self.next_entry(&walk) {
                self.read_for_copy(lanes, &walk, first, ops);
                break;
            }
            walk = Walk { key: MailboxKey(walk.key.0 + 1), seq: 0, ..walk };
        }
        self.copying.walk = Some(walk);
    }

    fn next_entry(&self, walk: &Walk) -> Option<Entry> {
        let mailbox = self.mailboxes.get(walk.key).filter(|mailbox| mailbox.lane == walk.lane)?;
        let mut entries = mailbox.entries.iter_from(mailbox.position_from(walk.seq));
        entries.find(|entry| entry.loc.segment == walk.segment).copied()
    }

    fn read_for_copy(&mut self, lanes: &mut LaneSet, walk: &Walk, first: Entry, ops: &mut Vec<DiskOp>) {
        let Some(buf) = self.copying.buffer.take() else { return };
        let start = first.loc.first_block();
        let record_end = u64::from(first.loc.offset) + u64::from(first.loc.len);
        let segment_bytes = u64::from(lanes.lane(walk.lane).usage().segment_bytes);
        // What follows in the segment often belongs to the same mailbox; take as much as one read brings.
        let end = (start + READ_BYTES as u64)
            .min(segment_bytes)
            .max(record_end.next_multiple_of(BLOCK_BYTES as u64));
        let bytes = (end - start) as usize;
        let (op, request) = lanes.lane_mut(walk.lane).read_blocks(walk.segment, start, bytes, buf);
        self.copying.read = Some(Read { op, start, bytes });
        ops.push(request);
    }

    /// A read for copying ended: appends what it brought.
    pub(super) fn on_copy_read(&mut self, lanes: &mut LaneSet, end: ReadEnd) {
        let (Some(read), Some(mut walk)) = (self.copying.read.take(), self.copying.walk.take()) else {
            return;
        };
        let Some(buf) = end.buf else { return };
        let got = end.result.unwrap_or(0).min(read.bytes);
        while let Some(entry) = self.next_entry(&walk) {
            let at = u64::from(entry.loc.offset);
            let inside = at >= read.start && at + u64::from(entry.loc.len) <= read.start + read.bytes as u64;
            if !inside {
                break;
            }
            let blocks = buf.get((entry.loc.first_block() - read.start) as usize..got).unwrap_or_default();
            match self.append_copy(lanes, &walk, &entry, blocks) {
                Ok(copied) => {
                    walk.seq = entry.seq + 1;
                    walk.left_behind |= !copied;
                }
                Err(AppendError::Busy) => {
                    walk.waits = true;
                    break;
                }
                Err(_) => {
                    // No room even in the reserve, or the lane is ending: nothing is gained by going on.
                    self.copying.buffer = Some(buf);
                    return;
                }
            }
        }
        self.copying.buffer = Some(buf);
        self.copying.walk = Some(walk);
    }

    /// Appends one message again. `false` if it cannot be read: it stays where it is, for whoever wants it to
    /// find out.
    fn append_copy(
        &mut self,
        lanes: &mut LaneSet,
        walk: &Walk,
        entry: &Entry,
        blocks: &[u8],
    ) -> Result<bool, AppendError> {
        let Ok(record) = lanes.lane(walk.lane).parse_read(entry.loc, blocks) else {
            self.stats.relay.failed_reads.inc();
            return Ok(false);
        };
        let lane = lanes.lane_mut(walk.lane);
        let lsn = lane.append_with(Reserve::Use, Kind::Message, entry.expires_s, &[record.payload])?;
        let copied = Staged::Copied { lsn, mailbox: walk.key, seq: entry.seq, from: entry.loc };
        self.mailboxes[walk.key].staged_else += 1;
        self.book(walk.lane).staged.push_back(copied);
        self.stats.relay.copied_forward.inc();
        Ok(true)
    }

    /// A copy is durable: it takes the place of the original, unless that has died meanwhile.
    pub(super) fn copy_committed(
        &mut self,
        lane: LaneId,
        mailbox: MailboxKey,
        seq: u64,
        from: shards::RecordLoc,
        to: shards::RecordLoc,
    ) {
        let mailbox = &mut self.mailboxes[mailbox];
        mailbox.staged_else -= 1;
        let at = mailbox.position_from(seq);
        let entry = mailbox.entries.get_mut(at).filter(|entry| entry.seq == seq && entry.loc == from);
        let dead = match entry {
            Some(entry) => std::mem::replace(&mut entry.loc, to),
            None => to,
        };
        // Its id is found with the copy from now on, whether the message lives or not.
        if let Some(known) = mailbox.remembered_mut(seq) {
            known.proof = Proof::in_segment(to.segment);
        }
        self.book(lane).replaced.push((dead, Kind::Message));
    }

    /// A batch of a lane is committed: it has room again.
    pub(super) fn copying_may_go_on(&mut self, lane: LaneId) {
        if let Some(walk) = self.copying.walk.as_mut().filter(|walk| walk.lane == lane) {
            walk.waits = false;
        }
    }
}

/// The lane that needs space most, and its emptiest segment if copying that gives some.
fn choose(lanes: &LaneSet, stuck: &[(LaneId, SegmentId)]) -> Option<Walk> {
    let mut short = lanes.iter().filter(|(_, lane)| lane.is_short_of(SPARES_LOW));
    short.find_map(|(lane, log)| {
        let load = log.sparsest_segment(|segment| !stuck.contains(&(lane, segment)))?;
        let worth = load.live_bytes * WORTH_COPYING <= u64::from(log.usage().segment_bytes);
        worth.then(|| Walk::through(lane, load.segment))
    })
}

impl Staged {
    /// The position in the log that was given to it.
    pub(super) fn lsn(&self) -> Lsn {
        match self {
            Self::Message { lsn, .. }
            | Self::State { lsn, .. }
            | Self::Dedup { lsn, .. }
            | Self::Copied { lsn, .. } => *lsn,
        }
    }
}
