//! A small file system that is full before the partition is: filled until it refuses, emptied, used again.

use std::path::Path;
use std::process::Command;

use shards::keyed::{CapacityState, ChangeError};

use super::partition::{Answer, Partition, START_S, body};

/// Size of the file system, and more segments than it can hold.
const FILE_SYSTEM_MIB: u32 = 48;
const SEGMENTS_MAX: u32 = 64;
const BODY_BYTES: usize = 60_000;
const ENOSPC: i32 = 28;

/// A file system of its own, taken away again at the end.
struct Mounted<'d>(&'d Path);

impl<'d> Mounted<'d> {
    /// An ext4 file system in a file, or else one in memory; `None` if this process may mount neither.
    fn new(dir: &'d Path, image: &Path) -> Option<Self> {
        let file = std::fs::File::create(image).unwrap();
        file.set_len(u64::from(FILE_SYSTEM_MIB) << 20).unwrap();
        let made = succeeds(Command::new("mkfs.ext4").arg("-qF").arg(image));
        let options = format!("size={FILE_SYSTEM_MIB}m");
        let is_mounted = made && succeeds(Command::new("mount").args(["-o", "loop"]).arg(image).arg(dir));
        let is_mounted = is_mounted
            || succeeds(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir));
        is_mounted.then_some(Self(dir))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        succeeds(Command::new("umount").arg(self.0));
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Puts records until the partition refuses one; gives how many it took.
fn fill(partition: &mut Partition, first: u64, expires_s: impl Fn(u64) -> u64) -> (u64, ChangeError) {
    for key in first.. {
        match partition.ask_put(key, 1, BODY_BYTES, expires_s(key)) {
            Ok(ticket) => partition.stored(ticket),
            Err(error) => return (key, error),
        }
    }
    unreachable!("the file system is small")
}

fn assert_there(partition: &mut Partition, keys: impl Iterator<Item = u64>) {
    for key in keys {
        assert!(partition.get(key) == Answer::Record(1, body(key, 1, BODY_BYTES)), "key {key}");
    }
}

/// Half of the records live two hours, the others for years.
fn expires_s(key: u64) -> u64 {
    START_S + if key.is_multiple_of(2) { 2 * 3_600 } else { 400 * 24 * 3_600 }
}

#[test]
fn a_full_file_system_is_a_state_that_expiry_and_deletion_end() {
    let image = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let Some(mounted) = Mounted::new(dir.path(), image.path()) else {
        println!("SKIPPED: a full file system. This process may not mount one; run the tests as root");
        return;
    };
    let data = dir.path().join("store");
    Partition::format(&data);
    let mut partition = Partition::open(&data, SEGMENTS_MAX, START_S);
    let (full, refused) = fill(&mut partition, 0, expires_s);
    let capacity = partition.store.capacity();
    println!("{full} records, {} segments, then: {refused}", partition.segments());
    assert!(partition.segments() < SEGMENTS_MAX, "the file system ends first");
    let error = capacity.prepare_error.map(|errno| errno.0);
    assert!(error == Some(ENOSPC) || capacity.state == CapacityState::Reserve, "{capacity:?}");
    assert_there(&mut partition, 0..full);

    // What expires needs no space to go.
    partition.now_s += 3 * 3_600;
    partition.settle();
    assert_there(&mut partition, (0..full).filter(|key| !key.is_multiple_of(2)));
    let (again, _) = fill(&mut partition, 10_000, |_| START_S + 400 * 24 * 3_600);
    assert!(again - 10_000 > full / 4, "{again}: the space of what expired is used");

    // What is deleted makes room, also when it is full again, and over a restart.
    drop(partition);
    let now_s = START_S + 3 * 3_600;
    let mut partition = Partition::open(&data, SEGMENTS_MAX, now_s);
    assert_eq!(partition.losses, 0);
    for key in (0..full).filter(|key| !key.is_multiple_of(2)) {
        let ticket = partition.ask_delete(key, 2).unwrap_or_else(|error| panic!("key {key}: {error}"));
        partition.stored(ticket);
    }
    partition.until("green", |it| it.store.capacity().state == CapacityState::Green);
    assert_there(&mut partition, 10_000..again);
    let ticket = partition.ask_put(1, 3, BODY_BYTES, now_s + 3_600).unwrap();
    partition.stored(ticket);
    drop(partition);
    let mut partition = Partition::open(&data, SEGMENTS_MAX, now_s);
    assert_eq!(partition.losses, 0);
    assert_there(&mut partition, 10_000..again);
    assert!(partition.get(1) == Answer::Record(3, body(1, 3, BODY_BYTES)));
    assert_eq!(partition.get(3), Answer::Absent);
    drop(partition);
    drop(mounted);
}
