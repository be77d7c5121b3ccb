//! A crash after every single I/O of short scripts, with every subset of the sectors that were not yet
//! durable, or a sample where there are too many.
//!
//! After each the partition is opened and every key read: what was acknowledged is there, of what was under
//! way either all or nothing; nothing is reported as lost, counters are exact. A second start says the same,
//! and a third, after hours have passed, lets go of what has expired and brings nothing back.

use std::collections::BTreeMap;
use std::ops::ControlFlow::{self, Break, Continue};

use super::rig::*;
use crate::AppendError;
use crate::index::Prefix;
use crate::keyed::place::unpack;
use crate::keyed::{Begun, ChangeError, Class, Event, Family, Hold, KeyedConfig, LookupError, Ticket};
use crate::lane::config::LaneConfig;
use crate::testing::{Rng, SimDisk};

/// One step of a script. After each, one operation completes.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Put a record of this key with a body of so many bytes, to live so many hours.
    Put(u64, usize, u64),
    /// Put a tombstone that is to live an hour.
    Delete(u64),
    /// Let the record of this key live so many hours from now.
    Extend(u64, u64),
    /// Let so many hours pass.
    Pass(u64),
    /// Let the idle time pass.
    Idle,
    /// Complete up to so many more operations.
    Wait(usize),
    /// Complete all.
    Settle,
    /// From here on crashes are tried.
    Begin,
}

use Step::{Begin, Delete, Extend, Idle, Pass, Put, Settle, Wait};

const DAY: u64 = 24;
const YEAR: u64 = 400 * DAY;

/// Changes of all kinds, in all lanes, on top of each other.
const CHANGES: &[Step] = &[
    Put(1, 10, 2),
    Put(2, 900, 30 * DAY),
    Put(3, 2_500, YEAR),
    Wait(3),
    Put(1, 20, 3),
    Extend(2, 40 * DAY),
    Delete(3),
    Wait(3),
    Put(3, 5, 2),
    Extend(1, 30),
    Settle,
    Delete(2),
    Delete(2),
    Idle,
    Wait(2),
    Put(4, 300, 1),
    Settle,
    Pass(2),
    Put(4, 30, 5),
    Put(2, 40, 5),
    Wait(2),
    Pass(DAY),
    Put(5, 50, 2),
    Settle,
    Idle,
    Settle,
];

/// Records replaced until the log of their lane has come around, with one that stays.
const AROUND: &[Step] = &[
    Put(9, 100, 20),
    Put(1, 6_000, 20),
    Put(1, 6_001, 20),
    Put(1, 6_002, 20),
    Put(1, 6_003, 20),
    Put(1, 6_004, 20),
    Put(1, 6_005, 20),
    Settle,
    Begin,
    Put(1, 6_006, 20),
    Delete(2),
    Put(1, 6_007, 20),
    Wait(1),
    Put(1, 6_008, 20),
    Delete(1),
    Put(1, 6_009, 20),
    Idle,
    Put(1, 6_010, 20),
    Settle,
];

/// Enough that lives for compaction to begin when some of it is deleted; what it moves has come closer to its
/// end, so that it goes to another lane; and then more, so that what was freed is used again.
const MOVES: &[Step] = &[
    Put(1, 6_000, 101 * DAY),
    Put(2, 6_000, YEAR),
    Put(3, 6_000, 101 * DAY),
    Put(4, 6_000, YEAR),
    Put(5, 6_000, YEAR),
    Put(6, 6_000, YEAR),
    Put(7, 6_000, 101 * DAY),
    Put(8, 6_000, YEAR),
    Put(9, 6_000, YEAR),
    Put(10, 6_000, YEAR),
    Put(11, 6_000, YEAR),
    Put(12, 6_000, YEAR),
    Put(13, 6_000, YEAR),
    Settle,
    Pass(2 * DAY),
    Delete(2),
    Delete(4),
    Put(14, 6_000, YEAR),
    Put(15, 6_000, YEAR),
    Settle,
    Begin,
    Delete(3),
    Delete(5),
    Put(16, 6_000, YEAR),
    Wait(12),
    Extend(7, YEAR),
    Wait(12),
    Put(17, 6_000, YEAR),
    Wait(6),
    Put(1, 50, 2),
    Wait(6),
    Put(18, 6_000, YEAR),
    Settle,
];

fn small(segments_max: u32) -> KeyedConfig {
    let lane = LaneConfig { segment_bytes: 32 << 10, reserve_bytes: 4 << 10, ..config().lane };
    // And two for checkpoints.
    KeyedConfig { lane, segments_max: segments_max + 2, ..config() }
}

/// What a key holds: length of its body, which names it, and the hour from which it is gone.
type Value = Option<(usize, u64)>;

struct Run {
    rig: Rig,
    /// Operations that completed, and after how many to stop.
    done: usize,
    stop_after: usize,
    /// Operations before the part of the script in which crashes are tried.
    begin: usize,
    acknowledged: BTreeMap<u64, Value>,
    /// Hour until which something of a key is kept: what replaces it lives as long.
    kept_until: BTreeMap<u64, u64>,
    under_way: BTreeMap<Ticket, (u64, Value)>,
    /// Classes that each key's record was in.
    classes: BTreeMap<u64, Vec<Class>>,
    sequence: u64,
}

impl Run {
    fn new(config: KeyedConfig, stop_after: usize) -> Self {
        Self {
            rig: Rig::with(1, config),
            done: 0,
            stop_after,
            begin: 0,
            acknowledged: BTreeMap::new(),
            kept_until: BTreeMap::new(),
            under_way: BTreeMap::new(),
            classes: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Breaks before the operation that is not to complete any more.
    fn step(&mut self, step: Step) -> ControlFlow<()> {
        let hour = self.rig.now_s / 3_600;
        match step {
            Put(key, bytes, hours) => self.change(key, hour + hours, Some(bytes))?,
            Delete(key) => self.change(key, hour + 1, None)?,
            Extend(key, hours) => self.extend(key, hour + hours)?,
            Pass(hours) => self.rig.pass_time(hours),
            Idle => self.rig.now_us += self.rig.config.lane.idle_us,
            Wait(operations) => (0..operations).try_for_each(|_| self.complete())?,
            Settle => {
                while !self.rig.disk.pending().is_empty() || !self.is_quiet() {
                    self.complete()?;
                }
            }
            Begin => self.begin = self.done,
        }
        self.complete()
    }

    /// True if nothing comes by itself for a while.
    fn is_quiet(&mut self) -> bool {
        self.rig.now_us += 1_000;
        self.rig.poll();
        self.rig.disk.pending().is_empty()
    }

    fn complete(&mut self) -> ControlFlow<()> {
        self.rig.now_us += 500;
        self.rig.poll();
        if self.done == self.stop_after {
            return Break(());
        }
        if let Some(done) = self.rig.disk.complete(0) {
            self.rig.store.complete(self.rig.now_us, done, &mut self.rig.events);
            self.done += 1;
            self.digest();
        }
        self.rig.poll();
        Continue(())
    }

    fn digest(&mut self) {
        for event in std::mem::take(&mut self.rig.events) {
            match event {
                Event::Stored { ticket } => {
                    let (key, value) = self.under_way.remove(&ticket).unwrap();
                    self.acknowledged.insert(key, value);
                }
                Event::Held { .. } => self.rig.events.push(event),
                other => panic!("{other:?}"),
            }
        }
        for entry in self.rig.store.entries_of(Family::Shard, Prefix::MIN, Prefix::MAX) {
            let (class, seen) = (unpack(entry.place).0, self.classes.entry(entry.prefix.0).or_default());
            if seen.last() != Some(&class) {
                seen.push(class);
            }
        }
    }

    fn hold(&mut self, key: u64) -> ControlFlow<(), Hold> {
        let wanted = loop {
            match self.rig.store.begin(shard(key)) {
                Ok(Begun::Held(hold)) => return Continue(hold),
                Ok(Begun::Reading(wanted)) => break wanted,
                Err(LookupError::Busy) => self.complete()?,
                Err(error) => panic!("{error}"),
            }
        };
        loop {
            self.complete()?;
            let is_it = |event: &Event| matches!(event, Event::Held { ticket, .. } if *ticket == wanted);
            if let Some(at) = self.rig.events.iter().position(is_it)
                && let Event::Held { hold, .. } = self.rig.events.remove(at)
            {
                return Continue(hold);
            }
        }
    }

    /// Asks for a change as often as the store is busy.
    fn ask(
        &mut self,
        key: u64,
        mut how: impl FnMut(&mut Rig, Hold, u64) -> Result<Ticket, (ChangeError, Hold)>,
    ) -> ControlFlow<(), Ticket> {
        self.sequence += 1;
        loop {
            let hold = self.hold(key)?;
            match how(&mut self.rig, hold, self.sequence) {
                Ok(ticket) => return Continue(ticket),
                Err((ChangeError::Append(AppendError::Busy), hold)) => self.rig.store.release(hold),
                Err((error, _)) => panic!("key {key}: {error}"),
            }
            self.complete()?;
        }
    }

    /// Puts a record with a body of so many bytes, or a tombstone.
    fn change(&mut self, key: u64, until: u64, bytes: Option<usize>) -> ControlFlow<()> {
        let expires_s = until * 3_600;
        let ticket = self.ask(key, |rig, hold, sequence| match bytes {
            Some(bytes) => rig.store.put(hold, &record(sequence, expires_s, &body(bytes))),
            None => rig.store.delete(hold, sequence, expires_s as u32, b"proof"),
        })?;
        let kept_until = self.kept_until.entry(key).or_default();
        *kept_until = (*kept_until).max(until);
        self.under_way.insert(ticket, (key, bytes.map(|bytes| (bytes, *kept_until))));
        Continue(())
    }

    fn extend(&mut self, key: u64, until: u64) -> ControlFlow<()> {
        let expires_s = (until * 3_600) as u32;
        let ticket =
            self.ask(key, |rig, hold, sequence| rig.store.extend(hold, sequence, expires_s, b"lease"))?;
        let (bytes, _) = self.acknowledged[&key].unwrap();
        self.kept_until.insert(key, until);
        self.under_way.insert(ticket, (key, Some((bytes, until))));
        Continue(())
    }

    /// What a key may hold after a crash now.
    fn possible(&self) -> BTreeMap<u64, Vec<Value>> {
        let keys = self.acknowledged.keys().chain(self.under_way.values().map(|(key, _)| key));
        let of = |key: &u64| {
            let before = self.acknowledged.get(key).copied().flatten();
            let after = self.under_way.values().filter(|(of, _)| of == key).map(|(_, value)| *value);
            (*key, std::iter::once(before).chain(after).collect())
        };
        keys.map(of).collect()
    }
}

fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at + bytes) as u8).collect()
}

/// Runs a script until so many operations completed; `None` if it has fewer.
fn run(script: &[Step], config: KeyedConfig, stop_after: usize) -> (Run, bool) {
    let mut run = Run::new(config, stop_after);
    let is_stopped = script.iter().try_for_each(|step| run.step(*step)).is_break();
    (run, is_stopped)
}

/// What keys hold at an hour; `None` of what was possible is what is not there.
fn answers(rig: &mut Rig, possible: &BTreeMap<u64, Vec<Value>>, context: &str) -> BTreeMap<u64, Vec<Value>> {
    let hour = rig.now_s / 3_600;
    let mut answers = BTreeMap::new();
    for (key, values) in possible {
        let answer = rig.get(shard(*key));
        let (hold, existing) = rig.hold(shard(*key));
        rig.store.release(hold);
        let until = u64::from(existing.expires_s()).div_ceil(3_600);
        let is_it = |value: &&Value| match value.filter(|(_, until)| *until > hour) {
            None => answer == Answer::Absent,
            Some((bytes, gone_from)) => {
                matches!(answer, Answer::Record(_, hash) if hash == blake3::hash(&body(bytes)))
                    && gone_from == until
            }
        };
        let held: Vec<Value> = values.iter().filter(is_it).copied().collect();
        assert!(
            !held.is_empty(),
            "{context}: key {key} holds {answer:?} until {until} at {hour}, possible {values:?}"
        );
        answers.insert(*key, held);
    }
    rig.assert_counters();
    answers
}

/// Starts on what a crash left, three times.
fn check(disk: SimDisk, run: &Run, context: &str) {
    let possible = run.possible();
    let mut rig = Rig::on(disk, run.rig.config, run.rig.now_s);
    assert!(rig.losses == 0, "{context}: {} lost", rig.losses);
    let first = answers(&mut rig, &possible, context);
    let new = |rig: &mut Rig| {
        let (hold, existing) = rig.hold(shard(99));
        rig.store.release(hold);
        existing.tombstone.is_some()
    };
    // A tombstone is taken however full it is.
    rig.delete(shard(99));
    rig.disk.crash(|_| false);
    rig.restart();
    let second = answers(&mut rig, &first, context);
    assert!(new(&mut rig), "{context}");
    rig.pass_time(3);
    rig.restart();
    answers(&mut rig, &second, context);
    assert!(!new(&mut rig), "{context}");
}

/// Crashes `script` everywhere. Up to `exhaustive` sectors all subsets are tried, beyond that a sample.
/// Gives the number of crashes, and how the script ended.
fn crash_everywhere(script: &[Step], config: KeyedConfig, exhaustive: usize, sample: usize) -> (usize, Run) {
    let (whole, _) = run(script, config, usize::MAX);
    let mut crashes = 0;
    for stop_after in whole.begin.. {
        let (stopped, is_stopped) = run(script, config, stop_after);
        if !is_stopped {
            break;
        }
        let bits: usize = stopped.rig.disk.pending().iter().map(|op| op.sectors.max(1)).sum();
        let subsets = if bits <= exhaustive { 1usize << bits } else { sample };
        for subset in 0..subsets {
            let mut rng = Rng::new(subset as u64);
            let keep = |bit| if bits <= exhaustive { subset >> bit & 1 == 1 } else { rng.one_in(2) };
            let disk = stopped.rig.disk.crashed(keep);
            check(disk, &stopped, &format!("after {stop_after} operations, subset {subset:b} of {bits}"));
            crashes += 1;
        }
    }
    (crashes, whole)
}

#[test]
fn after_a_crash_during_changes_each_key_holds_what_was_acknowledged_or_what_was_under_way() {
    let (crashes, _) = crash_everywhere(CHANGES, small(18), 8, 64);
    assert!(crashes > 1_000, "{crashes}");
}

#[test]
fn the_same_holds_when_a_lane_has_come_around_and_overwrites_what_was_replaced() {
    let (crashes, whole) = crash_everywhere(AROUND, small(14), 8, 64);
    let usage = whole.rig.store.usage(Class::Hours);
    assert!(crashes > 1_000 && usage.segments <= 5, "{crashes} {usage:?}");
}

#[test]
fn the_same_holds_while_records_are_moved_to_where_they_belong_and_their_segments_are_used_again() {
    let (crashes, whole) = crash_everywhere(MOVES, small(13), 8, 64);
    assert!(crashes > 1_000, "{crashes}");
    assert!(whole.rig.store.compacted_bytes() > 0);
    let moved = |classes: &Vec<Class>| classes.starts_with(&[Class::Years, Class::Days]);
    assert!(whole.classes.values().any(moved), "{:?}", whole.classes);
}
