//! Checkpoints make a start short, and are never needed.

use super::rig::*;
use crate::index::Prefix;
use crate::io::SegmentId;
use crate::keyed::{Family, Identity, KeyedConfig, KeyedStore, Restored, checkpoint};

const YEAR_S: u64 = 365 * 24 * 3_600;

fn shut_down(rig: &mut Rig) {
    rig.store.begin_shutdown();
    rig.settle();
    assert!(rig.store.is_drained());
}

/// Puts some records, of which one is replaced, one deleted and one extended.
fn fill(rig: &mut Rig) {
    for number in 0..60 {
        rig.put(shard(number), &record(number, START_S + YEAR_S, &[number as u8; 3_000]));
    }
    rig.put(shard(0), &record(1_000, START_S + YEAR_S, b"replaced"));
    rig.delete(shard(1));
    let (hold, _) = rig.hold(shard(2));
    let ticket = rig.store.extend(hold, 7, (START_S + 2 * YEAR_S) as u32, b"lease").unwrap();
    assert!(rig.stored(ticket));
}

fn assert_filled(rig: &mut Rig) {
    assert_eq!(rig.get(shard(0)), got(1_000, b"replaced"));
    assert_eq!(rig.get(shard(1)), Answer::Absent);
    (2..60).for_each(|number| assert_eq!(rig.get(shard(number)), got(number, &[number as u8; 3_000])));
    assert_eq!(rig.store.fingerprint(Family::Shard, Prefix::MIN, Prefix::MAX).count, 59);
    let (hold, existing) = rig.hold(shard(2));
    assert_eq!(existing.lease.map(|lease| u64::from(lease.expires_s)), Some(START_S + 2 * YEAR_S));
    rig.store.release(hold);
    rig.assert_counters();
}

fn log_bytes(restored: &Restored) -> u64 {
    restored.reports.iter().map(|report| report.log_bytes).sum()
}

#[test]
fn after_a_clean_stop_a_start_reads_the_checkpoint_and_next_to_nothing_of_the_log() {
    let mut rig = Rig::new(1);
    fill(&mut rig);
    let whole = log_bytes(&rig.reopen());
    shut_down(&mut rig);
    let restored = rig.reopen();
    assert!(restored.from_checkpoint);
    assert!(log_bytes(&restored) <= whole / 4, "{} of {whole}", log_bytes(&restored));
    rig.store = restored.store;
    assert_filled(&mut rig);
}

#[test]
fn a_damaged_checkpoint_costs_time_and_nothing_else() {
    let whole = {
        let mut rig = Rig::new(1);
        fill(&mut rig);
        log_bytes(&rig.reopen())
    };
    for offset in (0..3 * 4_096).step_by(509) {
        let mut rig = Rig::new(1);
        fill(&mut rig);
        shut_down(&mut rig);
        rig.disk.flip_bit(checkpoint::lane(PARTITION), SegmentId(0), 4_096 + offset, 2);
        let restored = rig.reopen();
        assert!(restored.from_checkpoint || log_bytes(&restored) >= whole);
        rig.store = restored.store;
        assert_filled(&mut rig);
    }
}

#[test]
fn what_happened_after_the_checkpoint_overrules_it() {
    let mut rig = Rig::new(1);
    fill(&mut rig);
    shut_down(&mut rig);
    rig.restart();
    rig.put(shard(3), &record(2_000, START_S + YEAR_S, b"after"));
    rig.delete(shard(4));
    let (hold, _) = rig.hold(shard(5));
    let ticket = rig.store.extend(hold, 8, (START_S + 2 * YEAR_S) as u32, b"lease").unwrap();
    assert!(rig.stored(ticket));
    // Keys that begin like those of the checkpoint.
    let twin = Identity { index: 9, ..shard(6) };
    rig.put(twin, &record(3_000, START_S + YEAR_S, b"twin"));
    rig.delete(Identity { index: 9, ..shard(7) });
    for _ in 0..2 {
        let restored = rig.reopen();
        assert!(restored.from_checkpoint);
        rig.store = restored.store;
        assert_eq!(rig.get(shard(3)), got(2_000, b"after"));
        assert_eq!(rig.get(shard(4)), Answer::Absent);
        assert_eq!(rig.get(shard(6)), got(6, &[6; 3_000]));
        assert_eq!(rig.get(twin), got(3_000, b"twin"));
        assert_eq!(rig.get(shard(7)), got(7, &[7; 3_000]));
        let (hold, existing) = rig.hold(shard(5));
        assert_eq!(existing.lease.map(|lease| lease.sequence), Some(8));
        rig.store.release(hold);
        rig.assert_counters();
    }
}

#[test]
fn an_old_checkpoint_is_not_used() {
    let mut rig = Rig::new(1);
    fill(&mut rig);
    shut_down(&mut rig);
    rig.now_s += 4_001 * 3_600;
    let restored = rig.reopen();
    assert!(!restored.from_checkpoint);
    rig.store = restored.store;
    assert_filled(&mut rig);
}

#[test]
fn checkpoints_are_written_as_the_log_grows_and_the_older_one_goes() {
    let mut rig = Rig::with(1, KeyedConfig { checkpoint_bytes_min: 100_000, ..config() });
    for round in 0..400 {
        rig.put(shard(round % 40), &record(round, START_S + YEAR_S, &[round as u8; 3_000]));
    }
    let restored = rig.reopen();
    assert!(restored.from_checkpoint);
    assert!(log_bytes(&restored) < 600_000, "{} bytes of log", log_bytes(&restored));
    let segments = rig.store.checkpoint_usage().segments;
    assert!(segments <= 3, "{segments} segments for checkpoints of 2 KiB");
    drop(KeyedStore::restore(&rig.disk, rig.config).unwrap());
}
