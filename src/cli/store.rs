//! The directory of a node: its key and its store, made on request and opened with checks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use shards::{FormatError, OpenError, Store, StoreConfig, StoreId};

use super::error::{CliError, Exit};
use super::session::random;
use crate::config::Config;
use crate::link::{NodeKey, Seed, key_file};
use crate::rt::clock::Clock;
use crate::rt::files::{self, FileError};
use crate::rt::volume::FsVolume;

const KEY_FILE_BYTES_MAX: usize = 4096;
/// Segments made per lane when a store is formatted: one to write, one in reserve.
const SEGMENTS_AT_FIRST: u32 = 2;

/// A node's directory, open and locked.
pub struct NodeDir {
    /// The node's key.
    pub key: NodeKey,
    /// The directory.
    pub volume: Arc<FsVolume>,
    /// The store in it.
    pub store: Store,
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("node.key")
}

fn store_error(error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Store, error.to_string())
}

/// Makes a key and a store in `config.data`. A key that is there already, from a run that did not get
/// further, is used; a store is never overwritten.
pub fn create(config: &Config, now_ms: u64) -> Result<NodeDir, CliError> {
    let dir = &config.data;
    let volume = FsVolume::create(dir).map_err(store_error)?;
    let key = match read_key(dir)? {
        Some(key) => key,
        None => make_key(dir)?,
    };
    let shape = StoreConfig {
        lanes: config.store.lanes_for(processors()),
        segment_bytes: u32::try_from(config.store.segment_bytes.as_bytes()).unwrap_or(u32::MAX),
        segments_per_lane: SEGMENTS_AT_FIRST,
        store_id: StoreId(random()?),
        mixing_secret: random()?,
        node_id: key.node_id().0,
        created_ms: now_ms,
    };
    let store = Store::format(&volume, &shape).map_err(|error| match error {
        FormatError::Exists => store_error(format!("{}: {error}", dir.display())),
        error => store_error(format!("the store in {} could not be made: {error}", dir.display())),
    })?;
    Ok(NodeDir { key, volume: Arc::new(volume), store })
}

/// Processors that this process may run on.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Opens the key and the store in `dir`.
pub fn open(dir: &Path) -> Result<NodeDir, CliError> {
    if !dir.exists() {
        return Err(missing(dir));
    }
    let volume = FsVolume::open(dir).map_err(store_error)?;
    let key = read_key(dir)?.ok_or_else(|| missing(dir))?;
    let store = Store::open(&volume, &key.node_id().0).map_err(|error| match error {
        OpenError::Missing => missing(dir),
        error => store_error(format!("{}: {error}", dir.display())),
    })?;
    Ok(NodeDir { key, volume: Arc::new(volume), store })
}

/// True if nothing of a node is in `dir`.
pub fn is_fresh(dir: &Path) -> bool {
    !key_path(dir).exists() && !dir.join(shards::store::STORE_FILE).exists()
}

fn missing(dir: &Path) -> CliError {
    let dir = dir.display();
    let message = format!(
        "there is no node in {dir}: `trine init --data {dir}` makes one. If there was one, its disk is not \
         mounted"
    );
    CliError::new(Exit::Store, message)
}

fn read_key(dir: &Path) -> Result<Option<NodeKey>, CliError> {
    let path = key_path(dir);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = files::read_secret(&path, KEY_FILE_BYTES_MAX).map_err(store_error)?;
    let key = key_file::decode_node_key(&bytes);
    key.map(Some).map_err(|error| store_error(format!("{}: {error}", path.display())))
}

fn make_key(dir: &Path) -> Result<NodeKey, CliError> {
    let key = NodeKey::from_seed(Seed::from(random::<32>()?)).map_err(store_error)?;
    let text = key_file::encode_node_key(&key);
    files::write_secret(&key_path(dir), text.as_bytes())
        .map_err(|error: FileError| CliError::new(Exit::Store, error.to_string()))?;
    Ok(key)
}

/// The wall clock, for files that say when they were made.
pub fn wall_ms() -> u64 {
    Clock::start().now().wall_ms
}
