//! A store of records found by key, on one core of the node's runtime with direct I/O and durable writes;
//! there is no network, the load is made inside the core. fio does the same to the same file system on the
//! same processor, in turns with us.
//!
//! # What is and what is not in it
//! Everything from the call to the disk: copying, checksums, the index, the node's io_uring driver. Records
//! have no card and no lease, and their hash is made once: to check what clients send is the mesh's work, not
//! the store's. Segments are made before anything is measured and used again, as in a node in service.
//!
//! # Latency
//! In closed loops it is named as such: it shows what a queue of this depth costs, not what a client would
//! see. What compaction does to clients is measured in an open loop, from the intended time.

mod compaction;
mod core;
pub mod fio;
mod get;
pub mod put;
mod restart;
mod station;
pub mod work;

use super::Effort;
use crate::error::Result;
use crate::report::{Row, Stat};
use crate::server::Bench;
use fio::Fio;

const NAME: &str = "lane-store";
const FIO: &str = "fio";

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let fio = find_fio(effort, say);
    let mut rows = put::rows(&put::points(bench, effort, fio.as_ref(), say)?);
    rows.extend(get::run(bench, effort, fio.as_ref(), say)?);
    rows.extend(compaction::run(bench, effort, say)?);
    rows.extend(restart::run(bench, effort, say)?);
    Ok(rows)
}

/// The yardstick, if it is wanted and there.
pub fn find_fio(effort: &Effort, say: &dyn Fn(&str)) -> Option<Fio> {
    let fio = effort.peers.then(Fio::find)?;
    fio.inspect_err(|error| say(&error.to_string())).ok()
}

/// The passes of one measure.
fn stat<T>(passes: &[T], value: impl Fn(&T) -> f64) -> Option<Stat> {
    Stat::of(passes.iter().map(value))
}

/// True if more passes than not were disturbed by other programs; `shares` are those that others had.
fn are_disturbed(shares: impl IntoIterator<Item = f64>) -> bool {
    let (mut all, mut disturbed) = (0, 0);
    for share in shares {
        all += 1;
        disturbed += usize::from(work::is_disturbed(share));
    }
    2 * disturbed > all
}

pub fn size(bytes: usize) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}
