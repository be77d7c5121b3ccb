//! Each row of the tables in `docs/ON_DISK.md` about what recovery finds.

use crate::format::segment::SegmentHeader;
use crate::format::{Incarnation, Lsn, Place, StoreId};
use crate::io::{BLOCK_BYTES, SegmentId};
use crate::rig::{Kept, LANE, Rig, SEGMENT_BYTES, buffers, config, recover};
use crate::testing::{Fault, SimDisk};
use crate::{Kind, Lane, LaneConfig, LossReason, RecoverError, RecoveryCase};

const FIRST: SegmentId = SegmentId(0);
const SECOND: SegmentId = SegmentId(1);

/// One way for a log to be found. Each starts from five records in segment 0, LSN 1 alone in its batch
/// (offset 4096), 2 to 4 in one (8192), 5 alone (12288), and a marker (16384).
struct Row {
    name: &'static str,
    harm: fn(&mut Rig),
    case: RecoveryCase,
    found: &'static [u64],
    lost: &'static [(u64, u64, LossReason)],
}

fn log_of_five() -> Rig {
    let mut rig = Rig::new(7);
    rig.put(&[1; 100]);
    for number in 2..=4 {
        rig.append(Kind::Message, &[number; 100]).unwrap();
    }
    rig.drain();
    rig.put(&[5; 100]);
    rig.idle();
    assert_eq!(rig.committed.iter().map(|k| k.lsn.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    rig
}

fn tear_the_tail(rig: &mut Rig) {
    rig.append(Kind::Message, &[6; 2000]).unwrap();
    rig.poll();
    rig.disk.crash(|sector| sector == 0);
}

fn swallow(rig: &mut Rig, fault: Fault) {
    rig.disk.inject(fault);
    rig.put(&[6; 100]);
}

const ROWS: &[Row] = &[
    Row { name: "as written", harm: |_| {}, case: RecoveryCase::Batch, found: &[1, 2, 3, 4, 5], lost: &[] },
    Row {
        name: "nothing behind the marker",
        harm: |_| {},
        case: RecoveryCase::EndOfLog,
        found: &[1, 2, 3, 4, 5],
        lost: &[],
    },
    Row {
        name: "power lost during a write",
        harm: tear_the_tail,
        case: RecoveryCase::TornTail,
        found: &[1, 2, 3, 4, 5],
        lost: &[],
    },
    Row {
        name: "rot in one record of a batch",
        harm: |rig| rig.disk.flip_bit(LANE, FIRST, 8192 + 128 + 128 + 50, 1),
        case: RecoveryCase::DamagedBatch,
        found: &[1, 2, 4, 5],
        lost: &[(3, 3, LossReason::Damaged)],
    },
    Row {
        name: "rot in the length of a record",
        harm: |rig| rig.disk.flip_bit(LANE, FIRST, 8192 + 128 + 128 + 9, 6),
        case: RecoveryCase::DamagedBatch,
        found: &[1, 2, 4, 5],
        lost: &[(3, 3, LossReason::Damaged)],
    },
    Row {
        name: "rot in a batch header",
        harm: |rig| rig.disk.flip_bit(LANE, FIRST, 8192 + 40, 0),
        case: RecoveryCase::DamagedBatch,
        found: &[1, 2, 3, 4, 5],
        lost: &[],
    },
    Row {
        name: "rot in the last batch, for which only the marker vouches",
        harm: |rig| rig.disk.flip_bit(LANE, FIRST, 12288 + 160, 0),
        case: RecoveryCase::DamagedBatch,
        found: &[1, 2, 3, 4],
        lost: &[(5, 5, LossReason::Damaged)],
    },
    Row {
        name: "rot in the marker costs nothing",
        harm: |rig| {
            rig.disk.flip_bit(LANE, FIRST, 16384 + 3000, 0);
            rig.put(&[6; 10]);
        },
        case: RecoveryCase::Batch,
        found: &[1, 2, 3, 4, 5, 6],
        lost: &[],
    },
    Row {
        name: "a write that never happened, with a batch behind it",
        harm: |rig| {
            swallow(rig, Fault::LostWrite);
            rig.put(&[7; 100]);
        },
        case: RecoveryCase::LostWrite,
        found: &[1, 2, 3, 4, 5, 7],
        lost: &[(6, 6, LossReason::LostWrite)],
    },
    Row {
        name: "a write that never happened, with a marker behind it",
        harm: |rig| {
            swallow(rig, Fault::LostWrite);
            rig.idle();
        },
        case: RecoveryCase::LostWrite,
        found: &[1, 2, 3, 4, 5],
        lost: &[(6, 6, LossReason::LostWrite)],
    },
    Row {
        name: "a write that went elsewhere",
        harm: |rig| {
            swallow(rig, Fault::MisdirectedWrite(8192));
            rig.idle();
        },
        case: RecoveryCase::Misdirected,
        found: &[1, 2, 3, 4, 5],
        lost: &[(6, 6, LossReason::LostWrite)],
    },
    Row {
        name: "a block in the middle that cannot be read",
        harm: |rig| rig.disk.make_unreadable(LANE, FIRST, 8192),
        case: RecoveryCase::Unreadable,
        found: &[1, 5],
        lost: &[(2, 4, LossReason::Unreadable)],
    },
    Row {
        name: "a block at the end that cannot be read",
        harm: |rig| rig.disk.make_unreadable(LANE, FIRST, 20480),
        case: RecoveryCase::Unreadable,
        found: &[1, 2, 3, 4, 5],
        lost: &[(6, 6, LossReason::Unreadable)],
    },
    Row {
        name: "rot in the only segment header",
        harm: |rig| rig.disk.flip_bit(LANE, FIRST, 33, 0),
        case: RecoveryCase::BadSegmentHeader,
        found: &[1, 2, 3, 4, 5],
        lost: &[],
    },
    Row {
        name: "rot in the header of a sealed segment",
        harm: |rig| {
            open_second(rig);
            rig.disk.flip_bit(LANE, FIRST, 33, 0);
        },
        case: RecoveryCase::BadSegmentHeader,
        found: &[1, 2, 3, 4, 5, 6],
        lost: &[],
    },
    Row {
        name: "an unreadable header of a sealed segment",
        harm: |rig| {
            open_second(rig);
            rig.disk.make_unreadable(LANE, FIRST, 0);
        },
        case: RecoveryCase::BadSegmentHeader,
        found: &[1, 2, 3, 4, 5, 6],
        lost: &[],
    },
    Row {
        name: "a file of another store",
        harm: |rig| rig.disk.overwrite(LANE, SECOND, 0, &foreign_header()),
        case: RecoveryCase::ForeignSegment,
        found: &[1, 2, 3, 4, 5],
        lost: &[],
    },
    Row {
        name: "a sealed segment whose file is gone",
        harm: |rig| {
            open_second(rig);
            rig.disk.remove(LANE, FIRST);
        },
        case: RecoveryCase::MissingSegment,
        found: &[6],
        lost: &[(1, 5, LossReason::MissingSegment)],
    },
    Row {
        name: "a sealed segment cut short",
        harm: |rig| {
            open_second(rig);
            rig.disk.truncate(LANE, FIRST, 12288);
        },
        case: RecoveryCase::WrongSize,
        found: &[1, 2, 3, 4, 6],
        lost: &[(5, 5, LossReason::LostWrite)],
    },
    Row {
        name: "the newest segment cut short",
        harm: |rig| rig.disk.truncate(LANE, FIRST, 12288),
        case: RecoveryCase::WrongSize,
        found: &[1, 2, 3, 4],
        lost: &[(5, 5, LossReason::Unreadable)],
    },
    Row {
        name: "the end of a sealed segment zeroed",
        harm: |rig| {
            open_second(rig);
            rig.disk.overwrite(LANE, FIRST, 12288, &[0; 8192]);
        },
        case: RecoveryCase::LostWrite,
        found: &[1, 2, 3, 4, 6],
        lost: &[(5, 5, LossReason::LostWrite)],
    },
    Row {
        name: "a write that failed and yet happened, repeated under a header that rotted",
        harm: |rig| {
            swallow(rig, Fault::ErrorAfterWrite);
            rig.disk.flip_bit(LANE, SECOND, 33, 0);
        },
        case: RecoveryCase::Superseded,
        found: &[1, 2, 3, 4, 5, 6],
        lost: &[],
    },
    Row {
        name: "a spare segment",
        harm: |_| {},
        case: RecoveryCase::FreeSegment,
        found: &[1, 2, 3, 4, 5],
        lost: &[],
    },
];

/// Makes segment 1 the active one, with LSN 6.
fn open_second(rig: &mut Rig) {
    rig.reopen();
    assert_eq!(rig.put(&[6; 100]).loc.segment, SECOND);
}

fn foreign_header() -> Vec<u8> {
    let place = Place { store: StoreId([1; 16]), lane: LANE, segment: SECOND, incarnation: Incarnation(9) };
    let header = SegmentHeader {
        place,
        previous: Incarnation(0),
        base_lsn: Lsn(1),
        segment_bytes: u64::from(SEGMENT_BYTES),
        opened_ms: 0,
        sealed: vec![],
    };
    let mut block = vec![0; BLOCK_BYTES];
    header.encode(&mut block);
    block
}

#[test]
fn every_case_is_recognised_and_loss_is_named_exactly() {
    for row in ROWS {
        let mut rig = log_of_five();
        (row.harm)(&mut rig);
        rig.disk.crash(|_| false);
        let (report, found) = rig.reopen();
        let lsns: Vec<u64> = found.iter().map(|kept| kept.lsn.0).collect();
        let lost: Vec<_> = report.lost.iter().map(|r| (r.first.0, r.last.0, r.reason)).collect();
        assert!(report.count(row.case) > 0, "{}: {:?} not met in {report:?}", row.name, row.case);
        assert_eq!(lsns, row.found, "{}: {report:?}", row.name);
        assert_eq!(lost, row.lost, "{}: {report:?}", row.name);
        assert_eq!(report.has_loss(), !row.lost.is_empty(), "{}", row.name);
        for kept in &found {
            assert!(kept.payload.iter().all(|byte| u64::from(*byte) == kept.lsn.0), "{}", row.name);
        }
        goes_on(&mut rig, row, &lsns);
    }
}

/// Whatever was found, the lane appends behind it, and a second recovery finds the same and the new.
fn goes_on(rig: &mut Rig, row: &Row, found: &[u64]) {
    let new = rig.put(b"new");
    assert!(found.iter().all(|lsn| *lsn < new.lsn.0), "{}", row.name);
    rig.disk.crash(|_| false);
    let (_, again) = rig.reopen();
    let expected: Vec<u64> = found.iter().copied().chain([new.lsn.0]).collect();
    assert_eq!(again.iter().map(|kept| kept.lsn.0).collect::<Vec<_>>(), expected, "{}", row.name);
}

#[test]
fn every_case_has_a_row() {
    for number in 0..=RecoveryCase::FreeSegment as usize {
        assert!(ROWS.iter().any(|row| row.case as usize == number), "case {number} has no row");
    }
}

#[test]
fn a_loss_that_was_dealt_with_is_not_reported_as_new_and_a_further_one_is() {
    let mut rig = log_of_five();
    rig.disk.flip_bit(LANE, FIRST, 8192 + 128 + 128 + 50, 1);
    assert!(rig.reopen().0.has_loss());
    rig.lane.acknowledge_loss();
    rig.put(b"opens a segment whose header knows of the loss");
    let (report, _) = rig.reopen();
    assert_eq!((report.has_loss(), report.known_lost_records), (false, 1));
    rig.disk.flip_bit(LANE, FIRST, 12288 + 160, 0);
    let (report, _) = rig.reopen();
    assert_eq!((report.has_loss(), report.lost_records), (true, 2));
}

#[test]
fn a_loss_that_was_dealt_with_is_recorded_although_nothing_more_is_appended() {
    let mut rig = log_of_five();
    rig.disk.flip_bit(LANE, FIRST, 8192 + 128 + 128 + 50, 1);
    assert!(rig.reopen().0.has_loss());
    rig.put(b"opens a segment whose header does not know of the loss");
    rig.lane.acknowledge_loss();
    rig.drain();
    let (report, _) = rig.reopen();
    assert_eq!((report.has_loss(), report.known_lost_records), (false, 1));
}

#[test]
fn a_segment_freed_before_the_newest_header_is_not_read_again() {
    let mut rig = Rig::new(1);
    let kept = rig.fill_segment(3000);
    let first = kept[0].loc.segment;
    for record in kept.iter().filter(|record| record.loc.segment == first) {
        rig.lane.release(record.loc, record.kind);
    }
    rig.drain();
    let more = rig.fill_segment(3000);
    let (report, found) = rig.reopen();
    assert!(!report.has_loss() && found.first().unwrap().lsn == kept.last().unwrap().lsn, "{report:?}");
    assert_eq!(found.last().unwrap().lsn, more.last().unwrap().lsn);
    assert_eq!(rig.lane.usage().oldest_lsn, Some(Lsn(1)), "its remains are still on disk");
}

#[test]
fn a_reused_newest_segment_is_read_although_its_header_rotted_and_an_older_header_lists_its_former_use() {
    let mut rig = Rig::with(1, LaneConfig { segments_max: 2, ..config() });
    let mut old: Vec<Kept> = Vec::new();
    while old.last().is_none_or(|kept| kept.loc.segment == old[0].loc.segment) {
        old.push(rig.put_kind(Kind::MailboxState, &[1; 3000]));
    }
    let second = old.pop().unwrap();
    old.iter().for_each(|kept| rig.lane.release(kept.loc, kept.kind));
    let newest = loop {
        let kept = rig.put_kind(Kind::MailboxState, &[2; 3000]);
        if kept.loc.segment == old[0].loc.segment {
            break kept;
        }
    };
    rig.disk.flip_bit(LANE, newest.loc.segment, 33, 0);
    let (report, found) = rig.reopen();
    assert!(!report.has_loss(), "{report:?}");
    assert_eq!((found[0].lsn, found[found.len() - 1].lsn), (second.lsn, newest.lsn));
}

#[test]
fn the_end_of_the_log_is_made_durable_before_it_is_relied_on() {
    let mut rig = log_of_five();
    let before = rig.disk.syncs();
    rig.reopen();
    assert_eq!(rig.disk.syncs(), before + 1, "only the newest segment can hold writes in flight");
}

#[test]
fn records_released_during_recovery_free_their_segment() {
    let mut rig = log_of_five();
    let recovered = Lane::recover(&rig.disk, config(), buffers(), &mut |record, ledger| {
        ledger.release(record.loc, record.kind);
    });
    (rig.lane, _) = recovered.unwrap();
    rig.drain();
    let usage = rig.lane.usage();
    assert_eq!((usage.live_bytes, usage.spares), (0, 1), "the newest header is kept until there is a newer");
    rig.put(b"opens the spare");
    assert_eq!(rig.lane.usage().spares, 1, "now the old segment is the spare");
}

#[test]
fn a_lane_without_files_and_a_log_of_a_later_version_are_refused() {
    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk| Lane::recover(disk, config(), buffers(), &mut |_, _| {});
    assert!(matches!(open(&disk), Err(RecoverError::NoSegments(LANE))));
    let mut rig = log_of_five();
    let mut block = foreign_header();
    block[8] = 3;
    let crc = crate::checksum::crc32c(&block[..BLOCK_BYTES - 4]);
    block[BLOCK_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    rig.disk.overwrite(LANE, SECOND, 0, &block);
    assert!(matches!(open(&rig.disk), Err(RecoverError::NewerVersion { version: 3, .. })));
}

#[test]
fn random_bytes_in_every_segment_never_stop_a_recovery() {
    for seed in 0..200 {
        let mut rig = log_of_five();
        let mut rng = crate::testing::Rng::new(seed);
        for _ in 0..rng.below(40) {
            let (offset, bit) = (rng.below(u64::from(SEGMENT_BYTES)), rng.below(8) as u8);
            rig.disk.flip_bit(LANE, SegmentId(rng.below(2) as u32), offset % (1 << (13 + rng.below(4))), bit);
        }
        let (_, report, found) = recover(&rig.disk, config());
        for kept in found {
            assert!(kept.payload.iter().all(|byte| u64::from(*byte) == kept.lsn.0), "seed {seed} {report:?}");
        }
    }
}
