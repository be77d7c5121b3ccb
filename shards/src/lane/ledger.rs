//! How much of each segment is still alive. A segment whose count reaches zero can be used again.
//!
//! The owner of the records says when one dies; the log never guesses. Counting is exact, so a record must be
//! released once: a count that would fall below zero means that a segment could be overwritten under a live
//! record, and ends the process.

use crate::format::record::Kind;
use crate::io::SegmentId;
use crate::lane::RecordLoc;

/// Live records and bytes per segment of one lane.
#[derive(Debug)]
pub struct Ledger {
    /// By number of the segment, as far as any record was counted.
    segments: Vec<Live>,
    /// Their sum.
    total: Live,
}

/// What lives in one segment. Bytes include record headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub messages: u64,
    pub message_bytes: u64,
    pub metadata: u64,
    pub metadata_bytes: u64,
}

impl Live {
    /// True if no record lives.
    pub fn is_empty(&self) -> bool {
        self.messages == 0 && self.metadata == 0
    }

    /// All live records.
    pub fn records(&self) -> u64 {
        self.messages + self.metadata
    }

    /// Bytes of all live records.
    pub fn bytes(&self) -> u64 {
        self.message_bytes + self.metadata_bytes
    }

    fn of(&mut self, kind: Kind) -> (&mut u64, &mut u64) {
        if kind.is_metadata() {
            (&mut self.metadata, &mut self.metadata_bytes)
        } else {
            (&mut self.messages, &mut self.message_bytes)
        }
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { segments: Vec::new(), total: Live::default() }
    }

    /// The record at `loc` is dead: delivered, expired or replaced. To be called once per record.
    ///
    /// # Panics
    /// If more records of the segment are released than were counted.
    pub fn release(&mut self, loc: RecordLoc, kind: Kind) {
        let length = u64::from(loc.len);
        let live = self.segments.get_mut(loc.segment.0 as usize).map(|live| live.of(kind));
        let live = live.filter(|(count, bytes)| **count > 0 && **bytes >= length);
        assert!(live.is_some(), "a record of segment {} was released twice", loc.segment.0);
        for (count, bytes) in live.into_iter().chain([self.total.of(kind)]) {
            *count -= 1;
            *bytes -= length;
        }
    }

    /// A record of this lane became durable, or was found. `loc.segment` is below
    /// [`crate::format::SEGMENTS_MAX`], which bounds the ledger.
    pub(crate) fn add(&mut self, loc: RecordLoc, kind: Kind) {
        let number = loc.segment.0 as usize;
        if number >= self.segments.len() {
            self.segments.resize(number + 1, Live::default());
        }
        for live in [&mut self.segments[number], &mut self.total] {
            let (count, bytes) = live.of(kind);
            *count += 1;
            *bytes += u64::from(loc.len);
        }
    }

    pub(crate) fn live(&self, segment: SegmentId) -> Live {
        self.segments.get(segment.0 as usize).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> Live {
        self.total
    }
}

#[cfg(test)]
impl Ledger {
    /// Fails if the total is not the sum.
    pub(crate) fn audit(&self) {
        let sum = self.segments.iter().fold(Live::default(), |sum, live| Live {
            messages: sum.messages + live.messages,
            message_bytes: sum.message_bytes + live.message_bytes,
            metadata: sum.metadata + live.metadata,
            metadata_bytes: sum.metadata_bytes + live.metadata_bytes,
        });
        assert_eq!(self.total, sum);
    }
}
