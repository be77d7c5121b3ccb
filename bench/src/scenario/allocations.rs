//! Allocations: the whole node inside this process, on a thread of its own, under an allocator that counts.
//! The generator's thread is left out. What is counted is everything the node does between socket and disk.

use std::path::Path;
use std::time::Duration;

use trine::cli::store;
use trine::config::{ConfigFile, Overrides, Profile, load};
use trine::node::Assembly;
use trine::rt::clock::Clock;
use trine::rt::executor::RunningNode;
use trine::stats::per_core;
use trine::wire::{MessageClass, NodeId};

use super::{Effort, FLOWS};
use crate::alloc;
use crate::error::{BenchError, Result};
use crate::load::Load;
use crate::proto::trine::Users;
use crate::report::{Row, Stat, Target};
use crate::server::Bench;
use crate::server::trine::config;

const NAME: &str = "allocations";
const WINDOW: u32 = 16;
/// Fewer than one allocation in this many messages is none per message: tables double now and then.
const NONE_PER_MESSAGE: f64 = 0.001;
/// Tables and pools have their size after this many times the usual warm-up.
const WARM_UPS: u32 = 5;

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    alloc::do_not_count_this_thread();
    let mut rows = Vec::new();
    for (class, name) in [(MessageClass::Ephemeral, "ephemeral"), (MessageClass::Durable, "durable")] {
        let mut runs = Vec::new();
        for run in 1..=effort.runs {
            say(&format!("{NAME}: {name}, run {run} of {}", effort.runs));
            runs.push(count(bench, effort, class)?);
        }
        let work = format!("live 1:1, {name}, window {WINDOW}");
        let per_message =
            Stat::of(runs.iter().map(|run| run.allocations as f64 / run.messages.max(1) as f64));
        let row = Row::new(
            NAME,
            work,
            "per message",
            "allocations",
            per_message,
            None,
            Target::AtMost(NONE_PER_MESSAGE),
        );
        let last = runs.last().map(|run| {
            format!(
                "last run: {} allocations, {} bytes, {} messages",
                run.allocations, run.bytes, run.messages
            )
        });
        rows.extend(row.map(|row| row.noted(last.unwrap_or_default(), false)));
    }
    Ok(rows)
}

struct Counted {
    allocations: u64,
    bytes: u64,
    messages: u64,
}

fn count(bench: &Bench, effort: &Effort, class: MessageClass) -> Result<Counted> {
    let dir = bench.fresh_dir("node")?;
    let (node, id) = bench.processors.on(&[bench.processors.server], || start(&dir.path().join("data")))?;
    let addr = node.address().ok_or_else(|| failed("it listens nowhere"))?;
    let users = Users::new(id)?;
    let flows: Result<Vec<_>> = (0..FLOWS as u64).map(|index| users.pair(index, class)).collect();
    let mut load = Load::connect(addr, flows?)?;
    load.keep_busy(WINDOW, effort.warm_up * WARM_UPS)?;
    let before = alloc::counted();
    let messages = load.keep_busy(WINDOW, effort.measured.max(Duration::from_secs(1)))?;
    let after = alloc::counted();
    drop(load);
    node.shutdown();
    node.join().map_err(failed)?;
    Ok(Counted { allocations: after.0 - before.0, bytes: after.1 - before.1, messages })
}

/// A node of one core, without HTTP and signals.
fn start(data: &Path) -> Result<(RunningNode, NodeId)> {
    let file = ConfigFile { name: "bench.toml", text: &config(1) };
    let overrides = Overrides { data: Some(data.into()), ..Overrides::default() };
    let config = load(Profile::Server, Some(file), [], overrides).map_err(failed)?.config;
    let dir = store::create(&config, store::wall_ms()).map_err(failed)?;
    let id = dir.key.node_id();
    let assembly = Assembly {
        config,
        cores: 1,
        key: dir.key,
        volume: dir.volume,
        store: dir.store,
        stats: per_core(1),
        clock: Clock::start(),
        hash_seed: 1,
    };
    Ok((assembly.start().map_err(failed)?, id))
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Peer { peer: "trine, in this process", what: error.to_string() }
}
