//! What recovery met. Loss of acknowledged data is named by lane, LSN range and reason; nothing is passed
//! over.

use crate::format::Lsn;
use crate::io::LaneId;

/// Ranges that a report names one by one; beyond that, the last one is widened.
const RANGES_MAX: usize = 1024;

/// Everything that can be found in a segment file. Each has a row in `docs/ON_DISK.md` and a test that
/// reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum RecoveryCase {
    /// A batch as it was written.
    Batch,
    /// Zeros, or remains of an earlier use of the file, where the next batch would be, and nothing behind.
    EndOfLog,
    /// A batch that was being written when power went; it was never acknowledged. Dropped whole.
    TornTail,
    /// A batch of acknowledged records with wrong bytes in it. Its sound records are kept.
    DamagedBatch,
    /// Where acknowledged records must be, there is nothing of them.
    LostWrite,
    /// A sound batch that belongs somewhere else. Ignored here; missing there.
    Misdirected,
    /// A block that the device cannot read.
    Unreadable,
    /// A segment in use whose header is not sound; its use was learned from elsewhere.
    BadSegmentHeader,
    /// A file with a sound header of another store, lane or segment. Left alone.
    ForeignSegment,
    /// A segment with live records whose file is gone.
    MissingSegment,
    /// A segment file of the wrong size. Read, and never written again.
    WrongSize,
    /// Records of a segment that were written again in a later one after a failed or torn write. Ignored
    /// here.
    Superseded,
    /// A segment without live records.
    FreeSegment,
}

const CASES: usize = RecoveryCase::FreeSegment as usize + 1;

/// Why acknowledged records are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// Wrong bytes where they were.
    Damaged,
    /// Never written, or written elsewhere.
    LostWrite,
    /// The device cannot read the blocks. At the very end of the log this also stands for records of which it
    /// cannot be known whether they were ever acknowledged; then the range names the first such LSN only.
    Unreadable,
    /// The file is gone.
    MissingSegment,
}

/// A run of acknowledged records that are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// Lane.
    pub lane: LaneId,
    /// First LSN.
    pub first: Lsn,
    /// Last LSN.
    pub last: Lsn,
    /// Why.
    pub reason: LossReason,
}

/// The outcome of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Lane.
    pub lane: LaneId,
    /// Records given to the visitor.
    pub records: u64,
    /// Bytes of whole batches that were accepted.
    pub log_bytes: u64,
    /// Bytes dropped as torn.
    pub torn_bytes: u64,
    /// Blocks that could not be read, each tried on its own.
    pub unreadable_blocks: u64,
    /// Losses that no earlier recovery's owner has acknowledged, at most 1,024 ranges; the last may stand for
    /// more.
    pub lost: Vec<LostRange>,
    /// Number of records in `lost`.
    pub lost_records: u64,
    /// Records lost before and acknowledged with [`crate::Lane::acknowledge_loss`].
    pub known_lost_records: u64,
    /// LSN that the next record will get.
    pub next_lsn: Lsn,
    cases: [u64; CASES],
}

impl RecoveryReport {
    pub(crate) fn new(lane: LaneId) -> Self {
        Self {
            lane,
            records: 0,
            log_bytes: 0,
            torn_bytes: 0,
            unreadable_blocks: 0,
            lost: Vec::new(),
            lost_records: 0,
            known_lost_records: 0,
            next_lsn: Lsn(1),
            cases: [0; CASES],
        }
    }

    /// How often a case was met.
    pub fn count(&self, case: RecoveryCase) -> u64 {
        self.cases[case as usize]
    }

    /// True if acknowledged records are lost that were not known to be: mailboxes of this lane need a new
    /// epoch.
    pub fn has_loss(&self) -> bool {
        self.lost_records > 0
    }

    pub(crate) fn note(&mut self, case: RecoveryCase) {
        self.cases[case as usize] += 1;
    }

    /// Adds the losses of one segment. They are old news if there are no more of them than `known`.
    pub(crate) fn add_losses(&mut self, losses: &Losses, known: u32) {
        if losses.records <= u64::from(known) {
            self.known_lost_records += losses.records;
            return;
        }
        self.lost_records += losses.records;
        for range in &losses.ranges {
            push_bounded(&mut self.lost, *range);
        }
    }
}

/// The losses found in one segment.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    ranges: Vec<LostRange>,
    pub records: u64,
}

impl Losses {
    /// Adds the range if it is not empty.
    pub fn add(&mut self, lane: LaneId, first: Lsn, last: Lsn, reason: LossReason) {
        if last < first {
            return;
        }
        self.records += last.0 - first.0 + 1;
        push_bounded(&mut self.ranges, LostRange { lane, first, last, reason });
    }
}

fn push_bounded(ranges: &mut Vec<LostRange>, range: LostRange) {
    let full = ranges.len() >= RANGES_MAX;
    match ranges.last_mut() {
        Some(last) if last.reason == range.reason && last.last.next() == range.first => {
            last.last = range.last
        }
        Some(last) if full => last.last = range.last,
        _ => ranges.push(range),
    }
}
