//! Reading the newest whole checkpoint.

use crate::buffer::AlignedBuf;
use crate::format::record::Kind;
use crate::index::Entry;
use crate::io::Volume;
use crate::keyed::KeyedConfig;
use crate::keyed::checkpoint::format::{End, Part, TREES, entries};
use crate::lane::config::LaneConfig;
use crate::lane::{Lane, RecordLoc};
use crate::recovery::RecoverError;

/// A checkpoint that is older is not used: dues of 13 bits would be read wrong.
const AGE_HOURS_MAX: u64 = 4_000;
/// Batch buffers of the lane.
const BUFFERS: usize = 2;

/// What a start knows before it reads the log.
#[derive(Debug, Default)]
pub struct Loaded {
    pub end: End,
    /// Entries of each tree, sorted.
    pub entries: [Vec<Entry>; TREES],
}

/// The lane of checkpoints after a start.
pub struct Opened {
    pub lane: Lane,
    /// Highest number seen.
    pub number: u64,
    /// Where the records of the checkpoint are that was loaded.
    pub kept: Vec<RecordLoc>,
    pub loaded: Option<Loaded>,
}

/// A checkpoint while it is being read.
#[derive(Default)]
struct Candidate {
    number: u64,
    runs: u32,
    locs: Vec<RecordLoc>,
    entries: [Vec<Entry>; TREES],
    is_broken: bool,
}

/// Opens the lane and reads the newest checkpoint that is whole.
pub fn open(volume: &dyn Volume, config: &KeyedConfig) -> Result<Opened, RecoverError> {
    let lane = LaneConfig {
        lane: super::lane(config.partition),
        segments_max: config.segments_max,
        owner_reclaims: true,
        ..config.lane
    };
    let buffers = (0..BUFFERS).map(|_| AlignedBuf::zeroed(config.batch_bytes)).collect();
    let (mut number, mut candidate, mut best) = (0, Candidate::default(), None);
    let (mut lane, _) = Lane::recover(volume, lane, buffers, &mut |record, ledger| {
        ledger.release(record.loc, record.kind);
        let part = if record.kind == Kind::Checkpoint { Part::parse(record.payload) } else { None };
        let Some(part) = part else { return candidate.is_broken = true };
        number = number.max(part.number());
        if let Some(whole) = candidate.take(part, record.loc) {
            best = Some(whole);
        }
    })?;
    let hour = config.now_s / 3_600;
    let best: Option<(Loaded, Vec<RecordLoc>)> = best;
    let best = best.filter(|(loaded, _)| loaded.end.hour + AGE_HOURS_MAX > hour);
    let (loaded, kept) = best.map_or((None, Vec::new()), |(loaded, kept)| (Some(loaded), kept));
    kept.iter().for_each(|loc| lane.adopt(*loc, Kind::Checkpoint));
    lane.end_adoption();
    Ok(Opened { lane, number, kept, loaded })
}

impl Part<'_> {
    fn number(&self) -> u64 {
        match self {
            Part::Run { number, .. } => *number,
            Part::End(end) => end.number,
        }
    }
}

impl Candidate {
    /// Takes the next record of the lane; a whole checkpoint if it ends one.
    fn take(&mut self, part: Part<'_>, loc: RecordLoc) -> Option<(Loaded, Vec<RecordLoc>)> {
        if part.number() != self.number {
            *self = Self { number: part.number(), ..Self::default() };
        }
        self.locs.push(loc);
        match part {
            Part::Run { run, tree, entries: bytes, .. } => {
                self.is_broken |= run != self.runs;
                self.runs += 1;
                self.entries[tree].extend(entries(bytes));
                None
            }
            Part::End(end) => {
                let Self { runs, locs, entries, is_broken, .. } = std::mem::take(self);
                let counts = std::array::from_fn(|tree| entries[tree].len() as u64);
                let is_whole = !is_broken && end.runs == runs && end.counts == counts;
                let is_sorted =
                    entries.iter().all(|of_tree| of_tree.is_sorted_by(|a, b| a.prefix <= b.prefix));
                (is_whole && is_sorted).then_some((Loaded { end, entries }, locs))
            }
        }
    }
}
