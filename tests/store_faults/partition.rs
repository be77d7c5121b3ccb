//! A partition of keyed records on a real directory, driven by one thread: each operation is done at once.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::io::{ReadWriteFlags, pread, pwritev2};
use shards::io::{BLOCK_BYTES, DiskDone, DiskOp, Errno, LaneId, SegmentId};
use shards::keyed::{
    Begun, ChangeError, Class, Event, Existing, Family, Got, Hold, Identity, KeyedConfig, KeyedStore,
    LookupError, NewRecord, SCRUB_WITHIN_S, Ticket,
};
use shards::{AlignedBuf, AppendError, LaneConfig, StoreId};
use trine::rt::volume::FsVolume;

pub const PARTITION: LaneId = LaneId(0);
pub const SEGMENT_BYTES: u32 = 1 << 20;
pub const BATCH_BYTES: usize = 128 << 10;
/// An arbitrary hour, in seconds since 1970.
pub const START_S: u64 = 500_000 * 3_600;

pub struct Partition {
    volume: FsVolume,
    files: BTreeMap<(LaneId, SegmentId), OwnedFd>,
    pub store: KeyedStore,
    began: Instant,
    pub now_s: u64,
    pub events: Vec<Event>,
    /// Records that the start reported as lost.
    pub losses: u64,
}

/// What a read brought: of a record its sequence number and its body.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Record(u64, Vec<u8>),
    Absent,
    Failed(String),
}

pub fn shard(number: u64) -> Identity {
    let mut key = [0xAB; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    Identity { family: Family::Shard, key, index: 0 }
}

/// Bytes that only this record of this key has.
pub fn body(key: u64, sequence: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (key * 31 + sequence * 7 + at as u64 / 3) as u8).collect()
}

impl Partition {
    pub fn format(dir: &Path) {
        let volume = FsVolume::create(dir).unwrap();
        KeyedStore::format(&volume, PARTITION, SEGMENT_BYTES).unwrap();
    }

    pub fn open(dir: &Path, segments_max: u32, now_s: u64) -> Self {
        let volume = FsVolume::open(dir).unwrap();
        let lane = LaneConfig::new(StoreId([9; 16]), PARTITION, SEGMENT_BYTES);
        let config = KeyedConfig {
            partition: PARTITION,
            lane: LaneConfig { prepare_retry_us: 20_000, ..lane },
            segments_max,
            entries_max: 100_000,
            lookups_max: 8,
            batch_bytes: BATCH_BYTES,
            checkpoint_bytes_min: 256 << 10,
            scrub_within_s: SCRUB_WITHIN_S,
            batch_buffers: 2,
            mixing_secret: [3; 32],
            now_s,
        };
        let restored = KeyedStore::restore(&volume, config).unwrap();
        let lost: u64 = restored.reports.iter().map(|report| report.lost_records).sum();
        let (files, events, began) = (BTreeMap::new(), vec![], Instant::now());
        let losses = lost + restored.unintelligible;
        Self { volume, files, store: restored.store, began, now_s, events, losses }
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Does everything that is due. True if there was anything.
    pub fn turn(&mut self) -> bool {
        let mut ops = Vec::new();
        self.store.poll(self.now_us(), self.now_s, &mut ops);
        let is_busy = !ops.is_empty();
        for op in ops {
            let done = self.execute(op);
            self.store.complete(self.now_us(), done, &mut self.events);
        }
        is_busy
    }

    pub fn settle(&mut self) {
        while self.turn() || self.store.next_deadline() == Some(0) {}
    }

    /// Goes on until something is so; compaction has a pace of its own.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let patience_s = 30;
        while !is_so(self) {
            self.turn();
            assert!(self.began.elapsed().as_secs() < patience_s, "not {what}: {:?}", self.store.capacity());
        }
    }

    fn execute(&mut self, op: DiskOp) -> DiskDone {
        match op {
            DiskOp::Write { lane, segment, offset, buf, len, op } => {
                let parts = [IoSlice::new(&buf[..len])];
                let file = self.file(lane, segment);
                let result = pwritev2(file, &parts, offset, ReadWriteFlags::DSYNC);
                DiskDone { lane, op, result: result.map_err(errno), buf: Some(buf) }
            }
            DiskOp::Read { lane, segment, offset, mut buf, len, op } => {
                let result = pread(self.file(lane, segment), &mut buf[..len], offset);
                DiskDone { lane, op, result: result.map_err(errno), buf: Some(buf) }
            }
            DiskOp::Prepare { lane, segment, size, op } => {
                let made = self.volume.prepare_segment(lane, segment, size);
                let result = made.map(|_| 0).map_err(|error| Errno(error.raw_os_error().unwrap()));
                DiskDone { lane, op, result, buf: None }
            }
        }
    }

    fn file(&mut self, lane: LaneId, segment: SegmentId) -> &OwnedFd {
        let volume = &self.volume;
        self.files.entry((lane, segment)).or_insert_with(|| volume.open_segment(lane, segment).unwrap())
    }

    /// Holds a key as soon as nobody moves it.
    pub fn hold(&mut self, identity: Identity) -> (Hold, Existing) {
        let hold = loop {
            match self.store.begin(identity) {
                Ok(Begun::Held(hold)) => break hold,
                Ok(Begun::Reading(wanted)) => break self.held(wanted),
                Err(LookupError::Busy) => drop(self.turn()),
                Err(error) => panic!("{error}"),
            }
        };
        let existing = self.store.existing(&hold);
        (hold, existing)
    }

    fn held(&mut self, wanted: Ticket) -> Hold {
        loop {
            self.turn();
            let is_it = |event: &Event| matches!(event, Event::Held { ticket, .. } if *ticket == wanted);
            if let Some(at) = self.events.iter().position(is_it)
                && let Event::Held { hold, .. } = self.events.remove(at)
            {
                return hold;
            }
        }
    }

    /// Asks for a change and takes its turns for as long as the store is busy.
    pub fn ask(
        &mut self,
        identity: Identity,
        mut how: impl FnMut(&mut KeyedStore, Hold) -> Result<Ticket, (ChangeError, Hold)>,
    ) -> Result<Ticket, ChangeError> {
        let began = Instant::now();
        loop {
            let (hold, _) = self.hold(identity);
            let error = match how(&mut self.store, hold) {
                Ok(ticket) => return Ok(ticket),
                Err((error, hold)) => {
                    self.store.release(hold);
                    error
                }
            };
            let is_busy = error == ChangeError::Append(AppendError::Busy);
            if !is_busy || began.elapsed().as_secs() > 10 {
                return Err(error);
            }
            self.turn();
        }
    }

    pub fn ask_put(
        &mut self,
        key: u64,
        sequence: u64,
        bytes: usize,
        expires_s: u64,
    ) -> Result<Ticket, ChangeError> {
        let body = body(key, sequence, bytes);
        let record = NewRecord {
            code: 1,
            sequence,
            expires_s: expires_s as u32,
            card: b"card",
            lease: b"lease",
            root: *blake3::hash(&body).as_bytes(),
            body: &body,
        };
        self.ask(shard(key), |store, hold| store.put(hold, &record))
    }

    pub fn ask_delete(&mut self, key: u64, sequence: u64) -> Result<Ticket, ChangeError> {
        let expires_s = self.now_s as u32 + 3_600;
        self.ask(shard(key), |store, hold| store.delete(hold, sequence, expires_s, b"proof"))
    }

    /// Waits for the end of a change.
    pub fn stored(&mut self, wanted: Ticket) {
        loop {
            for event in std::mem::take(&mut self.events) {
                match event {
                    Event::Stored { ticket } if ticket == wanted => return,
                    Event::DiskTrouble { .. } | Event::CheckpointTrouble { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            self.turn();
        }
    }

    pub fn get(&mut self, key: u64) -> Answer {
        let buf = AlignedBuf::zeroed(BATCH_BYTES + BLOCK_BYTES);
        let Ok(wanted) = self.store.get(shard(key), buf) else { return Answer::Absent };
        loop {
            self.turn();
            let is_it = |event: &Event| matches!(event, Event::Got { ticket, .. } if *ticket == wanted);
            let at = self.events.iter().position(is_it);
            return match at.map(|at| self.events.remove(at)) {
                Some(Event::Got { got: Got::Record(read), buf, .. }) => {
                    Answer::Record(read.head.sequence, read.body(&buf).to_vec())
                }
                Some(Event::Got { got: Got::Absent, .. }) => Answer::Absent,
                Some(other) => Answer::Failed(format!("{other:?}")),
                None => continue,
            };
        }
    }

    /// Segment files of all lanes.
    pub fn segments(&self) -> u32 {
        Class::ALL.map(|class| self.store.usage(class).segments).iter().sum()
    }
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno(errno.raw_os_error())
}
