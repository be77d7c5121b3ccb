//! What is measured: one file per scenario, each a function from the bench to rows.

mod allocations;
mod durable;
mod erasure;
mod idle;
mod index;
mod lane_store;
mod live;
mod logins;
mod plots;
mod restart;
mod two_cores;

use std::time::Duration;

use clap::ValueEnum;

use crate::error::Result;
use crate::load::{Latency, Throughput};
use crate::report::{Row, Stat, Target};
use crate::server::Bench;

/// Senders, or pairs, of every scenario with messages.
pub const FLOWS: usize = 64;

/// How much to run.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Runs of everything; the median counts.
    pub runs: usize,
    /// Messages under way per flow in closed loops, one after the other.
    pub windows: Vec<u32>,
    /// Run the peers too.
    pub peers: bool,
    /// Before each measurement.
    pub warm_up: Duration,
    /// Each measurement.
    pub measured: Duration,
    /// Sessions held by `idle-sessions`.
    pub sessions: usize,
    /// Messages queued for `restart`.
    pub queued: u64,
    /// Records in the index, and in the store that is restarted.
    pub records: u64,
    /// Passes of `lane-store`, which takes minutes: one unless a number of runs was asked for.
    pub passes: usize,
    /// A look is enough.
    pub quick: bool,
}

impl Effort {
    /// For results, or for a look.
    pub fn new(runs: Option<usize>, windows: Vec<u32>, peers: bool, quick: bool) -> Self {
        let passes = runs.unwrap_or(1).max(1);
        let runs = runs.unwrap_or(if quick { 1 } else { 5 }).max(1);
        if quick {
            let (warm_up, measured) = (Duration::from_millis(300), Duration::from_millis(1000));
            return Self {
                runs,
                windows,
                peers,
                warm_up,
                measured,
                sessions: 2_000,
                queued: 50_000,
                records: 1_000_000,
                passes,
                quick,
            };
        }
        let (warm_up, measured) = (Duration::from_millis(500), Duration::from_millis(2500));
        Self {
            runs,
            windows,
            peers,
            warm_up,
            measured,
            sessions: 50_000,
            queued: 1_000_000,
            records: 10_000_000,
            passes,
            quick,
        }
    }
}

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 64 pairs, ephemeral and durable class, against NATS core
    #[value(name = "live-1to1")]
    Live,
    /// 64 senders append with acknowledgement after the flush, against Redis streams
    DurablePublish,
    /// The durable live work on two cores against one
    TwoCores,
    /// Memory of sessions that say nothing
    IdleSessions,
    /// New connections, handshakes and logins
    Logins,
    /// Start with many queued messages
    Restart,
    /// Allocations per message in steady state
    Allocations,
    /// The erasure code on one core, against ISA-L
    ErasureCode,
    /// Memory and speed of the index of a lane
    Index,
    /// A store of keyed records on one core: puts, gets, compaction and restart, against fio
    LaneStore,
    /// Draws docs/plots: what lane-store puts by depth, and the erasure code by size of shards
    Plots,
}

impl Scenario {
    /// What `all` runs: everything that has results of its own.
    pub fn all() -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|scenario| *scenario != Self::Plots).collect()
    }

    /// Runs it.
    pub fn run(self, bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
        match self {
            Self::Live => live::run(bench, effort, say),
            Self::DurablePublish => durable::run(bench, effort, say),
            Self::TwoCores => two_cores::run(bench, effort, say),
            Self::IdleSessions => idle::run(bench, effort, say),
            Self::Logins => logins::run(bench, effort, say),
            Self::Restart => restart::run(bench, effort, say),
            Self::Allocations => allocations::run(bench, effort, say),
            Self::ErasureCode => erasure::run(bench, effort, say),
            Self::Index => index::run(bench, effort, say),
            Self::LaneStore => lane_store::run(bench, effort, say),
            Self::Plots => plots::run(bench, effort, say),
        }
    }
}

/// What is taken from every run of a scenario: its name, the value, what it is held against.
type Measure<T> = (&'static str, fn(&T) -> f64, Target);

/// The rows that every closed loop gives: throughput, and cost per message.
struct ClosedRows {
    scenario: &'static str,
    work: String,
    peer: &'static str,
    throughput: Target,
    cost: Target,
}

impl ClosedRows {
    fn rows(self, trine: &[Throughput], peer: &[Throughput]) -> Vec<Row> {
        let Self { scenario, work, peer: name, throughput, cost } = self;
        let of = |runs: &[Throughput], value: fn(&Throughput) -> f64| Stat::of(runs.iter().map(value));
        let both = |value| (of(trine, value), of(peer, value).map(|stat| (name, stat)));
        let share = |value| of(trine, value).map_or(0.0, |stat: Stat| stat.median * 100.0);
        let (server, generator) = (share(Throughput::server), share(|run| run.generator));
        let mut note = format!("processor shares: node {server:.0} %, generator {generator:.0} %");
        if let Some(peer_server) = of(peer, Throughput::server) {
            let peer_generator = of(peer, |run| run.generator).map_or(0.0, |stat| stat.median);
            note += &format!(
                "; {name} {:.0} %, generator {:.0} %",
                peer_server.median * 100.0,
                peer_generator * 100.0
            );
        }
        if server < 90.0 {
            note += "; the node was not the bottleneck, so its throughput is a lower bound";
        }
        let (rate, peer_rate) = both(Throughput::rate);
        let (us, peer_us) = both(Throughput::cost_us);
        let rate = Row::new(scenario, work.clone(), "throughput", "messages/s", rate, peer_rate, throughput);
        let cost = Row::new(scenario, work, "server CPU per message", "us", us, peer_us, cost);
        let rate = rate.map(|row| row.noted(note, false));
        rate.into_iter().chain(cost).collect()
    }
}

/// The rows of an open loop at one rate.
fn latency_rows(
    scenario: &'static str,
    work: &str,
    peer_name: &'static str,
    p99: Target,
    trine: &[Latency],
    peer: &[Latency],
) -> Vec<Row> {
    let rate = trine.first().map_or(0.0, |run| run.rate);
    let work = format!("{work}, open loop at {rate:.0}/s");
    let distrust = |runs: &[Latency], who: &str| {
        let reasons: Vec<String> = runs.iter().filter_map(Latency::distrust).collect();
        // One bad run of several does not move a median.
        let bad = 2 * reasons.len() > runs.len();
        reasons.first().filter(|_| bad).map(|reason| format!("not to be trusted, {who}: {reason}"))
    };
    let doubts: Vec<String> = distrust(trine, "trine").into_iter().chain(distrust(peer, peer_name)).collect();
    let measures: [Measure<Latency>; 3] = [
        ("p50", |run| run.p50_us, Target::None),
        ("p99", |run| run.p99_us, p99),
        ("p99.9", |run| run.p999_us, Target::None),
    ];
    let row = |(measure, value, target): Measure<Latency>| {
        let of = |runs: &[Latency]| Stat::of(runs.iter().map(value));
        let peer = of(peer).map(|stat| (peer_name, stat));
        let row = Row::new(scenario, work.clone(), measure, "us", of(trine), peer, target)?;
        Some(row.noted(doubts.join("; "), !doubts.is_empty()))
    };
    measures.into_iter().filter_map(row).collect()
}

/// The rate of an open loop: half of the lower peak.
fn moderate_rate(trine: &[Throughput], peer: &[Throughput]) -> f64 {
    let peak = |runs: &[Throughput]| Stat::of(runs.iter().map(Throughput::rate)).map(|stat| stat.median);
    let peaks = [peak(trine), peak(peer)].into_iter().flatten();
    0.5 * peaks.fold(f64::INFINITY, f64::min)
}
