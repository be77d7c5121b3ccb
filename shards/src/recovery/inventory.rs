//! Which segments to read, in which order, and what is already known of each, from the segment headers alone.
//!
//! The newest sound header is the guide: it lists every segment that held live records when it was written,
//! and no segment older than itself that it does not list can hold any. A segment whose own header is damaged
//! is placed by the list, or else by the first batch of a later use found in it. So is one whose first batch
//! is of such a use: the write of its header was reported as done and never happened.

use std::collections::BTreeMap;

use crate::buffer::AlignedBuf;
use crate::format::batch::{BatchFault, BatchHeader};
use crate::format::segment::{HEADER_BYTES_MAX, HeaderFault, SealedSegment, SegmentHeader, header_bytes};
use crate::format::{Incarnation, Lsn, Place, SEGMENTS_MAX};
use crate::io::{BLOCK_BYTES, SegmentFile, SegmentId, Volume};
use crate::lane::config::LaneConfig;
use crate::lane::segments::{Role, Segment, Segments};
use crate::recovery::RecoverError;
use crate::recovery::reader::Reader;
use crate::recovery::report::{LossReason, Losses, RecoveryCase, RecoveryReport};

/// A segment to be read.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub place: Place,
    pub base_lsn: Lsn,
    /// Use of the file before this one; `None` if the header that says so is damaged.
    pub previous: Option<Incarnation>,
    /// Checksum of the header, to which the first batch is chained; `None` if it is damaged.
    pub chain: Option<u32>,
    /// Where the header ends and the first batch begins; `None` if the header is damaged.
    pub front: Option<u32>,
    /// Where it ends, if it lies in a file of whole size.
    pub limit: u32,
    /// What a later header says of it.
    pub listed: Option<SealedSegment>,
    /// Last LSN that is known to have been acknowledged from it, if it is known at all.
    pub promised: Option<Lsn>,
    /// Records with this LSN or a higher one were written again in a later segment.
    pub stop: Option<Lsn>,
    /// True if the file is shorter or longer than it should be.
    pub wrong_size: bool,
    /// False if the file must not be written again.
    pub sound: bool,
}

impl Target {
    /// Records lost from it whose loss the owner has dealt with, as the guide says.
    pub fn known_lost(&self) -> u32 {
        self.listed.map_or(0, |listed| listed.known_lost)
    }
}

/// The segments of a lane before any batch is read.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// In order of use.
    pub targets: Vec<Target>,
    /// All that need not be read.
    pub segments: Segments,
    pub next_lsn: Lsn,
    pub vouched: Lsn,
    pub incarnation: Incarnation,
}

/// What a file begins with.
enum Front {
    Header(Own),
    /// The fields of a long header are sound: whatever was in the file before had been given up.
    Begun(Incarnation),
    Blank,
    Damaged,
    Foreign,
}

/// What a sound header says of its own file. The lists of others are long, and only the newest counts.
#[derive(Clone, Copy)]
struct Own {
    incarnation: Incarnation,
    previous: Incarnation,
    base_lsn: Lsn,
    /// Its checksum.
    chain: u32,
    /// Its length.
    bytes: u32,
}

struct Candidate {
    file: SegmentFile,
    front: Front,
    /// Size as the store says.
    whole: bool,
    /// Of that size, and its header can be read: may be written again.
    sound: bool,
}

/// The newest sound header and what it says of the other segments.
struct Guide {
    incarnation: Incarnation,
    base_lsn: Lsn,
    listed: BTreeMap<SegmentId, SealedSegment>,
}

impl Guide {
    fn of(header: SegmentHeader) -> Self {
        Self {
            incarnation: header.place.incarnation,
            base_lsn: header.base_lsn,
            listed: header.sealed.into_iter().map(|entry| (entry.segment, entry)).collect(),
        }
    }
}

/// Reads all headers of a lane and decides what to scan.
pub(crate) fn take(
    volume: &dyn Volume,
    config: &LaneConfig,
    reader: &mut Reader<'_>,
    report: &mut RecoveryReport,
) -> Result<Inventory, RecoverError> {
    let (candidates, newest) = read_fronts(volume, config, report)?;
    let guide = newest.map(Guide::of);
    let mut inventory = Inventory {
        targets: Vec::new(),
        segments: Segments::default(),
        next_lsn: guide.as_ref().map_or(Lsn(1), |guide| guide.base_lsn),
        vouched: guide.as_ref().map_or(Lsn(0), |guide| guide.base_lsn.previous()),
        incarnation: guide.as_ref().map_or(Incarnation(0), |guide| guide.incarnation),
    };
    for candidate in &candidates {
        place(candidate, guide.as_ref(), config, reader, report, &mut inventory)?;
    }
    if let Some(guide) = &guide {
        report_missing_files(guide, &candidates, config, report);
    }
    order(&mut inventory.targets);
    for target in &inventory.targets {
        inventory.incarnation = inventory.incarnation.max(target.place.incarnation);
        inventory.next_lsn = inventory.next_lsn.max(target.base_lsn);
    }
    Ok(inventory)
}

fn own_of(candidate: &Candidate) -> Option<Own> {
    match candidate.front {
        Front::Header(own) => Some(own),
        _ => None,
    }
}

/// The candidates by rising number, and the newest sound header.
fn read_fronts(
    volume: &dyn Volume,
    config: &LaneConfig,
    report: &mut RecoveryReport,
) -> Result<(Vec<Candidate>, Option<SegmentHeader>), RecoverError> {
    let lane = config.lane;
    let doing = "listing the segment files";
    let mut files = volume.segments(lane).map_err(|source| RecoverError::Io { lane, doing, source })?;
    if files.is_empty() {
        return Err(RecoverError::NoSegments(lane));
    }
    files.sort_unstable_by_key(|file| file.segment);
    let mut buf = AlignedBuf::zeroed(HEADER_BYTES_MAX);
    let mut candidates = Vec::with_capacity(files.len().min(SEGMENTS_MAX));
    let mut newest: Option<SegmentHeader> = None;
    for file in files {
        if file.segment.0 as usize >= SEGMENTS_MAX {
            return Err(RecoverError::SegmentNumber { lane, segment: file.segment });
        }
        let whole = file.bytes == u64::from(config.segment_bytes);
        if !whole {
            report.note(RecoveryCase::WrongSize);
        }
        let (decoded, readable) = read_header(volume, config, file.segment, &mut buf);
        let front = match decoded {
            Ok((header, chain)) => {
                let (incarnation, bytes) = (header.place.incarnation, header.bytes() as u32);
                let (previous, base_lsn) = (header.previous, header.base_lsn);
                if newest.as_ref().is_none_or(|newest| newest.place.incarnation <= incarnation) {
                    newest = Some(header);
                }
                Front::Header(Own { incarnation, previous, base_lsn, chain, bytes })
            }
            Err(HeaderFault::Unfinished(incarnation)) => Front::Begun(incarnation),
            Err(HeaderFault::Foreign) => Front::Foreign,
            Err(HeaderFault::Newer(version)) => return Err(RecoverError::NewerVersion { lane, version }),
            Err(HeaderFault::Blank) => Front::Blank,
            Err(HeaderFault::Damaged) => Front::Damaged,
        };
        candidates.push(Candidate { file, front, sound: whole && readable, whole });
    }
    Ok((candidates, newest))
}

/// What a file begins with, and whether all of that could be read. `buf` has room for the longest header,
/// whatever a first block claims.
fn read_header(
    volume: &dyn Volume,
    config: &LaneConfig,
    segment: SegmentId,
    buf: &mut [u8],
) -> (Result<(SegmentHeader, u32), HeaderFault>, bool) {
    let read = |from: usize, until: usize, buf: &mut [u8]| {
        let read = volume.read_at(config.lane, segment, from as u64, &mut buf[from..until]);
        matches!(read, Ok(bytes) if bytes == until - from)
    };
    if !read(0, BLOCK_BYTES, buf) {
        return (Err(HeaderFault::Damaged), false);
    }
    let claimed = SegmentHeader::bytes_claimed(&buf[..BLOCK_BYTES]).unwrap_or(BLOCK_BYTES);
    let readable = claimed == BLOCK_BYTES || read(BLOCK_BYTES, claimed, buf);
    let front = if readable { &buf[..claimed] } else { &buf[..BLOCK_BYTES] };
    (SegmentHeader::decode(front, config.store, config.lane, segment), readable)
}

/// Decides what one file is: a target of the scan, a spare, or nothing to touch.
fn place(
    candidate: &Candidate,
    guide: Option<&Guide>,
    config: &LaneConfig,
    reader: &mut Reader<'_>,
    report: &mut RecoveryReport,
    inventory: &mut Inventory,
) -> Result<(), RecoverError> {
    let segment = candidate.file.segment;
    let listed = guide.and_then(|guide| guide.listed.get(&segment)).copied();
    let own = own_of(candidate).map(|own| own.incarnation);
    let newest = guide.map_or(Incarnation(0), |guide| guide.incarnation);
    if matches!(candidate.front, Front::Foreign) {
        report.note(RecoveryCase::ForeignSegment);
        inventory.segments.set(segment, Segment::blank(Role::Retired));
        return Ok(());
    }
    if own == Some(newest) && guide.is_some() {
        inventory.segments.set_guide(segment);
        inventory.targets.push(target(candidate, config, None, None));
        return Ok(());
    }
    // A use that the guide does not know of is later than the guide, whatever was in the file before, and
    // whatever a header says of that: the write of the later one may have been lost.
    let later = later_batch(candidate, guide, config, reader)?;
    let begun = begun_after(candidate, newest);
    let listed = listed.filter(|_| later.is_none() && begun.is_none());
    match (&later, listed) {
        (None, None) => free(candidate, own, report, inventory),
        _ => {
            if own.is_none() || own != listed.map(|entry| entry.incarnation) {
                report.note(RecoveryCase::BadSegmentHeader);
            }
            inventory.targets.push(target(candidate, config, listed, later.as_ref()));
        }
    }
    Ok(())
}

/// The use that a file was being opened for when the log ended, after the guide was.
fn begun_after(candidate: &Candidate, newest: Incarnation) -> Option<Incarnation> {
    match candidate.front {
        Front::Begun(incarnation) => Some(incarnation).filter(|begun| *begun > newest),
        _ => None,
    }
}

fn free(
    candidate: &Candidate,
    own: Option<Incarnation>,
    report: &mut RecoveryReport,
    inventory: &mut Inventory,
) {
    report.note(RecoveryCase::FreeSegment);
    let role = if candidate.sound { Role::Spare } else { Role::Retired };
    let base_lsn = own_of(candidate).map_or(Lsn(1), |own| own.base_lsn);
    let blank = Segment::blank(role);
    let incarnation = own.unwrap_or(blank.incarnation);
    inventory.segments.set(candidate.file.segment, Segment { incarnation, base_lsn, ..blank });
}

/// A target known by the guide's list, by a batch of a use that the guide does not know, or by its own
/// header.
fn target(
    candidate: &Candidate,
    config: &LaneConfig,
    listed: Option<SealedSegment>,
    batch: Option<&BatchHeader>,
) -> Target {
    let segment = candidate.file.segment;
    let own = own_of(candidate);
    let known = listed.map(|entry| (entry.incarnation, entry.base_lsn));
    let known = known.or(batch.map(|batch| (batch.incarnation, batch.base_lsn)));
    let known = known.or(own.map(|own| (own.incarnation, own.base_lsn)));
    let (incarnation, base_lsn) = known.unwrap_or_default();
    let own = own.filter(|own| own.incarnation == incarnation);
    let file_end = candidate.file.bytes.min(u64::from(config.segment_bytes)) / BLOCK_BYTES as u64;
    let file_end = file_end as u32 * BLOCK_BYTES as u32;
    Target {
        place: Place { store: config.store, lane: config.lane, segment, incarnation },
        base_lsn,
        previous: own.map(|own| own.previous),
        chain: own.map(|own| own.chain),
        front: own.map(|own| own.bytes),
        limit: listed.map_or(file_end, |entry| entry.end.min(file_end)),
        listed,
        promised: listed.map(|entry| entry.last_lsn),
        stop: None,
        wrong_size: !candidate.whole,
        sound: candidate.sound,
    }
}

/// The first sound batch header of a use of a file that is later than the guide. Behind a header that is
/// sound it is one block away, or as much farther as the header of a later use may be longer. Behind one that
/// is not it is searched for: what destroyed the header may have taken the first batches with it.
fn later_batch(
    candidate: &Candidate,
    guide: Option<&Guide>,
    config: &LaneConfig,
    reader: &mut Reader<'_>,
) -> Result<Option<BatchHeader>, RecoverError> {
    let (lane, segment) = (config.lane, candidate.file.segment);
    let newest = guide.map_or(Incarnation(0), |guide| guide.incarnation);
    let front = guide.map_or(BLOCK_BYTES, |guide| header_bytes(guide.listed.len() + 1)) as u64;
    let end = candidate.file.bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let until = match own_of(candidate) {
        Some(own) => end.min(front.max(u64::from(own.bytes)) + BLOCK_BYTES as u64),
        None => end.min(HEADER_BYTES_MAX as u64 + u64::from(config.resync_bytes)),
    };
    reader.open(segment, until);
    for offset in (BLOCK_BYTES as u64..until).step_by(BLOCK_BYTES) {
        match BatchHeader::decode(reader.bytes(offset, BLOCK_BYTES)) {
            Ok((batch, _)) => {
                let incarnation = batch.incarnation;
                let place = Place { store: config.store, lane, segment, incarnation };
                if batch.is_at(&place, offset as u32) && incarnation > newest {
                    return Ok(Some(batch));
                }
            }
            Err(BatchFault::Newer(version)) => return Err(RecoverError::NewerVersion { lane, version }),
            Err(BatchFault::NoBatch | BatchFault::Damaged) => {}
        }
    }
    Ok(None)
}

fn report_missing_files(
    guide: &Guide,
    candidates: &[Candidate],
    config: &LaneConfig,
    report: &mut RecoveryReport,
) {
    for entry in guide.listed.values() {
        if candidates.binary_search_by_key(&entry.segment, |candidate| candidate.file.segment).is_ok() {
            continue;
        }
        report.note(RecoveryCase::MissingSegment);
        let mut losses = Losses::default();
        losses.add(config.lane, entry.base_lsn, entry.last_lsn, LossReason::MissingSegment);
        report.add_losses(&losses, entry.known_lost);
    }
}

/// Sorts by use and lets each target know what the later ones say about it.
fn order(targets: &mut [Target]) {
    targets.sort_unstable_by_key(|target| target.place.incarnation);
    let mut stop: Option<Lsn> = None;
    for target in targets.iter_mut().rev() {
        target.stop = stop;
        if target.promised.is_none() {
            target.promised = stop.map(Lsn::previous);
        }
        stop = Some(stop.map_or(target.base_lsn, |stop| stop.min(target.base_lsn)));
    }
}
