//! One file of the simulated disk: what its sectors hold, held before, and seem to hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::io::BLOCK_BYTES;
use crate::testing::SECTOR_BYTES;

#[derive(Clone, Debug)]
pub(super) struct Medium {
    bytes: Vec<u8>,
    /// What each sector held before it was last written.
    before: Vec<u8>,
    /// What reads bring of a sector until the machine stops, although it holds something else.
    seeming: BTreeMap<usize, [u8; SECTOR_BYTES]>,
    /// When each block was last read or written; 0 if it never was.
    touched: Vec<u64>,
    /// Blocks that were ever written.
    written: BTreeSet<usize>,
    unreadable: BTreeSet<usize>,
}

impl Medium {
    /// `bytes` zeros.
    pub fn zeroed(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            before: vec![0; bytes],
            seeming: BTreeMap::new(),
            touched: vec![0; bytes.div_ceil(BLOCK_BYTES)],
            written: BTreeSet::new(),
            unreadable: BTreeSet::new(),
        }
    }

    /// In bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes whole sectors, as far as they lie within the file, at a time `now`.
    pub fn write(&mut self, offset: u64, bytes: &[u8], now: u64) {
        let (start, end) = self.within(offset, bytes.len());
        self.before[start..end].copy_from_slice(&self.bytes[start..end]);
        self.bytes[start..end].copy_from_slice(&bytes[..end - start]);
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            self.seeming.remove(&sector);
        }
        for block in start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            self.unreadable.remove(&block);
            self.touched[block] = now;
            self.written.insert(block);
        }
    }

    /// Lets reads bring `bytes`, whole sectors, until the machine stops.
    pub fn seem_to_write(&mut self, offset: u64, bytes: &[u8]) {
        let (start, end) = self.within(offset, bytes.len());
        for (at, sector) in bytes[..end - start].as_chunks().0.iter().enumerate() {
            self.seeming.insert(start / SECTOR_BYTES + at, *sector);
        }
    }

    /// Reads into the front of `out` what lies within the file; `None` if a block of it cannot be read.
    pub fn read(&mut self, offset: u64, out: &mut [u8], now: u64) -> Option<usize> {
        let (start, end) = self.within(offset, out.len());
        let blocks = start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        if self.unreadable.range(blocks.clone()).next().is_some() {
            return None;
        }
        self.touched[blocks].fill(now);
        out[..end - start].copy_from_slice(&self.bytes[start..end]);
        for (sector, bytes) in self.seeming.range(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)) {
            // Reads of parts of sectors see what the sectors hold.
            if let Some(at) = (sector * SECTOR_BYTES).checked_sub(start)
                && let Some(there) = out[..end - start].get_mut(at..at + SECTOR_BYTES)
            {
                there.copy_from_slice(bytes);
            }
        }
        Some(end - start)
    }

    /// As [`Medium::read`], bringing what was there before the last write of each sector.
    pub fn read_stale(&self, offset: u64, out: &mut [u8]) -> usize {
        let (start, end) = self.within(offset, out.len());
        out[..end - start].copy_from_slice(&self.before[start..end]);
        end - start
    }

    /// The machine stopped: what only seemed to be there is gone.
    pub fn stop(&mut self) {
        self.seeming.clear();
    }

    /// Changes bytes behind everyone's back.
    pub fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        self.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Flips one bit.
    pub fn flip_bit(&mut self, offset: u64, bit: u8) {
        self.bytes[offset as usize] ^= 1 << (bit & 7);
    }

    /// Cuts the file short.
    pub fn truncate(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
    }

    /// Lets reads of this block fail until it is written.
    pub fn make_unreadable(&mut self, block: usize) {
        self.unreadable.insert(block);
    }

    /// Blocks that were written, can be read, and were neither written nor read since `since`.
    pub fn untouched_since(&self, since: u64) -> impl Iterator<Item = usize> {
        let readable = self.written.iter().filter(|block| !self.unreadable.contains(block));
        readable
            .copied()
            .filter(move |block| self.touched[*block] < since && block * BLOCK_BYTES < self.len())
    }

    fn within(&self, offset: u64, bytes: usize) -> (usize, usize) {
        let start = (offset as usize).min(self.bytes.len());
        (start, start.saturating_add(bytes).min(self.bytes.len()))
    }
}
