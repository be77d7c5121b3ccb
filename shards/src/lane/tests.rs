//! The lane on a simulated disk: commit, failure, space, reading.

use crate::buffer::AlignedBuf;
use crate::format::{Incarnation, Lsn, SEGMENTS_MAX};
use crate::io::{DiskDone, DiskOp, Errno, OpId, SegmentId};
use crate::lane::ops::{OpClass, class_of};
use crate::lane::segments::{Role, Segment, Segments};
use crate::rig::{BUFFER_BYTES, LANE, Rig, config};
use crate::testing::Fault;
use crate::{AppendError, Completion, ConfigError, Kind, LaneConfig, ReadError, RecordLoc};

#[test]
fn a_record_is_committed_when_its_write_completes_and_not_before() {
    let mut rig = Rig::new(1);
    let lsn = rig.append(Kind::Message, b"hello").unwrap();
    assert_eq!(lsn, Lsn(1));
    rig.poll();
    assert!(rig.committed.is_empty(), "the header of the segment is being written");
    rig.step();
    rig.poll();
    assert!(rig.committed.is_empty() && rig.lane.durable_lsn() == Lsn(0), "the batch is being written");
    rig.drain();
    let kept = rig.committed.clone();
    assert_eq!((kept.len(), kept[0].lsn, kept[0].payload.as_slice()), (1, lsn, b"hello".as_slice()));
    assert_eq!(rig.lane.durable_lsn(), lsn);
}

#[test]
fn records_that_arrive_during_a_write_are_committed_together_by_the_next() {
    let mut rig = Rig::new(1);
    rig.put(b"opens the segment");
    rig.append(Kind::Message, b"first").unwrap();
    rig.poll();
    for number in 0..20u8 {
        rig.append(Kind::Message, &[number; 100]).unwrap();
        rig.poll();
    }
    assert_eq!(rig.disk.pending().iter().filter(|op| op.sectors > 0).count(), 1, "one write in flight");
    rig.committed.clear();
    rig.drain();
    let last = rig.completions.iter().rfind(|c| c.starts_with("Committed")).unwrap();
    assert_eq!(last, "Committed { first: Lsn(3), last: Lsn(22) }");
    assert_eq!(rig.committed.len(), 21);
    assert!(rig.committed.is_sorted_by_key(|kept| kept.lsn));
}

#[test]
fn appends_are_refused_as_busy_when_all_buffers_are_in_use_and_taken_again_afterwards() {
    let mut rig = Rig::new(1);
    rig.put(b"opens the segment");
    let payload = vec![1; rig.lane.payload_bytes_max()];
    rig.append(Kind::Message, &payload).unwrap();
    rig.poll();
    rig.append(Kind::Message, &payload).unwrap();
    assert_eq!(rig.append(Kind::Message, b"more"), Err(AppendError::Busy));
    rig.drain();
    assert_eq!(rig.append(Kind::Message, b"more"), Ok(Lsn(4)), "no LSN was used up by the refusal");
}

#[test]
fn the_largest_payload_is_taken_and_one_byte_more_is_refused() {
    let mut rig = Rig::new(1);
    let max = rig.lane.payload_bytes_max();
    assert_eq!(
        rig.append(Kind::Message, &vec![0; max + 1]),
        Err(AppendError::TooLarge { bytes: max + 1, max })
    );
    assert_eq!(rig.put(&vec![7; max]).payload.len(), max);
}

#[test]
fn an_idle_lane_writes_one_marker_that_vouches_for_the_last_batch() {
    let mut rig = Rig::new(1);
    rig.put(b"last words");
    let deadline = rig.lane.next_deadline().unwrap();
    assert_eq!(deadline, rig.config.idle_us);
    rig.now_us = deadline - 1;
    rig.poll();
    assert!(rig.disk.pending().iter().all(|op| op.sectors == 0));
    rig.now_us = deadline;
    rig.poll();
    assert_eq!(rig.disk.pending().iter().filter(|op| op.sectors == 8).count(), 1);
    rig.drain();
    assert_eq!(rig.lane.next_deadline(), None, "nothing more to vouch for");
}

#[test]
fn shutdown_writes_what_was_taken_and_a_marker_and_then_is_drained() {
    let mut rig = Rig::new(1);
    rig.append(Kind::Message, b"taken").unwrap();
    rig.lane.begin_shutdown();
    assert_eq!(rig.append(Kind::Message, b"late"), Err(AppendError::ShuttingDown));
    assert!(!rig.lane.is_drained());
    rig.drain();
    assert!(rig.lane.is_drained());
    assert_eq!(rig.committed.len(), 1);
    assert_eq!(rig.completions.last().unwrap(), "Housekeeping", "the marker came last");
}

#[test]
fn every_record_can_be_read_back_from_its_place_also_across_segments() {
    let mut rig = Rig::new(1);
    let kept = rig.fill_segment(3000);
    for record in &kept {
        rig.start_read(record.loc);
        let buf = rig.end_read();
        let view = rig.lane.parse_read(record.loc, &buf).unwrap();
        assert_eq!((view.lsn, view.payload, view.expires_s), (record.lsn, record.payload.as_slice(), 77));
    }
}

#[test]
fn a_read_of_damaged_moved_or_unknown_bytes_is_an_error_and_never_a_record() {
    let mut rig = Rig::new(1);
    let (first, second) = (rig.put(&[1; 100]), rig.put(&[2; 100]));
    rig.start_read(first.loc);
    let buf = rig.end_read();
    assert_eq!(rig.lane.parse_read(second.loc, &buf), Err(ReadError::Damaged(second.loc)), "other block");
    rig.disk.flip_bit(LANE, first.loc.segment, u64::from(first.loc.offset) + 60, 3);
    rig.start_read(first.loc);
    let buf = rig.end_read();
    assert_eq!(rig.lane.parse_read(first.loc, &buf), Err(ReadError::Damaged(first.loc)));
    let nowhere = RecordLoc { segment: SegmentId(90), ..first.loc };
    let refused = rig.lane.read(nowhere, AlignedBuf::zeroed(8192)).unwrap_err().0;
    assert_eq!(refused, ReadError::NoSuchPlace(nowhere));
    let spare = RecordLoc { segment: SegmentId(1), ..first.loc };
    let refused = rig.lane.read(spare, AlignedBuf::zeroed(8192)).unwrap_err().0;
    assert_eq!(refused, ReadError::NoSuchPlace(spare), "nothing lives in a spare");
    let wide = RecordLoc { len: 5000, ..first.loc };
    let refused = rig.lane.read(wide, AlignedBuf::zeroed(4096)).unwrap_err().0;
    assert_eq!(refused, ReadError::BufferTooSmall { needed: 8192, given: 4096 });
}

#[test]
fn a_failed_or_short_write_is_repeated_once_in_a_fresh_segment_and_committed_once() {
    for fault in [Fault::WriteError, Fault::ShortWrite] {
        let mut rig = Rig::new(1);
        let before = rig.put(b"before");
        rig.disk.inject(fault);
        let moved = rig.put(b"moved");
        assert_ne!(moved.loc.segment, before.loc.segment);
        assert_eq!(rig.committed.len(), 2, "committed once each");
        assert!(rig.completions.contains(&"WriteFailed(Errno(5))".to_owned()));
        rig.start_read(moved.loc);
        let buf = rig.end_read();
        assert_eq!(rig.lane.parse_read(moved.loc, &buf).unwrap().payload, b"moved");
        let after = rig.put(b"after");
        assert_eq!(after.loc.segment, moved.loc.segment, "the suspect segment gets nothing more");
        let (report, found) = rig.reopen();
        assert!(!report.has_loss(), "{report:?}");
        let payloads: Vec<_> = found.iter().map(|kept| kept.payload.as_slice()).collect();
        assert_eq!(payloads, [b"before".as_slice(), b"moved", b"after"]);
    }
}

#[test]
fn two_failures_in_a_row_turn_the_lane_read_only_and_name_the_records_that_are_not_durable() {
    let mut rig = Rig::new(1);
    let before = rig.put(b"before");
    rig.append(Kind::Message, b"in flight").unwrap();
    rig.poll();
    rig.append(Kind::Message, b"queued").unwrap();
    rig.disk.inject(Fault::WriteError);
    rig.disk.inject(Fault::WriteError);
    rig.drain();
    assert_eq!(rig.refused, Some((Lsn(2), Lsn(3))));
    assert_eq!(rig.append(Kind::MailboxState, b"x"), Err(AppendError::ReadOnly(Errno(5))));
    assert_eq!(rig.lane.usage().read_only, Some(Errno(5)));
    assert_eq!(rig.committed.len(), 1);
    rig.start_read(before.loc);
    let buf = rig.end_read();
    assert_eq!(rig.lane.parse_read(before.loc, &buf).unwrap().payload, b"before");
    rig.lane.begin_shutdown();
    assert!(rig.lane.is_drained());
}

/// The place of the preparation, or else of the write, among the operations that wait.
fn waiting(rig: &Rig, write: bool) -> usize {
    rig.disk.pending().iter().position(|op| (op.sectors > 0) == write).unwrap()
}

#[test]
fn a_full_disk_does_not_end_a_lane_whose_failed_batch_is_on_its_way_to_a_spare() {
    // The preparation fails while the header of the spare is written, or while the batch is.
    for writes_before in [0, 1] {
        let mut rig = Rig::new(1);
        rig.put(b"before");
        rig.append(Kind::Message, b"moved").unwrap();
        rig.poll();
        rig.disk.inject(Fault::WriteError);
        assert!(rig.step() && rig.completions.last().unwrap().starts_with("WriteFailed"));
        rig.append(Kind::Message, b"waits").unwrap();
        rig.poll();
        for _ in 0..writes_before {
            let done = rig.disk.complete(waiting(&rig, true)).unwrap();
            rig.finish(done);
        }
        // Now the spare is in use, and another one is wanted.
        rig.poll();
        rig.disk.inject(Fault::NoSpace);
        let done = rig.disk.complete(waiting(&rig, false)).unwrap();
        let completion = rig.finish(done);
        assert!(matches!(completion, Completion::PrepareFailed(Errno(28))), "{completion:?}");
        assert_eq!((rig.lane.usage().read_only, rig.refused), (None, None));
        rig.drain();
        let payloads: Vec<_> = rig.committed.iter().map(|kept| kept.payload.as_slice()).collect();
        assert_eq!(payloads, [b"before".as_slice(), b"moved", b"waits"]);
        rig.put(b"the lane goes on");
    }
}

#[test]
fn a_full_disk_ends_a_lane_whose_failed_batch_has_nowhere_to_go() {
    let mut rig = Rig::new(1);
    rig.append(Kind::Message, b"moved").unwrap();
    rig.poll();
    rig.step();
    rig.poll();
    rig.disk.inject(Fault::WriteError);
    let done = rig.disk.complete(waiting(&rig, true)).unwrap();
    assert!(matches!(rig.finish(done), Completion::WriteFailed(_)), "a segment is being prepared");
    rig.disk.inject(Fault::NoSpace);
    let done = rig.disk.complete(waiting(&rig, false)).unwrap();
    assert!(matches!(rig.finish(done), Completion::Refused { .. }));
    assert_eq!(rig.refused, Some((Lsn(1), Lsn(1))));
}

#[test]
fn a_failure_after_a_success_counts_as_the_first_again() {
    let mut rig = Rig::with(1, LaneConfig { segments_max: 12, ..config() });
    for number in 0..4u8 {
        rig.disk.inject(Fault::WriteError);
        rig.put(&[number; 50]);
    }
    assert_eq!(rig.lane.usage().read_only, None);
    assert_eq!(rig.committed.len(), 4);
}

/// Fills the lane until it refuses; returns how many records it took.
fn fill(rig: &mut Rig, kind: Kind) -> usize {
    let mut taken = 0;
    loop {
        match rig.append(kind, &[5; 2000]) {
            Ok(_) => taken += 1,
            Err(AppendError::Busy) => {}
            Err(AppendError::Full) => return taken,
            Err(error) => panic!("{error}"),
        }
        rig.drain();
    }
}

#[test]
fn a_full_lane_refuses_messages_keeps_a_reserve_for_metadata_and_frees_what_is_released() {
    let mut rig = Rig::new(1);
    let messages = fill(&mut rig, Kind::Message);
    assert!(messages > 60, "{messages}");
    assert_eq!(rig.lane.usage().segments, 6);
    let metadata = fill(&mut rig, Kind::MailboxState);
    assert!(metadata > 10, "the last spare is metadata's: {metadata}");
    for kept in rig.committed.clone() {
        if kept.kind == Kind::Message && kept.loc.segment.0 < 2 {
            rig.lane.release(kept.loc, kept.kind);
        }
    }
    rig.drain();
    assert_eq!(rig.lane.usage().spares, 2);
    assert!(fill(&mut rig, Kind::Message) > 10);
    let (report, _) = rig.reopen();
    assert!(!report.has_loss(), "{report:?}");
}

#[test]
fn a_segment_is_not_reused_while_it_is_read_nor_before_the_copies_of_its_metadata_are_durable() {
    let mut rig = Rig::new(1);
    let state = rig.put_kind(Kind::MailboxState, b"cursor 9");
    let messages = rig.fill_segment(3000);
    assert!(rig.lane.relocation_candidate().is_none(), "messages live there");
    for kept in messages.iter().filter(|kept| kept.loc.segment == state.loc.segment) {
        rig.lane.release(kept.loc, kept.kind);
    }
    let candidate = rig.lane.relocation_candidate().unwrap();
    assert_eq!((candidate.segment, candidate.metadata), (state.loc.segment, 1));
    rig.drain();
    let spares = rig.lane.usage().spares;
    rig.start_read(state.loc);
    rig.append(Kind::MailboxState, b"cursor 9").unwrap();
    rig.lane.release(state.loc, state.kind);
    assert!(rig.lane.relocation_candidate().is_none());
    rig.poll();
    assert_eq!(rig.lane.usage().spares, spares, "the copy is not durable");
    let write = rig.disk.pending().iter().position(|op| op.sectors > 0).unwrap();
    let done = rig.disk.complete(write).unwrap();
    rig.finish(done);
    rig.poll();
    assert_eq!(rig.lane.usage().spares, spares, "a read is in flight");
    rig.end_read();
    rig.poll();
    assert_eq!(rig.lane.usage().spares, spares + 1);
}

#[test]
fn a_disk_without_space_makes_the_lane_full_and_is_asked_again_after_a_pause() {
    let mut rig = Rig::new(1);
    rig.disk.inject(Fault::NoSpace);
    let taken = fill(&mut rig, Kind::Message);
    assert!((10..16).contains(&taken), "{taken}");
    assert_eq!(fill(&mut rig, Kind::MailboxState), 2, "the reserve is two blocks");
    assert_eq!(rig.lane.usage().prepare_error, Some(Errno(28)));
    assert_eq!(rig.lane.next_deadline(), Some(rig.config.idle_us), "a marker comes first");
    rig.now_us = rig.config.idle_us;
    rig.drain();
    assert_eq!(rig.lane.next_deadline(), Some(rig.config.prepare_retry_us));
    rig.now_us = rig.config.prepare_retry_us;
    rig.drain();
    assert_eq!(rig.lane.usage().prepare_error, None);
    rig.put(b"there is room again");
}

#[test]
fn an_operation_that_the_lane_never_asked_for_changes_nothing() {
    let mut rig = Rig::new(1);
    rig.append(Kind::Message, b"x").unwrap();
    for op in [0, 1 << 15, (1 << 15) + 1, (1 << 15) + 2, (1 << 15) + 3, u64::MAX] {
        let done = DiskDone { lane: LANE, op: OpId(op), result: Ok(4096), buf: None };
        assert!(matches!(rig.finish(done), Completion::Unknown(_)), "{op}");
    }
    rig.drain();
    assert_eq!(rig.committed.len(), 1);
}

#[test]
fn operation_ids_are_unique_among_those_in_flight() {
    let mut rig = Rig::new(1);
    let kept = rig.put(b"read me");
    rig.append(Kind::Message, b"y").unwrap();
    rig.poll();
    for _ in 0..5 {
        rig.start_read(kept.loc);
    }
    let mut ids: Vec<u64> = rig.disk.pending().iter().map(|op| op.op.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_the_reason() {
    let check = |config: LaneConfig, count: usize, bytes: usize| {
        let buffers: Vec<_> = (0..count).map(|_| AlignedBuf::zeroed(bytes)).collect();
        config.check(&buffers).unwrap_err()
    };
    let good = config();
    assert!(matches!(check(good, 1, BUFFER_BYTES), ConfigError::Buffers { count: 1, .. }));
    assert!(matches!(check(good, 2, 2 << 20), ConfigError::Buffers { .. }));
    assert!(matches!(check(good, 8, BUFFER_BYTES), ConfigError::SegmentTooSmall { .. }));
    let crowded = LaneConfig { segments_max: 8_193, ..good };
    assert!(matches!(check(crowded, 2, BUFFER_BYTES), ConfigError::Segments { .. }));
    let odd = LaneConfig { segment_bytes: 64_001, ..good };
    assert!(matches!(check(odd, 2, BUFFER_BYTES), ConfigError::SegmentUnaligned(_)));
}

#[test]
fn a_lane_that_may_have_many_segments_needs_room_for_their_list_in_each() {
    let room = |segments_max: u32, segment_bytes: u32| {
        let buffers: Vec<_> = (0..2).map(|_| AlignedBuf::zeroed(BUFFER_BYTES)).collect();
        LaneConfig { segments_max, segment_bytes, ..config() }.check(&buffers)
    };
    // Two buffers, the reserve and the block for a marker, and a header of so many blocks.
    for (segments_max, blocks) in [(97, 1), (98, 2), (199, 2), (200, 3), (8_192, 81)] {
        let needed = 16 * 1024 + 8 * 1024 + 4096 + blocks * 4096;
        assert_eq!(room(segments_max, needed), Ok(()), "{segments_max}");
        assert!(room(segments_max, needed - 4096).is_err(), "{segments_max}");
    }
}

#[test]
fn an_operation_id_tells_every_segment_that_a_lane_may_have() {
    let mut rig = Rig::new(1);
    for number in [0, 95, 96, 127, 128, 8_191] {
        let class = OpClass::Read(SegmentId(number));
        let op = rig.lane.next_op(class);
        assert_eq!(class_of(op), Some(class));
        assert_ne!(rig.lane.next_op(OpClass::Write), op);
    }
}

#[test]
fn the_books_of_the_segments_hold_for_as_many_as_a_lane_may_have() {
    let mut segments = Segments::default();
    for number in (0..SEGMENTS_MAX as u32).rev() {
        assert_eq!(segments.unused_number(), Some(SegmentId(0)));
        let incarnation = Incarnation(u64::from(number / 2));
        segments.set(SegmentId(number), Segment { incarnation, ..Segment::blank(Role::Spare) });
    }
    segments.audit();
    assert_eq!((segments.unused_number(), segments.existing()), (None, SEGMENTS_MAX));
    segments.set_guide(SegmentId(0));
    assert_eq!((segments.spare_count(), segments.next_spare()), (SEGMENTS_MAX - 1, Some(SegmentId(1))));
    for number in 0..SEGMENTS_MAX as u32 {
        segments.seal(SegmentId(number), number % 2 == 0);
        segments.free(SegmentId(number), Lsn(u64::from(number)));
        assert!(segments.begin_read(SegmentId(number)));
    }
    segments.audit();
    segments.reclaim(Lsn(9));
    assert_eq!((segments.spare_count(), segments.waits_for_reads(Lsn(9))), (0, true), "all are being read");
    (0..SEGMENTS_MAX as u32).for_each(|number| assert!(segments.end_read(SegmentId(number))));
    segments.reclaim(Lsn(9));
    segments.audit();
    assert_eq!(segments.count(Role::Spare), 5, "0 to 9 are due, and the odd ones are not sound");
    assert_eq!((segments.count(Role::Retired), segments.is_freeing()), (5, true));
    assert!(!segments.end_read(SegmentId(3)), "nobody reads");
}

#[test]
#[should_panic(expected = "released twice")]
fn releasing_a_record_twice_ends_the_process_before_a_live_record_is_overwritten() {
    let mut rig = Rig::new(1);
    let kept = rig.put(b"once");
    rig.lane.release(kept.loc, kept.kind);
    rig.lane.release(kept.loc, kept.kind);
}

#[test]
fn writes_are_whole_blocks_at_block_offsets_within_the_segment() {
    let mut rig = Rig::new(1);
    for size in [1, 500, 4000, 7000] {
        rig.append(Kind::Message, &vec![1; size]).unwrap();
        let mut out = Vec::new();
        rig.lane.poll(0, &mut out);
        for op in out {
            if let DiskOp::Write { offset, len, .. } = &op {
                assert!(offset % 4096 == 0 && len % 4096 == 0 && *len > 0);
                assert!(offset + *len as u64 <= u64::from(rig.config.segment_bytes));
            }
            rig.disk.submit(op);
        }
        rig.drain();
    }
}
