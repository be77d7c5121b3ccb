//! Disk operations through the driver on a real file system.

mod rt_common;

use rt_common::disk::*;
use shards::AlignedBuf;
use shards::io::{BLOCK_BYTES, DiskOp, Errno, OpId, SegmentId};

#[test]
fn what_is_written_is_read_back_and_buffers_return_registered_or_not() {
    let dir = directory();
    let mut disk = Disk::start(dir.path(), 2);
    assert_eq!(disk.buffers.len(), 2);
    let prepared = disk.prepare(SEGMENT, SEGMENT_BYTES);
    assert_eq!((prepared.result, prepared.op), (Ok(0), OpId(1)));
    let registered = disk.buffers.pop().expect("two were made");
    let slot = registered.registered();
    assert!(slot.is_some());
    let done = disk.write(0, 0xA1, registered, 64 << 10);
    assert_eq!(done.result, Ok(64 << 10));
    assert_eq!(done.buf.expect("it returns").registered(), slot);
    assert_eq!(
        disk.write(64 << 10, 0xB2, AlignedBuf::zeroed(BLOCK_BYTES), BLOCK_BYTES).result,
        Ok(BLOCK_BYTES)
    );
    let read = disk.read(60 << 10, 12 << 10);
    assert_eq!((read.result, read.op), (Ok(12 << 10), OpId(3)));
    let buf = read.buf.expect("it returns");
    let expected: Vec<u8> = [vec![0xA1; 4096], vec![0xB2; 4096], vec![0; 4096]].concat();
    assert_eq!(buf[..12 << 10], expected);
}

#[test]
fn a_read_at_the_end_is_short_and_one_of_a_missing_segment_fails_with_its_buffer() {
    let dir = directory();
    let disk = Disk::start(dir.path(), 0);
    let missing = disk.read(0, BLOCK_BYTES);
    assert_eq!(missing.result, Err(Errno(libc::ENOENT)));
    assert!(missing.buf.is_some());
    assert_eq!(disk.prepare(SEGMENT, SEGMENT_BYTES).result, Ok(0));
    let tail = disk.read(SEGMENT_BYTES - BLOCK_BYTES as u64, 2 * BLOCK_BYTES);
    assert_eq!(tail.result, Ok(BLOCK_BYTES));
    let misaligned = disk.read(1, BLOCK_BYTES);
    assert_eq!(misaligned.result, Err(Errno(libc::EINVAL)));
}

#[test]
fn many_operations_in_flight_end_once_each() {
    let dir = directory();
    let disk = Disk::start(dir.path(), 0);
    assert_eq!(disk.prepare(SEGMENT, SEGMENT_BYTES).result, Ok(0));
    for i in 0..200_u64 {
        let (buf, offset) = (AlignedBuf::zeroed(BLOCK_BYTES), i * BLOCK_BYTES as u64);
        let (lane, segment, len, op) = (LANE, SEGMENT, BLOCK_BYTES, OpId(i));
        disk.submit(DiskOp::Write { lane, segment, offset, buf, len, op });
    }
    let mut ended: Vec<u64> = (0..200)
        .map(|_| disk.await_done())
        .map(|done| {
            assert_eq!(done.result, Ok(BLOCK_BYTES));
            done.op.0
        })
        .collect();
    ended.sort_unstable();
    assert!(ended.into_iter().eq(0..200));
}

#[test]
fn a_segment_that_holds_something_is_not_prepared_again_and_a_blank_one_is() {
    let dir = directory();
    let disk = Disk::start(dir.path(), 0);
    assert_eq!(disk.prepare(SEGMENT, SEGMENT_BYTES).result, Ok(0));
    assert_eq!(disk.prepare(SEGMENT, SEGMENT_BYTES).result, Ok(0), "as after an attempt that failed late");
    assert_eq!(disk.write(0, 1, AlignedBuf::zeroed(BLOCK_BYTES), BLOCK_BYTES).result, Ok(BLOCK_BYTES));
    assert_eq!(disk.prepare(SEGMENT, SEGMENT_BYTES).result, Err(Errno(libc::EEXIST)));
}

/// A file system of 8 MiB in memory, or `None`, said loudly, where it cannot be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let target =
            std::ffi::CString::new(dir.path().to_str().expect("a plain path")).expect("no zero byte");
        // SAFETY: all arguments are valid strings that live during the call.
        let mounted = unsafe {
            let options = c"size=8m,mode=700".as_ptr().cast();
            libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options)
        };
        if mounted != 0 {
            eprintln!("SKIPPED: a small file system needs root: {}", std::io::Error::last_os_error());
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target =
            std::ffi::CString::new(self.0.path().to_str().expect("a plain path")).expect("no zero byte");
        // SAFETY: the argument is a valid string that lives during the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_disk_refuses_a_segment_leaves_nothing_behind_and_goes_on() {
    let Some(small) = SmallDisk::mount() else { return };
    let disk = Disk::start(small.0.path(), 0);
    assert_eq!(disk.prepare(SegmentId(7), 64 << 20).result, Err(Errno(libc::ENOSPC)));
    let left: Vec<_> = std::fs::read_dir(small.0.path().join("lane-000")).expect("the lane").collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(disk.prepare(SEGMENT, SEGMENT_BYTES).result, Ok(0), "there is room for a smaller one");
    assert_eq!(disk.write(0, 1, AlignedBuf::zeroed(BLOCK_BYTES), BLOCK_BYTES).result, Ok(BLOCK_BYTES));
}
