//! `trine store`: what is in a store that no node has open, and whether all of it is there.
//!
//! Reads every batch of every lane as a start would, changes nothing, and needs the store's lock: of a store
//! that a node is writing to, a reader from outside sees half of what happens.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shards::format::SEGMENTS_MAX;
use shards::io::LaneId;
use shards::{AlignedBuf, Kind, Lane, LostRange, RecoveredRecord, RecoveryReport};

use crate::cli::error::{CliError, Exit};
use crate::cli::human;
use crate::cli::output::Output;
use crate::cli::store::{self, NodeDir};

const EXAMPLES: &str = "\
Examples:
  trine store check --data /var/lib/trine           exit code 0 if all that was acknowledged is there
  trine store check --data /var/lib/trine --json    one object, for programs
  trine store stats --data /var/lib/trine           what is in it, lane by lane

The node must be stopped. Nothing is changed.";

/// Batch buffers that a lane needs to be opened; nothing is written from them.
const BUFFERS: usize = 2;
const BUFFER_BYTES: usize = 128 * 1024;
/// Lost ranges shown to people.
const RANGES_SHOWN_MAX: usize = 20;

/// Looks at a store that no node has open
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StoreArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Reads everything and says whether an acknowledged record is missing or damaged
    #[command(after_help = "Example:\n  trine store check --data /var/lib/trine")]
    Check(Target),
    /// Reads everything and says what there is
    #[command(after_help = "Example:\n  trine store stats --data /var/lib/trine --json")]
    Stats(Target),
}

#[derive(Debug, Args)]
struct Target {
    /// Directory of the node key and the store
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What to do with which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The directory.
    pub data: PathBuf,
    /// Print one JSON object.
    pub json: bool,
    /// A loss is a failure.
    pub judge: bool,
}

impl StoreArgs {
    pub(in crate::cli) fn validate(self) -> StoreOptions {
        let (judge, Target { data, json }) = match self.action {
            Action::Check(target) => (true, target),
            Action::Stats(target) => (false, target),
        };
        StoreOptions { data, json, judge }
    }
}

/// What was found in one lane, or in all of them.
#[derive(Clone, Debug, Default, Serialize)]
struct Found {
    /// Segment files.
    segments: u64,
    /// Records of each kind. Dead ones count until their segment is used again.
    messages: u64,
    mailbox_states: u64,
    dedup_windows: u64,
    /// Of the messages: their time to live has ended.
    expired_messages: u64,
    /// Bytes of all payloads.
    payload_bytes: u64,
    /// Bytes of whole batches.
    log_bytes: u64,
    /// Bytes of batches that were being written when the node ended: never acknowledged.
    torn_bytes: u64,
    /// Blocks of 4 KiB that the device cannot read.
    unreadable_blocks: u64,
    /// Acknowledged records that are not there.
    lost_records: u64,
    /// The same, but the devices concerned were told before.
    known_lost_records: u64,
}

/// Acknowledged records that are not there.
#[derive(Clone, Debug, Serialize)]
struct Lost {
    lane: u16,
    first_lsn: u64,
    last_lsn: u64,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Report {
    store_id: String,
    node_id: String,
    lane_count: u16,
    segment_bytes: u32,
    healthy: bool,
    total: Found,
    lanes: Vec<Found>,
    lost: Vec<Lost>,
}

/// Reads the store and prints what was found.
pub fn run(options: &StoreOptions) -> Result<Exit, CliError> {
    let dir = store::open(&options.data)?;
    let report = read(&dir)?;
    let mut output = Output::stdout();
    if options.json {
        output.json(&report)?;
    } else {
        output.line(&render(&report))?;
    }
    Ok(if options.judge && !report.healthy { Exit::Store } else { Exit::Ok })
}

fn read(dir: &NodeDir) -> Result<Report, CliError> {
    let now_s = u32::try_from(store::wall_ms() / 1000).unwrap_or(u32::MAX);
    let style = ProgressStyle::with_template("{bar:30} lane {pos} of {len}  {elapsed}");
    let bar = ProgressBar::new(dir.store.lanes().into());
    // A template that cannot be read leaves the plain bar.
    let bar = style.map_or(bar.clone(), |style| bar.with_style(style));
    let (mut lanes, mut lost) = (Vec::new(), Vec::new());
    for lane in (0..dir.store.lanes()).map(LaneId) {
        let (found, ranges) = read_lane(dir, lane, now_s)?;
        lanes.push(found);
        lost.extend(ranges);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut total = Found::default();
    lanes.iter().for_each(|found| total.add(found));
    Ok(Report {
        store_id: dir.store.id().0.iter().map(|byte| format!("{byte:02x}")).collect(),
        node_id: dir.key.node_id().to_string(),
        lane_count: dir.store.lanes(),
        segment_bytes: dir.store.segment_bytes(),
        healthy: total.lost_records + total.known_lost_records + total.unreadable_blocks == 0,
        total,
        lanes,
        lost,
    })
}

/// Opens a lane as a start would, and drops it again: only appending writes.
fn read_lane(dir: &NodeDir, lane: LaneId, now_s: u32) -> Result<(Found, Vec<Lost>), CliError> {
    let mut config = dir.store.lane_config(lane);
    config.segments_max = SEGMENTS_MAX as u32;
    config.owner_reclaims = true;
    let buffers = (0..BUFFERS).map(|_| AlignedBuf::zeroed(BUFFER_BYTES)).collect();
    let mut found = Found::default();
    let mut count = |record: RecoveredRecord<'_>, _: &mut _| found.count(&record, now_s);
    let opened = Lane::recover(&*dir.volume, config, buffers, &mut count);
    let (opened, report) = opened.map_err(|error| CliError::new(Exit::Store, error.to_string()))?;
    found.segments = opened.usage().segments.into();
    found.judge(&report);
    Ok((found, report.lost.iter().map(Lost::of).collect()))
}

impl Found {
    fn count(&mut self, record: &RecoveredRecord<'_>, now_s: u32) {
        self.payload_bytes += record.payload.len() as u64;
        match record.kind {
            Kind::Message => {
                self.messages += 1;
                self.expired_messages += u64::from(record.expires_s <= now_s);
            }
            Kind::MailboxState => self.mailbox_states += 1,
            Kind::DedupWindow => self.dedup_windows += 1,
            Kind::Shard
            | Kind::DhtRecord
            | Kind::KeyBundle
            | Kind::Tombstone
            | Kind::Lease
            | Kind::Checkpoint => {}
        }
    }

    fn judge(&mut self, report: &RecoveryReport) {
        self.log_bytes = report.log_bytes;
        self.torn_bytes = report.torn_bytes;
        self.unreadable_blocks = report.unreadable_blocks;
        self.lost_records = report.lost_records;
        self.known_lost_records = report.known_lost_records;
    }

    fn add(&mut self, other: &Self) {
        self.segments += other.segments;
        self.messages += other.messages;
        self.mailbox_states += other.mailbox_states;
        self.dedup_windows += other.dedup_windows;
        self.expired_messages += other.expired_messages;
        self.payload_bytes += other.payload_bytes;
        self.log_bytes += other.log_bytes;
        self.torn_bytes += other.torn_bytes;
        self.unreadable_blocks += other.unreadable_blocks;
        self.lost_records += other.lost_records;
        self.known_lost_records += other.known_lost_records;
    }
}

impl Lost {
    fn of(range: &LostRange) -> Self {
        let reason = format!("{:?}", range.reason);
        Self { lane: range.lane.0, first_lsn: range.first.0, last_lsn: range.last.0, reason }
    }
}

/// A column of the table: its title, its value, how that is written.
type Column = (&'static str, fn(&Found) -> u64, fn(u64) -> String);

const COLUMNS: &[Column] = &[
    ("segments", |found| found.segments, human::count),
    ("messages", |found| found.messages, human::count),
    ("expired", |found| found.expired_messages, human::count),
    ("states", |found| found.mailbox_states, human::count),
    ("log", |found| found.log_bytes, human::bytes),
    ("torn", |found| found.torn_bytes, human::bytes),
    ("unreadable", |found| found.unreadable_blocks, human::count),
    ("lost", |found| found.lost_records + found.known_lost_records, human::count),
];

fn render(report: &Report) -> String {
    let row = |title: String, cell: &dyn Fn(&Column) -> String| {
        COLUMNS.iter().fold(format!("{title:<8}"), |line, column| line + &format!("{:>12}", cell(column)))
    };
    let of = |title: String, found: &Found| row(title, &|(_, value, write)| write(value(found)));
    let mut lines = vec![
        format!("node     {}", report.node_id),
        format!(
            "store    {}, {} lanes, segments of {}",
            report.store_id,
            report.lane_count,
            human::bytes(report.segment_bytes.into())
        ),
        String::new(),
        row(String::new(), &|(title, ..)| (*title).to_owned()),
    ];
    let each = report.lanes.iter().enumerate();
    lines.extend(each.map(|(lane, found)| of(format!("lane {lane}"), found)));
    lines.push(of("total".into(), &report.total));
    lines.push(String::new());
    for Lost { lane, first_lsn, last_lsn, reason } in report.lost.iter().take(RANGES_SHOWN_MAX) {
        lines.push(format!("lane {lane}: records {first_lsn} to {last_lsn} are lost ({reason})"));
    }
    if report.lost.len() > RANGES_SHOWN_MAX {
        lines.push(format!("and {} more ranges; --json has them", report.lost.len() - RANGES_SHOWN_MAX));
    }
    lines.push(verdict(report).into());
    lines.join("\n")
}

fn verdict(report: &Report) -> &'static str {
    if report.healthy {
        "healthy: everything that was acknowledged is there"
    } else if report.total.lost_records > 0 {
        "damaged: acknowledged records are lost. The node can be started: it serves the rest and tells the \
         devices concerned. Check the disk first (dmesg, smartctl)"
    } else if report.total.known_lost_records > 0 {
        "damaged before: records are lost, and the devices concerned were told"
    } else {
        "the device has blocks that it cannot read; no acknowledged record is lost by them. Check the disk \
         (dmesg, smartctl)"
    }
}
