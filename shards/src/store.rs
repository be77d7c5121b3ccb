//! The identity of a store: which node it belongs to, how it is divided, and the secret that spreads keys.
//!
//! One small file in the root, `store.id`, written once by [`Store::format`]. [`Store::open`] tells a store
//! that is missing from one that is there and from one that cannot be trusted, so that a wrong mount is never
//! formatted and a foreign disk never served.
//!
//! Called by the command that makes a store and by the node at start.

use std::io;
use std::ops::Range;

use crate::checksum::crc32c;
use crate::format::StoreId;
use crate::format::field::{bytes_at, put, u16_at, u32_at, u64_at};
use crate::io::{BLOCK_BYTES, LaneId, SegmentId, Volume};
use crate::lane::config::LaneConfig;

/// Name of the file in the store's root.
pub const STORE_FILE: &str = "store.id";
/// Most lanes a store can have.
pub const LANES_MAX: u16 = 256;
const MAGIC: [u8; 8] = *b"TRINESTO";
/// Version of the layout of this file, which has its own count: the logs may change and this file may not.
const FILE_VERSION: u16 = 1;
const FILE_BYTES: usize = 128;
const CRC_AT: usize = FILE_BYTES - 4;

/// How a store shall be made.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Number of lanes: a power of two up to [`LANES_MAX`]. Cannot be changed later.
    pub lanes: u16,
    /// Size of a segment file: a multiple of 4096 below 4 GiB. Cannot be changed later.
    pub segment_bytes: u32,
    /// Segments made per lane at once, at least 1; the others are made when they are needed.
    pub segments_per_lane: u32,
    /// Random.
    pub store_id: StoreId,
    /// Random and secret: whoever knows it can aim keys at one lane.
    pub mixing_secret: [u8; 32],
    /// Node that owns the store.
    pub node_id: [u8; 32],
    /// Wall clock, in milliseconds since 1970.
    pub created_ms: u64,
}

/// An opened store.
#[derive(Clone, PartialEq, Eq)]
pub struct Store {
    id: StoreId,
    lanes: u16,
    segment_bytes: u32,
    mixing_secret: [u8; 32],
    node_id: [u8; 32],
    created_ms: u64,
}

/// A store that could not be made. Nothing that existed was changed.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// There is a store already, or something in its place.
    #[error("there is already a {STORE_FILE} here; a store is never overwritten. Choose another directory")]
    Exists,
    /// Unusable number of lanes.
    #[error("a store has 1 to 256 lanes, a power of two; asked for {0}")]
    Lanes(u16),
    /// Unusable sizes.
    #[error(
        "segments of {segment_bytes} bytes, {per_lane} per lane, are not possible; use multiples of 4096"
    )]
    Segments {
        /// As configured.
        segment_bytes: u32,
        /// As configured.
        per_lane: u32,
    },
    /// The machine failed.
    #[error(
        "formatting the store failed at {doing}: {source}; see to the disk, remove the lane directories \
         that were made, and try again"
    )]
    Io {
        /// What failed.
        doing: &'static str,
        /// How.
        source: io::Error,
    },
}

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No store here.
    #[error("there is no {STORE_FILE} here; is the right disk mounted? To make a new store, run init")]
    Missing,
    /// The file is no store file.
    #[error("{STORE_FILE} is not a store's file (wrong magic); this directory belongs to something else")]
    WrongMagic,
    /// Made by a later version.
    #[error("the store has format {0}; this version reads up to {FILE_VERSION}. Use the later version")]
    NewerVersion(u16),
    /// Wrong length, checksum or contents.
    #[error("{STORE_FILE} is damaged ({0}); restore it from a copy. Nothing was changed")]
    Corrupt(&'static str),
    /// Another node's store.
    #[error(
        "the store belongs to another node ({}...); start with that node's key or use its own store",
        hex(.found)
    )]
    ForeignNode {
        /// Node that the store belongs to.
        found: [u8; 32],
    },
    /// The machine failed.
    #[error("reading {STORE_FILE} failed: {0}")]
    Io(#[from] io::Error),
}

fn hex(id: &[u8; 32]) -> String {
    id[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Store {
    /// Makes a store: the lanes, their first segments and, last, the file that makes it one.
    pub fn format(volume: &dyn Volume, config: &StoreConfig) -> Result<Self, FormatError> {
        let failed = |doing| move |source| FormatError::Io { doing, source };
        if volume.read_meta(STORE_FILE).map_err(failed("looking for a store"))?.is_some() {
            return Err(FormatError::Exists);
        }
        if !is_lane_count(config.lanes) {
            return Err(FormatError::Lanes(config.lanes));
        }
        let (segment_bytes, per_lane) = (config.segment_bytes, config.segments_per_lane);
        if !is_segment_size(segment_bytes) || per_lane == 0 {
            return Err(FormatError::Segments { segment_bytes, per_lane });
        }
        for lane in (0..config.lanes).map(LaneId) {
            volume.create_lane(lane).map_err(failed("making a lane"))?;
            for segment in (0..per_lane).map(SegmentId) {
                let created = volume.create_segment(lane, segment, u64::from(segment_bytes));
                created.map_err(failed("making a segment"))?;
            }
        }
        let store = Self {
            id: config.store_id,
            lanes: config.lanes,
            segment_bytes,
            mixing_secret: config.mixing_secret,
            node_id: config.node_id,
            created_ms: config.created_ms,
        };
        volume.replace_meta(STORE_FILE, &store.encode()).map_err(failed("writing the store's file"))?;
        Ok(store)
    }

    /// Opens the store of the node `node_id`.
    pub fn open(volume: &dyn Volume, node_id: &[u8; 32]) -> Result<Self, OpenError> {
        let bytes = volume.read_meta(STORE_FILE)?.ok_or(OpenError::Missing)?;
        let store = Self::decode(&bytes)?;
        if store.node_id != *node_id {
            return Err(OpenError::ForeignNode { found: store.node_id });
        }
        Ok(store)
    }

    /// Its identity.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Number of lanes.
    pub fn lanes(&self) -> u16 {
        self.lanes
    }

    /// Size of a segment file, in bytes.
    pub fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    /// When it was made, in milliseconds since 1970.
    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// The default configuration of one of its lanes.
    pub fn lane_config(&self, lane: LaneId) -> LaneConfig {
        LaneConfig::new(self.id, lane, self.segment_bytes)
    }

    /// The lane of a key: the top bits of a keyed hash.
    ///
    /// A node holds keys near its own id, so the key's own bits would fill few lanes; and a public mix would
    /// let anyone aim at one lane. BLAKE3 keyed is one compression for a key of 32 bytes, and is here
    /// already; a cheaper mix would save some tens of nanoseconds per message and have to be argued for.
    pub fn lane_of(&self, key: &[u8; 32]) -> LaneId {
        let hash = blake3::keyed_hash(&self.mixing_secret, key);
        let top = u16::from_be_bytes(bytes_at(hash.as_bytes(), 0));
        LaneId(((u32::from(top) * u32::from(self.lanes)) >> 16) as u16)
    }

    /// A secret of an address: 16 bytes that nobody without the store's secret can tell, the same as long as
    /// the store lives. What is mixed with it belongs to that address.
    pub fn mask_of(&self, address: &[u8; 32]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.mixing_secret);
        hasher.update(b"trine store mask v1").update(address);
        bytes_at(hasher.finalize().as_bytes(), 0)
    }

    /// The lanes of one of `cores` cores: a contiguous run. Together they cover every lane once. With more
    /// cores than lanes some get none. Another number of cores regroups lanes and moves no data.
    ///
    /// # Panics
    /// If `core` is not below `cores`.
    pub fn lanes_of_core(&self, core: u16, cores: u16) -> Range<u16> {
        assert!(core < cores, "core {core} of {cores}");
        let start = |core: u16| (u32::from(core) * u32::from(self.lanes) / u32::from(cores)) as u16;
        start(core)..start(core + 1)
    }

    /// The core that has this lane when there are `cores`.
    pub fn core_of_lane(&self, lane: LaneId, cores: u16) -> u16 {
        // The highest core whose first lane is not above `lane`.
        ((u32::from(lane.0) + 1) * u32::from(cores)).div_ceil(u32::from(self.lanes)).saturating_sub(1) as u16
    }

    fn encode(&self) -> [u8; FILE_BYTES] {
        let mut file = [0; FILE_BYTES];
        put(&mut file, 0, &MAGIC);
        put(&mut file, 8, &FILE_VERSION.to_le_bytes());
        put(&mut file, 10, &self.lanes.to_le_bytes());
        put(&mut file, 12, &self.segment_bytes.to_le_bytes());
        put(&mut file, 16, &self.id.0);
        put(&mut file, 32, &self.mixing_secret);
        put(&mut file, 64, &self.node_id);
        put(&mut file, 96, &self.created_ms.to_le_bytes());
        let crc = crc32c(&file[..CRC_AT]);
        put(&mut file, CRC_AT, &crc.to_le_bytes());
        file
    }

    fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        if bytes.len() < 8 || bytes[..8] != MAGIC {
            return Err(OpenError::WrongMagic);
        }
        if bytes.len() < FILE_BYTES {
            return Err(OpenError::Corrupt("it is too short"));
        }
        let version = u16_at(bytes, 8);
        if version > FILE_VERSION {
            return Err(OpenError::NewerVersion(version));
        }
        if bytes.len() > FILE_BYTES {
            return Err(OpenError::Corrupt("it is too long"));
        }
        if crc32c(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return Err(OpenError::Corrupt("its checksum is wrong"));
        }
        let store = Self {
            id: StoreId(bytes_at(bytes, 16)),
            lanes: u16_at(bytes, 10),
            segment_bytes: u32_at(bytes, 12),
            mixing_secret: bytes_at(bytes, 32),
            node_id: bytes_at(bytes, 64),
            created_ms: u64_at(bytes, 96),
        };
        if !is_lane_count(store.lanes) || !is_segment_size(store.segment_bytes) {
            return Err(OpenError::Corrupt("its sizes are impossible"));
        }
        Ok(store)
    }
}

impl std::fmt::Debug for Store {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({:?}, {} lanes, segments of {} bytes)", self.id, self.lanes, self.segment_bytes)
    }
}

fn is_lane_count(lanes: u16) -> bool {
    lanes.is_power_of_two() && lanes <= LANES_MAX
}

fn is_segment_size(bytes: u32) -> bool {
    bytes > 0 && (bytes as usize).is_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SimDisk;

    const NODE: [u8; 32] = [7; 32];

    fn config() -> StoreConfig {
        StoreConfig {
            lanes: 8,
            segment_bytes: 64 << 10,
            segments_per_lane: 1,
            store_id: StoreId([3; 16]),
            mixing_secret: [5; 32],
            node_id: NODE,
            created_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_formatted_store_opens_with_what_it_was_made_of() {
        let disk = SimDisk::new(1);
        let made = Store::format(&disk, &config()).unwrap();
        assert_eq!(Store::open(&disk, &NODE).unwrap(), made);
        assert_eq!((made.lanes(), made.segment_bytes(), made.id()), (8, 64 << 10, StoreId([3; 16])));
    }

    #[test]
    fn format_refuses_to_overwrite_a_store_or_anything_in_its_place() {
        let disk = SimDisk::new(1);
        disk.replace_meta(STORE_FILE, b"not ours").unwrap();
        assert!(matches!(Store::format(&disk, &config()), Err(FormatError::Exists)));
        assert_eq!(disk.read_meta(STORE_FILE).unwrap().unwrap(), b"not ours");
    }

    #[test]
    fn format_refuses_lanes_and_segments_that_cannot_be() {
        for lanes in [0, 3, 512] {
            let refused = Store::format(&SimDisk::new(1), &StoreConfig { lanes, ..config() });
            assert!(matches!(refused, Err(FormatError::Lanes(_))), "{lanes}");
        }
        for (segment_bytes, segments_per_lane) in [(0, 1), (5000, 1), (4096, 0)] {
            let refused = Store::format(
                &SimDisk::new(1),
                &StoreConfig { segment_bytes, segments_per_lane, ..config() },
            );
            assert!(matches!(refused, Err(FormatError::Segments { .. })), "{segment_bytes}");
        }
    }

    #[test]
    fn a_missing_a_foreign_a_newer_and_a_damaged_store_are_told_apart() {
        let disk = SimDisk::new(1);
        assert!(matches!(Store::open(&disk, &NODE), Err(OpenError::Missing)));
        let good = Store::format(&disk, &config()).unwrap().encode();
        assert!(matches!(Store::open(&disk, &[8; 32]), Err(OpenError::ForeignNode { found: NODE })));
        let open_with = |at: usize, byte: u8| {
            let mut file = good;
            file[at] = byte;
            disk.replace_meta(STORE_FILE, &file).unwrap();
            Store::open(&disk, &NODE)
        };
        assert!(matches!(open_with(0, b'X'), Err(OpenError::WrongMagic)));
        assert!(matches!(open_with(8, 2), Err(OpenError::NewerVersion(2))));
        assert!(matches!(open_with(40, 0), Err(OpenError::Corrupt(_))));
        disk.replace_meta(STORE_FILE, &good[..100]).unwrap();
        assert!(matches!(Store::open(&disk, &NODE), Err(OpenError::Corrupt(_))));
    }

    #[test]
    fn every_core_count_covers_each_lane_once_in_contiguous_runs() {
        let store = Store::format(&SimDisk::new(1), &config()).unwrap();
        for cores in 1..=20 {
            let lanes: Vec<u16> = (0..cores).flat_map(|core| store.lanes_of_core(core, cores)).collect();
            assert_eq!(lanes, (0..8).collect::<Vec<_>>());
            for core in 0..cores {
                for lane in store.lanes_of_core(core, cores) {
                    assert_eq!(store.core_of_lane(LaneId(lane), cores), core, "lane {lane} of {cores} cores");
                }
            }
        }
    }

    #[test]
    fn keys_that_share_a_prefix_spread_over_all_lanes_evenly() {
        let store = Store::format(&SimDisk::new(1), &config()).unwrap();
        let mut counts = [0u32; 8];
        for number in 0..8000u32 {
            let mut key = [0xAB; 32];
            key[28..].copy_from_slice(&number.to_be_bytes());
            counts[usize::from(store.lane_of(&key).0)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
