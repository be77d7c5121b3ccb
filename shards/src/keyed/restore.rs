//! Making a partition, and reading it back after a stop of any kind.
//!
//! The newest checkpoint gives the index as it was, the log after it what has happened since; without a
//! checkpoint all of the log is read. How the two are put together is in [`checkpoint::merge`]. The index is
//! then built at once, from sorted entries.

use std::io;

use crate::buffer::AlignedBuf;
use crate::format::Lsn;
use crate::format::record::{Kind, RecordView};
use crate::index::{BuildError, Due, Entry, KeyIndex};
use crate::io::{LaneId, SegmentId, Volume};
use crate::keyed::checkpoint;
use crate::keyed::checkpoint::format::{TREES, trees};
use crate::keyed::checkpoint::load::{self, Loaded, Opened};
use crate::keyed::checkpoint::merge::{Merge, Merged, Seen, tag};
use crate::keyed::checkpoint::writer::Checkpointer;
use crate::keyed::compact::Compactor;
use crate::keyed::family::Trees;
use crate::keyed::payload::Payload;
use crate::keyed::place::{pack, unpack};
use crate::keyed::read::HEAD_BUFFER_BYTES;
use crate::keyed::scrub::Scrubber;
use crate::keyed::{CapacityState, Class, Family, KeyedStore, SEGMENT_BYTES_MAX, hour_of};
use crate::lane::Lane;
use crate::lane::config::LaneConfig;
use crate::recovery::report::RecoveryReport;
use crate::recovery::{RecoverError, RecoveredRecord};

/// What a partition needs to know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyedConfig {
    /// Lane of the store's map whose keys these are.
    pub partition: LaneId,
    /// Sizes of its lanes; lane number and share of the segments are filled in.
    pub lane: LaneConfig,
    /// Segments of all its lanes together, at least two for each.
    pub segments_max: u32,
    /// Records and marks that the index may hold.
    pub entries_max: u64,
    /// Keys that may be looked up at once.
    pub lookups_max: usize,
    /// Size of a batch buffer, in bytes: as large as the largest record, with its headers.
    pub batch_bytes: usize,
    /// Batch buffers per lane, 2 to 16.
    pub batch_buffers: usize,
    /// A checkpoint is written after so many bytes of log at least.
    pub checkpoint_bytes_min: u64,
    /// The store's secret, which tells identities apart at a start.
    pub mixing_secret: [u8; 32],
    /// Everything is to be read and verified once within so many seconds, at least 1; see
    /// [`SCRUB_WITHIN_S`](crate::keyed::SCRUB_WITHIN_S).
    pub scrub_within_s: u64,
    /// The wall clock, in seconds since 1970.
    pub now_s: u64,
}

impl std::fmt::Debug for KeyedConfig {
    /// Everything but the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (lane, segments_max, entries_max) = (&self.lane, self.segments_max, self.entries_max);
        let mut out = f.debug_struct("KeyedConfig");
        out.field("partition", &self.partition).field("lane", lane).field("segments_max", &segments_max);
        out.field("entries_max", &entries_max).finish_non_exhaustive()
    }
}

/// A partition that cannot be opened. Damage to records is no such error: it is in the reports.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A lane cannot be opened.
    #[error(transparent)]
    Lane(#[from] RecoverError),
    /// Segments larger than a place can point into.
    #[error("segments of {0} bytes are too large for keyed records; the most is {SEGMENT_BYTES_MAX}")]
    SegmentTooLarge(u32),
    /// Too few segments.
    #[error("a partition needs at least {least} segments, two for each of its lanes; configured {given}")]
    TooFewSegments {
        /// Least that works.
        least: u32,
        /// As configured.
        given: u32,
    },
    /// More records than the index may hold.
    #[error("partition {}: {source}; raise the limit of records", partition.0)]
    Index {
        /// Which.
        partition: LaneId,
        /// What the index said.
        source: BuildError,
    },
}

/// A partition that was opened, and how.
#[derive(Debug)]
pub struct Restored {
    /// Ready to serve.
    pub store: KeyedStore,
    /// What was found in each lane.
    pub reports: [RecoveryReport; Class::ALL.len()],
    /// Records that a sound batch held and that are no keyed records. Reported as lost by whoever keeps
    /// count.
    pub unintelligible: u64,
    /// There was a checkpoint; without one all of the log was read.
    pub from_checkpoint: bool,
}

impl KeyedStore {
    /// The lanes of a partition: one for each class, and that of checkpoints.
    pub fn lanes(partition: LaneId) -> [LaneId; Class::ALL.len() + 1] {
        let [a, b, c] = Class::ALL.map(|class| class.lane(partition));
        [a, b, c, checkpoint::lane(partition)]
    }

    /// Makes the lanes of a partition, each with its first segment.
    pub fn format(volume: &dyn Volume, partition: LaneId, segment_bytes: u32) -> io::Result<()> {
        for lane in Self::lanes(partition) {
            volume.create_lane(lane)?;
            volume.create_segment(lane, SegmentId(0), u64::from(segment_bytes))?;
        }
        Ok(())
    }

    /// Opens a partition: reads the newest checkpoint and the log after it, and builds the index.
    pub fn restore(volume: &dyn Volume, config: KeyedConfig) -> Result<Restored, RestoreError> {
        Self::restore_after(volume, config, |loaded| loaded)
    }

    /// As [`KeyedStore::restore`] without a checkpoint: reads all of the log. For offline tools.
    pub fn restore_from_log(volume: &dyn Volume, config: KeyedConfig) -> Result<Restored, RestoreError> {
        Self::restore_after(volume, config, |_| None)
    }

    fn restore_after(
        volume: &dyn Volume,
        config: KeyedConfig,
        choose: impl FnOnce(Option<Loaded>) -> Option<Loaded>,
    ) -> Result<Restored, RestoreError> {
        let (segment_bytes, least) = (config.lane.segment_bytes, 2 * (Class::ALL.len() as u32 + 1));
        if u64::from(segment_bytes) > SEGMENT_BYTES_MAX {
            return Err(RestoreError::SegmentTooLarge(segment_bytes));
        }
        if config.segments_max < least {
            return Err(RestoreError::TooFewSegments { least, given: config.segments_max });
        }
        let Opened { lane, number, kept, loaded } = load::open(volume, &config)?;
        let loaded = choose(loaded);
        let checkpointer = Checkpointer::new(lane, number, kept, config.checkpoint_bytes_min);
        let (marks, serial) =
            loaded.as_ref().map_or_else(Default::default, |it| (it.end.marks, it.end.last_serial));
        let mut log = Log { config: &config, marks, seen: Vec::new(), serial, unintelligible: 0 };
        let [(a, report_a), (b, report_b), (c, report_c)] = [
            log.read(volume, Class::Hours)?,
            log.read(volume, Class::Days)?,
            log.read(volume, Class::Years)?,
        ];
        let Log { seen, serial, unintelligible, .. } = log;
        let lanes = [a, b, c];
        let from_checkpoint = loaded.is_some();
        let merged =
            Merge { volume, config: &config, lanes: &lanes, hour: config.now_s / 3_600 }.run(loaded, seen);
        let store = Self::start(config, lanes, checkpointer, merged, serial)?;
        let reports = [report_a, report_b, report_c];
        Ok(Restored { store, reports, unintelligible, from_checkpoint })
    }

    fn start(
        config: KeyedConfig,
        mut lanes: [Lane; Class::ALL.len()],
        checkpointer: Checkpointer,
        merged: Merged,
        serial: u64,
    ) -> Result<Self, RestoreError> {
        let hour = config.now_s / 3_600;
        for ((family, tree), entries) in trees().zip(&merged.entries) {
            for entry in entries {
                let (class, loc) = unpack(entry.place);
                lanes[class as usize].adopt(loc, tree.counted_as(family));
            }
        }
        lanes.iter_mut().for_each(Lane::end_adoption);
        let mut store = Self {
            config,
            lanes,
            families: build(&config, hour, merged.entries)?,
            locks: Default::default(),
            appended: Default::default(),
            shadows: merged.shadows,
            entries_under_way: 0,
            in_flight: Default::default(),
            head_buffers: (0..config.lookups_max).map(|_| AlignedBuf::zeroed(HEAD_BUFFER_BYTES)).collect(),
            outbox: Vec::new(),
            committed: Vec::new(),
            serial,
            tickets: 0,
            compactor: Compactor::new(config.batch_bytes),
            checkpointer,
            checkpoint_scratch: Vec::new(),
            scrubber: Scrubber::new(&config),
            state: CapacityState::default(),
            is_closing: false,
            now_us: 0,
            hour,
        };
        store.update_state();
        Ok(store)
    }
}

/// The lanes being read.
struct Log<'c> {
    config: &'c KeyedConfig,
    /// Up to these the log is known already.
    marks: [Lsn; Class::ALL.len()],
    seen: Vec<Seen>,
    serial: u64,
    unintelligible: u64,
}

impl Log<'_> {
    fn read(&mut self, volume: &dyn Volume, class: Class) -> Result<(Lane, RecoveryReport), RecoverError> {
        let KeyedConfig { partition, lane, segments_max, batch_bytes, batch_buffers, .. } = *self.config;
        let known_until = self.marks[class as usize];
        let number = class.lane(partition);
        let lane = LaneConfig { lane: number, segments_max, owner_reclaims: true, known_until, ..lane };
        let buffers = (0..batch_buffers).map(|_| AlignedBuf::zeroed(batch_bytes)).collect();
        Lane::recover(volume, lane, buffers, &mut |record, ledger| {
            ledger.release(record.loc, record.kind);
            if record.lsn <= known_until {
                return;
            }
            match self.look_at(class, &record) {
                Some(seen) => self.seen.push(seen),
                None => self.unintelligible += 1,
            }
        })
    }

    fn look_at(&mut self, class: Class, record: &RecoveredRecord<'_>) -> Option<Seen> {
        let RecoveredRecord { lsn, kind, expires_s, loc, payload } = *record;
        let head = Payload::parse(&RecordView { lsn, kind, expires_s, payload })?.head;
        let place = pack(class, loc, Due::LATER)?;
        self.serial = self.serial.max(head.serial);
        Some(Seen {
            family: head.identity.family,
            prefix: head.prefix(),
            tag: tag(self.config, &head.identity),
            serial: head.serial,
            birth: head.birth,
            kind: head.kind,
            extends: if head.kind == Kind::Lease { head.extends() } else { 0 },
            hour: hour_of(head.expires_s),
            place,
        })
    }
}

fn build(
    config: &KeyedConfig,
    hour: u64,
    entries: [Vec<Entry>; TREES],
) -> Result<[Trees; Family::ALL.len()], RestoreError> {
    let mut built = entries.into_iter().map(|entries| {
        let built = KeyIndex::build(config.entries_max, hour, entries.into_iter());
        built.map_err(|source| RestoreError::Index { partition: config.partition, source })
    });
    // PANIC: there are as many lists as trees.
    let mut tree = || built.next().expect("a list for each tree");
    let mut trees = || -> Result<Trees, RestoreError> { Ok(Trees { live: tree()?, marks: tree()? }) };
    Ok([trees()?, trees()?, trees()?])
}
