//! Holds a node against its targets and against the peers that people use today, on one machine.
//!
//! # Purpose
//! Each scenario starts fresh servers, pins them and the load generator to different processors, runs the
//! same work on every one of them in turn, and prints the median of several runs beside its target.
//! `docs/PERFORMANCE.md` explains the results.
//!
//! # Promises
//! * Costs are the processor time of the server process, counted by the kernel. The generator's is not in it.
//! * Latency comes from an open loop only and counts from the intended time; where the generator was late or
//!   too busy, the row says so and has no verdict.
//! * A peer that is not installed is named, and the rest runs without it.
//!
//! # Failure model
//! A server that refuses work, ends, or says something unknown ends the run with an error.
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks and files, starts processes, and waits"
)]

mod alloc;
mod error;
mod host;
mod load;
mod proto;
mod report;
mod scenario;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use error::{BenchError, Result};
use report::Report;
use scenario::{Effort, Scenario};
use server::Bench;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// More than this is more than the node's send window.
const WINDOW_MAX: u32 = 1024;

const EXAMPLES: &str = "\
Examples:
  cargo build --release
  cargo run --release -p bench -- all
  cargo run --release -p bench -- durable-publish --runs 3
  cargo run --release -p bench -- live-1to1 --quick --json

Exit code 0 if every target that could be judged was reached, 1 if one was missed, 2 if a run failed.";

/// Measures a node against its targets and its peers
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = EXAMPLES)]
struct Args {
    /// A scenario, or `all`
    scenario: String,
    /// A short look instead of a result: one run of one second unless --runs is given, fewer sessions and
    /// messages
    #[arg(long)]
    quick: bool,
    /// One JSON object per row on standard output, progress on standard error
    #[arg(long)]
    json: bool,
    /// Runs of everything; the median counts [default: 5, of lane-store 1]
    #[arg(long)]
    runs: Option<usize>,
    /// Messages under way per sender in closed loops
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16], value_name = "N,N")]
    windows: Vec<u32>,
    /// Leave the peers out, for profiling the node
    #[arg(long)]
    no_peers: bool,
    /// The processor that servers are pinned to; best the one that takes the disk's interrupts [default:
    /// the first]
    #[arg(long, value_name = "N")]
    server_cpu: Option<usize>,
    /// The node's binary [default: target/release/trine]
    #[arg(long, value_name = "FILE")]
    trine: Option<PathBuf>,
    /// Where servers keep their data during a run; it must allow direct I/O [default: the system's
    /// temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: Args) -> Result<bool> {
    let scenarios = choose(&args.scenario)?;
    let trine = find_trine(args.trine)?;
    let dir = args.dir.unwrap_or_else(std::env::temp_dir);
    let bench = Bench { trine, dir, processors: host::Processors::detect(args.server_cpu)? };
    let windows = args.windows.into_iter().map(|window| window.clamp(1, WINDOW_MAX)).collect();
    let effort = Effort::new(args.runs, windows, !args.no_peers, args.quick);
    let mut report = Report::new(args.json);
    introduce(&bench, &report)?;
    for scenario in scenarios {
        let say = |words: &str| eprintln!("{words}");
        let rows = scenario.run(&bench, &effort, &say)?;
        report.rows(&rows);
    }
    Ok(!report.has_missed())
}

fn introduce(bench: &Bench, report: &Report) -> Result<()> {
    let files = host::raise_file_limit()?;
    host::describe().iter().for_each(|line| report.say(line));
    report.say(&format!("{}; open files: {files}", bench.trine_version()?));
    for version in [server::redis::version(), server::nats::version()] {
        report.say(&version.unwrap_or_else(|error| error.to_string()));
    }
    host::pin(&[bench.processors.generator])
}

fn choose(name: &str) -> Result<Vec<Scenario>> {
    if name == "all" {
        return Ok(Scenario::all());
    }
    Scenario::from_str(name, false).map(|scenario| vec![scenario]).map_err(|_| {
        let names = Scenario::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        BenchError::Missing(format!("there is no scenario `{name}`; choose all, {}", names.join(", ")))
    })
}

/// The binary beside this one, unless another is named.
fn find_trine(named: Option<PathBuf>) -> Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("trine"));
    let path = named.or_else(beside).unwrap_or_else(|| "target/release/trine".into());
    if path.is_file() {
        return Ok(path);
    }
    let path = path.display();
    Err(BenchError::Missing(format!(
        "there is no node at {path}: `cargo build --release` makes it, --trine names another"
    )))
}
