//! A lane on a simulated disk, driven by hand: what the tests of this crate share.

use crate::buffer::AlignedBuf;
use crate::format::{Lsn, StoreId};
use crate::io::{DiskDone, DiskOp, LaneId, OpId, SegmentId, Volume};
use crate::testing::SimDisk;
use crate::{AppendError, Completion, Kind, Lane, LaneConfig, RecordLoc, RecoveryReport};

pub const LANE: LaneId = LaneId(3);
pub const SEGMENT_BYTES: u32 = 64 << 10;
pub const BUFFER_BYTES: usize = 8 << 10;

/// A record as the tests keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub lsn: Lsn,
    pub kind: Kind,
    pub loc: RecordLoc,
    pub payload: Vec<u8>,
}

pub struct Rig {
    pub disk: SimDisk,
    pub lane: Lane,
    pub config: LaneConfig,
    pub now_us: u64,
    /// Shown as committed since the last reopening, in order.
    pub committed: Vec<Kept>,
    /// What each completion meant, latest last; reads apart.
    pub completions: Vec<String>,
    pub refused: Option<(Lsn, Lsn)>,
}

pub fn config() -> LaneConfig {
    LaneConfig {
        segments_max: 6,
        reserve_bytes: 8 << 10,
        resync_bytes: 32 << 10,
        ..LaneConfig::new(StoreId([9; 16]), LANE, SEGMENT_BYTES)
    }
}

pub fn buffers() -> Vec<AlignedBuf> {
    (0..2).map(|_| AlignedBuf::zeroed(BUFFER_BYTES)).collect()
}

/// Opens the lane and collects what it holds.
pub fn recover(disk: &SimDisk, config: LaneConfig) -> (Lane, RecoveryReport, Vec<Kept>) {
    let mut found = Vec::new();
    let opened = Lane::recover(disk, config, buffers(), &mut |record, _| {
        let (lsn, kind, loc) = (record.lsn, record.kind, record.loc);
        found.push(Kept { lsn, kind, loc, payload: record.payload.to_vec() });
    });
    let (lane, report) = opened.unwrap();
    (lane, report, found)
}

impl Rig {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, config())
    }

    pub fn with(seed: u64, config: LaneConfig) -> Self {
        let disk = SimDisk::new(seed);
        disk.create_segment(LANE, SegmentId(0), u64::from(config.segment_bytes)).unwrap();
        let (lane, ..) = recover(&disk, config);
        Self { disk, lane, config, now_us: 0, committed: vec![], completions: vec![], refused: None }
    }

    /// Restarts the process on the disk as it is.
    pub fn reopen(&mut self) -> (RecoveryReport, Vec<Kept>) {
        let (lane, report, found) = recover(&self.disk, self.config);
        self.lane = lane;
        self.committed.clear();
        self.refused = None;
        (report, found)
    }

    pub fn poll(&mut self) {
        let mut out = Vec::new();
        self.lane.poll(self.now_us, &mut out);
        out.into_iter().for_each(|op| self.disk.submit(op));
    }

    /// Hands one end of an operation to the lane.
    pub fn finish(&mut self, done: DiskDone) -> Completion {
        let committed = &mut self.committed;
        let completion = self.lane.complete(self.now_us, done, |record| {
            let (lsn, kind, loc) = (record.lsn, record.kind, record.loc);
            committed.push(Kept { lsn, kind, loc, payload: record.payload.to_vec() });
        });
        if let Completion::Refused { first, last, .. } = completion {
            self.refused = Some((first, last));
        }
        self.completions.push(format!("{completion:?}"));
        completion
    }

    /// Completes the oldest operation; false if there is none.
    pub fn step(&mut self) -> bool {
        match self.disk.complete(0) {
            Some(done) => {
                self.finish(done);
                true
            }
            None => false,
        }
    }

    /// Runs until nothing is in flight, without letting time pass.
    pub fn drain(&mut self) {
        self.poll();
        while self.step() {
            self.poll();
        }
    }

    /// Lets the idle time pass, so that a marker is written.
    pub fn idle(&mut self) {
        self.now_us += self.config.idle_us;
        self.drain();
    }

    pub fn append(&mut self, kind: Kind, payload: &[u8]) -> Result<Lsn, AppendError> {
        let (head, tail) = payload.split_at(payload.len() / 2);
        self.lane.append(kind, 77, &[head, tail])
    }

    /// Appends a message and waits until it is committed.
    pub fn put(&mut self, payload: &[u8]) -> Kept {
        self.put_kind(Kind::Message, payload)
    }

    pub fn put_kind(&mut self, kind: Kind, payload: &[u8]) -> Kept {
        self.drain();
        let lsn = self.append(kind, payload).unwrap();
        self.drain();
        let kept = self.committed.last().cloned().unwrap();
        assert_eq!(kept.lsn, lsn);
        kept
    }

    /// Puts messages of `bytes` until `segment` is no longer the one written to; returns what was put.
    pub fn fill_segment(&mut self, bytes: usize) -> Vec<Kept> {
        let first = self.put(&vec![1; bytes]);
        let mut kept = vec![first];
        while kept.last().map(|k| k.loc.segment) == kept.first().map(|k| k.loc.segment) {
            kept.push(self.put(&vec![kept.len() as u8; bytes]));
        }
        kept
    }

    /// Submits a read and returns its id.
    pub fn start_read(&mut self, loc: RecordLoc) -> OpId {
        let (op, request) = self.lane.read(loc, AlignedBuf::zeroed(loc.span_bytes())).unwrap();
        assert!(matches!(request, DiskOp::Read { .. }));
        self.disk.submit(request);
        op
    }

    /// Completes the newest operation, a read, and returns its buffer.
    pub fn end_read(&mut self) -> AlignedBuf {
        let last = self.disk.pending().len() - 1;
        let done = self.disk.complete(last).unwrap();
        match self.finish(done) {
            Completion::Read { result: Ok(_), buf: Some(buf), .. } => buf,
            other => panic!("no read: {other:?}"),
        }
    }
}
