//! A crash after every single I/O of short scripts, with every subset of the sectors that were not yet
//! durable.

use crate::rig::{Kept, Rig, config};
use crate::testing::Rng;
use crate::{Kind, LaneConfig};

/// One step of a script. Between two steps everything is submitted and one operation completes.
#[derive(Clone, Copy)]
enum Step {
    /// Append a message of this size.
    Message(usize),
    /// Let the idle time pass.
    Idle,
    /// Release the oldest live record.
    Release,
    /// Complete one more operation.
    Wait,
}

use Step::{Idle, Message, Release, Wait};

const SHORT: &[Step] =
    &[Message(10), Wait, Wait, Message(900), Message(2500), Wait, Wait, Idle, Wait, Message(5), Wait];

/// Small segments, so that the log comes around and writes over old records.
const AROUND: &[Step] = &[
    Message(7000),
    Wait,
    Wait,
    Wait,
    Message(7000),
    Wait,
    Wait,
    Release,
    Release,
    Message(7000),
    Wait,
    Wait,
    Wait,
    Message(300),
    Wait,
    Release,
    Message(7000),
    Wait,
    Wait,
    Wait,
    Message(50),
    Wait,
    Idle,
    Wait,
];

struct Run {
    rig: Rig,
    appended: Vec<Vec<u8>>,
    released: usize,
}

fn small() -> LaneConfig {
    LaneConfig { segment_bytes: 32 << 10, segments_max: 4, reserve_bytes: 4096, ..config() }
}

/// Runs a script until `completions` operations completed. `None` if it has fewer.
fn run(script: &[Step], config: LaneConfig, completions: usize) -> Option<Run> {
    let mut run = Run { rig: Rig::with(1, config), appended: vec![], released: 0 };
    let mut left = completions;
    for step in script {
        match step {
            Message(bytes) => {
                let payload = vec![run.appended.len() as u8 + 1; *bytes];
                if run.rig.append(Kind::Message, &payload).is_ok() {
                    run.appended.push(payload);
                }
            }
            Idle => run.rig.now_us += config.idle_us,
            Release => {
                let kept = run.rig.committed.get(run.released).cloned();
                if let Some(kept) = kept {
                    run.rig.lane.release(kept.loc, kept.kind);
                    run.released += 1;
                }
            }
            Wait => {}
        }
        run.rig.poll();
        if left == 0 {
            return Some(run);
        }
        left -= usize::from(run.rig.step());
        run.rig.poll();
    }
    (left == 0).then_some(run)
}

/// What a recovery must and may find after a crash in `run`; then that the lane goes on and stays consistent.
fn check(mut run: Run, context: &str) {
    let live: Vec<Kept> = run.rig.committed[run.released..].to_vec();
    let (report, found) = run.rig.reopen();
    assert!(!report.has_loss(), "{context}: {report:?}");
    assert!(found.is_sorted_by(|a, b| a.lsn < b.lsn), "{context}");
    for kept in &live {
        assert!(found.contains(kept), "{context}: acknowledged {:?} is gone: {report:?}", kept.lsn);
    }
    for kept in &found {
        let appended = run.appended.get(kept.lsn.0 as usize - 1);
        assert_eq!(Some(&kept.payload), appended, "{context}: {:?} is not whole", kept.lsn);
    }
    run.rig.drain();
    let new = run.rig.append(Kind::Message, b"new").unwrap_or_else(|error| panic!("{context}: {error}"));
    run.rig.drain();
    assert_eq!(run.rig.committed.last().map(|kept| kept.lsn), Some(new), "{context}");
    let (report, again) = run.rig.reopen();
    assert!(!report.has_loss(), "{context}: {report:?}");
    assert_eq!(again.last().map(|kept| kept.payload.as_slice()), Some(b"new".as_slice()), "{context}");
    for kept in &again[..again.len() - 1] {
        assert!(found.contains(kept), "{context}: {:?} came back after it was gone", kept.lsn);
    }
    for kept in &live {
        assert!(again.contains(kept), "{context}: {:?} is gone after the second crash", kept.lsn);
    }
}

/// Crashes `script` everywhere. Up to `exhaustive` sectors all subsets are tried, beyond that a sample.
fn crash_everywhere(script: &[Step], config: LaneConfig, exhaustive: usize, sample: usize) -> usize {
    let (mut crashes, mut completions) = (0, 0);
    while let Some(first) = run(script, config, completions) {
        let pending = first.rig.disk.pending();
        let bits: usize = pending.iter().map(|op| op.sectors.max(1)).sum();
        let subsets = if bits <= exhaustive { 1usize << bits } else { sample };
        for subset in 0..subsets {
            let mut rng = Rng::new(subset as u64);
            let Some(mut run) = run(script, config, completions) else { break };
            run.rig.disk.crash(|bit| if bits <= exhaustive { subset >> bit & 1 == 1 } else { rng.one_in(2) });
            check(run, &format!("after {completions} operations, subset {subset:b} of {bits}"));
            crashes += 1;
        }
        completions += 1;
    }
    crashes
}

#[test]
fn after_a_crash_with_any_sectors_kept_acknowledged_records_are_there_and_others_whole_or_gone() {
    let crashes = crash_everywhere(SHORT, config(), 9, 300);
    assert!(crashes > 1000, "{crashes}");
}

#[test]
fn the_same_holds_when_the_log_has_come_around_and_overwrites_old_records() {
    let crashes = crash_everywhere(AROUND, small(), 9, 150);
    assert!(crashes > 1000, "{crashes}");
}
