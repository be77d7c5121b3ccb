//! Space that the owner of a lane manages: reclaiming segments, the reserve, reading many records at once.

use crate::buffer::AlignedBuf;
use crate::io::BLOCK_BYTES;
use crate::rig::{Kept, Rig, config};
use crate::{AppendError, Completion, Kind, LaneConfig, Reserve};

fn owned() -> LaneConfig {
    LaneConfig { owner_reclaims: true, ..config() }
}

fn release(rig: &mut Rig, records: &[Kept]) {
    records.iter().for_each(|kept| rig.lane.release(kept.loc, kept.kind));
}

/// Fills the first segment and releases everything in it once it is sealed.
fn with_a_dead_segment() -> (Rig, Kept) {
    let mut rig = Rig::with(1, owned());
    let mut kept = rig.fill_segment(3000);
    kept.pop();
    release(&mut rig, &kept);
    rig.drain();
    (rig, kept.swap_remove(0))
}

#[test]
fn a_segment_in_which_nothing_lives_is_not_reused_before_its_owner_reclaims_it() {
    let (mut rig, dead) = with_a_dead_segment();
    let spares = rig.lane.usage().spares;
    rig.fill_segment(3000);
    assert_eq!(rig.lane.usage().spares, spares, "a new one was made instead");
    assert_eq!(rig.lane.reclaimable_segment(), Some(dead.loc.segment));
    rig.lane.reclaim(dead.loc.segment);
    assert_eq!(rig.lane.reclaimable_segment(), None);
    rig.poll();
    assert_eq!(rig.lane.usage().spares, spares + 1);
}

#[test]
fn a_segment_whose_records_died_before_it_was_full_waits_for_its_owner_too() {
    let mut rig = Rig::with(1, owned());
    let early = rig.put(b"dies while its segment is written to");
    rig.lane.release(early.loc, early.kind);
    let mut later = early.clone();
    while later.loc.segment == early.loc.segment {
        later = rig.put(&[2; 3000]);
        rig.lane.release(later.loc, later.kind);
    }
    rig.drain();
    assert_eq!(rig.lane.reclaimable_segment(), Some(early.loc.segment));
    let (_, found) = rig.reopen();
    assert_eq!(found.first(), Some(&early), "what the owner needs of it is still there");
}

#[test]
fn a_restart_does_not_reclaim_in_the_owners_place() {
    let (mut rig, dead) = with_a_dead_segment();
    let (report, found) = rig.reopen();
    assert!(!report.has_loss() && found.contains(&dead), "{report:?}");
    release(&mut rig, &found);
    rig.drain();
    let spares = rig.lane.usage().spares;
    assert_eq!(rig.lane.reclaimable_segment(), Some(dead.loc.segment));
    for _ in 0..2 {
        rig.fill_segment(3000);
    }
    let (_, found) = rig.reopen();
    assert!(found.contains(&dead), "it was not written over");
    release(&mut rig, &found);
    let mut reclaimed = 0;
    while let Some(segment) = rig.lane.reclaimable_segment() {
        rig.lane.reclaim(segment);
        reclaimed += 1;
    }
    rig.poll();
    assert!(reclaimed >= 3 && rig.lane.usage().spares >= spares + reclaimed - 1, "{:?}", rig.lane.usage());
}

#[test]
fn a_reclaimed_segment_is_not_reused_before_what_was_carried_out_of_it_is_durable() {
    let (mut rig, dead) = with_a_dead_segment();
    let spares = rig.lane.usage().spares;
    rig.append(Kind::DedupWindow, b"ids carried elsewhere").unwrap();
    rig.lane.reclaim(dead.loc.segment);
    rig.poll();
    assert_eq!(rig.lane.usage().spares, spares, "the copy is in flight");
    rig.drain();
    assert_eq!(rig.lane.usage().spares, spares + 1);
}

#[test]
fn a_segment_with_metadata_is_offered_one_with_messages_is_not() {
    let mut rig = Rig::with(1, owned());
    let state = rig.put_kind(Kind::MailboxState, b"cursor 9");
    let messages = rig.fill_segment(3000);
    assert_eq!(rig.lane.reclaimable_segment(), None, "messages live there");
    let load = rig.lane.sparsest_segment(|_| true).unwrap();
    assert_eq!((load.segment, load.metadata), (state.loc.segment, 1));
    assert_eq!(rig.lane.sparsest_segment(|segment| segment != load.segment), None, "it is not wanted");
    release(&mut rig, &messages[..messages.len() - 1]);
    assert_eq!(rig.lane.reclaimable_segment(), Some(state.loc.segment));
    assert_eq!(rig.lane.sparsest_segment(|_| true), None, "there are no messages to copy");
}

#[test]
#[should_panic(expected = "still holds live records")]
fn reclaiming_a_segment_in_which_something_lives_ends_the_process() {
    let mut rig = Rig::with(1, owned());
    let kept = rig.fill_segment(3000);
    rig.lane.reclaim(kept[0].loc.segment);
}

/// Appends until the answer is neither a record nor a pause that the disk ends; returns that answer.
fn append_until_refused(rig: &mut Rig, reserve: Reserve, kind: Kind) -> AppendError {
    for _ in 0..1_000 {
        let refused = rig.lane.append_with(reserve, kind, 0, &[&[5; 2000]]).err();
        let in_flight = !rig.disk.pending().is_empty();
        rig.drain();
        match refused {
            Some(AppendError::Busy) if !in_flight && rig.disk.pending().is_empty() => {
                let again = rig.lane.append_with(reserve, kind, 0, &[&[5; 2000]]);
                if let Err(error) = again {
                    return error;
                }
            }
            None | Some(AppendError::Busy) => {}
            Some(error) => return error,
        }
    }
    panic!("never refused")
}

#[test]
fn only_what_frees_space_may_take_the_last_spare_whatever_its_kind() {
    let mut rig = Rig::with(1, LaneConfig { segments_max: 3, ..config() });
    assert!(!rig.lane.is_short_of(9), "segments can be added");
    let refused = append_until_refused(&mut rig, Reserve::Keep, Kind::MailboxState);
    assert_eq!(refused, AppendError::Full);
    assert_eq!(rig.lane.usage().spares, 1, "kept back");
    assert!(rig.lane.is_short_of(1) && !rig.lane.is_short_of(0));
    let refused = append_until_refused(&mut rig, Reserve::Use, Kind::Message);
    assert_eq!(refused, AppendError::Full);
    assert_eq!(rig.lane.usage().spares, 0);
    assert!(rig.lane.is_short_of(0));
}

#[test]
fn a_full_lane_whose_owner_can_reclaim_is_busy_and_not_full() {
    let mut rig = Rig::with(1, LaneConfig { segments_max: 3, ..owned() });
    assert_eq!(append_until_refused(&mut rig, Reserve::Keep, Kind::Message), AppendError::Full);
    let first = rig.committed[0].loc.segment;
    let dead: Vec<_> = rig.committed.iter().filter(|kept| kept.loc.segment == first).cloned().collect();
    release(&mut rig, &dead);
    assert_eq!(append_until_refused(&mut rig, Reserve::Keep, Kind::Message), AppendError::Busy);
    rig.lane.reclaim(first);
    rig.drain();
    rig.lane.append_with(Reserve::Keep, Kind::Message, 0, &[b"there is room again"]).unwrap();
}

#[test]
fn records_that_lie_together_are_read_at_once_and_found_each_by_its_place() {
    let mut rig = Rig::new(1);
    let kept: Vec<_> = (0..5u8).map(|number| rig.put(&[number; 700])).collect();
    let start = kept[0].loc.first_block();
    let last = kept[4].loc;
    let bytes = (last.first_block() - start) as usize + last.span_bytes();
    let buf = AlignedBuf::zeroed(bytes + BLOCK_BYTES);
    let (op, request) = rig.lane.read_blocks(last.segment, start, bytes, buf);
    rig.disk.submit(request);
    let newest = rig.disk.pending().len() - 1;
    let done = rig.disk.complete(newest).unwrap();
    let Completion::Read { op: ended, result, buf: Some(buf) } = rig.finish(done) else { panic!("no read") };
    assert_eq!((ended, result), (op, Ok(bytes)));
    for record in &kept {
        let at = (record.loc.first_block() - start) as usize;
        assert_eq!(rig.lane.parse_read(record.loc, &buf[at..]).unwrap().payload, record.payload);
    }
}

#[test]
fn a_segment_is_not_reused_while_blocks_of_it_are_read() {
    let (mut rig, dead) = with_a_dead_segment();
    let spares = rig.lane.usage().spares;
    let buf = AlignedBuf::zeroed(BLOCK_BYTES);
    let (_, request) = rig.lane.read_blocks(dead.loc.segment, 0, BLOCK_BYTES, buf);
    rig.disk.submit(request);
    rig.lane.reclaim(dead.loc.segment);
    rig.poll();
    assert_eq!(rig.lane.usage().spares, spares);
    rig.end_read();
    rig.poll();
    assert_eq!(rig.lane.usage().spares, spares + 1);
}

#[test]
#[should_panic(expected = "4096 bytes at 65536")]
fn reading_blocks_beyond_a_segment_ends_the_process() {
    let mut rig = Rig::new(1);
    let kept = rig.put(b"one");
    rig.lane.read_blocks(kept.loc.segment, 65_536, BLOCK_BYTES, AlignedBuf::zeroed(BLOCK_BYTES));
}
