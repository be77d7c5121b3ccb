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

pub use budget::{Budget, BudgetLine};
pub use layers::{ConfigError, ConfigFile, Loaded, Overrides, load};
pub use limits::{Deadlines, Limits};
pub use units::{Cores, Size, Span, UnitError};
pub use validate::Invalid;

/// Most segment files of one lane, given by the format of the store.
const SEGMENTS_PER_LANE_MAX: u32 = shards::format::SEGMENTS_MAX as u32;

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
    /// Cores to use.
    pub cores: Cores,
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
    /// Lanes, a power of two; at least the number of cores the node will ever run on.
    pub lanes: u16,
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
            cores: Cores::Auto,
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
    /// Segment files a lane may own, so that all lanes together stay within `max_bytes`; at least two, at
    /// most what the format allows.
    pub fn segments_per_lane(&self) -> u32 {
        let segments =
            self.max_bytes.as_bytes() / self.segment_bytes.as_bytes().max(1) / u64::from(self.lanes.max(1));
        u32::try_from(segments).unwrap_or(u32::MAX).clamp(2, SEGMENTS_PER_LANE_MAX)
    }

    const fn server() -> Self {
        Self { lanes: 16, segment_bytes: Size::mib(256), max_bytes: Size::gib(64) }
    }

    const fn dev() -> Self {
        Self { lanes: 4, segment_bytes: Size::mib(16), max_bytes: Size::gib(2) }
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
