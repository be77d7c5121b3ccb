//! Long random runs against a model, with crashes, failed operations and time.
//!
//! The model knows what was acknowledged of each key, and what was under way when the machine stopped: after
//! a restart either of the two may be there, whole; from then on it counts as acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::rig::*;
use crate::keyed::{Begun, Event, Hold, KeyedConfig, KeyedStore, LookupError, Ticket};
use crate::testing::{Fault, Rng};

pub(super) const KEYS: u64 = 24;

/// What a key holds: sequence, hour from which it is gone, length of its body. Nothing, if it was deleted.
pub(super) type Value = Option<(u64, u64, usize)>;

#[derive(Default)]
pub(super) struct Model {
    pub acknowledged: BTreeMap<u64, Value>,
    /// Everything that was ever asked for of a key: sequence and length of the body.
    pub history: BTreeMap<u64, Vec<(u64, usize)>>,
    /// Keys of which a record was named as lost since the last thing acknowledged of them. What it replaced
    /// may come back.
    pub doubtful: BTreeSet<u64>,
    /// Hour until which something overrules earlier records, so that what is put later lives as long.
    held_until: BTreeMap<u64, u64>,
    under_way: BTreeMap<Ticket, (u64, Value, u64)>,
    /// Refused since the last thing acknowledged of that key; may be there after a restart.
    pub refused: Vec<(u64, Value, u64)>,
}

impl Model {
    pub fn value(&self, key: u64, hour: u64) -> Value {
        self.acknowledged.get(&key).copied().flatten().filter(|(_, until, _)| *until > hour)
    }

    fn settle(&mut self, ticket: Ticket) {
        let (key, value, until) = self.under_way.remove(&ticket).expect("asked for");
        self.acknowledged.insert(key, value);
        self.held_until.insert(key, until);
        self.refused.retain(|(of, ..)| *of != key);
        self.doubtful.remove(&key);
    }
}

pub(super) fn body_of(key: u64, sequence: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (key * 31 + sequence * 7 + at as u64) as u8).collect()
}

pub(super) struct Run {
    pub rig: Rig,
    pub model: Model,
    pub rng: Rng,
    sequence: u64,
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let config = KeyedConfig {
            segments_max: 14 + (seed % 4) as u32 * 6,
            checkpoint_bytes_min: 20_000 << (seed % 5),
            scrub_within_s: 1,
            ..config()
        };
        Self { rig: Rig::with(seed, config), model: Model::default(), rng: Rng::new(seed), sequence: 0 }
    }

    pub fn hour(&self) -> u64 {
        self.rig.now_s / 3_600
    }

    /// Begins a random change of a random key; the answer to a lookup is waited for.
    pub fn change(&mut self) {
        let key = self.rng.below(KEYS);
        let hold = match self.rig.store.begin(shard(key)) {
            Ok(Begun::Held(hold)) => hold,
            Ok(Begun::Reading(ticket)) => match self.wait_for(ticket) {
                Some(hold) => hold,
                None => return,
            },
            Err(LookupError::Busy) => return,
            Err(error) => panic!("{error}"),
        };
        self.sequence += 1;
        let (sequence, hour) = (self.sequence, self.hour());
        let until = hour + [1, 3, 30, 600, 3_000][self.rng.below(5) as usize];
        let held_until = self.model.held_until.get(&key).copied().unwrap_or(0);
        // The store may know more: what was refused before a restart.
        let kept_s = self.rig.store.kept_until_s(&hold, &self.rig.store.existing(&hold));
        let kept_until = u64::from(kept_s).div_ceil(3_600);
        assert!(held_until <= hour || held_until <= kept_until, "key {key}: {held_until}, {kept_until}");
        let held_until = kept_until.max(until);
        let expires_s = (until * 3_600) as u32;
        let bytes = [0, 100, 3_000, 6_000][self.rng.below(4) as usize];
        let store = &mut self.rig.store;
        let (asked, value) = match self.rng.below(5) {
            0 => (store.delete(hold, sequence, expires_s, b"proof"), None),
            1 => {
                let Some((old, _, bytes)) = self.model.value(key, hour) else {
                    return store.release(hold);
                };
                // The key of the extended record keeps its sequence number.
                (store.extend(hold, sequence, expires_s, b"lease"), Some((old, until, bytes)))
            }
            _ => {
                let body = body_of(key, sequence, bytes);
                let value = Some((sequence, held_until, bytes));
                (store.put(hold, &record(sequence, until * 3_600, &body)), value)
            }
        };
        match asked {
            Ok(ticket) => {
                self.model.history.entry(key).or_default().extend(value.map(|(of, _, bytes)| (of, bytes)));
                self.model.under_way.insert(ticket, (key, value, held_until));
            }
            Err((_, hold)) => store.release(hold),
        }
    }

    fn wait_for(&mut self, wanted: Ticket) -> Option<Hold> {
        loop {
            self.digest();
            for at in 0..self.rig.events.len() {
                match &self.rig.events[at] {
                    Event::Held { ticket, .. } if *ticket == wanted => {
                        let Event::Held { hold, .. } = self.rig.events.remove(at) else { unreachable!() };
                        return Some(hold);
                    }
                    Event::LookupFailed { ticket, .. } if *ticket == wanted => {
                        self.rig.events.remove(at);
                        return None;
                    }
                    _ => {}
                }
            }
            self.rig.poll();
            assert!(self.rig.step(), "the lookup ends");
        }
    }

    /// Takes note of what became durable, was refused, or was named as lost.
    pub fn digest(&mut self) {
        let model = &mut self.model;
        self.rig.events.retain(|event| match event {
            Event::Stored { ticket } => {
                model.settle(*ticket);
                false
            }
            Event::Refused { ticket } => {
                let (key, value, until) = model.under_way.remove(ticket).expect("asked for");
                let held = model.held_until.entry(key).or_default();
                *held = (*held).max(until);
                model.refused.push((key, value, until));
                false
            }
            Event::Lost(lost) => {
                model.doubtful.insert(lost.prefix.0);
                false
            }
            Event::DiskTrouble { .. } | Event::DeviceFailing { .. } => false,
            _ => true,
        });
    }

    /// After a restart: each key holds what was acknowledged, or what was under way.
    fn check(&mut self) {
        let hour = self.hour();
        let config = KeyedConfig { now_s: self.rig.now_s, ..self.rig.config };
        let from_log = KeyedStore::restore_from_log(&self.rig.disk, config).unwrap().store;
        let audit = from_log.audit(&self.rig.disk);
        assert_eq!((from_log.sums(), &audit.lost[..]), (audit.families, &[][..]));
        let mut possible: BTreeMap<u64, Vec<(Value, u64)>> = BTreeMap::new();
        let unknown = std::mem::take(&mut self.model.under_way).into_values();
        for (key, value, until) in unknown.chain(std::mem::take(&mut self.model.refused)) {
            possible.entry(key).or_default().push((value, until));
        }
        for key in 0..KEYS {
            let before = (self.model.acknowledged.get(&key).copied().flatten(), 0);
            let mut allowed = possible.remove(&key).unwrap_or_default();
            allowed.push(before);
            let answer = self.rig.get(shard(key));
            let fits = |value: &Value| match value.filter(|(_, until, _)| *until > hour) {
                Some((sequence, _, bytes)) => answer == got(sequence, &body_of(key, sequence, bytes)),
                None => answer == Answer::Absent,
            };
            let Some((value, until)) = allowed.iter().find(|(value, _)| fits(value)) else {
                panic!("key {key} at hour {hour}: {answer:?}, allowed {allowed:?}");
            };
            self.model.acknowledged.insert(key, *value);
            let held = self.model.held_until.entry(key).or_default();
            *held = (*held).max(*until);
            self.refine(key);
        }
        self.rig.assert_counters();
    }

    /// Two of what was under way may look alike and live differently long: what is there now says.
    pub fn refine(&mut self, key: u64) {
        let Some((hold, existing)) = self.rig.try_hold(shard(key)) else {
            // Nobody can know what is there, or for how long.
            self.model.doubtful.insert(key);
            self.model.held_until.insert(key, 0);
            return;
        };
        self.rig.store.release(hold);
        let until = u64::from(existing.expires_s()).div_ceil(3_600);
        self.model.held_until.insert(key, until);
        if let Some(Some(value)) = self.model.acknowledged.get_mut(&key) {
            value.1 = if existing.live.is_some() { until } else { 0 };
        }
    }

    fn step(&mut self) {
        match self.rng.below(400) {
            390..397 => {
                let faults = [
                    Fault::WriteError,
                    Fault::ErrorAfterWrite,
                    Fault::ErrorThenClean,
                    Fault::ShortWrite,
                    Fault::NoSpace,
                    Fault::ReadError,
                ];
                self.rig.disk.inject(faults[self.rng.below(6) as usize]);
                self.digest();
            }
            397.. => {
                self.rig.disk.crash_at_random();
                self.digest();
                self.rig.restart();
                self.check();
            }
            choice => self.calm_step(choice),
        }
    }

    /// A step in which nothing goes wrong; `choice` is below 390.
    pub fn calm_step(&mut self, choice: u64) {
        match choice {
            0..200 => self.change(),
            200..380 => {
                self.rig.now_us += self.rng.below(3_000);
                self.rig.poll();
                self.rig.step();
            }
            380..388 => self.rig.pass_time(self.rng.below(5)),
            _ => self.rig.disk.hold_back_any(self.rng.below(40)),
        }
        self.digest();
    }
}

/// Returns the bytes that compaction copied, and the passes of scrub, after the last restart but one.
fn run(seed: u64, steps: usize) -> (u64, u64) {
    let mut run = Run::new(seed);
    for _ in 0..steps {
        run.step();
    }
    let (copied, passes) = (run.rig.store.compacted_bytes(), run.rig.store.scrub_progress().pass);
    run.rig.disk.clear_faults();
    run.rig.disk.crash_at_random();
    run.digest();
    run.rig.restart();
    run.check();
    (copied, passes)
}

#[test]
fn whatever_happens_each_key_holds_what_was_acknowledged_or_what_was_under_way() {
    let seeds = std::env::var("TRINE_SHARDS_SEED").ok().map(|seed| seed.parse().expect("a number"));
    match seeds {
        Some(seed) => assert!(run(seed, 3_000) < (u64::MAX, 0)),
        None => {
            let runs: Vec<_> = (0..60).map(|seed| run(seed, 1_500)).collect();
            assert!(runs.iter().any(|(copied, _)| *copied > 0), "nothing was ever compacted");
            assert!(runs.iter().map(|(_, passes)| passes).sum::<u64>() > 60, "hardly anything was verified");
        }
    }
}
