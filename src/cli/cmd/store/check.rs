//! What there is in each lane, and whether anything acknowledged is missing.

use std::io;

use serde::Serialize;
use shards::LostRange;
use shards::io::LaneId;
use shards::keyed::Class;

use super::SHOWN_MAX;
use super::reading::{Found, Watched, class_name, hex, partitions, read_lane};
use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::Output;
use crate::cli::store::NodeDir;

/// Acknowledged records that are not there.
#[derive(Clone, Debug, Serialize)]
struct Lost {
    lane: u16,
    first_lsn: u64,
    last_lsn: u64,
    reason: String,
}

/// A lane of records found by key.
#[derive(Clone, Debug, Serialize)]
struct KeyedLane {
    partition: u16,
    class: &'static str,
    lane: u16,
    #[serde(flatten)]
    found: Found,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    store_id: String,
    node_id: String,
    lane_count: u16,
    segment_bytes: u32,
    /// All that was acknowledged is there, and can be read.
    pub healthy: bool,
    total: Found,
    lanes: Vec<Found>,
    keyed: Vec<KeyedLane>,
    lost: Vec<Lost>,
}

/// Prints what was found; true if nothing is lost.
pub fn run(dir: &NodeDir, output: &mut Output<io::Stdout>, json: bool) -> Result<bool, CliError> {
    let partitions = partitions(dir)?;
    let volume = Watched::new(dir, &partitions, (1, 1))?;
    let report = read(dir, &volume, &partitions)?;
    volume.end();
    if json {
        output.json(&report)?
    } else {
        output.line(&render(&report))?
    }
    Ok(report.healthy)
}

/// Reads every lane once.
pub fn read(dir: &NodeDir, volume: &Watched<'_>, partitions: &[LaneId]) -> Result<Report, CliError> {
    let (mut lanes, mut keyed, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let mut total = Found::default();
    for lane in (0..dir.store.lanes()).map(LaneId) {
        let read = read_lane(dir, volume, lane)?;
        total.add(&read.found);
        lanes.push(read.found);
        lost.extend(read.report.lost.iter().map(Lost::of));
    }
    for partition in partitions {
        for class in Class::ALL {
            let lane = class.lane(*partition);
            let read = read_lane(dir, volume, lane)?;
            total.add(&read.found);
            lost.extend(read.report.lost.iter().map(Lost::of));
            let (partition, class, lane) = (partition.0, class_name(class), lane.0);
            keyed.push(KeyedLane { partition, class, lane, found: read.found });
        }
    }
    Ok(Report {
        store_id: hex(&dir.store.id().0),
        node_id: dir.key.node_id().to_string(),
        lane_count: dir.store.lanes(),
        segment_bytes: dir.store.segment_bytes(),
        healthy: total.is_well(),
        total,
        lanes,
        keyed,
        lost,
    })
}

impl Lost {
    fn of(range: &LostRange) -> Self {
        let reason = format!("{:?}", range.reason);
        Self { lane: range.lane.0, first_lsn: range.first.0, last_lsn: range.last.0, reason }
    }
}

/// A column of a table: its title, its value, how that is written.
type Column = (&'static str, fn(&Found) -> u64, fn(u64) -> String);

/// Of the lanes of the relay.
const RELAY: &[Column] = &[
    ("messages", |found| found.messages, human::count),
    ("expired", |found| found.expired_messages, human::count),
    ("states", |found| found.mailbox_states, human::count),
];

/// Of the lanes of records found by key.
const KEYED: &[Column] = &[
    ("shards", |found| found.shards, human::count),
    ("dht", |found| found.dht_records, human::count),
    ("bundles", |found| found.key_bundles, human::count),
    ("tombstones", |found| found.tombstones, human::count),
    ("leases", |found| found.leases, human::count),
];

/// Of both.
const LOG: &[Column] = &[
    ("segments", |found| found.segments, human::count),
    ("log", |found| found.log_bytes, human::bytes),
    ("torn", |found| found.torn_bytes, human::bytes),
    ("unreadable", |found| found.unreadable_blocks, human::count),
    ("lost", |found| found.lost_records + found.known_lost_records, human::count),
];

/// A title, then one line for each row.
fn table<'f>(columns: &[Column], rows: impl Iterator<Item = (String, &'f Found)>) -> Vec<String> {
    let line = |title: &str, cell: &dyn Fn(&Column) -> String| {
        let columns = columns.iter().chain(LOG);
        columns.fold(format!("{title:<18}"), |line, column| line + &format!("{:>12}", cell(column)))
    };
    let mut lines = vec![line("", &|(title, ..)| (*title).to_owned())];
    lines.extend(rows.map(|(title, found)| line(&title, &|(_, value, write)| write(value(found)))));
    lines
}

fn render(report: &Report) -> String {
    let mut lines = vec![
        format!("node     {}", report.node_id),
        format!(
            "store    {}, {} lanes, segments of {}",
            report.store_id,
            report.lane_count,
            human::bytes(report.segment_bytes.into())
        ),
        String::new(),
    ];
    let mut relay = Found::default();
    report.lanes.iter().for_each(|found| relay.add(found));
    let rows = report.lanes.iter().enumerate().map(|(lane, found)| (format!("lane {lane}"), found));
    lines.extend(table(RELAY, rows.chain([("total".to_owned(), &relay)])));
    if !report.keyed.is_empty() {
        let mut keyed = Found::default();
        report.keyed.iter().for_each(|lane| keyed.add(&lane.found));
        let title = |lane: &KeyedLane| format!("partition {} {}", lane.partition, lane.class);
        let rows = report.keyed.iter().map(|lane| (title(lane), &lane.found));
        lines.push(String::new());
        lines.extend(table(KEYED, rows.chain([("total".to_owned(), &keyed)])));
    }
    lines.push(String::new());
    for Lost { lane, first_lsn, last_lsn, reason } in report.lost.iter().take(SHOWN_MAX) {
        lines.push(format!("lane {lane}: records {first_lsn} to {last_lsn} are lost ({reason})"));
    }
    if report.lost.len() > SHOWN_MAX {
        lines.push(format!("and {} more ranges; --json has them", report.lost.len() - SHOWN_MAX));
    }
    lines.push(report.verdict().into());
    lines.join("\n")
}

impl Report {
    /// What that means, and what to do.
    pub fn verdict(&self) -> &'static str {
        if self.healthy {
            "healthy: everything that was acknowledged is there"
        } else if self.total.lost_records > 0 {
            "damaged: acknowledged records are lost. The node can be started: it serves the rest and tells \
             the devices concerned. Check the disk first (dmesg, smartctl). `trine store scrub` names \
             shards and other records found by key"
        } else if self.total.known_lost_records > 0 {
            "damaged before: records are lost, and the devices concerned were told"
        } else {
            "the device has blocks that it cannot read; no acknowledged record is lost by them. Check the \
             disk (dmesg, smartctl)"
        }
    }
}
