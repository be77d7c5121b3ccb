//! Idle sessions: how much memory a logged-in TLS session takes that says nothing.

use super::{Effort, Measure};
use crate::error::Result;
use crate::host;
use crate::load::Load;
use crate::proto::trine::Users;
use crate::report::{Row, Stat, Target};
use crate::server::Bench;

const NAME: &str = "idle-sessions";
const TARGET_BYTES: f64 = 12.0 * 1024.0;
/// Sessions that the target names.
const WANTED: usize = 50_000;
/// Descriptors that a process keeps for other things; the node sets 1,100 per core aside.
const OTHER_FILES: u64 = 1_200;
/// More than a few runs say nothing new about memory.
const RUNS_MAX: usize = 3;

/// Bytes per session.
struct Held {
    resident: f64,
    proportional: f64,
    kernel: f64,
}

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let files = host::raise_file_limit()?;
    // The node and the generator each need one descriptor per session.
    let sessions = effort.sessions.min(files.saturating_sub(OTHER_FILES) as usize);
    let mut held = Vec::new();
    for run in 1..=effort.runs.min(RUNS_MAX) {
        say(&format!("{NAME}: {sessions} sessions, run {run}"));
        held.push(hold(bench, sessions)?);
    }
    let mut note = String::new();
    if sessions < WANTED {
        note = format!("{WANTED} sessions are the target; this run held {sessions}");
        if sessions < effort.sessions {
            note += &format!(", as many as the limit of {files} open files per process allows");
        }
    }
    let measures: [Measure<Held>; 3] = [
        ("node memory per session (resident)", |held| held.resident, Target::AtMost(TARGET_BYTES)),
        ("node memory per session (proportional)", |held| held.proportional, Target::None),
        ("kernel memory per session (slab, both ends)", |held| held.kernel, Target::None),
    ];
    let row = |(measure, value, target)| {
        let row = Row::new(
            NAME,
            format!("{sessions} sessions"),
            measure,
            "B",
            Stat::of(held.iter().map(value)),
            None,
            target,
        );
        row.map(|row: Row| row.noted(note.clone(), false))
    };
    Ok(measures.into_iter().filter_map(row).collect())
}

fn hold(bench: &Bench, sessions: usize) -> Result<Held> {
    let trine = bench.trine(1)?;
    let users = Users::new(trine.node)?;
    let flows: Result<Vec<_>> = (0..sessions as u64).map(|number| users.idle(number)).collect();
    let flows = flows?;
    let (before, kernel_before) = (trine.server.memory()?, host::kernel_memory()?);
    let load = Load::connect(trine.server.addr, flows)?;
    let (after, kernel_after) = (trine.server.memory()?, host::kernel_memory()?);
    let per_session = |before: u64, after: u64| after.saturating_sub(before) as f64 / load.len() as f64;
    Ok(Held {
        resident: per_session(before.rss, after.rss),
        proportional: per_session(before.pss, after.pss),
        kernel: per_session(kernel_before, kernel_after),
    })
}
