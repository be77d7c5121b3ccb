//! A disk in memory, and its form in a file.
//!
//! A fixture is a list of segment files. Each is stored as the runs in which it differs from the file before
//! it, the first from zeros: headers list nearly the same segments, and most of a file is zero.
//!
//! ```text
//! file   lane u16, segment u32, bytes u32, runs u32, then the runs
//! run    offset u32, length u32, then the bytes
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use shards::io::{DiskDone, DiskOp, LaneId, SegmentFile, SegmentId, Volume};

/// Equal bytes that end a run.
const GAP_BYTES: usize = 8;

/// Its segment files.
#[derive(Default)]
pub struct Disk {
    files: RefCell<BTreeMap<(LaneId, SegmentId), Vec<u8>>>,
}

impl Disk {
    /// Does what is asked, of a write only the first `torn` bytes.
    pub fn run(&self, op: DiskOp, torn: Option<usize>) -> DiskDone {
        match op {
            DiskOp::Write { lane, segment, offset, buf, len, op } => {
                let kept = torn.unwrap_or(len);
                let mut files = self.files.borrow_mut();
                files.get_mut(&(lane, segment)).unwrap()[offset as usize..][..kept]
                    .copy_from_slice(&buf[..kept]);
                DiskDone { lane, op, result: Ok(len), buf: Some(buf) }
            }
            DiskOp::Read { lane, segment, offset, mut buf, len, op } => {
                let bytes = self.read_at(lane, segment, offset, &mut buf[..len]).unwrap();
                DiskDone { lane, op, result: Ok(bytes), buf: Some(buf) }
            }
            DiskOp::Prepare { lane, segment, size, op } => {
                self.create_segment(lane, segment, size).unwrap();
                DiskDone { lane, op, result: Ok(0), buf: None }
            }
        }
    }

    /// As a fixture.
    pub fn encode(&self) -> Vec<u8> {
        let (mut out, mut before) = (Vec::new(), Vec::new());
        for ((lane, segment), bytes) in self.files.borrow().iter() {
            before.resize(bytes.len(), 0);
            let runs = differences(&before, bytes);
            out.extend(lane.0.to_le_bytes());
            out.extend([segment.0, bytes.len() as u32, runs.len() as u32].map(u32::to_le_bytes).concat());
            for (start, end) in runs {
                out.extend([start as u32, (end - start) as u32].map(u32::to_le_bytes).concat());
                out.extend(&bytes[start..end]);
            }
            before = bytes.clone();
        }
        out
    }

    /// What a fixture holds.
    pub fn decode(mut fixture: &[u8]) -> Self {
        let disk = Self::default();
        let mut before: Vec<u8> = Vec::new();
        while !fixture.is_empty() {
            let lane = LaneId(u16::from_le_bytes(take(&mut fixture)));
            let [segment, bytes, runs] = [(); 3].map(|()| u32::from_le_bytes(take(&mut fixture)));
            before.resize(bytes as usize, 0);
            for _ in 0..runs {
                let [start, length] = [(); 2].map(|()| u32::from_le_bytes(take(&mut fixture)) as usize);
                let (run, rest) = fixture.split_at(length);
                before[start..start + length].copy_from_slice(run);
                fixture = rest;
            }
            disk.files.borrow_mut().insert((lane, SegmentId(segment)), before.clone());
        }
        disk
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (head, rest) = bytes.split_first_chunk().unwrap();
    *bytes = rest;
    *head
}

/// Where two files of one length differ.
fn differences(before: &[u8], after: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for at in (0..after.len()).filter(|at| before[*at] != after[*at]) {
        match runs.last_mut() {
            Some((_, end)) if at - *end < GAP_BYTES => *end = at + 1,
            _ => runs.push((at, at + 1)),
        }
    }
    runs
}

impl Volume for Disk {
    fn segments(&self, lane: LaneId) -> io::Result<Vec<SegmentFile>> {
        let files = self.files.borrow();
        let of_lane = files.iter().filter(|((of, _), _)| *of == lane);
        Ok(of_lane
            .map(|((_, segment), file)| SegmentFile { segment: *segment, bytes: file.len() as u64 })
            .collect())
    }

    fn read_at(&self, lane: LaneId, segment: SegmentId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let files = self.files.borrow();
        let file = files.get(&(lane, segment)).ok_or(io::ErrorKind::NotFound)?;
        let bytes = buf.len().min(file.len().saturating_sub(offset as usize));
        buf[..bytes].copy_from_slice(&file[offset as usize..][..bytes]);
        Ok(bytes)
    }

    fn sync_segment(&self, _: LaneId, _: SegmentId) -> io::Result<()> {
        Ok(())
    }

    fn create_segment(&self, lane: LaneId, segment: SegmentId, bytes: u64) -> io::Result<()> {
        self.files.borrow_mut().insert((lane, segment), vec![0; bytes as usize]);
        Ok(())
    }

    fn create_lane(&self, _: LaneId) -> io::Result<()> {
        Ok(())
    }

    fn read_meta(&self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn replace_meta(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
