//! What an operator can set, as one typed value.
//!
//! Defaults are in code ([`Config::of`]), a TOML file may change them, then the environment (`TRINE_…`), then
//! flags: the later wins. [`load`] puts the layers together and [`Config::validate`] refuses what cannot
//! work, naming the key and the fix. Nothing here reads a file, the environment or the clock: the command
//! line hands the texts in.
//!
//! An unknown key in the file is an error with its line, because a misspelt limit that is ignored is a limit
//! that is missing. An unknown `TRINE_…` variable is only a warning: orchestrators set variables of that
//! shape by themselves.

mod budget;
mod layers;
mod limits;
mod units;
mod validate;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shards::store::LANES_MAX;

pub use budget::{Budget, BudgetLine};
pub use layers::{ConfigError, ConfigFile, Loaded, Overrides, load};
pub use limits::{Deadlines, Limits};
pub use units::{AutoCount, Size, Span, UnitError};
pub use validate::Invalid;

/// Segments a lane needs at least: one being written, one spare, one sealed, one being compacted.
const SEGMENTS_PER_LANE_MIN: u64 = 4;
/// Most segment files of one lane. The format allows more; but the relay reads all of them back at every
/// start, and a core keeps no more of them open.
const SEGMENTS_PER_LANE_MAX: u32 = 96;

/// Which set of defaults to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A server: data under `/var/lib`, large segments.
    Server,
    /// A developer's machine: `./trine-data`, made on first use, small segments.
    Dev,
}

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Directory of the node key and the store.
    pub data: PathBuf,
    /// Where clients and peers connect.
    pub listen: SocketAddr,
    /// Where health, metrics and status are served. There is no authentication on it.
    pub http: SocketAddr,
    /// Cores to use; by itself as many as this process may run on.
    pub cores: AutoCount,
    /// The store on disk.
    pub store: StoreConfig,
    /// What one client, one source or all of them together may use.
    pub limits: Limits,
    /// How long things may take.
    pub deadlines: Deadlines,
}

/// The store on disk. All but `max_bytes` are fixed when the store is formatted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Lanes, a power of two; at least the number of cores the node will ever run on. By itself one for each
    /// processor, or as many as it takes to use `max_bytes`: each lane commits alone, so more of them cost
    /// more writes.
    pub lanes: AutoCount,
    /// Size of a segment file.
    pub segment_bytes: Size,
    /// Most that all segment files together may take.
    pub max_bytes: Size,
}

impl Config {
    /// The defaults of a profile.
    pub fn of(profile: Profile) -> Self {
        let (data, store) = match profile {
            Profile::Server => ("/var/lib/trine", StoreConfig::server()),
            Profile::Dev => ("trine-data", StoreConfig::dev()),
        };
        Self {
            data: data.into(),
            listen: (Ipv4Addr::LOCALHOST, 9001).into(),
            http: (Ipv4Addr::LOCALHOST, 8081).into(),
            cores: AutoCount::Auto,
            store,
            limits: Limits::default(),
            deadlines: Deadlines::default(),
        }
    }

    /// The configuration as a TOML file that [`load`] reads back to the same value.
    pub fn to_toml(&self) -> String {
        // PANIC: every key is a string and every value a string, an integer or a table, which TOML can write;
        // the round trip of both profiles is tested.
        toml::to_string(self).expect("a configuration can be written as TOML")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::of(Profile::Server)
    }
}

impl StoreConfig {
    /// Lanes of a store that is made on a machine of so many processors: enough to use `max_bytes`, and no
    /// more than it has room for.
    pub fn lanes_for(&self, processors: usize) -> u16 {
        match self.lanes {
            AutoCount::Count(lanes) => lanes,
            AutoCount::Auto => {
                let most = u64::from(LANES_MAX);
                let segments = self.max_bytes.as_bytes() / self.segment_bytes.as_bytes().max(1);
                let room = 1 << (segments / SEGMENTS_PER_LANE_MIN).max(1).ilog2();
                let to_use_it = segments.div_ceil(SEGMENTS_PER_LANE_MAX.into()).min(most).next_power_of_two();
                let lanes = to_use_it.max((processors as u64).min(most).next_power_of_two()).min(room);
                u16::try_from(lanes).unwrap_or(LANES_MAX).min(LANES_MAX)
            }
        }
    }

    /// Segment files that each lane of a store may own, so that all together stay within `max_bytes`; at
    /// least two, at most what the format allows. Lanes and size of segments are the store's own, which may
    /// have been made with other settings.
    pub fn segments_per_lane(&self, lanes: u16, segment_bytes: u32) -> u32 {
        let segments = self.max_bytes.as_bytes() / u64::from(segment_bytes.max(1)) / u64::from(lanes.max(1));
        u32::try_from(segments).unwrap_or(u32::MAX).clamp(2, SEGMENTS_PER_LANE_MAX)
    }

    /// Most that so many lanes can take; more of `max_bytes` is never used.
    pub fn usable_bytes(lanes: u16, segment_bytes: u64) -> Size {
        Size::bytes(u64::from(lanes) * u64::from(SEGMENTS_PER_LANE_MAX) * segment_bytes)
    }

    const fn server() -> Self {
        Self { lanes: AutoCount::Auto, segment_bytes: Size::mib(256), max_bytes: Size::gib(64) }
    }

    const fn dev() -> Self {
        Self { lanes: AutoCount::Auto, segment_bytes: Size::mib(16), max_bytes: Size::gib(2) }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self::server()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_suit_the_processors_and_the_space() {
        let store = |max_bytes| StoreConfig { max_bytes, ..StoreConfig::server() };
        let usual = store(Size::gib(20));
        let lanes = [1, 2, 3, 12, 64, 1_000].map(|processors| usual.lanes_for(processors));
        assert_eq!(lanes, [1, 2, 4, 16, 16, 16], "80 segments, at least four for each");
        assert_eq!(store(Size::gib(64)).lanes_for(2), 4, "256 segments, at most 96 for each");
        assert_eq!(store(Size::gib(8_192)).lanes_for(2), 256);
        assert_eq!(store(Size::gib(1 << 20)).lanes_for(1_000), 256);
        assert_eq!(store(Size::gib(64)).lanes_for(96), 64);
        assert_eq!(store(Size::gib(5)).lanes_for(96), 4);
        assert_eq!(StoreConfig { lanes: AutoCount::Count(8), ..usual }.lanes_for(2), 8);
    }

    #[test]
    fn both_profiles_are_valid_and_survive_printing_and_reading() {
        for profile in [Profile::Server, Profile::Dev] {
            let config = Config::of(profile);
            config.validate().unwrap();
            let text = config.to_toml();
            let file = ConfigFile { name: "printed", text: &text };
            let back = load(profile, Some(file), [], Overrides::default()).unwrap();
            assert_eq!(back.config, config);
        }
    }
}
