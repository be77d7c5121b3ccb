//! Reading the lanes of a stopped store, with a bar that shows how far it is.

use std::io;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shards::format::SEGMENTS_MAX;
use shards::io::{LaneId, SegmentFile, SegmentId, Volume};
use shards::keyed::{Class, KeyedConfig, KeyedStore, Restored, SCRUB_WITHIN_S};
use shards::{AlignedBuf, Kind, Lane, LaneConfig, RecoveredRecord, RecoveryReport};

use crate::cli::error::{CliError, Exit};
use crate::cli::session::random;
use crate::cli::store::{self, NodeDir};

/// Batch buffers that a lane needs to be opened; nothing is written from them.
const BUFFERS: usize = 2;
const BUFFER_BYTES: usize = 128 * 1024;

/// Something is wrong with the store.
pub fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Store, error.to_string())
}

/// The store's volume while it is looked at: moves a bar by what is read, and changes nothing.
pub struct Watched<'d> {
    dir: &'d NodeDir,
    bar: ProgressBar,
}

impl<'d> Watched<'d> {
    /// For reading the relay's lanes and those of `partitions` so many times.
    pub fn new(
        dir: &'d NodeDir,
        partitions: &[LaneId],
        (relay_times, keyed_times): (u64, u64),
    ) -> Result<Self, CliError> {
        let bytes = |lane: LaneId| -> Result<u64, CliError> {
            let files = dir.volume.segments(lane).map_err(|error| failed_lane(lane, &error))?;
            Ok(files.iter().map(|file| file.bytes).sum())
        };
        let mut total = 0;
        for lane in (0..dir.store.lanes()).map(LaneId) {
            total += relay_times * bytes(lane)?;
        }
        for partition in partitions {
            for class in Class::ALL {
                total += keyed_times * bytes(class.lane(*partition))?;
            }
        }
        let style = "{bar:30} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
        let bar = ProgressBar::new(total);
        // A template that cannot be read leaves the plain bar.
        let bar = ProgressStyle::with_template(style).map_or(bar.clone(), |style| bar.with_style(style));
        Ok(Self { dir, bar })
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bar.position()
    }

    /// Takes the bar away.
    pub fn end(self) {
        self.bar.finish_and_clear();
    }
}

fn failed_lane(lane: LaneId, error: &io::Error) -> CliError {
    failed(format!("the directory of lane {} cannot be read: {error}; check the disk and its mount", lane.0))
}

impl Volume for Watched<'_> {
    fn segments(&self, lane: LaneId) -> io::Result<Vec<SegmentFile>> {
        self.dir.volume.segments(lane)
    }

    fn read_at(&self, lane: LaneId, segment: SegmentId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.dir.volume.read_at(lane, segment, offset, buf)?;
        self.bar.inc(read as u64);
        Ok(read)
    }

    fn sync_segment(&self, lane: LaneId, segment: SegmentId) -> io::Result<()> {
        self.dir.volume.sync_segment(lane, segment)
    }

    fn create_segment(&self, _: LaneId, _: SegmentId, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn create_lane(&self, _: LaneId) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_meta(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.dir.volume.read_meta(name)
    }

    fn replace_meta(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// The partitions of keyed records that the store has.
pub fn partitions(dir: &NodeDir) -> Result<Vec<LaneId>, CliError> {
    let mut found = Vec::new();
    for partition in (0..dir.store.lanes()).map(LaneId) {
        let of_partition = KeyedStore::lanes(partition);
        let mut lanes = 0;
        for lane in of_partition {
            match dir.volume.segments(lane) {
                Ok(_) => lanes += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed_lane(lane, &error)),
            }
        }
        match lanes {
            0 => {}
            _ if lanes == of_partition.len() => found.push(partition),
            _ => {
                let (partition, all) = (partition.0, of_partition.len());
                let what =
                    format!("partition {partition} has {lanes} of its {all} lanes; is a disk not mounted?");
                return Err(failed(what));
            }
        }
    }
    Ok(found)
}

/// What was found in one lane, or in all of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// Segment files.
    pub segments: u64,
    /// Records of each kind. Dead ones count until their segment is used again.
    pub messages: u64,
    pub mailbox_states: u64,
    pub dedup_windows: u64,
    pub shards: u64,
    pub dht_records: u64,
    pub key_bundles: u64,
    pub tombstones: u64,
    pub leases: u64,
    /// Of the messages: their time to live has ended.
    pub expired_messages: u64,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
    /// Bytes of whole batches.
    pub log_bytes: u64,
    /// Bytes of batches that were being written when the node ended: never acknowledged.
    pub torn_bytes: u64,
    /// Blocks of 4 KiB that the device cannot read.
    pub unreadable_blocks: u64,
    /// Acknowledged records that are not there.
    pub lost_records: u64,
    /// The same, but the devices concerned were told before.
    pub known_lost_records: u64,
}

/// A lane that was read, as a start would.
pub struct ReadLane {
    pub lane: Lane,
    pub found: Found,
    pub report: RecoveryReport,
}

/// Opens a lane as a start would; only appending would write.
pub fn read_lane(dir: &NodeDir, volume: &Watched<'_>, lane: LaneId) -> Result<ReadLane, CliError> {
    let now_s = u32::try_from(store::wall_ms() / 1000).unwrap_or(u32::MAX);
    let segments_max = SEGMENTS_MAX as u32;
    let config = LaneConfig { segments_max, owner_reclaims: true, ..dir.store.lane_config(lane) };
    let buffers = (0..BUFFERS).map(|_| AlignedBuf::zeroed(BUFFER_BYTES)).collect();
    let mut found = Found::default();
    let mut count = |record: RecoveredRecord<'_>, _: &mut _| found.count(&record, now_s);
    let (lane, report) = Lane::recover(volume, config, buffers, &mut count).map_err(failed)?;
    found.segments = lane.usage().segments.into();
    found.judge(&report);
    Ok(ReadLane { lane, found, report })
}

/// Opens a partition as a start would that found no checkpoint; only changes would write.
pub fn restore(dir: &NodeDir, volume: &Watched<'_>, partition: LaneId) -> Result<Restored, CliError> {
    let config = KeyedConfig {
        partition,
        lane: dir.store.lane_config(partition),
        segments_max: SEGMENTS_MAX as u32,
        entries_max: u64::MAX,
        lookups_max: 1,
        batch_bytes: BUFFER_BYTES,
        batch_buffers: BUFFERS,
        // It tells identities apart while they are read, and nothing else: any will do.
        mixing_secret: random()?,
        scrub_within_s: SCRUB_WITHIN_S,
        checkpoint_bytes_min: u64::MAX,
        now_s: store::wall_ms() / 1000,
    };
    KeyedStore::restore_from_log(volume, config).map_err(failed)
}

impl Found {
    fn count(&mut self, record: &RecoveredRecord<'_>, now_s: u32) {
        self.payload_bytes += record.payload.len() as u64;
        let count = match record.kind {
            Kind::Message => &mut self.messages,
            Kind::MailboxState => &mut self.mailbox_states,
            Kind::DedupWindow => &mut self.dedup_windows,
            Kind::Shard => &mut self.shards,
            Kind::DhtRecord => &mut self.dht_records,
            Kind::KeyBundle => &mut self.key_bundles,
            Kind::Tombstone => &mut self.tombstones,
            Kind::Lease => &mut self.leases,
            // What is in them is in the log as well.
            Kind::Checkpoint => return,
        };
        *count += 1;
        self.expired_messages += u64::from(record.kind == Kind::Message && record.expires_s <= now_s);
    }

    fn judge(&mut self, report: &RecoveryReport) {
        self.log_bytes = report.log_bytes;
        self.torn_bytes = report.torn_bytes;
        self.unreadable_blocks = report.unreadable_blocks;
        self.lost_records = report.lost_records;
        self.known_lost_records = report.known_lost_records;
    }

    /// Counts what another lane has, too.
    pub fn add(&mut self, other: &Self) {
        self.segments += other.segments;
        self.messages += other.messages;
        self.mailbox_states += other.mailbox_states;
        self.dedup_windows += other.dedup_windows;
        self.shards += other.shards;
        self.dht_records += other.dht_records;
        self.key_bundles += other.key_bundles;
        self.tombstones += other.tombstones;
        self.leases += other.leases;
        self.expired_messages += other.expired_messages;
        self.payload_bytes += other.payload_bytes;
        self.log_bytes += other.log_bytes;
        self.torn_bytes += other.torn_bytes;
        self.unreadable_blocks += other.unreadable_blocks;
        self.lost_records += other.lost_records;
        self.known_lost_records += other.known_lost_records;
    }

    /// True if all that was acknowledged is there, and can be read.
    pub fn is_well(&self) -> bool {
        self.lost_records + self.known_lost_records + self.unreadable_blocks == 0
    }
}

/// The name of a class, for people and programs.
pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Hours => "hours",
        Class::Days => "days",
        Class::Years => "years",
    }
}

/// An identity as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
