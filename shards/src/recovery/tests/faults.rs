//! Faults of single operations, each against the rule that handles it. The comment of a test names that rule;
//! without it the test fails.

use crate::format::Lsn;
use crate::io::SegmentId;
use crate::rig::{Kept, LANE, Rig, config};
use crate::testing::Fault;
use crate::{Kind, LaneConfig, RecordLoc, RecoveryCase};

/// Three segments, so that the log soon comes around.
fn around() -> Rig {
    Rig::with(1, LaneConfig { segments_max: 3, ..config() })
}

/// Puts records of one size and releases them until one lies exactly where another lay before; gives that one
/// and the record before it.
fn same_place_again(rig: &mut Rig) -> (Kept, Kept) {
    let mut seen: Vec<Kept> = Vec::new();
    loop {
        let kept = rig.put(&[seen.len() as u8; 3_000]);
        if let Some(old) = seen.iter().find(|old| old.loc == kept.loc) {
            return (old.clone(), kept);
        }
        rig.lane.release(kept.loc, kept.kind);
        seen.push(kept);
    }
}

/// What a read of this place gives, if it gives a record.
fn read(rig: &mut Rig, loc: RecordLoc, fault: Fault) -> Option<Vec<u8>> {
    rig.disk.inject(fault);
    rig.start_read(loc);
    let buf = rig.end_read();
    rig.lane.parse_read(loc, &buf).ok().map(|record| record.payload.to_vec())
}

/// Rule: the checksum of a record is bound to the use of its segment.
#[test]
fn a_stale_read_of_a_place_that_was_used_before_is_no_record() {
    let mut rig = around();
    let (old, new) = same_place_again(&mut rig);
    assert_ne!(old.payload, new.payload);
    assert_eq!(read(&mut rig, new.loc, Fault::StaleRead), None);
    rig.start_read(new.loc);
    let buf = rig.end_read();
    assert_eq!(rig.lane.parse_read(new.loc, &buf).unwrap().payload, new.payload);
}

/// Rule: the checksum of a record is bound to its offset.
#[test]
fn a_read_that_brings_another_record_of_the_segment_is_no_record() {
    let mut rig = Rig::new(1);
    let (first, second) = (rig.put(&[1; 100]), rig.put(&[2; 100]));
    assert_eq!(first.loc.segment, second.loc.segment);
    let by = i64::from(second.loc.offset) - i64::from(first.loc.offset);
    assert_eq!(read(&mut rig, first.loc, Fault::MisdirectedRead(by)), None);
}

/// Rule: of a failed write nothing is believed; the batch goes to a fresh segment before it is acknowledged.
#[test]
fn what_a_failed_write_left_in_a_cache_is_not_what_was_acknowledged() {
    let mut rig = Rig::new(1);
    rig.put(&[1; 100]);
    rig.disk.inject(Fault::ErrorThenClean);
    let kept = rig.put(&[2; 100]);
    rig.disk.crash(|_| true);
    let (report, found) = rig.reopen();
    assert!(!report.has_loss(), "{report:?}");
    assert!(found.contains(&kept));
}

/// Rule: what has an LSN that a later segment begins with, or a higher one, was written again there.
#[test]
fn what_a_killed_process_left_in_a_cache_does_not_count_twice() {
    let mut rig = Rig::new(1);
    let first = rig.put(&[0; 100]);
    rig.disk.inject(Fault::ErrorThenClean);
    let failed_first = rig.put(&[1; 100]);
    let kept = rig.put(&[2; 100]);
    assert_eq!(failed_first.loc.segment, kept.loc.segment);
    // Without the list in this header, nobody knows where the failed segment ended.
    rig.disk.flip_bit(LANE, kept.loc.segment, 33, 0);
    let (report, found) = rig.reopen();
    assert_eq!(found, [first, failed_first, kept], "{report:?}");
}

/// Rule: one write is in flight; the next batch waits for its end, however long that takes.
#[test]
fn nothing_overtakes_a_write_that_is_slow() {
    let mut rig = Rig::new(1);
    rig.put(&[1; 100]);
    rig.append(Kind::Message, &[2; 100]).unwrap();
    rig.poll();
    let write = rig.disk.pending().iter().position(|op| op.sectors > 0).unwrap();
    rig.disk.hold_back(write, 1_000);
    rig.append(Kind::Message, &[3; 100]).unwrap();
    for _ in 0..50 {
        rig.now_us += rig.config.idle_us;
        rig.poll();
        assert_eq!(rig.disk.pending().iter().filter(|op| op.sectors > 0).count(), 1);
        assert_eq!(rig.lane.durable_lsn(), Lsn(1));
    }
    rig.disk.crash(|_| false);
    let (report, found) = rig.reopen();
    assert!(!report.has_loss() && found.len() == 1, "{report:?}");
}

/// Rule: a segment that is being read is not used again.
#[test]
fn a_segment_is_not_written_over_while_a_slow_read_of_it_is_under_way() {
    let spares_wanted = 3;
    let mut rig = Rig::with(1, LaneConfig { segments_max: 5, spares_wanted, ..config() });
    let kept = rig.put(&[1; 3_000]);
    assert_eq!(rig.lane.usage().spares, spares_wanted);
    let (_, request) = rig.lane.read(kept.loc, crate::AlignedBuf::zeroed(8 << 10)).unwrap();
    rig.lane.release(kept.loc, kept.kind);
    // The read is on its way and does not end while the log goes around.
    for number in 0..200 {
        let other = rig.put(&[number; 3_000]);
        assert!(number < 40 || other.loc.segment != kept.loc.segment);
        rig.lane.release(other.loc, other.kind);
    }
    rig.disk.submit(request);
    let buf = rig.end_read();
    assert_eq!(rig.lane.parse_read(kept.loc, &buf).unwrap().payload, kept.payload);
}

/// Puts and releases records until the lane opens a segment that was used before; the write of that header or
/// that of the first batch behind it ends as said. Gives the record in that batch.
fn opened_again(rig: &mut Rig, header: Option<Fault>, batch: Option<Fault>) -> Kept {
    let mut used: Vec<SegmentId> = Vec::new();
    loop {
        rig.append(Kind::Message, &[used.len() as u8; 3_000]).unwrap();
        rig.poll();
        let written = rig.disk.pending().into_iter().find(|op| op.sectors > 0).unwrap();
        let opens = used.contains(&written.segment) && used.last() != Some(&written.segment);
        if opens {
            header.into_iter().for_each(|fault| rig.disk.inject(fault));
            while rig.disk.pending().contains(&written) {
                rig.step();
            }
            batch.into_iter().for_each(|fault| rig.disk.inject(fault));
        }
        rig.drain();
        let kept = rig.committed.last().cloned().unwrap();
        used.push(kept.loc.segment);
        if opens {
            return kept;
        }
        rig.lane.release(kept.loc, kept.kind);
    }
}

/// Stops the machine and reads the log back: what was acknowledged is found or named.
fn assert_found_or_named(rig: &mut Rig, acknowledged: &[Kept]) {
    rig.idle();
    rig.disk.crash(|_| false);
    let (report, found) = rig.reopen();
    assert!(report.count(RecoveryCase::BadSegmentHeader) > 0, "{report:?}");
    for kept in acknowledged {
        let named = report.lost.iter().any(|lost| (lost.first..=lost.last).contains(&kept.lsn));
        assert!(found.contains(kept) || named, "{:?} vanished: {report:?}", kept.lsn);
    }
    found.iter().for_each(|kept| rig.lane.release(kept.loc, kept.kind));
    assert!(rig.put(b"new").lsn > acknowledged[acknowledged.len() - 1].lsn);
}

/// Rule: a batch of a use later than the newest header proves that use, also if the header of an earlier one
/// stands before it.
#[test]
fn records_behind_a_header_that_was_never_written_are_found_or_named() {
    for fault in [Fault::LostWrite, Fault::MisdirectedWrite(16 << 10)] {
        let mut rig = around();
        let kept = opened_again(&mut rig, Some(fault), None);
        let next = rig.put(&[99; 100]);
        assert_eq!(next.loc.segment, kept.loc.segment);
        assert_found_or_named(&mut rig, &[kept, next]);
    }
}

/// Rule: behind a damaged header a batch of a later use is searched for over those of earlier ones.
#[test]
fn a_first_batch_that_went_over_its_own_header_does_not_take_the_next_ones_with_it() {
    let mut rig = around();
    let kept = opened_again(&mut rig, None, Some(Fault::MisdirectedWrite(-(4 << 10))));
    let next = rig.put(&[99; 100]);
    assert_eq!(next.loc.segment, kept.loc.segment);
    assert_found_or_named(&mut rig, &[kept, next]);
}
