//! The simulated disk keeps its word, also about how it fails.

use crate::buffer::AlignedBuf;
use crate::io::{BLOCK_BYTES, DiskDone, DiskOp, Errno, LaneId, OpId, SegmentId, Volume};
use crate::testing::{Fault, SECTOR_BYTES, SimDisk};

const LANE: LaneId = LaneId(1);
const SEGMENT: SegmentId = SegmentId(2);
const BLOCK: u64 = BLOCK_BYTES as u64;

fn disk() -> SimDisk {
    let disk = SimDisk::new(7);
    disk.create_segment(LANE, SEGMENT, 16 * BLOCK).unwrap();
    disk
}

fn submit_write(disk: &mut SimDisk, offset: u64, fill: u8, op: u64) {
    let mut buf = AlignedBuf::zeroed(BLOCK_BYTES);
    buf.fill(fill);
    let (lane, segment, len, op) = (LANE, SEGMENT, BLOCK_BYTES, OpId(op));
    disk.submit(DiskOp::Write { lane, segment, offset, buf, len, op });
}

fn write(disk: &mut SimDisk, offset: u64, fill: u8) -> Result<usize, Errno> {
    submit_write(disk, offset, fill, 0);
    disk.complete(0).unwrap().result
}

/// Reads a block that is the same byte throughout, as an operation.
fn read(disk: &mut SimDisk, offset: u64) -> Result<u8, Errno> {
    let buf = AlignedBuf::zeroed(BLOCK_BYTES);
    let (lane, segment, len, op) = (LANE, SEGMENT, BLOCK_BYTES, OpId(0));
    disk.submit(DiskOp::Read { lane, segment, offset, buf, len, op });
    let DiskDone { result, buf, .. } = disk.complete(0).unwrap();
    result.map(|bytes| uniform(&buf.unwrap()[..bytes]))
}

fn uniform(block: &[u8]) -> u8 {
    assert_eq!(block.len(), BLOCK_BYTES);
    assert!(block.iter().all(|byte| *byte == block[0]));
    block[0]
}

/// What a restarted process reads.
fn at_rest(disk: &SimDisk, offset: u64) -> u8 {
    let mut block = [0; BLOCK_BYTES];
    disk.read_at(LANE, SEGMENT, offset, &mut block).unwrap();
    uniform(&block)
}

#[test]
fn a_stale_read_brings_what_was_there_before_the_last_write_and_only_once() {
    let mut disk = disk();
    write(&mut disk, BLOCK, 1).unwrap();
    disk.inject(Fault::StaleRead);
    assert_eq!(read(&mut disk, BLOCK), Ok(0));
    write(&mut disk, BLOCK, 2).unwrap();
    disk.inject(Fault::StaleRead);
    assert_eq!([read(&mut disk, BLOCK), read(&mut disk, BLOCK)], [Ok(1), Ok(2)]);
}

#[test]
fn a_misdirected_read_brings_another_place_of_the_file() {
    let mut disk = disk();
    write(&mut disk, BLOCK, 1).unwrap();
    write(&mut disk, 3 * BLOCK, 3).unwrap();
    disk.inject(Fault::MisdirectedRead(2 * BLOCK as i64));
    assert_eq!([read(&mut disk, BLOCK), read(&mut disk, BLOCK)], [Ok(3), Ok(1)]);
}

#[test]
fn a_write_that_fails_and_leaves_clean_pages_is_seen_until_the_machine_stops() {
    let mut disk = disk();
    write(&mut disk, BLOCK, 1).unwrap();
    disk.inject(Fault::ErrorThenClean);
    assert_eq!(write(&mut disk, BLOCK, 2), Err(Errno(5)));
    assert_eq!((read(&mut disk, BLOCK), at_rest(&disk, BLOCK)), (Ok(2), 2), "also for the next process");
    disk.crash(|_| true);
    assert_eq!(at_rest(&disk, BLOCK), 1);
    disk.inject(Fault::ErrorThenClean);
    assert_eq!(write(&mut disk, BLOCK, 3), Err(Errno(5)));
    write(&mut disk, BLOCK, 4).unwrap();
    disk.crash(|_| true);
    assert_eq!(at_rest(&disk, BLOCK), 4, "a later write is a write");
}

#[test]
fn an_operation_that_is_held_back_ends_after_so_many_others_or_when_it_is_the_last() {
    let mut disk = disk();
    (0..5).for_each(|op| submit_write(&mut disk, op * BLOCK, 1, op));
    disk.hold_back(1, 3);
    let order: Vec<u64> = std::iter::from_fn(|| disk.complete_any()).map(|done| done.op.0).collect();
    assert_eq!(order.len(), 5);
    assert!(order.iter().position(|op| *op == 1) >= Some(3), "{order:?}");
    submit_write(&mut disk, 0, 1, 9);
    disk.hold_back_any(1_000);
    assert_eq!(disk.complete_any().unwrap().op, OpId(9), "nothing else is left to wait for");
}

#[test]
fn what_is_held_back_is_in_flight_at_a_crash() {
    let mut disk = disk();
    submit_write(&mut disk, 0, 1, 0);
    submit_write(&mut disk, BLOCK, 2, 1);
    disk.hold_back(0, 10);
    assert_eq!(disk.complete_any().unwrap().op, OpId(1));
    assert_eq!(disk.pending()[0].sectors, BLOCK_BYTES / SECTOR_BYTES);
    disk.crash(|_| false);
    assert_eq!((at_rest(&disk, 0), at_rest(&disk, BLOCK)), (0, 2));
}

#[test]
fn only_blocks_that_were_written_and_not_touched_for_long_wear_out_until_they_are_written_again() {
    let mut disk = disk();
    assert_eq!(disk.wear_out(0), None, "nothing was written");
    write(&mut disk, BLOCK, 1).unwrap();
    write(&mut disk, 2 * BLOCK, 2).unwrap();
    (0..10).for_each(|_| assert_eq!(read(&mut disk, 2 * BLOCK), Ok(2)));
    assert_eq!(disk.wear_out(20), None);
    assert_eq!(disk.wear_out(5), Some((LANE, SEGMENT, BLOCK)));
    assert_eq!(disk.wear_out(5), None, "the other one is read all the time");
    assert_eq!(read(&mut disk, BLOCK), Err(Errno(5)));
    assert!(disk.read_at(LANE, SEGMENT, BLOCK, &mut [0; BLOCK_BYTES]).is_err());
    write(&mut disk, BLOCK, 3).unwrap();
    assert_eq!(read(&mut disk, BLOCK), Ok(3));
}

#[test]
fn rot_flips_one_bit_of_a_block_that_was_written() {
    let mut disk = disk();
    assert_eq!(disk.rot(), None);
    write(&mut disk, 3 * BLOCK, 0).unwrap();
    for flips in 1..=20 {
        let (_, _, offset) = disk.rot().unwrap();
        assert_eq!(offset / BLOCK, 3);
        let mut block = [0; BLOCK_BYTES];
        disk.read_at(LANE, SEGMENT, 3 * BLOCK, &mut block).unwrap();
        let ones: u32 = block.iter().map(|byte| byte.count_ones()).sum();
        assert!(ones <= flips && ones % 2 == flips % 2);
    }
}
