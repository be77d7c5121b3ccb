//! Live 1:1: 64 senders, each to one connected recipient. The peer is NATS core publish and subscribe,
//! which keeps and acknowledges nothing: so does the ephemeral class, while the durable class flushes,
//! answers the sender, and takes the recipient's acknowledgement.

use trine::wire::MessageClass;

use super::{ClosedRows, Effort, FLOWS, latency_rows, moderate_rate};
use crate::error::Result;
use crate::load::{Latency, Load, Throughput};
use crate::proto::nats::NatsClient;
use crate::proto::trine::{TrineClient, Users};
use crate::report::{Row, Target};
use crate::server::trine::TrineServer;
use crate::server::{Bench, Server, nats};

const NAME: &str = "live-1to1";
/// The classes, and how many times the processor time of NATS each may take.
const CLASSES: [(MessageClass, &str, f64); 2] =
    [(MessageClass::Ephemeral, "ephemeral", 1.0), (MessageClass::Durable, "durable", 1.5)];

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let with_peer = effort.peers && nats::version().inspect_err(|error| say(&error.to_string())).is_ok();
    let mut rows = Vec::new();
    let mut rate = f64::INFINITY;
    for &window in &effort.windows {
        let (mut ours, mut peer) = ([Vec::new(), Vec::new()], Vec::new());
        for run in 1..=effort.runs {
            say(&format!("{NAME}: window {window}, run {run} of {}", effort.runs));
            for (runs, (class, ..)) in ours.iter_mut().zip(CLASSES) {
                runs.push(closed_trine(bench, effort, window, class, 1)?);
            }
            if with_peer {
                peer.push(closed_nats(bench, effort, window)?);
            }
        }
        for (runs, (_, class, times)) in ours.iter().zip(CLASSES) {
            rate = rate.min(moderate_rate(runs, &peer));
            let work = format!("{class}, window {window}");
            let cost = Target::AtMostTimes(times);
            let closed = ClosedRows { scenario: NAME, work, peer: "nats", throughput: Target::None, cost };
            rows.extend(closed.rows(runs, &peer));
        }
    }
    rows.extend(latency(bench, effort, rate, with_peer, say)?);
    Ok(rows)
}

fn latency(
    bench: &Bench,
    effort: &Effort,
    rate: f64,
    with_peer: bool,
    say: &dyn Fn(&str),
) -> Result<Vec<Row>> {
    let (mut ours, mut peer) = ([Vec::new(), Vec::new()], Vec::new());
    for run in 1..=effort.runs {
        say(&format!("{NAME}: open loop, run {run} of {}", effort.runs));
        for (runs, (class, ..)) in ours.iter_mut().zip(CLASSES) {
            runs.push(open_trine(bench, effort, rate, class)?);
        }
        if with_peer {
            peer.push(open_nats(bench, effort, rate)?);
        }
    }
    let rows = |(runs, (_, class, _)): (&Vec<Latency>, _)| {
        latency_rows(NAME, class, "nats", Target::None, runs, &peer)
    };
    Ok(ours.iter().zip(CLASSES).flat_map(rows).collect())
}

/// 64 pairs of users, both connected.
pub fn pairs(trine: &TrineServer, class: MessageClass) -> Result<Load<TrineClient>> {
    let users = Users::new(trine.node)?;
    let flows: Result<Vec<_>> = (0..FLOWS as u64).map(|index| users.pair(index, class)).collect();
    Load::connect(trine.server.addr, flows?)
}

fn subscriptions(server: &Server) -> Result<Load<NatsClient>> {
    Load::connect(server.addr, (0..FLOWS).map(NatsClient::pair).collect())
}

/// One run of the node on `cores` cores.
pub fn closed_trine(
    bench: &Bench,
    effort: &Effort,
    window: u32,
    class: MessageClass,
    cores: usize,
) -> Result<Throughput> {
    let trine = bench.trine(cores)?;
    pairs(&trine, class)?.closed(window, effort.warm_up, effort.measured, &trine.server)
}

fn closed_nats(bench: &Bench, effort: &Effort, window: u32) -> Result<Throughput> {
    let server = bench.nats()?;
    subscriptions(&server)?.closed(window, effort.warm_up, effort.measured, &server)
}

fn open_trine(bench: &Bench, effort: &Effort, rate: f64, class: MessageClass) -> Result<Latency> {
    let trine = bench.trine(1)?;
    pairs(&trine, class)?.open(rate, effort.warm_up, effort.measured)
}

fn open_nats(bench: &Bench, effort: &Effort, rate: f64) -> Result<Latency> {
    let server = bench.nats()?;
    subscriptions(&server)?.open(rate, effort.warm_up, effort.measured)
}
