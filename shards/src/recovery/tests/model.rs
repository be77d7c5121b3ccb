//! Long random runs against a model of what a log owes its owner.

use std::collections::BTreeMap;

use crate::format::Lsn;
use crate::rig::{Kept, Rig};
use crate::testing::{Fault, Rng};
use crate::{Completion, Kind};

/// What the owner of the lane believes.
#[derive(Default)]
struct Model {
    /// Appended since the last restart or earlier, by LSN; what was never committed may vanish at a restart.
    appended: BTreeMap<Lsn, Vec<u8>>,
    /// Committed and not released: must be found.
    live: BTreeMap<Lsn, Kept>,
    /// Metadata copied forward: the old record must be found until the copy is committed.
    copies: BTreeMap<Lsn, Kept>,
}

struct World {
    rig: Rig,
    rng: Rng,
    model: Model,
    /// Records of the rig's committed list already taken into the model.
    seen: usize,
    crashes: u64,
    failures: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (rig, rng) = (Rig::new(seed), Rng::new(seed ^ 0xC0FFEE));
        Self { rig, rng, model: Model::default(), seen: 0, crashes: 0, failures: 0 }
    }

    fn append(&mut self) {
        let kind = if self.rng.one_in(4) { Kind::MailboxState } else { Kind::Message };
        let bytes = if self.rng.one_in(5) { self.rng.below(7000) } else { self.rng.below(400) };
        let fill = self.rng.next_u64() as u8;
        let payload = vec![fill; bytes as usize];
        if let Ok(lsn) = self.rig.append(kind, &payload) {
            self.model.appended.insert(lsn, payload);
        }
    }

    fn note_commits(&mut self) {
        for kept in &self.rig.committed[self.seen..] {
            assert_eq!(self.model.appended.get(&kept.lsn), Some(&kept.payload));
            assert!(self.model.live.insert(kept.lsn, kept.clone()).is_none(), "committed twice");
            self.model.copies.remove(&kept.lsn);
        }
        self.seen = self.rig.committed.len();
    }

    fn release(&mut self) {
        let skip = if self.rng.one_in(8) { self.rng.below(20) as usize } else { 0 };
        let mut messages = self.model.live.values().filter(|kept| kept.kind == Kind::Message);
        let Some(kept) = messages.nth(skip).cloned() else { return };
        self.model.live.remove(&kept.lsn);
        self.rig.lane.release(kept.loc, kept.kind);
    }

    /// Copies all metadata of a candidate forward and releases the old records at once.
    fn relocate(&mut self) {
        let Some(candidate) = self.rig.lane.relocation_candidate() else { return };
        let here = self.model.live.values().filter(|kept| kept.loc.segment == candidate.segment);
        for old in here.cloned().collect::<Vec<_>>() {
            let Ok(copy) = self.rig.append(old.kind, &old.payload) else { return };
            self.model.appended.insert(copy, old.payload.clone());
            self.model.live.remove(&old.lsn);
            self.rig.lane.release(old.loc, old.kind);
            self.model.copies.insert(copy, old);
        }
    }

    fn complete(&mut self) {
        let Some(done) = self.rig.disk.complete_any() else { return };
        if let Completion::WriteFailed(_) = self.rig.finish(done) {
            self.failures += 1;
        }
        self.note_commits();
    }

    fn restart(&mut self) {
        self.rig.disk.crash_at_random();
        self.crashes += 1;
        let (report, found) = self.rig.reopen();
        self.seen = 0;
        assert!(!report.has_loss(), "{report:?}");
        assert!(found.is_sorted_by(|a, b| a.lsn < b.lsn));
        let found: BTreeMap<Lsn, Kept> = found.into_iter().map(|kept| (kept.lsn, kept)).collect();
        let owed = self.model.live.values().chain(self.model.copies.values());
        for kept in owed {
            assert_eq!(found.get(&kept.lsn), Some(kept), "acknowledged and gone: {report:?}");
        }
        let copies = std::mem::take(&mut self.model.copies);
        self.model.live.extend(copies.into_values().map(|kept| (kept.lsn, kept)));
        self.adopt(found);
        self.model.appended.retain(|lsn, _| *lsn < report.next_lsn);
    }

    /// Of what was found, keeps what is owed and half of what was never acknowledged; releases the rest.
    fn adopt(&mut self, found: BTreeMap<Lsn, Kept>) {
        for (lsn, kept) in found {
            assert_eq!(self.model.appended.get(&lsn), Some(&kept.payload), "{lsn:?} is not whole");
            if !self.model.live.contains_key(&lsn) {
                self.rig.lane.release(kept.loc, kept.kind);
            }
        }
    }

    fn turn(&mut self) {
        match self.rng.below(100) {
            0..40 => self.append(),
            40..62 => self.complete(),
            62..85 => self.release(),
            85..90 => self.relocate(),
            90..94 => self.rig.now_us += self.rng.below(30_000),
            94 => self.rig.now_us += 1_000_000,
            95 if self.rng.one_in(4) => self.rig.disk.inject(Fault::ErrorThenClean),
            95 => self.rig.disk.inject(Fault::WriteError),
            96 if self.rng.one_in(3) => self.rig.disk.inject(Fault::NoSpace),
            97 if self.rng.one_in(2) => self.restart(),
            98 => self.rig.disk.hold_back_any(self.rng.below(20)),
            _ => {}
        }
        if self.rig.refused.is_some() {
            self.restart();
        }
        if !self.rng.one_in(4) {
            self.rig.poll();
        }
        self.rig.lane.audit();
    }
}

fn world_after(seed: u64, turns: usize) -> World {
    let mut world = World::new(seed);
    (0..turns).for_each(|_| world.turn());
    world.restart();
    world
}

#[test]
fn long_runs_with_crashes_and_failed_writes_lose_nothing_that_was_acknowledged() {
    let (mut crashes, mut failures, mut uses) = (0, 0, 0);
    for seed in 0..40 {
        let world = world_after(seed, 3000);
        crashes += world.crashes;
        failures += world.failures;
        uses = uses.max(world.rig.lane.incarnations());
    }
    assert!(
        crashes > 400 && failures > 200 && uses > 30,
        "{crashes} crashes, {failures} failures, {uses} uses"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let trace = |seed| world_after(seed, 1500).rig.disk.trace_hash();
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}

#[test]
fn a_lane_whose_messages_are_all_released_keeps_taking_new_ones_for_ever() {
    let mut rig = Rig::new(3);
    for number in 0..2000u32 {
        let kept = rig.put(&number.to_le_bytes().repeat(200));
        rig.lane.release(kept.loc, kept.kind);
        rig.committed.clear();
    }
    assert!(rig.lane.usage().segments <= 4, "{:?}", rig.lane.usage());
    assert!(rig.lane.incarnations() > 50);
}
