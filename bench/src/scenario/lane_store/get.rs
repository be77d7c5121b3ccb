//! Reads of whole records at random, beside fio's random reads of the same files.

use std::time::Duration;

use super::fio::{Fio, Job, Measured, Pattern};
use super::station::{Depot, Sizes};
use super::work::{Op, Outcome, Pacing, Until, Work};
use super::{FIO, NAME, are_disturbed, size, stat};
use crate::error::Result;
use crate::report::{Row, Target};
use crate::scenario::Effort;
use crate::server::Bench;

const BODY_BYTES: usize = 4 << 10;
const DEPTH: usize = 32;
const SHARE: f64 = 0.8;
/// fio's transfers: as long as the body, and as long as the blocks that most records lie in.
const BLOCKS: [usize; 2] = [4 << 10, 8 << 10];

/// Runs it.
pub fn run(bench: &Bench, effort: &Effort, fio: Option<&Fio>, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let (segments, time) = if effort.quick { (10, 700) } else { (22, 3_000) };
    let (sizes, time) = (Sizes::whole(segments), Duration::from_millis(time));
    let records = sizes.usable_bytes() * 8 / 10 / (BODY_BYTES + 256) as u64;
    say(&format!("{NAME}: putting {records} records of {}, to be read", size(BODY_BYTES)));
    let depot = Depot::new(bench, sizes)?;
    let station = depot.open(bench, 0)?;
    let fill = Until { us: u64::MAX, operations: records };
    let work = |op, depth, until| Work { op, body_bytes: BODY_BYTES, pacing: Pacing::Closed(depth), until };
    station.work(work(Op::Put, 512, fill))?;
    let (mut ours, mut theirs) = (Vec::new(), BLOCKS.map(|_| Vec::new()));
    for _ in 0..effort.passes {
        say(&format!("{NAME}: get of {} at depth {DEPTH}", size(BODY_BYTES)));
        let until = Until { us: time.as_micros() as u64, operations: u64::MAX };
        ours.push(station.work(work(Op::Get, DEPTH, until))?);
        for (block_bytes, theirs) in BLOCKS.into_iter().zip(&mut theirs) {
            if let Some(fio) = fio {
                let job = Job { pattern: Pattern::RandomRead, block_bytes, depth: DEPTH, time };
                theirs.push(fio.run(bench, &depot.files()?, job)?);
            }
        }
    }
    station.stop()?;
    Ok(rows(records, &ours, &theirs))
}

fn rows(records: u64, ours: &[Outcome], theirs: &[Vec<Measured>; BLOCKS.len()]) -> Vec<Row> {
    let work = format!("get of {}, depth {DEPTH}, {records} records", size(BODY_BYTES));
    let row = |measure: String, unit, ours, peer: Option<_>, target| {
        Row::new(NAME, work.clone(), measure, unit, ours, peer.map(|stat| (FIO, stat)), target)
    };
    let mut rows = Vec::new();
    for (block_bytes, theirs) in BLOCKS.into_iter().zip(theirs) {
        let is_body = block_bytes == BODY_BYTES;
        let target = if is_body { Target::AtLeastTimes(SHARE) } else { Target::None };
        let measure = format!("whole records, against fio with blocks of {}", size(block_bytes));
        let peer = stat(theirs, |run| run.rate);
        let row = row(measure, "1/s", stat(ours, Outcome::rate), peer, target);
        let note = match is_body {
            true => ours.last().map_or(String::new(), Outcome::shares),
            false => {
                "a record of this body lies in two blocks of 4 KiB, one in 64 in three; fio's begin at any \
                      block, too"
                    .into()
            }
        };
        let fio = theirs.last().map_or(String::new(), |run| format!("; {}", run.words()));
        let disturbed = are_disturbed(ours.iter().map(|run| run.foreign_share))
            || are_disturbed(theirs.iter().map(|run| run.foreign_share));
        rows.extend(row.map(|row| row.noted(note + &fio, disturbed)));
    }
    for (name, quantile, value) in
        [("p50", 0.5, (|run| run.p50_us) as fn(&Measured) -> f64), ("p99", 0.99, |run| run.p99_us)]
    {
        let ours = stat(ours, |run| run.gets.quantile_us(quantile));
        let measure = format!("closed loop, {name}");
        rows.extend(row(measure, "us", ours, stat(&theirs[0], value), Target::None));
    }
    rows
}
