//! `trine store` on a store that holds records found by key, made here on a real directory.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "these tests use files of their own, and fail by panicking"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::{pread, pwrite};
use serde_json::Value as Json;
use shards::io::{BLOCK_BYTES, DiskDone, DiskOp, Errno, LaneId};
use shards::keyed::{
    Begun, Class, Event, Family, Hold, Identity, KeyedConfig, KeyedStore, NewRecord, SCRUB_WITHIN_S, Ticket,
};
use support::{SMALL, arg, dir, run};
use trine::cli::store::{self, NodeDir};

const PARTITION: LaneId = LaneId(2);
const BATCH_BYTES: usize = 64 << 10;
const DAY_S: u64 = 24 * 3_600;

/// A partition on a real directory, driven one operation after the other.
struct Partition {
    dir: NodeDir,
    store: KeyedStore,
    now_us: u64,
    now_s: u64,
    events: Vec<Event>,
}

fn identity(family: Family, number: u8) -> Identity {
    let index = if family == Family::Shard { 1 } else { Identity::NO_INDEX };
    Identity { family, key: *blake3::hash(&[number]).as_bytes(), index }
}

fn hex(identity: &Identity) -> String {
    identity.key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body(number: u8) -> [u8; 3_000] {
    [number; 3_000]
}

impl Partition {
    fn format(data: &Path) -> Self {
        let dir = store::open(data).unwrap();
        KeyedStore::format(&*dir.volume, PARTITION, dir.store.segment_bytes()).unwrap();
        let now_s = store::wall_ms() / 1_000;
        let config = KeyedConfig {
            partition: PARTITION,
            lane: dir.store.lane_config(PARTITION),
            segments_max: 12,
            entries_max: 1_000,
            lookups_max: 2,
            batch_bytes: BATCH_BYTES,
            batch_buffers: 2,
            mixing_secret: [3; 32],
            scrub_within_s: SCRUB_WITHIN_S,
            now_s,
        };
        let store = KeyedStore::restore(&*dir.volume, config).unwrap().store;
        Self { dir, store, now_us: 0, now_s, events: Vec::new() }
    }

    /// Carries out what is asked for until nothing is.
    fn settle(&mut self) {
        loop {
            self.now_us += 20_000;
            let mut ops = Vec::new();
            self.store.poll(self.now_us, self.now_s, &mut ops);
            if ops.is_empty() {
                return;
            }
            for op in ops {
                let done = self.carry_out(op);
                self.store.complete(self.now_us, done, &mut self.events);
            }
        }
    }

    fn carry_out(&self, op: DiskOp) -> DiskDone {
        let failed = |errno: rustix::io::Errno| Errno(errno.raw_os_error());
        let volume = &self.dir.volume;
        match op {
            DiskOp::Write { lane, segment, offset, buf, len, op } => {
                let file = volume.open_segment(lane, segment).unwrap();
                let result = pwrite(&file, &buf[..len], offset).map_err(failed);
                DiskDone { lane, op, result, buf: Some(buf) }
            }
            DiskOp::Read { lane, segment, offset, mut buf, len, op } => {
                let file = volume.open_segment(lane, segment).unwrap();
                let result = pread(&file, &mut buf[..len], offset).map_err(failed);
                DiskDone { lane, op, result, buf: Some(buf) }
            }
            DiskOp::Prepare { lane, segment, size, op } => {
                volume.prepare_segment(lane, segment, size).unwrap();
                DiskDone { lane, op, result: Ok(0), buf: None }
            }
        }
    }

    fn hold(&mut self, identity: Identity) -> Hold {
        let wanted = match self.store.begin(identity).unwrap() {
            Begun::Held(hold) => return hold,
            Begun::Reading(ticket) => ticket,
        };
        self.settle();
        let is_it = |event: &Event| matches!(event, Event::Held { ticket, .. } if *ticket == wanted);
        let at = self.events.iter().position(is_it).expect("it was looked up");
        match self.events.remove(at) {
            Event::Held { hold, .. } => hold,
            other => panic!("{other:?}"),
        }
    }

    fn stored(&mut self, wanted: Ticket) {
        self.settle();
        let is_it = |event: &Event| matches!(event, Event::Stored { ticket } if *ticket == wanted);
        assert!(self.events.iter().any(is_it), "{:?}", self.events);
    }

    fn put(&mut self, identity: Identity, number: u8, root: [u8; 32]) {
        let hold = self.hold(identity);
        let expires_s = (self.now_s + 30 * DAY_S) as u32;
        let (card, lease, body) = (&b"card"[..], &b"lease"[..], &body(number)[..]);
        let record = NewRecord { code: 1, sequence: 1, expires_s, card, lease, root, body };
        let ticket = self.store.put(hold, &record).unwrap();
        self.stored(ticket);
    }

    /// Twenty shards, of which one is deleted and one lives longer, two DHT records, one bundle of keys.
    fn fill(&mut self) {
        let root = |number| *blake3::hash(&body(number)).as_bytes();
        (0..20).for_each(|n| self.put(identity(Family::Shard, n), n, root(n)));
        (30..32).for_each(|n| self.put(identity(Family::DhtRecord, n), n, root(n)));
        self.put(identity(Family::KeyBundle, 40), 40, root(40));
        let hold = self.hold(identity(Family::Shard, 1));
        let ticket = self.store.delete(hold, 2, 0, b"proof").unwrap();
        self.stored(ticket);
        let hold = self.hold(identity(Family::Shard, 2));
        let ticket = self.store.extend(hold, 2, (self.now_s + 60 * DAY_S) as u32, b"longer").unwrap();
        self.stored(ticket);
    }

    fn close(mut self) {
        self.store.begin_shutdown();
        self.settle();
        assert!(self.store.is_drained());
    }
}

/// A directory with a node and its store.
fn init(dir: &Path) -> PathBuf {
    let (data, config) = (dir.join("node"), dir.join("init.toml"));
    fs::write(&config, SMALL).unwrap();
    run(&["init", "--data", arg(&data), "--config", arg(&config)]).expect(0);
    data
}

fn ask(data: &Path, question: &str, code: i32) -> Json {
    run(&["store", question, "--json", "--data", arg(data)]).expect(code).json()[0].clone()
}

/// Flips a bit in the middle of the body of a record.
fn rot(data: &Path, number: u8) {
    for class in Class::ALL {
        let lane = data.join(format!("lane-{:03}", class.lane(PARTITION).0));
        for segment in fs::read_dir(lane).unwrap().map(|entry| entry.unwrap().path()) {
            let mut bytes = fs::read(&segment).unwrap();
            let body = body(number);
            if let Some(at) = bytes.windows(body.len()).step_by(1).position(|window| window == body) {
                bytes[at + 1_500] ^= 4;
                return fs::write(&segment, bytes).unwrap();
            }
        }
    }
    panic!("there is no record {number}");
}

#[test]
fn records_found_by_key_are_counted_verified_and_named_when_they_are_lost() {
    let dir = dir();
    let data = init(dir.path());
    let mut partition = Partition::format(&data);
    partition.fill();
    let refused = run(&["store", "scrub", "--data", arg(&data)]).expect(5);
    assert!(refused.err.contains("process"), "the store is in use: {}", refused.err);
    partition.close();

    let stats = ask(&data, "stats", 0);
    let total = &stats["total"];
    for (kind, count) in
        [("shards", 20), ("dht_records", 2), ("key_bundles", 1), ("tombstones", 1), ("leases", 1)]
    {
        assert_eq!(total[kind], count, "{kind}: {total}");
    }
    assert_eq!((stats["lanes"].as_array().unwrap().len(), stats["keyed"].as_array().unwrap().len()), (4, 3));
    assert_eq!((&stats["keyed"][1]["partition"], &stats["keyed"][1]["class"]), (&2.into(), &"days".into()));
    let scrub = ask(&data, "scrub", 0);
    assert_eq!(
        (&scrub["healthy"], &scrub["roots"], &scrub["records"]),
        (&true.into(), &22.into(), &25.into())
    );
    let verify = ask(&data, "verify", 0);
    let families = &verify["partitions"][0]["families"];
    assert_eq!((&verify["agrees"], &families[0]["log"]["live"]), (&true.into(), &19.into()), "{verify}");
    assert_eq!((&families[0]["index"]["marks"], &families[1]["index"]["live"]), (&2.into(), &2.into()));

    // What is dead is missed by nobody; what lives is named.
    rot(&data, 1);
    assert_eq!(ask(&data, "scrub", 0)["lost"], Json::Array(vec![]));
    rot(&data, 7);
    rot(&data, 31);
    assert_eq!(ask(&data, "check", 5)["healthy"], false);
    let lost = ask(&data, "scrub", 5)["lost"].as_array().unwrap().clone();
    let named = |lost: &Json| (lost["family"].clone(), lost["key"].clone(), lost["reason"].clone());
    let shard = ("shard".into(), hex(&identity(Family::Shard, 7)).into(), "damaged".into());
    let record = ("dht_record".into(), hex(&identity(Family::DhtRecord, 31)).into(), "damaged".into());
    assert_eq!(lost.iter().map(named).collect::<Vec<_>>(), [shard, record]);
    assert_eq!((&lost[0]["index"], &lost[1]["index"]), (&1.into(), &Json::Null));
    let shown = run(&["store", "scrub", "--all", "--data", arg(&data)]).expect(5).out.join("\n");
    assert!(shown.contains(&format!("lost: shard {} index 1: damaged", hex(&identity(Family::Shard, 7)))));
    assert_eq!(ask(&data, "verify", 5)["agrees"], true, "both know that it is gone");
}

#[test]
fn a_body_that_is_not_what_its_root_says_is_found_by_scrub_alone() {
    let dir = dir();
    let data = init(dir.path());
    let mut partition = Partition::format(&data);
    partition.put(identity(Family::Shard, 1), 1, [7; 32]);
    partition.close();
    assert_eq!(ask(&data, "check", 0)["healthy"], true);
    let lost = &ask(&data, "scrub", 5)["lost"][0];
    assert_eq!((&lost["reason"], &lost["family"]), (&"root mismatch".into(), &"shard".into()));
    let verified = run(&["store", "verify", "--data", arg(&data)]).expect(0).out.join("\n");
    assert!(verified.contains("verified: the index is what the log says"), "{verified}");
}

#[test]
fn a_block_of_zeros_where_a_batch_was_leaves_records_without_a_name() {
    let dir = dir();
    let data = init(dir.path());
    let mut partition = Partition::format(&data);
    partition.fill();
    partition.close();
    let lane = data.join(format!("lane-{:03}", Class::Days.lane(PARTITION).0));
    let segment = lane.join("00000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    // The first batch, behind the header of the segment.
    bytes[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0);
    fs::write(&segment, bytes).unwrap();
    let scrub = ask(&data, "scrub", 5);
    assert_eq!((&scrub["lost_unnamed"], &scrub["lost"]), (&1.into(), &Json::Array(vec![])));
}
