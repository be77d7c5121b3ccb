//! The index of a lane at its full size: memory per record, and what its operations take on one core.

use std::time::Instant;

use shards::index::{KeyIndex, Place, Prefix};

use super::Effort;
use crate::error::{BenchError, Result};
use crate::report::{Row, Stat, Target};
use crate::server::Bench;

const NAME: &str = "index";
/// Operations timed of each kind.
const TIMED: u64 = 1_000_000;

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    bench.processors.on(&[bench.processors.server], || {
        let runs: Result<Vec<Run>> = (1..=effort.runs)
            .map(|run| {
                say(&format!("{NAME}: run {run} of {}", effort.runs));
                once(effort.records)
            })
            .collect();
        let runs = runs?;
        let work = format!("{} records, random keys", effort.records);
        let row = |measure: &str, unit, target, value: fn(&Run) -> f64| {
            Row::new(NAME, work.clone(), measure, unit, Stat::of(runs.iter().map(value)), None, target)
        };
        let rows = [
            row("memory per record", "B", Target::AtMost(32.0), |run| run.bytes),
            row("insert, all from empty", "ns", Target::None, |run| run.insert_ns),
            row("look up", "ns", Target::None, |run| run.find_ns),
            row("point to another place", "ns", Target::None, |run| run.swing_ns),
            row("count and sum of a range", "ns", Target::None, |run| run.sum_ns),
        ];
        Ok(rows.into_iter().flatten().collect())
    })
}

struct Run {
    bytes: f64,
    insert_ns: f64,
    find_ns: f64,
    swing_ns: f64,
    sum_ns: f64,
}

/// The key of a record: a bijection of its number, so that none comes twice.
fn key(number: u64) -> Prefix {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Prefix((mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9))
}

/// Nanoseconds per call.
fn time(calls: u64, mut call: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    (0..calls).try_for_each(&mut call)?;
    Ok(started.elapsed().as_nanos() as f64 / calls as f64)
}

fn expect(right: bool) -> Result<()> {
    if right { Ok(()) } else { Err(BenchError::Peer { peer: "the index", what: "a wrong answer".into() }) }
}

fn once(records: u64) -> Result<Run> {
    let mut index = KeyIndex::new(records);
    let insert_ns = time(records, |number| expect(index.insert(key(number), Place(number)).is_ok()))?;
    let bytes = index.heap_bytes() as f64 / records as f64;
    let step = (records / TIMED.min(records)).max(1);
    let timed = records / step;
    let find_ns = time(timed, |call| {
        let number = call * step;
        expect(index.candidates(key(number)).any(|place| place == Place(number)))
    })?;
    let sum_ns = time(timed, |call| {
        let [a, b] = [key(call), key(call + timed)];
        expect(index.fingerprint(a.min(b), a.max(b)).count > 0)
    })?;
    let swing_ns = time(timed, |call| {
        let number = call * step;
        expect(index.swing(key(number), Place(number), Place(number + records)))
    })?;
    Ok(Run { bytes, insert_ns, find_ns, swing_ns, sum_ns })
}
