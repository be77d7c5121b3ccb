//! A partition of keyed records.

use shards::io::LaneId;
use shards::keyed::{
    Begun, Class, Event, Existing, Family, Got, Hold, Identity, KeyedConfig, KeyedStore, NewRecord, Restored,
    SCRUB_WITHIN_S, Ticket,
};
use shards::{AlignedBuf, LaneConfig, StoreId};

use crate::disk::Disk;
use crate::{fixture, logs};

const PARTITION: LaneId = LaneId(5);
const STORE: StoreId = StoreId(*b"a fixture's id..");
const SIZES: (u32, usize, u32) = (64 << 10, 8 << 10, 18);
/// An arbitrary hour, in seconds since 1970.
const START_S: u32 = 500_000 * 3_600;
const DAY_S: u32 = 24 * 3_600;

struct Partition {
    disk: Disk,
    store: KeyedStore,
    from_checkpoint: bool,
    now_us: u64,
    events: Vec<Event>,
}

impl Partition {
    fn open(disk: Disk) -> Self {
        let (segment_bytes, batch_bytes, segments_max) = SIZES;
        let config = KeyedConfig {
            partition: PARTITION,
            lane: LaneConfig {
                reserve_bytes: 8 << 10,
                resync_bytes: 32 << 10,
                ..LaneConfig::new(STORE, PARTITION, segment_bytes)
            },
            segments_max,
            entries_max: 1_000,
            lookups_max: 4,
            batch_bytes,
            batch_buffers: 2,
            checkpoint_bytes_min: 1 << 30,
            scrub_within_s: SCRUB_WITHIN_S,
            mixing_secret: [3; 32],
            now_s: u64::from(START_S),
        };
        let restored = KeyedStore::restore(&disk, config).unwrap();
        assert!(restored.reports.iter().all(|report| !report.has_loss()) && restored.unintelligible == 0);
        let Restored { store, from_checkpoint, .. } = restored;
        Self { disk, store, from_checkpoint, now_us: 0, events: vec![] }
    }

    fn settle(&mut self) {
        loop {
            let mut ops = Vec::new();
            self.store.poll(self.now_us, u64::from(START_S), &mut ops);
            // At once, that is; for anything later there is time.
            if ops.is_empty() && self.store.next_deadline() != Some(0) {
                return;
            }
            for op in ops {
                let done = self.disk.run(op, None);
                self.store.complete(self.now_us, done, &mut self.events);
            }
        }
    }

    fn hold(&mut self, identity: Identity) -> (Hold, Existing) {
        let hold = match self.store.begin(identity).unwrap() {
            Begun::Held(hold) => hold,
            Begun::Reading(_) => {
                self.settle();
                match self.events.pop() {
                    Some(Event::Held { hold, .. }) => hold,
                    other => panic!("{other:?}"),
                }
            }
        };
        let existing = self.store.existing(&hold);
        (hold, existing)
    }

    fn assert_stored(&mut self, wanted: Ticket) {
        self.settle();
        let last = self.events.pop();
        assert!(matches!(last, Some(Event::Stored { ticket }) if ticket == wanted), "{last:?}");
    }

    fn put(&mut self, identity: Identity, sequence: u64, days: u32) {
        let (hold, _) = self.hold(identity);
        let body = body(sequence);
        let record = NewRecord {
            code: u8::from(identity.family == Family::Shard),
            sequence,
            expires_s: START_S + days * DAY_S,
            card: b"the card",
            lease: b"the lease",
            root: *blake3::hash(&body).as_bytes(),
            body: &body,
        };
        let ticket = self.store.put(hold, &record).unwrap();
        self.assert_stored(ticket);
    }

    fn extend(&mut self, identity: Identity, sequence: u64, days: u32) {
        let (hold, _) = self.hold(identity);
        let ticket = self.store.extend(hold, sequence, START_S + days * DAY_S, b"a longer lease").unwrap();
        self.assert_stored(ticket);
    }

    fn delete(&mut self, identity: Identity, sequence: u64) {
        let (hold, _) = self.hold(identity);
        let ticket = self.store.delete(hold, sequence, START_S + DAY_S, b"proof").unwrap();
        self.assert_stored(ticket);
    }

    fn get(&mut self, identity: Identity) -> Option<(u64, Vec<u8>)> {
        self.store.get(identity, AlignedBuf::zeroed(16 << 10)).ok()?;
        self.settle();
        match self.events.pop() {
            Some(Event::Got { got: Got::Record(read), buf, .. }) => {
                assert_eq!((read.card(&buf), read.lease(&buf)), (&b"the card"[..], &b"the lease"[..]));
                Some((read.head.sequence, read.body(&buf).to_vec()))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn identity(family: Family, key: u8, index: u8) -> Identity {
    Identity { family, key: [key; 32], index }
}

const EXTENDED: u8 = 1;
const DELETED: u8 = 2;
const REPLACED: u8 = 3;
const LONG: u8 = 4;
const DHT: u8 = 5;
const BUNDLE: u8 = 6;

fn body(sequence: u64) -> Vec<u8> {
    let repeated = if sequence == u64::from(LONG) { 300 } else { 3 };
    format!("body {sequence} ").repeat(repeated).into_bytes()
}

/// A record of each kind, one replaced, one deleted, one with a lease.
pub fn partition() -> Disk {
    let disk = Disk::default();
    KeyedStore::format(&disk, PARTITION, SIZES.0).unwrap();
    let mut partition = Partition::open(disk);
    let shard = |key| identity(Family::Shard, key, 7);
    partition.put(shard(EXTENDED), 1, 1);
    partition.extend(shard(EXTENDED), 11, 90);
    partition.put(shard(DELETED), 2, 200);
    partition.delete(shard(DELETED), 12);
    partition.put(shard(REPLACED), 33, 1);
    partition.put(shard(LONG), u64::from(LONG), 400);
    partition.put(identity(Family::DhtRecord, DHT, Identity::NO_INDEX), 5, 1);
    partition.put(identity(Family::KeyBundle, BUNDLE, Identity::NO_INDEX), 6, 30);
    partition.store.begin_shutdown();
    partition.settle();
    assert!(partition.store.is_drained());
    // After the checkpoint: what a start must put together with it.
    let mut partition = Partition::open(partition.disk);
    partition.put(shard(REPLACED), 3, 2);
    partition.now_us += 1_000_000;
    partition.settle();
    partition.disk
}

#[test]
fn a_partition_of_keyed_records_gives_what_was_put() {
    let mut partition = Partition::open(fixture("keyed-partition-v1"));
    assert!(partition.from_checkpoint);
    let shard = |key| identity(Family::Shard, key, 7);
    let records = [
        (shard(EXTENDED), 1, START_S + 90 * DAY_S),
        (shard(REPLACED), 3, START_S + 2 * DAY_S),
        (shard(LONG), 4, START_S + 400 * DAY_S),
        (identity(Family::DhtRecord, DHT, Identity::NO_INDEX), 5, START_S + DAY_S),
        (identity(Family::KeyBundle, BUNDLE, Identity::NO_INDEX), 6, START_S + 30 * DAY_S),
    ];
    for (identity, sequence, expires_s) in records {
        assert_eq!(partition.get(identity), Some((sequence, body(sequence))));
        let (hold, existing) = partition.hold(identity);
        partition.store.release(hold);
        assert_eq!(existing.expires_s(), expires_s, "{identity:?}");
        assert_eq!(existing.lease.map(|lease| lease.sequence), (sequence == 1).then_some(11));
    }
    assert_eq!(partition.get(shard(DELETED)), None);
    let (hold, existing) = partition.hold(shard(DELETED));
    partition.store.release(hold);
    let tombstone = existing.tombstone.unwrap();
    assert_eq!((tombstone.sequence, tombstone.expires_s), (12, START_S + 200 * DAY_S));
}

#[test]
fn the_logs_of_a_partition_hold_what_was_committed() {
    let disk = fixture("keyed-partition-v1");
    let found = Class::ALL.map(|class| {
        let (records, digest, _) = logs::digest(&disk, class.lane(PARTITION), SIZES);
        (records, digest)
    });
    let committed = [
        "1c7c3dfd04ed9500068feeb7fd195226",
        "49038bd9497cb8d39e1818bdd5038aaf",
        "c38156fb6d8caf040e950ddaba009434",
    ];
    assert_eq!(found, committed.map(|digest| (3, digest.to_owned())));
}
