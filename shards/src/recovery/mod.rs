//! Reading a lane's log back after a stop of any kind.
//!
//! **Promise.** Every acknowledged record that the disk still holds is given to the visitor once, in LSN
//! order. Every one that it does not hold is reported as lost, with a reason. A record that was never
//! acknowledged comes back whole or not at all. Nothing is written: the running lane then goes on in a fresh
//! segment.
//!
//! **How.** The segment headers come first: the newest lists every other segment with live records, where
//! each ends and which LSNs it holds (`inventory`). Then each segment is read from its front, in order of use
//! (`scan`). When a batch is not as it should be, what follows decides: a later batch, or a later header,
//! that knew those records to be durable proves a loss; otherwise they were never acknowledged.
//!
//! Blocking, and used before a core serves. Called by [`Lane::recover`].

mod inventory;
pub(crate) mod reader;
pub mod report;
mod scan;
#[cfg(test)]
mod tests;
pub mod verify;

use std::io;

use crate::buffer::AlignedBuf;
use crate::format::record::Kind;
use crate::format::segment::SealedSegment;
use crate::format::{Lsn, SEGMENTS_MAX};
use crate::io::{LaneId, SegmentId, Volume};
use crate::lane::config::{ConfigError, LaneConfig};
use crate::lane::ledger::Ledger;
use crate::lane::segments::{Role, Segment};
use crate::lane::{Lane, RecordLoc, Recovered};
use inventory::{Inventory, Target};
use reader::Reader;
use report::{Losses, RecoveryReport};
use scan::Scan;

/// A record found in the log. It counts as live until it is released.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredRecord<'a> {
    /// Position in the log.
    pub lsn: Lsn,
    /// What it is.
    pub kind: Kind,
    /// End of life in seconds since 1970, 0 for none.
    pub expires_s: u32,
    /// Where it lies.
    pub loc: RecordLoc,
    /// The bytes that were appended.
    pub payload: &'a [u8],
}

/// Takes the records of a log in LSN order, and releases in the ledger those that are dead: this one, or an
/// earlier one that this one replaces. Dead records do come back, as long as their segment was not used
/// again.
pub type Visitor<'v> = dyn FnMut(RecoveredRecord<'_>, &mut Ledger) + 'v;

/// A lane that cannot be opened. Damage to the log is no such error: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files of the lane could not be listed or made durable.
    #[error("lane {}: {doing} failed: {source}; check the disk and its mount", lane.0)]
    Io {
        /// Lane.
        lane: LaneId,
        /// What failed.
        doing: &'static str,
        /// How.
        source: io::Error,
    },
    /// A formatted lane has at least one segment.
    #[error("lane {} has no segment file; is the right disk mounted?", .0.0)]
    NoSegments(LaneId),
    /// A file whose number no lane of this format has.
    #[error(
        "lane {} has a segment file numbered {}, above the most ({SEGMENTS_MAX}); move it away",
        lane.0, segment.0
    )]
    SegmentNumber {
        /// Lane.
        lane: LaneId,
        /// Segment.
        segment: SegmentId,
    },
    /// The log was written by a later version.
    #[error(
        "lane {} was written in format {version}, which this version cannot read; use the later version",
        lane.0
    )]
    NewerVersion {
        /// Lane.
        lane: LaneId,
        /// Version found.
        version: u16,
    },
}

impl Lane {
    /// Opens a lane: reads its whole log, shows every record to `visitor`, and gives the lane ready to
    /// append. `buffers` become the batch buffers; 2 to 16 of one size, at most
    /// [`BATCH_BYTES_MAX`](crate::format::BATCH_BYTES_MAX) each.
    pub fn recover(
        volume: &dyn Volume,
        config: LaneConfig,
        buffers: Vec<AlignedBuf>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(Lane, RecoveryReport), RecoverError> {
        config.check(&buffers)?;
        let mut report = RecoveryReport::new(config.lane);
        let mut reader = Reader::new(volume, config.lane);
        let inventory = inventory::take(volume, &config, &mut reader, &mut report)?;
        // There may be more files than the configuration allows to be made.
        let files = inventory.segments.existing() + inventory.targets.len();
        config.check_room(&buffers, files)?;
        let recovered = read_log(volume, &config, &mut reader, inventory, &mut report, visitor)?;
        report.unreadable_blocks = reader.unreadable_blocks;
        report.next_lsn = recovered.next_lsn;
        Ok((Lane::start(config, buffers, recovered), report))
    }
}

fn read_log(
    volume: &dyn Volume,
    config: &LaneConfig,
    reader: &mut Reader<'_>,
    inventory: Inventory,
    report: &mut RecoveryReport,
    visitor: &mut Visitor<'_>,
) -> Result<Recovered, RecoverError> {
    let Inventory { targets, mut segments, mut next_lsn, mut vouched, incarnation } = inventory;
    let mut ledger = Ledger::new();
    for target in &targets {
        if let Some(listed) = target.listed.filter(|listed| listed.last_lsn <= config.known_until) {
            segments.set(target.place.segment, known(target, listed));
            continue;
        }
        if target.listed.is_none() {
            let synced = volume.sync_segment(config.lane, target.place.segment);
            let doing = "making the end of the log durable";
            synced.map_err(|source| RecoverError::Io { lane: config.lane, doing, source })?;
        }
        let errors_before = reader.unreadable_blocks;
        let mut losses = Losses::default();
        let scan = Scan { config, target, reader, report, ledger: &mut ledger, visitor, losses: &mut losses };
        let end = scan.run()?;
        report.add_losses(&losses, target.known_lost());
        next_lsn = next_lsn.max(end.expected);
        vouched = vouched.max(end.vouched);
        let sound = target.sound && reader.unreadable_blocks == errors_before;
        segments.set(target.place.segment, sealed(target, &end, sound, losses.records));
    }
    let sealed: Vec<SegmentId> = segments.iter().map(|(id, _)| id).collect();
    for id in sealed {
        let live = ledger.live(id);
        segments.note_live(id, live);
        if live.is_empty() && !config.owner_reclaims {
            segments.free(id, next_lsn.previous());
        }
    }
    vouched = vouched.min(next_lsn.previous());
    Ok(Recovered { segments, ledger, next_lsn, vouched, incarnation })
}

/// A segment that need not be read.
fn known(target: &Target, listed: SealedSegment) -> Segment {
    Segment {
        incarnation: listed.incarnation,
        base_lsn: listed.base_lsn,
        last_lsn: listed.last_lsn,
        end: listed.end,
        sound: target.sound,
        missing: listed.known_lost,
        known_lost: listed.known_lost,
        ..Segment::blank(Role::Sealed)
    }
}

/// The segment of a target after its scan. What a header promised of it stays promised.
fn sealed(target: &Target, end: &scan::ScanEnd, sound: bool, missing: u64) -> Segment {
    Segment {
        role: Role::Sealed,
        incarnation: target.place.incarnation,
        base_lsn: target.base_lsn,
        last_lsn: target.listed.map_or(end.expected.previous(), |listed| listed.last_lsn),
        end: target.listed.map_or(end.offset, |listed| listed.end),
        sound,
        missing: u32::try_from(missing).unwrap_or(u32::MAX),
        known_lost: target.known_lost(),
        ..Segment::blank(Role::Sealed)
    }
}
