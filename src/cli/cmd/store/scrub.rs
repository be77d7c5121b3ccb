//! Every checksum and every root, and the names of what is lost.

use std::io;

use serde::Serialize;
use shards::Kind;
use shards::io::LaneId;
use shards::keyed::{AuditLoss, Family, Identity, LostReason};

use super::SHOWN_MAX;
use super::reading::{Watched, hex, partitions, read_lane, restore};
use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::Output;
use crate::cli::store::NodeDir;

/// A record that is lost.
#[derive(Debug, Serialize)]
struct Lost {
    family: &'static str,
    kind: &'static str,
    key: String,
    /// Which shard of its stripe; none of what is no shard.
    index: Option<u8>,
    reason: String,
    lane: u16,
    segment: u32,
    offset: u32,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    store_id: String,
    node_id: String,
    healthy: bool,
    bytes_read: u64,
    /// Sound ones.
    batches: u64,
    records: u64,
    /// Live records whose body is what their root says.
    roots: u64,
    lost: Vec<Lost>,
    lost_unlisted: u64,
    lost_unnamed: u64,
    lost_messages: u64,
    wrong_records: u64,
    unreadable_blocks: u64,
}

/// Prints what was found; true if nothing is wrong. `all` names every loss.
pub fn run(dir: &NodeDir, output: &mut Output<io::Stdout>, json: bool, all: bool) -> Result<bool, CliError> {
    let partitions = partitions(dir)?;
    let volume = Watched::new(dir, &partitions, (2, 2))?;
    let (store_id, node_id) = (hex(&dir.store.id().0), dir.key.node_id().to_string());
    let mut report = Report { store_id, node_id, ..Report::default() };
    for lane in (0..dir.store.lanes()).map(LaneId) {
        report.read_relay(dir, &volume, lane)?;
    }
    for partition in partitions {
        report.read_partition(dir, &volume, partition)?;
    }
    report.bytes_read = volume.bytes_read();
    report.healthy = report.is_well();
    volume.end();
    if json {
        output.json(&report)?
    } else {
        output.line(&report.render(all))?
    }
    Ok(report.healthy)
}

impl Report {
    fn read_relay(&mut self, dir: &NodeDir, volume: &Watched<'_>, lane: LaneId) -> Result<(), CliError> {
        let read = read_lane(dir, volume, lane)?;
        self.lost_messages += read.found.lost_records + read.found.known_lost_records;
        self.unreadable_blocks += read.found.unreadable_blocks;
        let checked = read.lane.verify_records(volume);
        self.batches += checked.batches;
        self.records += checked.records;
        self.wrong_records += checked.wrong;
        Ok(())
    }

    fn read_partition(
        &mut self,
        dir: &NodeDir,
        volume: &Watched<'_>,
        partition: LaneId,
    ) -> Result<(), CliError> {
        let restored = restore(dir, volume, partition)?;
        let audit = restored.store.audit(volume);
        let missing = restored.reports.iter().map(|it| it.lost_records + it.known_lost_records).sum::<u64>();
        self.lost_unnamed += missing.saturating_sub(audit.damaged) + restored.unintelligible;
        self.unreadable_blocks += restored.reports.iter().map(|it| it.unreadable_blocks).sum::<u64>();
        self.batches += audit.batches;
        self.records += audit.records;
        self.roots += audit.roots;
        self.lost_unlisted += audit.lost_unlisted;
        self.lost.extend(audit.lost.iter().map(|loss| Lost::of(loss, partition)));
        Ok(())
    }

    fn is_well(&self) -> bool {
        let lost = self.lost.len() as u64 + self.lost_unlisted + self.lost_unnamed + self.lost_messages;
        lost + self.wrong_records + self.unreadable_blocks == 0
    }

    fn render(&self, all: bool) -> String {
        let mut lines = vec![format!(
            "read {}: {} batches, {} records, {} roots",
            human::bytes(self.bytes_read),
            human::count(self.batches),
            human::count(self.records),
            human::count(self.roots)
        )];
        let shown = if all { self.lost.len() } else { self.lost.len().min(SHOWN_MAX) };
        lines.extend(self.lost[..shown].iter().map(Lost::line));
        let more = (self.lost.len() - shown) as u64 + self.lost_unlisted;
        let counted = [
            (more, "more are lost; --all names up to 65,536 of each partition"),
            (self.lost_unnamed, "damaged records cannot be named; whether they lived is not known"),
            (self.lost_messages, "records of the relay are lost; `trine store check` says where"),
            (self.wrong_records, "records of the relay have a wrong checksum in a batch with a right one"),
            (self.unreadable_blocks, "blocks cannot be read; check the disk (dmesg, smartctl)"),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        lines.extend(counted.map(|(count, what)| format!("{} {what}", human::count(count))));
        lines.push(match self.healthy {
            true => "healthy: every checksum and every root is right".into(),
            false => "damaged: what is named above has to come from other nodes".into(),
        });
        lines.join("\n")
    }
}

impl Lost {
    fn of(loss: &AuditLoss, partition: LaneId) -> Self {
        let Identity { family, key, index } = loss.identity;
        Self {
            family: match family {
                Family::Shard => "shard",
                Family::DhtRecord => "dht_record",
                Family::KeyBundle => "key_bundle",
            },
            kind: match loss.kind {
                Kind::Tombstone => "tombstone",
                Kind::Lease => "lease",
                _ => "record",
            },
            key: hex(&key),
            index: (index != Identity::NO_INDEX).then_some(index),
            reason: match loss.reason {
                LostReason::Damaged => "damaged".into(),
                LostReason::Unreadable(_) => "unreadable".into(),
                LostReason::RootMismatch => "root mismatch".into(),
            },
            lane: loss.class.lane(partition).0,
            segment: loss.segment.0,
            offset: loss.offset,
        }
    }

    fn line(&self) -> String {
        let Self { family, kind, key, reason, lane, segment, offset, .. } = self;
        let index = self.index.map_or(String::new(), |index| format!(" index {index}"));
        let kind = if *kind == "record" { String::new() } else { format!(" ({kind})") };
        format!(
            "lost: {family}{kind} {key}{index}: {reason} (lane {lane}, segment {segment:08x}, at {offset})"
        )
    }
}
