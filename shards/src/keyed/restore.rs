//! Making a partition, and reading it back after a stop of any kind.
//!
//! Every record of the three lanes is looked at once. Those of one identity are put in the order of their
//! serials, and the last word counts: a record replaces what came before, a tombstone takes it away, a lease
//! lengthens the life of the record before it. The last word is kept, at least as a tombstone, for as long as
//! anything of its identity would live that is still on disk, also what was refused and is there
//! nevertheless: so what it overrules never outlives it. The index is then built at once, from sorted
//! entries.

use std::io;

use hashbrown::HashMap;

use crate::buffer::AlignedBuf;
use crate::format::record::Kind;
use crate::index::{BuildError, Due, Entry, KeyIndex, Place, Prefix};
use crate::io::{LaneId, SegmentId, Volume};
use crate::keyed::compact::Compactor;
use crate::keyed::family::{Tree, Trees};
use crate::keyed::payload::Payload;
use crate::keyed::place::{pack, unpack};
use crate::keyed::read::HEAD_BUFFER_BYTES;
use crate::keyed::scrub::Scrubber;
use crate::keyed::{CapacityState, Class, Family, Identity, KeyedStore, SEGMENT_BYTES_MAX, hour_of};
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
}

/// A record of the log, as much as is needed to put those of one identity in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    family: Family,
    prefix: Prefix,
    /// A keyed hash of the whole identity.
    tag: u64,
    serial: u64,
    kind: Kind,
    /// Of a lease: serial of the record that it extends.
    extends: u64,
    hour: u64,
    /// Without its due time.
    place: Place,
}

impl KeyedStore {
    /// Makes the lanes of a partition, each with its first segment.
    pub fn format(volume: &dyn Volume, partition: LaneId, segment_bytes: u32) -> io::Result<()> {
        for lane in Class::ALL.map(|class| class.lane(partition)) {
            volume.create_lane(lane)?;
            volume.create_segment(lane, SegmentId(0), u64::from(segment_bytes))?;
        }
        Ok(())
    }

    /// Opens a partition: reads its logs and builds its index.
    pub fn restore(volume: &dyn Volume, config: KeyedConfig) -> Result<Restored, RestoreError> {
        let (segment_bytes, least) = (config.lane.segment_bytes, 2 * Class::ALL.len() as u32);
        if u64::from(segment_bytes) > SEGMENT_BYTES_MAX {
            return Err(RestoreError::SegmentTooLarge(segment_bytes));
        }
        if config.segments_max < least {
            return Err(RestoreError::TooFewSegments { least, given: config.segments_max });
        }
        let mut log = Log { config: &config, seen: Vec::new(), serial: 0, unintelligible: 0 };
        let [(a, report_a), (b, report_b), (c, report_c)] = [
            log.read(volume, Class::Hours)?,
            log.read(volume, Class::Days)?,
            log.read(volume, Class::Years)?,
        ];
        let Log { mut seen, serial, unintelligible, .. } = log;
        let hour = config.now_s / 3_600;
        let mut lanes = [a, b, c];
        let words = Words::of(&mut seen, hour, |family, tree, place| {
            let (class, loc) = unpack(place);
            lanes[class as usize].adopt(loc, tree.counted_as(family));
        });
        drop(seen);
        let families = build(&config, hour, words.entries)?;
        lanes.iter_mut().for_each(Lane::end_adoption);
        let mut store = Self {
            config,
            lanes,
            families,
            locks: Default::default(),
            appended: Default::default(),
            shadows: words.shadows,
            entries_under_way: 0,
            in_flight: Default::default(),
            head_buffers: (0..config.lookups_max).map(|_| AlignedBuf::zeroed(HEAD_BUFFER_BYTES)).collect(),
            outbox: Vec::new(),
            committed: Vec::new(),
            serial,
            tickets: 0,
            compactor: Compactor::new(config.batch_bytes),
            scrubber: Scrubber::new(&config),
            state: CapacityState::default(),
            now_us: 0,
            hour,
        };
        store.update_state();
        Ok(Restored { store, reports: [report_a, report_b, report_c], unintelligible })
    }
}

/// The lanes being read.
struct Log<'c> {
    config: &'c KeyedConfig,
    seen: Vec<Seen>,
    serial: u64,
    unintelligible: u64,
}

impl Log<'_> {
    fn read(&mut self, volume: &dyn Volume, class: Class) -> Result<(Lane, RecoveryReport), RecoverError> {
        let KeyedConfig { partition, lane, segments_max, batch_bytes, batch_buffers, .. } = *self.config;
        let lane = LaneConfig { lane: class.lane(partition), segments_max, owner_reclaims: true, ..lane };
        let buffers = (0..batch_buffers).map(|_| AlignedBuf::zeroed(batch_bytes)).collect();
        Lane::recover(volume, lane, buffers, &mut |record, ledger| {
            ledger.release(record.loc, record.kind);
            match self.look_at(class, &record) {
                Some(seen) => self.seen.push(seen),
                None => self.unintelligible += 1,
            }
        })
    }

    fn look_at(&mut self, class: Class, record: &RecoveredRecord<'_>) -> Option<Seen> {
        let head = Payload::parse(record.payload)?.head;
        let place = pack(class, record.loc, Due::LATER)?;
        let fits = head.kind == record.kind
            && head.expires_s == record.expires_s
            && (head.kind.is_metadata() || head.kind == head.identity.family.kind());
        self.serial = self.serial.max(head.serial);
        fits.then(|| Seen {
            family: head.identity.family,
            prefix: head.prefix(),
            tag: self.tag(&head.identity),
            serial: head.serial,
            kind: head.kind,
            extends: if head.kind == Kind::Lease { head.extends() } else { 0 },
            hour: hour_of(head.expires_s),
            place,
        })
    }

    /// Without the secret nobody can make two keys that are taken for one.
    fn tag(&self, identity: &Identity) -> u64 {
        let mut bytes = [0; 33];
        bytes[..32].copy_from_slice(&identity.key);
        bytes[32] = identity.index;
        let hash = blake3::keyed_hash(&self.config.mixing_secret, &bytes);
        crate::format::field::u64_at(hash.as_bytes(), 0)
    }
}

/// What the index is made of.
#[derive(Default)]
struct Words {
    /// Entries of each tree of each family.
    entries: [[Vec<Entry>; Tree::ALL.len()]; Family::ALL.len()],
    shadows: HashMap<(Family, Prefix), u64>,
}

impl Words {
    /// The last words of all identities at an hour; the place of each is shown to `adopt`.
    fn of(seen: &mut [Seen], hour: u64, mut adopt: impl FnMut(Family, Tree, Place)) -> Self {
        seen.sort_unstable();
        let mut words = Self::default();
        for group in seen.chunk_by(|a, b| (a.family, a.prefix, a.tag) == (b.family, b.prefix, b.tag)) {
            let word = LastWord::of(group);
            let (family, prefix) = (group[0].family, group[0].prefix);
            for (tree, place, gone_from) in word.alive_at(hour) {
                let place = place.with_due(Due::of_hour(gone_from, hour));
                adopt(family, tree, place);
                words.entries[family.at()][tree as usize].push(Entry { prefix, place });
            }
            if word.live.is_some_and(|live| (hour + 1..word.until).contains(&live.hour)) {
                let until = words.shadows.entry((family, prefix)).or_default();
                *until = word.until.max(*until);
            }
        }
        words
    }
}

/// What counts of one identity.
#[derive(Clone, Copy, Default)]
struct LastWord {
    /// With the hour that the lease gives it.
    live: Option<Seen>,
    lease: Option<Seen>,
    tombstone: Option<Seen>,
    /// Hour from which all is gone that is on disk of this identity.
    until: u64,
}

impl LastWord {
    /// `group` in the order of serials.
    fn of(group: &[Seen]) -> Self {
        let until = group.iter().map(|seen| seen.hour).max().unwrap_or(0);
        group.iter().fold(Self { until, ..Self::default() }, |word, seen| match seen.kind {
            Kind::Lease => word.extended(group, *seen),
            Kind::Tombstone => Self { tombstone: Some(*seen), live: None, lease: None, until },
            _ => Self { live: Some(*seen), tombstone: None, lease: None, until },
        })
    }

    /// A lease says, too, which record counted when it was taken: what stands between the two was refused and
    /// is on disk nevertheless.
    fn extended(self, group: &[Seen], lease: Seen) -> Self {
        let is_it = |seen: &&Seen| Tree::of(seen.kind) == Tree::Live && seen.serial == lease.extends;
        match group.iter().rfind(is_it) {
            Some(live) => {
                let live = Seen { hour: live.hour.max(lease.hour), ..*live };
                Self { live: Some(live), lease: Some(lease), tombstone: None, ..self }
            }
            None => self,
        }
    }

    /// Tree, place and last hour of what is kept of it. A record that has expired is kept as a tombstone
    /// while something on disk would outlive it.
    fn alive_at(&self, hour: u64) -> impl Iterator<Item = (Tree, Place, u64)> {
        let (expired, live) = match self.live {
            Some(live) if live.hour <= hour => (Some(live), None),
            live => (None, live),
        };
        let lease = self.lease.filter(|_| live.is_some()).map(|lease| (Tree::Marks, lease.place, lease.hour));
        let tombstone = self.tombstone.or(expired).map(|it| (Tree::Marks, it.place, self.until));
        let live = live.map(|live| (Tree::Live, live.place, live.hour));
        [live, lease, tombstone].into_iter().flatten().filter(move |(.., gone_from)| *gone_from > hour)
    }
}

fn build(
    config: &KeyedConfig,
    hour: u64,
    entries: [[Vec<Entry>; Tree::ALL.len()]; Family::ALL.len()],
) -> Result<[Trees; Family::ALL.len()], RestoreError> {
    let tree = |mut entries: Vec<Entry>| {
        // By prefix they are sorted already; those of one prefix are not by place.
        entries.sort_unstable();
        let built = KeyIndex::build(config.entries_max, hour, entries.into_iter());
        built.map_err(|source| RestoreError::Index { partition: config.partition, source })
    };
    let trees = |[live, marks]: [Vec<Entry>; 2]| -> Result<Trees, RestoreError> {
        Ok(Trees { live: tree(live)?, marks: tree(marks)? })
    };
    let [shards, records, bundles] = entries;
    Ok([trees(shards)?, trees(records)?, trees(bundles)?])
}
