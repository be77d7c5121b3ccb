//! Reading a store of many small records back.

use super::station::{Depot, Restored, Sizes};
use super::work::{Op, Pacing, Until, Work, record_bytes};
use super::{NAME, are_disturbed, stat};
use crate::error::{BenchError, Result};
use crate::report::{Row, Target};
use crate::scenario::Effort;
use crate::server::Bench;

/// So small that ten million take 2.6 GB.
const BODY_BYTES: usize = 128;
/// Records for which the target is meant.
const RECORDS: u64 = 10_000_000;
const TARGET_S: f64 = 5.0;
const INDEX_BYTES: f64 = 32.0;

/// Runs it.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let records = effort.records;
    // Half as many segments again as the records take.
    let segments = (records * record_bytes(BODY_BYTES) as u64 * 3 / 2 / (256 << 20)) as u32 + 8;
    say(&format!("{NAME}: putting {records} records, to be read back"));
    let depot = Depot::new(bench, Sizes::whole(segments))?;
    let station = depot.open(bench, 0)?;
    let until = Until { us: u64::MAX, operations: records };
    let put = Work { op: Op::Put, body_bytes: BODY_BYTES, pacing: Pacing::Closed(4_096), until };
    let filled = station.work(put)?;
    station.stop()?;
    let (mut restored, mut bytes) = (Vec::new(), Vec::new());
    for pass in 1..=effort.passes {
        say(&format!("{NAME}: restart {pass} of {}", effort.passes));
        let station = depot.open(bench, records)?;
        restored.push(station.restored);
        let until = Until { us: u64::MAX, operations: 1_000 };
        let found =
            station.work(Work { op: Op::Get, body_bytes: BODY_BYTES, pacing: Pacing::Closed(32), until })?;
        if found.entries != records {
            let what = format!("{} of {records} records came back", found.entries);
            return Err(BenchError::Peer { peer: "the lane store", what });
        }
        bytes.push(found.index_bytes as f64 / records as f64);
        station.stop()?;
    }
    let work = format!("{records} records with bodies of {BODY_BYTES} B, stopped");
    let row =
        |measure, unit, values, target| Row::new(NAME, work.clone(), measure, unit, values, None, target);
    let own = restored.last().map_or(0.0, |run: &Restored| run.own.as_secs_f64());
    let foreign = restored.last().map_or(0.0, |run| run.foreign_share);
    let note = format!(
        "{own:.1} s of it processor time, others took {:.0} % of it; put before at {:.0} records/s; \
         {}",
        foreign * 100.0,
        filled.rate(),
        filled.shares()
    );
    let disturbed = are_disturbed(restored.iter().map(|run| run.foreign_share));
    let target = if records == RECORDS { Target::AtMost(TARGET_S) } else { Target::None };
    let seconds = stat(&restored, |run| run.time.as_secs_f64());
    let bytes = stat(&bytes, |bytes| *bytes);
    let rows = [
        row("reading back until ready", "s", seconds, target).map(|row| row.noted(note, disturbed)),
        row("memory of the index per record", "B", bytes, Target::AtMost(INDEX_BYTES)),
    ];
    Ok(rows.into_iter().flatten().collect())
}
