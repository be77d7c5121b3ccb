//! Batches that hold a payload of 1 MiB.

use crate::format::batch::BATCH_HEADER_BYTES;
use crate::format::record::RECORD_HEADER_BYTES;
use crate::format::{BATCH_BYTES_MAX, Lsn};
use crate::io::{BLOCK_BYTES, SegmentId, Volume};
use crate::rig::{LANE, config};
use crate::testing::{SECTOR_BYTES, SimDisk};
use crate::{AlignedBuf, Kind, Lane, LaneConfig, LossReason, RecoveryCase, RecoveryReport};

const FIRST: SegmentId = SegmentId(0);
const MIB: usize = 1 << 20;

fn roomy() -> LaneConfig {
    LaneConfig {
        segment_bytes: 8 << 20,
        reserve_bytes: 64 << 10,
        resync_bytes: 4 * BATCH_BYTES_MAX as u32,
        ..config()
    }
}

/// Opens the lane; gives what it holds as LSN, first byte and length.
fn open(disk: &SimDisk) -> (Lane, RecoveryReport, Vec<(u64, u8, usize)>) {
    let buffers = (0..2).map(|_| AlignedBuf::zeroed(BATCH_BYTES_MAX)).collect();
    let mut found = Vec::new();
    let opened = Lane::recover(disk, roomy(), buffers, &mut |record, _| {
        assert!(record.payload.iter().all(|byte| *byte == record.payload[0]));
        found.push((record.lsn.0, record.payload[0], record.payload.len()));
    });
    let (lane, report) = opened.unwrap();
    (lane, report, found)
}

fn drain(lane: &mut Lane, disk: &mut SimDisk) {
    loop {
        let mut out = Vec::new();
        lane.poll(0, &mut out);
        out.into_iter().for_each(|op| disk.submit(op));
        let Some(done) = disk.complete(0) else { return };
        lane.complete(0, done, |_| ());
    }
}

/// Nine records: 10 bytes; 1 MiB twice, each alone in its batch; five that fill a batch together; 10 bytes.
fn log() -> SimDisk {
    let mut disk = SimDisk::new(1);
    disk.create_segment(LANE, FIRST, 8 << 20).unwrap();
    let (mut lane, ..) = open(&disk);
    assert!(lane.payload_bytes_max() > MIB);
    for (fill, bytes) in [(1, 10), (2, MIB), (3, MIB)] {
        lane.append(Kind::Message, 0, &[&vec![fill; bytes]]).unwrap();
        drain(&mut lane, &mut disk);
    }
    for fill in 4..9 {
        lane.append(Kind::Message, 0, &[&vec![fill; 215_000]]).unwrap();
    }
    drain(&mut lane, &mut disk);
    lane.append(Kind::Message, 0, &[&[9; 10]]).unwrap();
    drain(&mut lane, &mut disk);
    assert_eq!(lane.durable_lsn(), Lsn(9));
    disk
}

/// Offset, version and length of the batches in the first segment.
fn batches(disk: &SimDisk) -> Vec<(u64, u8, u32)> {
    let (mut found, mut offset) = (Vec::new(), BLOCK_BYTES as u64);
    let mut block = [0; BLOCK_BYTES];
    loop {
        disk.read_at(LANE, FIRST, offset, &mut block).unwrap();
        if !block.starts_with(b"TRNB") {
            return found;
        }
        let bytes = u32::from_le_bytes([block[36], block[37], block[38], block[39]]);
        found.push((offset, block[4], bytes));
        offset += u64::from(bytes);
    }
}

#[test]
fn a_batch_is_longer_than_1_mib_where_it_must_be_and_says_so_by_its_version() {
    let disk = log();
    let found = batches(&disk);
    let versions: Vec<_> =
        found.iter().map(|(_, version, bytes)| (*version, *bytes as usize > MIB)).collect();
    assert_eq!(versions, [(1, false), (2, true), (2, true), (2, true), (1, false)]);
    let (_, report, found) = open(&disk);
    let long = |lsn: u64| (lsn, lsn as u8, MIB);
    let several = |lsn: u64| (lsn, lsn as u8, 215_000);
    let all = [vec![(1, 1, 10), long(2), long(3)], (4..9).map(several).collect(), vec![(9, 9, 10)]].concat();
    assert_eq!(found, all, "{report:?}");
    assert!(!report.has_loss());
}

#[test]
fn of_a_damaged_long_batch_what_is_sound_is_kept_and_the_batch_behind_it_is_found() {
    for (harmed, lost) in [(BATCH_HEADER_BYTES + 100, vec![4]), (40, vec![])] {
        let mut disk = log();
        let (offset, _, bytes) = batches(&disk)[3];
        assert!(bytes as usize > MIB);
        disk.flip_bit(LANE, FIRST, offset + harmed as u64, 1);
        let (_, report, found) = open(&disk);
        let expected: Vec<_> = (1..=9).filter(|lsn| !lost.contains(lsn)).collect();
        assert_eq!(found.iter().map(|(lsn, ..)| *lsn).collect::<Vec<_>>(), expected, "{report:?}");
        let named: Vec<_> = report.lost.iter().map(|range| (range.first.0, range.reason)).collect();
        assert_eq!(named, lost.iter().map(|lsn| (*lsn, LossReason::Damaged)).collect::<Vec<_>>());
        assert_eq!(report.count(RecoveryCase::DamagedBatch), 1);
    }
}

#[test]
fn a_torn_long_batch_is_dropped_whole_and_written_again() {
    for kept in [0, 1, 256, 2047, 2048, 2049, 2056] {
        let mut disk = log();
        let (mut lane, ..) = open(&disk);
        lane.append(Kind::Message, 0, &[&[10; 10]]).unwrap();
        drain(&mut lane, &mut disk);
        lane.append(Kind::Message, 0, &[&vec![11; MIB]]).unwrap();
        let mut out = Vec::new();
        lane.poll(0, &mut out);
        out.into_iter().for_each(|op| disk.submit(op));
        disk.crash(|sector| sector < kept);
        let (mut lane, report, found) = open(&disk);
        // What follows the record are zeros, which were there before.
        let whole = kept >= (BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + MIB).div_ceil(SECTOR_BYTES);
        assert_eq!((report.has_loss(), found.len()), (false, 10 + usize::from(whole)), "{kept}: {report:?}");
        lane.append(Kind::Message, 0, &[&vec![12; MIB]]).unwrap();
        drain(&mut lane, &mut disk);
        assert_eq!(open(&disk).2.last().map(|(_, fill, bytes)| (*fill, *bytes)), Some((12, MIB)), "{kept}");
    }
}
