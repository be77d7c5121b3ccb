//! Sequential reading of one segment through a window of bounded size: as much as the largest file so far
//! could fill, at most twice the longest batch.
//!
//! Reads are as long as the longest batch. If one fails, its blocks are read one by one; those that still
//! fail become zeros and are remembered, so that damage is judged block by block and one bad block does not
//! hide its neighbours.

use crate::buffer::AlignedBuf;
use crate::format::BATCH_BYTES_MAX;
use crate::io::{BLOCK_BYTES, LaneId, SegmentId, Volume};

const READ_BYTES: usize = BATCH_BYTES_MAX;
/// The most that can be looked at in one piece.
pub(crate) const WINDOW_BYTES: usize = 2 * READ_BYTES;

/// A window over a segment file.
pub(crate) struct Reader<'v> {
    volume: &'v dyn Volume,
    lane: LaneId,
    segment: SegmentId,
    file_bytes: u64,
    window: AlignedBuf,
    /// Offset in the file of the window's first byte.
    start: u64,
    filled: usize,
    /// Offsets of the window's blocks that cannot be read; at most one per block of the window.
    unreadable: Vec<u64>,
    /// Read errors of single blocks so far, also of blocks read twice.
    pub unreadable_blocks: u64,
}

impl<'v> Reader<'v> {
    /// A reader without a file.
    pub fn new(volume: &'v dyn Volume, lane: LaneId) -> Self {
        let window = AlignedBuf::zeroed(BLOCK_BYTES);
        let (segment, unreadable) = (SegmentId(0), Vec::new());
        Self {
            volume,
            lane,
            segment,
            file_bytes: 0,
            window,
            start: 0,
            filled: 0,
            unreadable,
            unreadable_blocks: 0,
        }
    }

    /// Turns to another file, of which only whole blocks within `file_bytes` will be asked.
    pub fn open(&mut self, segment: SegmentId, file_bytes: u64) {
        self.segment = segment;
        self.file_bytes = file_bytes;
        // Clearing memory that a small file cannot fill would cost more than reading the file.
        let useful = file_bytes.min(WINDOW_BYTES as u64) as usize / BLOCK_BYTES * BLOCK_BYTES;
        if useful > self.window.len() {
            self.window = AlignedBuf::zeroed(useful);
        }
        self.restart(0);
    }

    /// `len` bytes at `offset`, both whole blocks within the file, `len` at most [`WINDOW_BYTES`]. Blocks
    /// that cannot be read are zeros.
    pub fn bytes(&mut self, offset: u64, len: usize) -> &[u8] {
        debug_assert!(len <= WINDOW_BYTES && offset + len as u64 <= self.file_bytes);
        if offset < self.start || offset + len as u64 > self.start + self.window.len() as u64 {
            self.restart(offset);
        }
        let from = (offset - self.start) as usize;
        while self.filled < from + len {
            self.fill();
        }
        &self.window[from..from + len]
    }

    /// True if one of the blocks of this range, which was just read, cannot be read.
    pub fn is_unreadable(&self, offset: u64, len: usize) -> bool {
        self.unreadable.iter().any(|block| (offset..offset + len as u64).contains(block))
    }

    fn restart(&mut self, offset: u64) {
        self.start = offset;
        self.filled = 0;
        self.unreadable.clear();
    }

    fn fill(&mut self) {
        let at = self.start + self.filled as u64;
        let left = self.file_bytes.saturating_sub(at).min(READ_BYTES as u64) as usize;
        let len = left.min(self.window.len() - self.filled) / BLOCK_BYTES * BLOCK_BYTES;
        assert!(len > 0, "a read past the end of segment {} was asked for", self.segment.0);
        let chunk = &mut self.window[self.filled..self.filled + len];
        let whole = self.volume.read_at(self.lane, self.segment, at, chunk);
        if !matches!(whole, Ok(bytes) if bytes == len) {
            self.fill_by_block(at, len);
        }
        self.filled += len;
    }

    fn fill_by_block(&mut self, at: u64, len: usize) {
        for step in (0..len).step_by(BLOCK_BYTES) {
            let offset = at + step as u64;
            let block = &mut self.window[self.filled + step..][..BLOCK_BYTES];
            let read = self.volume.read_at(self.lane, self.segment, offset, block);
            if !matches!(read, Ok(BLOCK_BYTES)) {
                block.fill(0);
                self.unreadable.push(offset);
                self.unreadable_blocks += 1;
            }
        }
    }
}
