//! The selective part of an acknowledgement: positions in strictly rising order, borrowed from where they
//! lie.

use super::error::WireError;
use super::ids::MailboxSeq;

/// Most selective positions in one ACK.
pub const ACK_SELECTIVE_MAX: usize = 256;

const SEQ_BYTES: usize = 8;

/// At most [`ACK_SELECTIVE_MAX`] positions, strictly rising and above a cumulative position.
#[derive(Clone, Copy)]
pub struct SeqList<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Wire(&'a [[u8; SEQ_BYTES]]),
    Memory(&'a [MailboxSeq]),
}

impl<'a> SeqList<'a> {
    /// No selective positions.
    pub const EMPTY: Self = Self(Source::Memory(&[]));

    /// Checks positions for sending: at most 256, rising, above `cumulative`.
    pub fn new(cumulative: MailboxSeq, seqs: &'a [MailboxSeq]) -> Result<Self, WireError> {
        Self(Source::Memory(seqs)).checked(cumulative)
    }

    /// Checks positions as they arrived; `bytes` must be whole positions.
    pub(super) fn from_wire(cumulative: MailboxSeq, bytes: &'a [u8]) -> Result<Self, WireError> {
        let (seqs, rest) = bytes.as_chunks::<SEQ_BYTES>();
        if !rest.is_empty() {
            return Err(WireError::Truncated { frame: "ACK" });
        }
        Self(Source::Wire(seqs)).checked(cumulative)
    }

    fn checked(self, cumulative: MailboxSeq) -> Result<Self, WireError> {
        if self.len() > ACK_SELECTIVE_MAX {
            return Err(WireError::AckTooMany { count: self.len() });
        }
        let mut below = cumulative;
        for seq in self.iter() {
            if seq <= below {
                return Err(WireError::AckNotRising);
            }
            below = seq;
        }
        Ok(self)
    }

    /// How many positions there are.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Wire(seqs) => seqs.len(),
            Source::Memory(seqs) => seqs.len(),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The positions, rising.
    pub fn iter(&self) -> SeqIter<'a> {
        SeqIter { source: self.0, next: 0 }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for seq in self.iter() {
            out.extend_from_slice(&seq.0.to_be_bytes());
        }
    }
}

/// Iterates over a [`SeqList`].
#[derive(Clone)]
pub struct SeqIter<'a> {
    source: Source<'a>,
    next: usize,
}

impl Iterator for SeqIter<'_> {
    type Item = MailboxSeq;

    fn next(&mut self) -> Option<MailboxSeq> {
        let seq = match self.source {
            Source::Wire(seqs) => seqs.get(self.next).map(|seq| MailboxSeq(u64::from_be_bytes(*seq))),
            Source::Memory(seqs) => seqs.get(self.next).copied(),
        }?;
        self.next += 1;
        Some(seq)
    }
}

impl PartialEq for SeqList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SeqList<'_> {}

impl std::fmt::Debug for SeqList<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
