//! What compaction does to clients: random gets and overwrites in an open loop, once in a store with so much
//! space that nothing has to be compacted, and once at 80 % fill. The rate is the same.

use std::time::Duration;

use super::station::{Depot, Sizes, Station};
use super::work::{Op, Outcome, Pacing, Until, Work, record_bytes};
use super::{NAME, are_disturbed, stat};
use crate::error::Result;
use crate::report::{Row, Target};
use crate::scenario::Effort;
use crate::server::Bench;

const BODY_BYTES: usize = 4 << 10;
/// Operations under way in the closed loops that find the rate and wear the store in.
const DEPTH: usize = 64;
/// Share of the closed loop's rate at which the open loop runs.
const RATE_SHARE: f64 = 0.3;
/// As nodes have them. Larger ones would leave much of each of these small segments unused at its end.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_BUFFERS: usize = 8;
/// Segments of the store that is filled: with fewer than a hundred it would refuse records at this fill.
const SEGMENTS: u32 = 110;
/// Open loops begin with as much as this before they count.
const WARM_UP: Duration = Duration::from_millis(500);

/// The two stores.
struct Plan {
    full: Sizes,
    roomy: Sizes,
    time: Duration,
    /// How often everything is overwritten before the measurement, so that what compaction finds is what it
    /// would find in a store of any age.
    overwritten: f64,
}

impl Plan {
    fn new(effort: &Effort) -> Self {
        let sizes = |segment_bytes, segments| {
            let (batch_bytes, batch_buffers) = (BATCH_BYTES, BATCH_BUFFERS);
            Sizes { segment_bytes, segments, batch_bytes, batch_buffers }
        };
        let (each, millis, overwritten) =
            if effort.quick { (6 << 20, 2_000, 1.0) } else { (16 << 20, 10_000, 1.5) };
        let time = Duration::from_millis(millis);
        Self { full: sizes(each, SEGMENTS), roomy: sizes(each, 5 * SEGMENTS / 2), time, overwritten }
    }

    /// As many records as fill the smaller store to four fifths.
    fn records(&self) -> u64 {
        self.full.usable_bytes() * 8 / 10 / record_bytes(BODY_BYTES) as u64
    }
}

/// Both stores under the same load.
struct Pass {
    idle: Outcome,
    wearing: Outcome,
    compacting: Outcome,
    rate: f64,
}

/// Runs it.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let plan = Plan::new(effort);
    let passes: Result<Vec<Pass>> = (0..effort.passes).map(|_| pass(bench, &plan, say)).collect();
    Ok(rows(&plan, &passes?))
}

fn pass(bench: &Bench, plan: &Plan, say: &dyn Fn(&str)) -> Result<Pass> {
    let records = plan.records();
    let fill = |sizes| -> Result<(Depot, Station)> {
        let depot = Depot::new(bench, sizes)?;
        let station = depot.open(bench, 0)?;
        station.work(work(Op::Put, Pacing::Closed(512), u64::MAX, records))?;
        Ok((depot, station))
    };
    let us = |time: Duration| time.as_micros() as u64;
    let open = |station: &Station, rate| {
        station.work(work(Op::GetAndOverwrite, Pacing::Open(rate), us(WARM_UP), u64::MAX))?;
        station.work(work(Op::GetAndOverwrite, Pacing::Open(rate), us(plan.time), u64::MAX))
    };
    say(&format!("{NAME}: gets and overwrites of {records} records with space to spare"));
    let (rate, idle) = {
        let (_depot, station) = fill(plan.roomy)?;
        let until_us = us(plan.time / 10);
        let closed = work(Op::GetAndOverwrite, Pacing::Closed(DEPTH), until_us, u64::MAX);
        let rate = RATE_SHARE * station.work(closed)?.rate();
        let idle = open(&station, rate)?;
        station.stop()?;
        (rate, idle)
    };
    say(&format!("{NAME}: the same at 80 % fill, {rate:.0}/s"));
    let (_depot, station) = fill(plan.full)?;
    let overwritten = (records as f64 * plan.overwritten) as u64;
    let wearing = station.work(work(Op::Overwrite, Pacing::Closed(DEPTH), u64::MAX, overwritten))?;
    let compacting = open(&station, rate)?;
    station.stop()?;
    Ok(Pass { idle, wearing, compacting, rate })
}

fn work(op: Op, pacing: Pacing, us: u64, operations: u64) -> Work {
    Work { op, body_bytes: BODY_BYTES, pacing, until: Until { us, operations } }
}

fn rows(plan: &Plan, passes: &[Pass]) -> Vec<Row> {
    let rate = passes.first().map_or(0.0, |pass| pass.rate);
    let work = format!("get and overwrite in turns, open loop at {rate:.0}/s, 80 % fill");
    let row = |measure: &str, unit, value: &dyn Fn(&Pass) -> f64, idle: Option<_>, target| {
        let peer = idle.map(|stat| ("idle", stat));
        Row::new(NAME, work.clone(), measure, unit, stat(passes, value), peer, target)
    };
    type Quantile = fn(&Outcome, f64) -> f64;
    let put: Quantile = |outcome, at| outcome.puts.quantile_us(at);
    let get: Quantile = |outcome, at| outcome.gets.quantile_us(at);
    let disturbed =
        are_disturbed(passes.iter().map(|pass| pass.idle.foreign_share.max(pass.compacting.foreign_share)));
    let mut rows = Vec::new();
    for (measure, of, at, target) in [
        ("put, p50", put, 0.5, Target::None),
        ("put, p99", put, 0.99, Target::AtMostTimes(2.0)),
        ("put, p99.9", put, 0.999, Target::None),
        ("get, p50", get, 0.5, Target::None),
        ("get, p99", get, 0.99, Target::AtMostTimes(2.0)),
        ("get, p99.9", get, 0.999, Target::None),
    ] {
        let idle = stat(passes, |pass| of(&pass.idle, at));
        let row = row(measure, "us", &|pass| of(&pass.compacting, at), idle, target);
        let shares = |pass: &Pass| format!("{}; idle: {}", pass.compacting.shares(), pass.idle.shares());
        let note = passes.last().map_or(String::new(), shares);
        let note = if target == Target::None { String::new() } else { note };
        rows.extend(row.map(|row| row.noted(note, disturbed)));
    }
    let lag = passes.last().map_or(String::new(), |pass| note(plan, pass));
    let amplification = row(
        "write amplification",
        "x",
        &|pass| pass.compacting.write_amplification(),
        None,
        Target::AtMost(2.0),
    );
    rows.extend(amplification.map(|row| row.noted(lag, false)));
    let written = |outcome: &Outcome| outcome.written_bytes as f64 / outcome.record_bytes.max(1) as f64;
    rows.extend(row(
        "all bytes written per byte put",
        "x",
        &|pass| written(&pass.compacting),
        stat(passes, |pass| written(&pass.idle)),
        Target::None,
    ));
    rows.extend(row(
        "write amplification of overwrites as fast as it goes",
        "x",
        &|pass| pass.wearing.write_amplification(),
        None,
        Target::None,
    ));
    rows
}

fn note(plan: &Plan, pass: &Pass) -> String {
    let Pass { idle, wearing, compacting, .. } = pass;
    let live = compacting.capacity.live_bytes as f64 / plan.full.usable_bytes() as f64;
    format!(
        "{:.0} % of what the partition takes lives, {:?}; compaction copied {:.0} MB in {:.1} s \
         ({:.0} MB idle); began late by {:.0} us at p99, idle {:.0}; {}; before it {:.0} overwrites/s; \
         attempts turned away because it was full: {} before it, {} during it",
        live * 100.0,
        compacting.capacity.state,
        compacting.copied_bytes as f64 / 1e6,
        compacting.elapsed_us as f64 / 1e6,
        idle.copied_bytes as f64 / 1e6,
        compacting.lag_us.quantile_us(0.99),
        idle.lag_us.quantile_us(0.99),
        compacting.shares(),
        wearing.rate(),
        wearing.turned_away,
        compacting.turned_away
    )
}
