//! Stores that earlier versions wrote, which this one must open and find the same in.
//!
//! Each file in `tests/fixtures` is a store as it was on disk; what its logs hold is committed here as a
//! digest of every record's LSN, kind, expiry and payload, and for keyed records as what a reader gets.
//!
//! A change of the format gets a fixture of its own, beside those that are there: add its maker to `MAKERS`,
//! run `TRINE_WRITE_FIXTURES=1 cargo test -p shards --test format_fixtures -- --nocapture`, which writes the
//! files that are missing and prints their digests, and add a test for it. A file that is committed is never
//! written again.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "reads and writes files, and fails by panicking"
)]

mod disk;
mod keyed;
mod logs;

use std::path::PathBuf;

use disk::Disk;

/// Name of a fixture, and what made it.
type Maker = (&'static str, fn() -> Disk);

const MAKERS: &[Maker] = &[
    ("relay-lane-v1", logs::relay_lane),
    ("long-header-v2", logs::long_header),
    ("long-batch-v2", logs::long_batch),
    ("keyed-partition-v1", keyed::partition),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn fixture(name: &str) -> Disk {
    Disk::decode(&std::fs::read(path(name)).unwrap())
}

#[test]
fn every_fixture_is_there_or_is_written_on_request() {
    for (name, make) in MAKERS {
        if !path(name).exists() {
            assert!(std::env::var_os("TRINE_WRITE_FIXTURES").is_some(), "{name} is missing");
            let disk = make();
            std::fs::write(path(name), disk.encode()).unwrap();
            println!("{name}: {:?}", logs::digests(&disk));
        }
    }
}

#[test]
fn a_fixture_is_read_as_it_was_written() {
    for (name, _) in MAKERS {
        let bytes = std::fs::read(path(name)).unwrap();
        assert!(Disk::decode(&bytes).encode() == bytes, "{name}");
        assert!(bytes.len() < 100_000, "{name} takes {} bytes", bytes.len());
    }
}
