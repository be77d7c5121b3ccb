//! Durable publish: 64 senders, each to a mailbox that nobody reads, answered after the flush. The peer is
//! `XADD` to 64 streams with `appendfsync always`.

use super::{ClosedRows, Effort, FLOWS, latency_rows, moderate_rate};
use crate::error::Result;
use crate::load::{FlowSpec, Latency, Load, Throughput};
use crate::proto::redis::RedisAppender;
use crate::proto::trine::{TrineClient, Users};
use crate::report::{Row, Target};
use crate::server::trine::TrineServer;
use crate::server::{Bench, Server, redis};

const NAME: &str = "durable-publish";
/// Numbers of recipients begin here, out of the way of senders.
pub const RECIPIENTS_FROM: u64 = 1_000_000;

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let with_peer = effort.peers && redis::version().inspect_err(|error| say(&error.to_string())).is_ok();
    let mut rows = Vec::new();
    let mut rate = f64::INFINITY;
    for &window in &effort.windows {
        let (mut trine, mut peer) = (Vec::new(), Vec::new());
        for run in 1..=effort.runs {
            say(&format!("{NAME}: window {window}, run {run} of {}", effort.runs));
            trine.push(closed_trine(bench, effort, window)?);
            if with_peer {
                peer.push(closed_redis(bench, effort, window)?);
            }
        }
        rate = rate.min(moderate_rate(&trine, &peer));
        let targets = ClosedRows {
            scenario: NAME,
            work: format!("window {window}"),
            peer: "redis",
            throughput: Target::AtLeastTimes(1.5),
            cost: Target::AtMostTimes(0.6),
        };
        rows.extend(targets.rows(&trine, &peer));
    }
    let (mut trine, mut peer) = (Vec::new(), Vec::new());
    for run in 1..=effort.runs {
        say(&format!("{NAME}: open loop, run {run} of {}", effort.runs));
        trine.push(open_trine(bench, effort, rate)?);
        if with_peer {
            peer.push(open_redis(bench, effort, rate)?);
        }
    }
    rows.extend(latency_rows(NAME, "64 senders", "redis", Target::AtMostTimes(1.0), &trine, &peer));
    Ok(rows)
}

/// 64 publishers, each with a recipient of its own.
pub fn publishers(trine: &TrineServer) -> Result<Load<TrineClient>> {
    let users = Users::new(trine.node)?;
    let flow = |index: u64| users.publisher(index, std::iter::once(RECIPIENTS_FROM + index));
    let flows: Result<Vec<_>> = (0..FLOWS as u64).map(flow).collect();
    Load::connect(trine.server.addr, flows?)
}

fn appenders(server: &Server) -> Result<Load<RedisAppender>> {
    let flow = |index| FlowSpec { sender: RedisAppender::new(index), receiver: None };
    Load::connect(server.addr, (0..FLOWS).map(flow).collect())
}

fn closed_trine(bench: &Bench, effort: &Effort, window: u32) -> Result<Throughput> {
    let trine = bench.trine(1)?;
    publishers(&trine)?.closed(window, effort.warm_up, effort.measured, &trine.server)
}

fn closed_redis(bench: &Bench, effort: &Effort, window: u32) -> Result<Throughput> {
    let server = bench.redis()?;
    appenders(&server)?.closed(window, effort.warm_up, effort.measured, &server)
}

fn open_trine(bench: &Bench, effort: &Effort, rate: f64) -> Result<Latency> {
    let trine = bench.trine(1)?;
    publishers(&trine)?.open(rate, effort.warm_up, effort.measured)
}

fn open_redis(bench: &Bench, effort: &Effort, rate: f64) -> Result<Latency> {
    let server = bench.redis()?;
    appenders(&server)?.open(rate, effort.warm_up, effort.measured)
}
