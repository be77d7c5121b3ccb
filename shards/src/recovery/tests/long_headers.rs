//! Lanes whose segment headers take several blocks: torn at every sector, rotten in every block.

use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::format::record;
use crate::format::segment::{HEADER_BYTES_MAX, SealedSegment, SegmentHeader, header_bytes};
use crate::format::{BATCH_BYTES_MAX, Incarnation, Lsn, Place};
use crate::io::{BLOCK_BYTES, SegmentId, Volume};
use crate::rig::{Kept, LANE, Rig, config, recover};
use crate::testing::{Fault, Rng, SimDisk};
use crate::{ConfigError, Kind, Lane, LaneConfig, RecoverError, RecoveryCase, RecoveryReport};

/// Large enough for a header of four blocks, small enough for many of them.
const SEGMENT_BYTES: u32 = 40 << 10;
const PAYLOAD_BYTES: usize = 7_000;

fn wide(segments_max: u32) -> LaneConfig {
    LaneConfig {
        segment_bytes: SEGMENT_BYTES,
        segments_max,
        reserve_bytes: 4096,
        resync_bytes: 8 << 10,
        ..config()
    }
}

/// Puts records until so many segments are sealed and the next one has two batches.
fn with_sealed(config: LaneConfig, sealed: u32) -> (Rig, Vec<Kept>) {
    let mut rig = Rig::with(1, config);
    while rig.lane.usage().segments - rig.lane.usage().spares <= sealed {
        put_metadata(&mut rig);
    }
    put_metadata(&mut rig);
    rig.lane.audit();
    let all = rig.committed.clone();
    (rig, all)
}

/// Appends one batch of metadata, which may also take the last spare.
fn put_metadata(rig: &mut Rig) -> Kept {
    let fill = rig.committed.len() as u8;
    rig.put_kind(Kind::MailboxState, &[fill; PAYLOAD_BYTES])
}

/// A process that starts on a copy of `disk`.
fn started_on(disk: &SimDisk, config: LaneConfig) -> (Rig, RecoveryReport, Vec<Kept>) {
    let mut copy = SimDisk::new(2);
    for file in disk.segments(LANE).unwrap() {
        let mut bytes = vec![0; file.bytes as usize];
        disk.read_at(LANE, file.segment, 0, &mut bytes).unwrap();
        copy.create_segment(LANE, file.segment, file.bytes).unwrap();
        copy.overwrite(LANE, file.segment, 0, &bytes);
    }
    let (lane, report, found) = recover(&copy, config);
    let rig =
        Rig { disk: copy, lane, config, now_us: 0, committed: vec![], completions: vec![], refused: None };
    (rig, report, found)
}

/// Which of so many sectors a crash keeps: each beginning, all but one, one alone, and others by chance.
fn tears(sectors: usize) -> Vec<Vec<bool>> {
    let mut tears: Vec<Vec<bool>> =
        (0..=sectors).map(|kept| (0..sectors).map(|s| s < kept).collect()).collect();
    for one in 0..sectors {
        tears.push((0..sectors).map(|sector| sector != one).collect());
        tears.push((0..sectors).map(|sector| sector == one).collect());
    }
    let mut rng = Rng::new(9);
    tears.extend((0..16).map(|_| (0..sectors).map(|_| rng.one_in(2)).collect()));
    tears
}

/// Stops the machine while one write is in flight, of which it keeps these sectors; a preparation is lost.
fn crash_during_the_write(rig: &mut Rig, keep: &[bool]) {
    let waiting = rig.disk.pending();
    let write = waiting.iter().position(|op| op.sectors == keep.len()).expect("a write of so many sectors");
    // A preparation counts as one; there is at most one before the write.
    rig.disk.crash(|number| {
        number.checked_sub(write).and_then(|sector| keep.get(sector)).is_some_and(|keep| *keep)
    });
}

/// Starts on `base` as often as there are ways to tear a write of the header that follows, lets `dead` die
/// and opens a segment. `owed` must be found after each crash and after the next, and no loss reported.
fn tear_the_next_header(base: &SimDisk, config: LaneConfig, owed: &[Kept], dead: &[Kept], lens: &[usize]) {
    for (write, sectors) in lens.iter().enumerate() {
        for keep in tears(*sectors) {
            let (mut rig, ..) = started_on(base, config);
            dead.iter().for_each(|kept| rig.lane.release(kept.loc, kept.kind));
            rig.drain();
            rig.append(Kind::MailboxState, b"never acknowledged").unwrap();
            rig.poll();
            for _ in 0..write {
                assert!(rig.step());
                rig.poll();
            }
            let context = format!("write {write} kept {keep:?}");
            crash_during_the_write(&mut rig, &keep);
            // If all of it was kept, the file is the guide's and may not be opened again: another is needed.
            rig.config.segments_max += 1;
            let (report, found) = rig.reopen();
            assert!(!report.has_loss() && report.known_lost_records == 0, "{context}: {report:?}");
            assert_eq!(report.torn_bytes, 0, "{context}: no batch was in flight: {report:?}");
            assert!(owed.iter().all(|kept| found.contains(kept)), "{context}: {report:?}");
            assert!(found.iter().all(|kept| owed.contains(kept) || dead.contains(kept)), "{context}");
            let again = found.iter().filter(|kept| dead.contains(kept)).cloned().collect::<Vec<_>>();
            again.iter().for_each(|kept| rig.lane.release(kept.loc, kept.kind));
            rig.drain();
            let new = put_metadata(&mut rig);
            rig.lane.audit();
            let (report, found) = rig.reopen();
            assert!(!report.has_loss(), "{context}: {report:?}");
            assert!(owed.iter().chain([&new]).all(|kept| found.contains(kept)), "{context}: {report:?}");
        }
    }
}

#[test]
fn a_long_header_torn_at_any_sector_of_a_fresh_file_costs_nothing() {
    let (rig, owed) = with_sealed(wide(120), 99);
    tear_the_next_header(&rig.disk, rig.config, &owed, &[], &[8, 8]);
}

#[test]
fn a_long_header_torn_over_dead_records_that_the_newest_list_still_names_costs_nothing() {
    let (mut rig, mut owed) = with_sealed(wide(104), 103);
    while rig.append(Kind::MailboxState, &[7; PAYLOAD_BYTES]).is_ok() {
        rig.drain();
        owed.clone_from(&rig.committed);
    }
    assert_eq!(rig.lane.usage().spares, 0, "the file must be one that was used");
    // Of the lane's first segment, with a header of one block, and of one with a header of two blocks.
    for segment in [SegmentId(0), owed[owed.len() - 10].loc.segment] {
        let (dead, live): (Vec<_>, Vec<_>) =
            owed.iter().cloned().partition(|kept| kept.loc.segment == segment);
        assert!(dead.len() >= 2);
        tear_the_next_header(&rig.disk, rig.config, &live, &dead, &[8, 8]);
    }
}

#[test]
fn a_long_header_torn_once_more_where_one_was_torn_before_costs_nothing() {
    let (mut rig, mut owed) = with_sealed(wide(104), 103);
    while rig.append(Kind::MailboxState, &[7; PAYLOAD_BYTES]).is_ok() {
        rig.drain();
        owed.clone_from(&rig.committed);
    }
    let (dead, live): (Vec<_>, Vec<_>) = owed.into_iter().partition(|kept| kept.loc.segment == SegmentId(0));
    let (mut rig, ..) = started_on(&rig.disk, rig.config);
    dead.iter().for_each(|kept| rig.lane.release(kept.loc, kept.kind));
    rig.drain();
    rig.append(Kind::MailboxState, b"never acknowledged").unwrap();
    rig.poll();
    assert!(rig.step());
    rig.poll();
    // The first block is there, and half of the second, where the first of the dead batches was.
    crash_during_the_write(&mut rig, &[true, true, true, true, false, false, false, false]);
    assert_eq!(rig.reopen().1, live);
    tear_the_next_header(&rig.disk, rig.config, &live, &[], &[8, 8]);
}

/// The blocks of a header, and what can happen to one.
fn harm(disk: &mut SimDisk, segment: SegmentId, block: usize, unreadable: bool) {
    let at = (block * BLOCK_BYTES) as u64;
    match unreadable {
        true => disk.make_unreadable(LANE, segment, at),
        false => (40..4000).step_by(90).for_each(|byte| disk.flip_bit(LANE, segment, at + byte, 2)),
    }
}

#[test]
fn a_long_header_rotten_in_any_block_is_named_and_no_record_is_lost_by_it() {
    let (mut base, mut owed) = with_sealed(wide(230), 205);
    base.idle();
    owed.clone_from(&base.committed);
    let newest = owed[owed.len() - 1].loc.segment;
    let listed = owed[owed.len() - 8].loc.segment;
    assert_ne!(newest, listed);
    for segment in [newest, listed] {
        let first = owed.iter().find(|kept| kept.loc.segment == segment).unwrap();
        assert_eq!(first.loc.first_block(), header_bytes(199) as u64, "its header has three blocks");
        for (block, unreadable) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
            let context = format!("{segment:?} block {block} unreadable {unreadable}");
            let (mut rig, ..) = started_on(&base.disk, base.config);
            harm(&mut rig.disk, segment, block, unreadable);
            let (report, found) = rig.reopen();
            assert!(report.count(RecoveryCase::BadSegmentHeader) == 1, "{context}: {report:?}");
            assert_eq!(found, owed, "{context}: {report:?}");
            assert!(!report.has_loss(), "{context}: {report:?}");
            for case in [RecoveryCase::DamagedBatch, RecoveryCase::LostWrite, RecoveryCase::TornTail] {
                assert_eq!(report.count(case), 0, "{context}: {case:?} {report:?}");
            }
            let new = put_metadata(&mut rig);
            let (report, found) = rig.reopen();
            assert!(!report.has_loss() && found.len() == owed.len() + 1, "{context}: {report:?}");
            assert_eq!(found.last(), Some(&new), "{context}");
        }
    }
}

#[test]
fn records_behind_a_long_header_are_saved_although_it_and_the_header_of_their_batch_are_gone() {
    let (base, owed) = with_sealed(wide(230), 205);
    let listed = owed[owed.len() - 8].loc.segment;
    let first = owed.iter().find(|kept| kept.loc.segment == listed).unwrap();
    let (mut rig, ..) = started_on(&base.disk, base.config);
    harm(&mut rig.disk, listed, 0, false);
    rig.disk.flip_bit(LANE, listed, first.loc.first_block() + 40, 0);
    let (report, found) = rig.reopen();
    assert_eq!((report.has_loss(), report.count(RecoveryCase::DamagedBatch)), (false, 1), "{report:?}");
    assert_eq!(found, owed);
}

#[test]
fn a_lane_with_long_headers_reads_every_record_and_goes_on_after_every_stop() {
    let (mut rig, owed) = with_sealed(wide(230), 205);
    for kept in &owed {
        rig.start_read(kept.loc);
        let buf = rig.end_read();
        assert_eq!(rig.lane.parse_read(kept.loc, &buf).unwrap().payload, kept.payload);
    }
    rig.lane.begin_shutdown();
    rig.drain();
    assert!(rig.lane.is_drained());
    let (report, found) = rig.reopen();
    assert_eq!((found, report.has_loss()), (owed, false), "{report:?}");
}

#[test]
fn a_lane_is_not_drained_while_half_of_the_header_that_vouches_for_its_end_is_written() {
    let (base, _) = with_sealed(wide(120), 99);
    let (mut rig, ..) = started_on(&base.disk, base.config);
    rig.lane.begin_shutdown();
    rig.poll();
    assert!(rig.step() && rig.disk.pending().is_empty());
    assert!(!rig.lane.is_drained(), "the first block is durable, the second not begun");
    rig.drain();
    assert!(rig.lane.is_drained());
}

#[test]
fn a_failed_write_of_either_part_of_a_long_header_is_answered_by_another_segment() {
    for part in 0..2 {
        let (base, owed) = with_sealed(wide(120), 99);
        let (mut rig, ..) = started_on(&base.disk, base.config);
        rig.append(Kind::Message, b"moved").unwrap();
        rig.poll();
        for _ in 0..part {
            assert!(rig.step());
            rig.poll();
        }
        rig.disk.inject(Fault::ErrorAfterWrite);
        rig.drain();
        assert_eq!((rig.committed.len(), rig.lane.usage().retired), (1, 1), "part {part}");
        let moved = rig.committed[0].clone();
        let (report, found) = rig.reopen();
        assert!(!report.has_loss(), "part {part}: {report:?}");
        assert_eq!(found, [owed, vec![moved]].concat(), "part {part}");
    }
}

#[test]
fn a_full_disk_does_not_end_a_lane_whose_failed_batch_waits_for_the_rest_of_a_header() {
    let (base, _) = with_sealed(wide(120), 99);
    let (mut rig, ..) = started_on(&base.disk, base.config);
    rig.put(b"before");
    rig.append(Kind::Message, b"moved").unwrap();
    rig.poll();
    rig.disk.inject(Fault::WriteError);
    assert!(rig.step());
    rig.poll();
    rig.poll();
    // The first block of the next header is in flight, and one more segment is wanted.
    let of =
        |rig: &Rig, write: bool| rig.disk.pending().iter().position(|op| (op.sectors > 0) == write).unwrap();
    let first_block = of(&rig, true);
    let done = rig.disk.complete(first_block).unwrap();
    rig.disk.inject(Fault::NoSpace);
    let preparation = of(&rig, false);
    let failed = rig.disk.complete(preparation).unwrap();
    rig.finish(done);
    rig.finish(failed);
    assert_eq!((rig.lane.usage().read_only, rig.refused), (None, None));
    rig.drain();
    assert_eq!(rig.committed.last().unwrap().payload, b"moved");
}

#[test]
fn the_first_batch_behind_a_long_header_is_chained_to_it() {
    let (base, owed) = with_sealed(wide(120), 99);
    let (mut rig, ..) = started_on(&base.disk, base.config);
    let last = owed.last().unwrap().loc;
    let first = owed.iter().find(|kept| kept.loc.segment == last.segment).unwrap();
    let front = first.loc.first_block();
    let mut batch = vec![0; BLOCK_BYTES];
    rig.disk.read_at(LANE, last.segment, front, &mut batch).unwrap();
    let (header, _) = BatchHeader::decode(&batch).unwrap();
    BatchHeader { previous: header.previous ^ 1, ..header }.encode(&mut batch);
    rig.disk.overwrite(LANE, last.segment, front, &batch);
    let (report, _) = rig.reopen();
    assert_eq!(report.count(RecoveryCase::Misdirected), 1, "{report:?}");
}

#[test]
fn a_lane_with_more_files_than_it_may_make_needs_segments_that_hold_their_list() {
    let (base, owed) = with_sealed(wide(230), 205);
    let narrow = LaneConfig { segments_max: 2, ..base.config };
    let (mut rig, _, found) = started_on(&base.disk, narrow);
    assert_eq!(found, owed);
    put_metadata(&mut rig);
    let (report, found) = rig.reopen();
    assert_eq!((report.has_loss(), found.len()), (false, owed.len() + 1), "{report:?}");
    let tight = LaneConfig { reserve_bytes: SEGMENT_BYTES - (16 << 10) - 2 * BLOCK_BYTES as u32, ..narrow };
    let refused = Lane::recover(&rig.disk, tight, crate::rig::buffers(), &mut |_, _| {});
    assert!(matches!(refused, Err(RecoverError::Config(ConfigError::SegmentTooSmall { .. }))));
}

/// A segment file by hand: the remains of the longest header, then one batch, as long as can be, of `records`
/// records; and the file of a guide that lists it. All of it is what a lane with 8,192 segments would write.
fn longest_header_and_batch(disk: &mut SimDisk, config: &LaneConfig, records: u64) {
    let place = Place { store: config.store, lane: LANE, segment: SegmentId(0), incarnation: Incarnation(1) };
    let offset = HEADER_BYTES_MAX as u32;
    let mut batch = vec![0; BATCH_BYTES_MAX];
    let mut at = BATCH_HEADER_BYTES;
    let payload_bytes = (BATCH_BYTES_MAX - BATCH_HEADER_BYTES) / records as usize - 32;
    for lsn in 1..=records {
        let payload = vec![lsn as u8; payload_bytes];
        at += record::encode(&mut batch[at..], Lsn(lsn), Kind::Message, 0, &[&payload]);
    }
    record::bind(&mut batch[BATCH_HEADER_BYTES..at], offset + BATCH_HEADER_BYTES as u32, place.salt());
    let end = offset + BATCH_BYTES_MAX as u32;
    disk.overwrite(LANE, SegmentId(0), 0, &vec![0xA5; HEADER_BYTES_MAX]);
    disk.overwrite(LANE, SegmentId(0), u64::from(offset), &batch);
    let (base_lsn, last_lsn, known_lost) = (Lsn(1), Lsn(records), 0);
    let incarnation = place.incarnation;
    let sealed = SealedSegment { segment: SegmentId(0), incarnation, end, base_lsn, last_lsn, known_lost };
    let guide = SegmentHeader {
        place: Place { segment: SegmentId(1), incarnation: Incarnation(2), ..place },
        previous: Incarnation(0),
        base_lsn: last_lsn.next(),
        segment_bytes: u64::from(config.segment_bytes),
        opened_ms: 0,
        sealed: vec![sealed],
    };
    let mut block = vec![0; guide.bytes()];
    guide.encode(&mut block);
    disk.overwrite(LANE, SegmentId(1), 0, &block);
}

#[test]
fn all_records_of_the_longest_batch_behind_the_longest_header_are_saved_when_both_headers_are_gone() {
    let config = LaneConfig { segment_bytes: 2 << 20, resync_bytes: 8 << 10, ..config() };
    let mut disk = SimDisk::new(1);
    for segment in [0, 1] {
        disk.create_segment(LANE, SegmentId(segment), 2 << 20).unwrap();
    }
    longest_header_and_batch(&mut disk, &config, 8);
    let (_, report, found) = recover(&disk, config);
    assert_eq!(
        found.iter().map(|kept| kept.lsn.0).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8],
        "{report:?}"
    );
    assert_eq!((report.has_loss(), report.count(RecoveryCase::BadSegmentHeader)), (false, 1), "{report:?}");
}

#[test]
fn a_batch_header_is_never_seen_in_the_list_of_a_segment_header() {
    let header = SegmentHeader {
        place: Place {
            store: config().store,
            lane: LANE,
            segment: SegmentId(1),
            incarnation: Incarnation(7),
        },
        previous: Incarnation(0),
        base_lsn: Lsn(1),
        segment_bytes: 1 << 28,
        opened_ms: 0,
        // Every field that can say anything says the magic of a batch, wherever a block begins in an entry.
        sealed: vec![
            SealedSegment {
                segment: SegmentId(u32::from_le_bytes(*b"TRNB")),
                incarnation: Incarnation(u64::from_le_bytes(*b"TRNBTRNB")),
                end: 8192,
                base_lsn: Lsn(u64::from_le_bytes(*b"TRNBTRNB")),
                last_lsn: Lsn(u64::from_le_bytes(*b"TRNBTRNB")),
                known_lost: u32::from_le_bytes(*b"TRNB"),
            };
            8_192
        ],
    };
    let mut bytes = vec![0; header.bytes()];
    header.encode(&mut bytes);
    let with_magic = bytes.chunks(BLOCK_BYTES).filter(|block| block.starts_with(b"TRNB")).count();
    assert!(with_magic > 40, "the test would show nothing: {with_magic}");
    assert!(bytes.chunks(BLOCK_BYTES).all(|block| BatchHeader::decode(block).is_err()));
}
