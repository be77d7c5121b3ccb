//! Long random runs on a disk that loses what it was given: bits rot, blocks that were not read for long turn
//! unreadable, writes get lost or go astray, reads bring what was there before.
//!
//! Of each key there is then what was acknowledged, or a loss was told of: by name while the store runs, by
//! number of records at a restart. In its place may stand what it replaced, as it was once put, or nothing;
//! never anything else.

use std::collections::BTreeSet;

use super::model::{KEYS, Run, Value, body_of};
use super::rig::*;
use crate::io::BLOCK_BYTES;
use crate::testing::Fault;

/// A run, and the losses that its recoveries reported.
struct Harmed {
    run: Run,
    reported: BTreeSet<(u16, u64)>,
    /// Records that were not there any more, and were told of.
    losses: u64,
}

impl Harmed {
    fn new(seed: u64) -> Self {
        Self { run: Run::new(seed), reported: BTreeSet::new(), losses: 0 }
    }

    /// Some changes of which a write does not do what it says.
    fn deceive(&mut self) {
        let by = 2 * BLOCK_BYTES as i64;
        let faults = [Fault::LostWrite, Fault::MisdirectedWrite(by), Fault::MisdirectedWrite(-by)];
        self.run.rig.disk.inject(faults[self.run.rng.below(3) as usize]);
        (0..5).for_each(|_| self.run.change());
        self.run.rig.settle();
    }

    /// Lets everything end and a marker vouch for the last batch of each lane: what nothing vouches for is
    /// not missed.
    fn quiesce(&mut self) {
        for _ in 0..20 {
            self.run.rig.disk.clear_faults();
            self.run.rig.now_us += 20_000;
            self.run.rig.settle();
        }
        self.run.digest();
    }

    fn decay(&mut self) {
        for _ in 0..=self.run.rng.below(3) {
            match self.run.rng.below(2) {
                0 => self.run.rig.disk.rot(),
                _ => self.run.rig.disk.wear_out(50),
            };
        }
    }

    /// Reads every key while reads go wrong now and then. What is not there was told of.
    fn read_all(&mut self) {
        let hour = self.run.hour();
        for key in 0..KEYS {
            let by = BLOCK_BYTES as i64 * (self.run.rng.below(7) as i64 - 3);
            match self.run.rng.below(4) {
                0 => self.run.rig.disk.inject(Fault::StaleRead),
                1 => self.run.rig.disk.inject(Fault::MisdirectedRead(by)),
                _ => {}
            }
            let answer = self.run.rig.get(shard(key));
            self.run.digest();
            let expected = self.run.model.value(key, hour);
            let told = self.run.model.doubtful.contains(&key);
            match answer {
                Answer::Unreadable => {}
                Answer::Lost => assert!(told, "key {key}"),
                Answer::Absent => assert!(told || expected.is_none(), "key {key}: {expected:?} vanished"),
                Answer::Record(..) => assert!(self.is_acknowledged(key, answer), "key {key}: {answer:?}"),
            }
        }
        self.run.rig.assert_counters();
    }

    /// Restarts; gives how many records are newly reported as lost.
    fn restart(&mut self) -> u64 {
        self.run.rig.disk.crash(|_| false);
        let restored = self.run.rig.reopen();
        let mut news = restored.unintelligible;
        for report in &restored.reports {
            let each = report.lost.iter().flat_map(|lost| lost.first.0..=lost.last.0);
            // What is only doubted has no number yet: the next record gets it.
            let sure = |lsn: u64| lsn < report.next_lsn.0;
            news +=
                each.filter(|lsn| !sure(*lsn) || self.reported.insert((report.lane.0, *lsn))).count() as u64;
        }
        self.run.rig.store = restored.store;
        news
    }

    /// No more keys than records were lost hold something else than was acknowledged, and that is something
    /// that they held before.
    fn check(&mut self, lost: u64) {
        let hour = self.run.hour();
        let mut missing = Vec::new();
        for key in 0..KEYS {
            let answer = match self.run.rig.get(shard(key)) {
                // Told as such, and as good as lost.
                Answer::Unreadable => Answer::Lost,
                answer => answer,
            };
            let expected = self.run.model.value(key, hour);
            let is_gone = answer == Answer::Absent && expected.is_none();
            let is_as_was = is_gone || self.is_acknowledged(key, answer);
            let is_told = answer == Answer::Lost;
            if !is_as_was && !is_told && !self.run.model.doubtful.contains(&key) {
                missing.push((key, expected, answer));
            }
            let value = self.once_held(key, answer);
            self.run.model.acknowledged.insert(key, value);
            self.run.refine(key);
        }
        assert!(missing.len() as u64 <= lost, "{missing:?} are not as they were, {lost} records were lost");
        self.losses += missing.len() as u64;
        self.run.rig.assert_counters();
    }

    /// True if it is what was acknowledged last. It may live longer than the model knows: as long as what was
    /// lost before it.
    fn is_acknowledged(&self, key: u64, answer: Answer) -> bool {
        let last = self.run.model.acknowledged.get(&key).copied().flatten();
        last.is_some_and(|(sequence, _, bytes)| answer == got(sequence, &body_of(key, sequence, bytes)))
    }

    fn once_held(&self, key: u64, answer: Answer) -> Value {
        if matches!(answer, Answer::Absent | Answer::Lost) {
            return None;
        }
        let put = self.run.model.history.get(&key).into_iter().flatten();
        let mut alike =
            put.filter(|(sequence, bytes)| answer == got(*sequence, &body_of(key, *sequence, *bytes)));
        let Some((sequence, bytes)) = alike.next() else { panic!("key {key} never held {answer:?}") };
        Some((*sequence, u64::MAX, *bytes))
    }

    fn round(&mut self) {
        for _ in 0..60 {
            let choice = self.run.rng.below(390);
            self.run.calm_step(choice);
        }
        if self.run.rng.one_in(2) {
            self.deceive();
        }
        self.quiesce();
        // A lease whose record was lost while it was written is refused; a restart may find it.
        let refused = std::mem::take(&mut self.run.model.refused);
        self.run.model.doubtful.extend(refused.into_iter().map(|(key, ..)| key));
        self.decay();
        self.read_all();
        let lost = self.restart();
        self.check(lost);
    }
}

#[test]
fn whatever_a_disk_loses_is_told_and_nothing_that_was_never_put_is_got() {
    let given = std::env::var("TRINE_SHARDS_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = given.map_or(0..40, |seed: u64| seed..seed + 1);
    let mut losses = 0;
    for seed in seeds {
        let mut harmed = Harmed::new(seed);
        (0..25).for_each(|_| harmed.round());
        losses += harmed.losses;
    }
    assert!(losses > 0, "nothing was ever lost");
}
