//! Logs of one lane.

use shards::format::BATCH_BYTES_MAX;
use shards::io::{LaneId, SegmentId, Volume};
use shards::{AlignedBuf, Completion, Kind, Lane, LaneConfig, RecoveryCase, RecoveryReport, StoreId};

use crate::disk::Disk;
use crate::fixture;

const LANE: LaneId = LaneId(3);
const STORE: StoreId = StoreId(*b"a fixture's id..");

/// How a lane is opened: sizes of its segments and batches, most segments.
type Sizes = (u32, usize, u32);

const RELAY: Sizes = (64 << 10, 8 << 10, 6);
const WIDE: Sizes = (48 << 10, 16 << 10, 120);
const LONG: Sizes = (3 << 20, BATCH_BYTES_MAX, 4);

fn recover(disk: &Disk, lane: LaneId, sizes: Sizes, seen: &mut Vec<u8>) -> (Lane, RecoveryReport) {
    let (segment_bytes, batch_bytes, segments_max) = sizes;
    let config = LaneConfig {
        segments_max,
        reserve_bytes: 4 << 10,
        resync_bytes: 32 << 10,
        ..LaneConfig::new(STORE, lane, segment_bytes)
    };
    let buffers = (0..2).map(|_| AlignedBuf::zeroed(batch_bytes)).collect();
    let opened = Lane::recover(disk, config, buffers, &mut |record, _| {
        seen.extend(record.lsn.0.to_le_bytes());
        seen.push(record.kind as u8);
        seen.extend(record.expires_s.to_le_bytes());
        seen.extend((record.payload.len() as u64).to_le_bytes());
        seen.extend(record.payload);
    });
    opened.unwrap()
}

/// Digest of all records of a lane, and how many there are.
pub fn digest(disk: &Disk, lane: LaneId, sizes: Sizes) -> (u64, String, RecoveryReport) {
    let mut seen = Vec::new();
    let (_, report) = recover(disk, lane, sizes, &mut seen);
    (report.records, blake3::hash(&seen).to_hex()[..32].to_owned(), report)
}

/// For who writes a fixture: of each lane in it.
pub fn digests(disk: &Disk) -> Vec<(u16, u64, String)> {
    let lanes = (0..1_024).map(LaneId).filter(|lane| !disk.segments(*lane).unwrap().is_empty());
    let sizes = |lane: LaneId| match disk.segments(lane).unwrap()[0].bytes {
        bytes if bytes == u64::from(WIDE.0) => WIDE,
        bytes if bytes == u64::from(LONG.0) => LONG,
        _ => RELAY,
    };
    let of = |lane: LaneId| {
        let (records, digest, _) = digest(disk, lane, sizes(lane));
        (lane.0, records, digest)
    };
    lanes.map(of).collect()
}

struct Writer {
    disk: Disk,
    lane: Lane,
    now_us: u64,
}

impl Writer {
    fn new(sizes: Sizes) -> Self {
        let disk = Disk::default();
        disk.create_segment(LANE, SegmentId(0), u64::from(sizes.0)).unwrap();
        let (lane, _) = recover(&disk, LANE, sizes, &mut Vec::new());
        Self { disk, lane, now_us: 0 }
    }

    /// Runs until nothing is in flight.
    fn drain(&mut self) {
        loop {
            let mut ops = Vec::new();
            self.lane.poll(self.now_us, &mut ops);
            if ops.is_empty() {
                return;
            }
            for op in ops {
                let done = self.disk.run(op, None);
                let ended = self.lane.complete(self.now_us, done, |_| {});
                assert!(!matches!(ended, Completion::Refused { .. } | Completion::WriteFailed(_)));
            }
        }
    }

    fn append(&mut self, kind: Kind, expires_s: u32, payload: &[u8]) {
        self.lane.append(kind, expires_s, &[payload]).unwrap();
    }

    /// Lets a marker be written.
    fn idle(&mut self) {
        self.now_us += 1_000_000;
        self.drain();
    }
}

fn text(number: u32) -> Vec<u8> {
    format!("record {number} of a lane that an earlier version wrote ")
        .repeat(1 + number as usize % 9)
        .into_bytes()
}

/// A lane of all kinds of the relay, two segments long, whose last write was torn.
pub fn relay_lane() -> Disk {
    let mut writer = Writer::new(RELAY);
    for number in 0..60 {
        let kind = [Kind::Message, Kind::MailboxState, Kind::DedupWindow, Kind::Message][number as usize % 4];
        writer.append(kind, number * 1_000, &text(number));
        if number % 3 == 0 {
            writer.drain();
        }
    }
    writer.drain();
    // Zeros fill what is left of the segment.
    (0..7).for_each(|_| {
        writer.append(Kind::Message, 0, &[0; 7_000]);
        writer.drain();
    });
    writer.idle();
    writer.append(Kind::Message, 0, &text(60).repeat(20));
    let mut ops = Vec::new();
    writer.lane.poll(writer.now_us, &mut ops);
    ops.into_iter().for_each(|op| drop(writer.disk.run(op, Some(3 * 512))));
    writer.disk
}

/// A lane of so many segments that its newest header takes two blocks.
pub fn long_header() -> Disk {
    let mut writer = Writer::new(WIDE);
    for number in 0..206u32 {
        let mut payload = vec![0; 15_000];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        writer.append(Kind::MailboxState, 0, &payload);
        writer.drain();
    }
    writer.idle();
    writer.disk
}

/// A batch longer than version 1 could say.
pub fn long_batch() -> Disk {
    let mut writer = Writer::new(LONG);
    let mut payload = vec![0; (1 << 20) + 5_000];
    payload[..4].copy_from_slice(b"long");
    writer.append(Kind::Message, 7, &payload);
    writer.drain();
    writer.append(Kind::Message, 8, b"short");
    writer.drain();
    writer.idle();
    writer.disk
}

/// The format versions that the blocks at `offset` of all segments say, `at` bytes behind their beginning.
fn versions(disk: &Disk, offset: u64, at: usize) -> Vec<u16> {
    let version = |segment| {
        let mut block = [0; 4_096];
        disk.read_at(LANE, segment, offset, &mut block).unwrap();
        u16::from_le_bytes([block[at], block[at + 1]])
    };
    disk.segments(LANE).unwrap().iter().map(|file| version(file.segment)).collect()
}

#[test]
fn a_lane_of_version_1_with_a_torn_end_holds_what_was_committed() {
    let disk = fixture("relay-lane-v1");
    assert_eq!(versions(&disk, 0, 8).iter().max(), Some(&1));
    let (records, digest, report) = digest(&disk, LANE, RELAY);
    assert_eq!((records, digest.as_str()), (67, "354a7ce9dcd410ef4f76212e17e0ba23"));
    assert!(report.torn_bytes > 0 && report.count(RecoveryCase::TornTail) == 1, "{report:?}");
    assert!(!report.has_loss(), "{report:?}");
}

#[test]
fn a_lane_of_version_2_with_a_header_of_two_blocks_holds_what_was_committed() {
    let disk = fixture("long-header-v2");
    assert!(versions(&disk, 0, 8).contains(&2));
    let (records, digest, report) = digest(&disk, LANE, WIDE);
    assert_eq!((records, digest.as_str()), (206, "71d44f713586cbdcae96fdfc36eb2d6f"));
    assert!(!report.has_loss(), "{report:?}");
}

#[test]
fn a_lane_of_version_2_with_a_batch_beyond_a_mebibyte_holds_what_was_committed() {
    let disk = fixture("long-batch-v2");
    assert!(versions(&disk, 4_096, 4).contains(&2));
    let (records, digest, report) = digest(&disk, LANE, LONG);
    assert_eq!((records, digest.as_str()), (2, "ee9973560aea8f6e293cf346f043ac34"));
    assert!(!report.has_loss(), "{report:?}");
}
