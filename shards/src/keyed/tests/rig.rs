//! One partition on a simulated disk, driven by hand.

use crate::AppendError;
use crate::buffer::AlignedBuf;
use crate::format::StoreId;
use crate::io::{BLOCK_BYTES, LaneId};
use crate::keyed::{
    Begun, ChangeError, Class, Event, Existing, Family, Got, Hold, Identity, KeyedConfig, KeyedStore,
    LookupError, NewRecord, Restored, SCRUB_WITHIN_S, Ticket,
};
use crate::lane::config::LaneConfig;
use crate::testing::SimDisk;

pub const PARTITION: LaneId = LaneId(5);
pub const SEGMENT_BYTES: u32 = 64 << 10;
pub const BATCH_BYTES: usize = 8 << 10;
/// An arbitrary hour, in seconds since 1970.
pub const START_S: u64 = 500_000 * 3_600;

pub struct Rig {
    pub disk: SimDisk,
    pub store: KeyedStore,
    pub config: KeyedConfig,
    pub now_us: u64,
    pub now_s: u64,
    /// Not looked at yet.
    pub events: Vec<Event>,
    /// Records that were reported as lost at the first start.
    pub losses: u64,
}

pub fn config() -> KeyedConfig {
    let lane = LaneConfig::new(StoreId([9; 16]), PARTITION, SEGMENT_BYTES);
    KeyedConfig {
        partition: PARTITION,
        lane: LaneConfig { reserve_bytes: 8 << 10, resync_bytes: 32 << 10, ..lane },
        segments_max: 22,
        entries_max: 10_000,
        lookups_max: 4,
        batch_bytes: BATCH_BYTES,
        batch_buffers: 2,
        checkpoint_bytes_min: 1 << 40,
        mixing_secret: [3; 32],
        scrub_within_s: SCRUB_WITHIN_S,
        now_s: START_S,
    }
}

/// A shard whose key begins with this number.
pub fn shard(number: u64) -> Identity {
    let mut key = [0xAB; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    Identity { family: Family::Shard, key, index: 0 }
}

pub fn record<'a>(sequence: u64, expires_s: u64, body: &'a [u8]) -> NewRecord<'a> {
    NewRecord {
        code: 1,
        sequence,
        expires_s: expires_s as u32,
        card: b"card",
        lease: b"lease",
        root: *blake3::hash(body).as_bytes(),
        body,
    }
}

/// What a read brought: of a record its sequence number and the hash of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Record(u64, blake3::Hash),
    Absent,
    Lost,
    Unreadable,
}

pub fn got(sequence: u64, body: &[u8]) -> Answer {
    Answer::Record(sequence, blake3::hash(body))
}

impl Rig {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, config())
    }

    pub fn with(seed: u64, config: KeyedConfig) -> Self {
        let disk = SimDisk::new(seed);
        KeyedStore::format(&disk, PARTITION, config.lane.segment_bytes).unwrap();
        Self::on(disk, config, config.now_s)
    }

    /// Starts on a disk as it is.
    pub fn on(disk: SimDisk, config: KeyedConfig, now_s: u64) -> Self {
        let Restored { store, reports, unintelligible, .. } =
            KeyedStore::restore(&disk, KeyedConfig { now_s, ..config }).unwrap();
        let losses = reports.iter().map(|report| report.lost_records).sum::<u64>() + unintelligible;
        Self { disk, store, config, now_us: 0, now_s, events: vec![], losses }
    }

    /// Restarts the process on the disk as it is.
    pub fn reopen(&mut self) -> Restored {
        let config = KeyedConfig { now_s: self.now_s, ..self.config };
        let restored = KeyedStore::restore(&self.disk, config).unwrap();
        self.events.clear();
        restored
    }

    /// As [`Rig::reopen`], and goes on with what was opened.
    pub fn restart(&mut self) {
        self.store = self.reopen().store;
    }

    pub fn poll(&mut self) {
        let mut out = Vec::new();
        self.store.poll(self.now_us, self.now_s, &mut out);
        out.into_iter().for_each(|op| self.disk.submit(op));
    }

    /// Completes one operation; false if none is left.
    pub fn step(&mut self) -> bool {
        let Some(done) = self.disk.complete_any() else { return false };
        self.store.complete(self.now_us, done, &mut self.events);
        true
    }

    /// Runs until nothing is in flight, for half a millisecond.
    pub fn settle(&mut self) {
        self.now_us += 500;
        self.poll();
        while self.step() || self.store.next_deadline() == Some(0) {
            self.poll();
        }
    }

    /// Lets time pass.
    pub fn pass_time(&mut self, hours: u64) {
        self.now_s += hours * 3_600;
        self.now_us += hours * 3_600_000_000;
    }

    /// Lets time pass, then runs until nothing is in flight.
    pub fn pass_hours(&mut self, hours: u64) {
        self.pass_time(hours);
        self.settle();
    }

    /// Holds a key as soon as nobody moves it.
    pub fn hold(&mut self, identity: Identity) -> (Hold, Existing) {
        self.try_hold(identity).expect("the disk says what there is of it")
    }

    /// As [`Rig::hold`]; `None` if the disk does not say what there is of the key.
    pub fn try_hold(&mut self, identity: Identity) -> Option<(Hold, Existing)> {
        let mut attempts = 0;
        let begun = loop {
            match self.store.begin(identity) {
                Err(LookupError::Busy) if attempts < 10_000 => self.settle(),
                begun => break begun.unwrap(),
            }
            attempts += 1;
        };
        let hold = match begun {
            Begun::Held(hold) => hold,
            Begun::Reading(wanted) => {
                self.settle();
                let is_it = |event: &Event| match event {
                    Event::Held { ticket, .. } | Event::LookupFailed { ticket, .. } => *ticket == wanted,
                    _ => false,
                };
                let at = self.events.iter().position(is_it).expect("a lookup ends");
                let Event::Held { hold, .. } = self.events.remove(at) else { return None };
                hold
            }
        };
        let existing = self.store.existing(&hold);
        Some((hold, existing))
    }

    pub fn stored(&mut self, wanted: Ticket) -> bool {
        self.settle();
        let at = self.events.iter().position(|e| matches!(e, Event::Stored { ticket } if *ticket == wanted));
        at.map(|at| self.events.remove(at)).is_some()
    }

    /// Puts a record, waiting for as long as the partition is busy.
    pub fn try_put(&mut self, identity: Identity, record: &NewRecord<'_>) -> Result<(), ChangeError> {
        for _ in 0..10_000 {
            let (hold, _) = self.hold(identity);
            match self.store.put(hold, record) {
                Ok(ticket) => {
                    assert!(self.stored(ticket), "{:?}", self.events);
                    return Ok(());
                }
                Err((error, hold)) => {
                    self.store.release(hold);
                    if error != ChangeError::Append(AppendError::Busy) {
                        return Err(error);
                    }
                    self.settle();
                }
            }
        }
        panic!("busy for ever: {:?}", self.store.capacity());
    }

    pub fn put(&mut self, identity: Identity, record: &NewRecord<'_>) {
        self.try_put(identity, record).unwrap();
    }

    pub fn delete(&mut self, identity: Identity) {
        for _ in 0..10_000 {
            let (hold, _) = self.hold(identity);
            match self.store.delete(hold, 0, self.now_s as u32 + 3_600, b"proof") {
                Ok(ticket) => return assert!(self.stored(ticket), "{:?}", self.events),
                Err((ChangeError::Append(AppendError::Busy), hold)) => self.store.release(hold),
                Err((error, _)) => panic!("{error}"),
            }
            self.settle();
        }
        panic!("busy for ever: {:?}", self.store.capacity());
    }

    pub fn get(&mut self, identity: Identity) -> Answer {
        let buf = AlignedBuf::zeroed(BATCH_BYTES + BLOCK_BYTES);
        let Ok(wanted) = self.store.get(identity, buf) else { return Answer::Absent };
        self.settle();
        let at = self.events.iter().position(|e| matches!(e, Event::Got { ticket, .. } if *ticket == wanted));
        match at.map(|at| self.events.remove(at)) {
            Some(Event::Got { got: Got::Record(read), buf, .. }) => {
                assert_eq!(blake3::hash(read.body(&buf)), blake3::Hash::from(read.head.root));
                got(read.head.sequence, read.body(&buf))
            }
            Some(Event::Got { got: Got::Absent, .. }) => Answer::Absent,
            Some(Event::Got { got: Got::Lost, .. }) => Answer::Lost,
            Some(Event::Got { got: Got::Unreadable(_), .. }) => Answer::Unreadable,
            other => panic!("{other:?}"),
        }
    }

    /// Live and counted bytes must agree with what the index points to.
    pub fn assert_counters(&self) {
        let mut counted = [0u64; 3];
        for (class, bytes) in self.store.live_bytes_by_index() {
            counted[class as usize] += bytes;
        }
        assert_eq!(Class::ALL.map(|class| self.store.usage(class).live_bytes), counted);
    }
}
