//! The housekeeping thread of a node: starts the cores, serves HTTP, waits for signals, drains.
//!
//! A drain ends in time: by itself, by a second signal, or by its deadline. Whichever it is, what was
//! acknowledged is on disk.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use shards::Store;

use super::error::{CliError, Exit};
use super::output::Output;
use super::session::random;
use super::store::{self, NodeDir};
use crate::admin::{AdminState, Readiness, ReadinessCell, Shutdown, ShutdownSignals, serve};
use crate::config::{AutoCount, Config, StoreConfig};
use crate::node::{Assembly, AssemblyError};
use crate::rt::clock::Clock;
use crate::rt::executor::{JoinError, RunningNode, StartError};
use crate::rt::ring::RingStats;
use crate::rt::{memory, preflight};
use crate::stats::{CoreStats, Vocabulary, per_core};
use crate::wire::{CloseCode, RejectReason};

/// Machines with at least this many processors keep one free for everything that is not a core.
const PROCESSORS_TO_SPARE_ONE: usize = 4;
/// How far the wall clock may be behind the moment at which the store was made, in milliseconds: more than
/// two machines in different time zones, set to local time by mistake, differ.
const CLOCK_BEHIND_MAX_MS: u64 = 24 * 3_600 * 1_000;

/// Runs a node until it is told to stop.
pub fn run(config: Config, dir: NodeDir) -> Result<Exit, CliError> {
    if let Err(error) = memory::use_small_pages() {
        tracing::warn!(%error, "huge pages stay on: expect single answers that take milliseconds longer");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(Exit::Host, error.to_string()))?;
    let exit = runtime.block_on(run_until_signal(config, dir));
    // A drain that did not end must not hold up the end of the process.
    runtime.shutdown_background();
    exit
}

async fn run_until_signal(config: Config, dir: NodeDir) -> Result<Exit, CliError> {
    let host = |error: std::io::Error| CliError::new(Exit::Host, error.to_string());
    let mut signals = ShutdownSignals::install().map_err(host)?;
    let clock = Clock::start();
    let started = clock.now();
    check_clock(started.wall_ms, dir.store.created_ms())?;
    let node_id = dir.key.node_id().to_string();
    let cores = choose_cores(config.cores, dir.store.lanes())?;
    check_host(&config, &dir.store, cores)?;
    let stats = per_core(cores);
    let readiness = Arc::new(ReadinessCell::new(Readiness::Recovering));
    let http = tokio::net::TcpListener::bind(config.http).await.map_err(|error| {
        let message = format!("cannot serve HTTP on {}: {error}; choose another with --http", config.http);
        CliError::new(Exit::Host, message)
    })?;
    let http_addr = http.local_addr().map_err(host)?;
    let state = AdminState {
        version: env!("CARGO_PKG_VERSION"),
        node_id: node_id.clone(),
        stats: Arc::clone(&stats),
        readiness: Arc::clone(&readiness),
        limits: config.limits.clone(),
        code_name,
        clock: Arc::new(move || clock.now()),
        started,
    };
    let admin = tokio::spawn(serve(http, state, std::future::pending()));
    let drain_max = config.deadlines.drain.as_duration();
    let node = start(config, cores, dir, &stats, clock).await?;
    readiness.set(Readiness::Ready);
    let listen = node.address().map(|addr| addr.to_string()).unwrap_or_default();
    Output::stdout().line(&format!("ready: node {node_id} on {listen}, {cores} cores, http {http_addr}"))?;

    wait_for_signal(&mut signals, &readiness, &stats).await;
    let exit = drain(node, &mut signals, &readiness, drain_max).await;
    admin.abort();
    exit
}

/// Refuses a wall clock that is before the store's own past: messages would live for as long as it is wrong.
fn check_clock(now_ms: u64, created_ms: u64) -> Result<(), CliError> {
    if now_ms.saturating_add(CLOCK_BEHIND_MAX_MS) >= created_ms {
        return Ok(());
    }
    let behind_h = (created_ms - now_ms) / 3_600_000;
    let message = format!(
        "the system's clock is {behind_h} h before the moment at which this store was made, so it cannot be \
         right; set it (timedatectl, chronyc makestep) and start again"
    );
    Err(CliError::new(Exit::Host, message))
}

/// Looks at the machine before anything is started; says everything that is missing at once.
fn check_host(config: &Config, store: &Store, cores: u16) -> Result<(), CliError> {
    let ring = Assembly::ring_config(config, store.lanes(), cores);
    let report = preflight::check(cores, &ring, Some(&config.data));
    if !report.can_start() {
        return Err(CliError::new(Exit::Host, format!("this machine cannot run the node:\n{report}")));
    }
    let usable = StoreConfig::usable_bytes(store.lanes(), store.segment_bytes().into());
    if usable < config.store.max_bytes {
        let (max, lanes) = (config.store.max_bytes, store.lanes());
        tracing::warn!(
            "store.max_bytes = {max}, but the {lanes} lanes of this store can take {usable} at most"
        );
    }
    for problem in report.problems() {
        tracing::warn!("{problem}");
    }
    Ok(())
}

/// Starts the cores on a thread of its own, so that HTTP answers while they recover.
async fn start(
    config: Config,
    cores: u16,
    dir: NodeDir,
    stats: &Arc<[CoreStats]>,
    clock: Clock,
) -> Result<RunningNode, CliError> {
    let NodeDir { key, volume, store } = dir;
    let hash_seed = u64::from_le_bytes(random()?);
    let assembly = Assembly { config, cores, key, volume, store, stats: Arc::clone(stats), clock, hash_seed };
    let started = tokio::task::spawn_blocking(|| assembly.start()).await;
    let started = started.map_err(|error| CliError::new(Exit::Failed, error.to_string()))?;
    started.map_err(|error| {
        let exit = match &error {
            AssemblyError::Start(StartError::Logic { .. }) | AssemblyError::Link(_) => Exit::Store,
            AssemblyError::Start(_) => Exit::Host,
        };
        CliError::new(exit, error.to_string())
    })
}

/// Waits for the first signal, and keeps the readiness right meanwhile.
async fn wait_for_signal(signals: &mut ShutdownSignals, readiness: &ReadinessCell, stats: &Arc<[CoreStats]>) {
    let mut watch = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = signals.next() => return,
            _ = watch.tick() => {
                let read_only = stats.iter().any(|core| core.log.lanes_read_only.get() > 0);
                readiness.set(if read_only { Readiness::StoreReadOnly } else { Readiness::Ready });
            }
        }
    }
}

/// How a drain came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Drained<T> {
    Ended(T),
    Signalled,
    TimedOut,
}

/// Waits until `joined` is done, a signal comes or the time is up.
async fn until_drained<T>(
    joined: impl Future<Output = T>,
    signal: impl Future<Output = Shutdown>,
    drain_max: Duration,
) -> Drained<T> {
    tokio::select! {
        biased;
        joined = joined => Drained::Ended(joined),
        signal = signal => {
            debug_assert!(matches!(signal, Shutdown::AtOnce(_)));
            Drained::Signalled
        }
        () = tokio::time::sleep(drain_max) => Drained::TimedOut,
    }
}

/// Asks the cores to drain and waits for them, for a second signal or for the deadline.
async fn drain(
    node: RunningNode,
    signals: &mut ShutdownSignals,
    readiness: &ReadinessCell,
    drain_max: Duration,
) -> Result<Exit, CliError> {
    let failed = |message| Err(CliError::new(Exit::Failed, message));
    readiness.set(Readiness::Draining);
    tracing::info!("draining; a second signal stops at once");
    let rings = node.stats();
    node.shutdown();
    let joined = tokio::task::spawn_blocking(|| node.join());
    match until_drained(joined, signals.next(), drain_max).await {
        Drained::Ended(Ok(ended)) => {
            ended.map(|()| Exit::Ok).or_else(|error: JoinError| failed(error.to_string()))
        }
        Drained::Ended(Err(error)) => failed(error.to_string()),
        // What was acknowledged is on disk; nothing else is owed to anybody.
        Drained::Signalled => std::process::exit(i32::from(Exit::Interrupted.code())),
        Drained::TimedOut => failed(left_over(&rings, drain_max)),
    }
}

/// What a drain that did not end has left.
fn left_over(rings: &[Arc<RingStats>], drain_max: Duration) -> String {
    let connections: u64 = rings.iter().map(|ring| ring.connections.get()).sum();
    let disk: u64 = rings.iter().map(|ring| ring.disk_in_flight.get()).sum();
    format!(
        "the node did not drain in {drain_max:?}: {connections} connections and {disk} disk operations were \
         left; what was acknowledged is on disk. Look at the disk if operations were left, or raise \
         deadlines.drain"
    )
}

/// The cores to run on: every core has a lane.
fn choose_cores(wanted: AutoCount, lanes: u16) -> Result<u16, CliError> {
    let processors = store::processors();
    let spared = usize::from(processors >= PROCESSORS_TO_SPARE_ONE);
    match wanted {
        AutoCount::Count(cores) if cores > lanes => {
            let message = format!(
                "cores = {cores}, but the store was made with {lanes} lanes and every core needs one: use at \
                 most {lanes} cores, or make a store with more lanes (store.lanes)"
            );
            Err(CliError::new(Exit::Store, message))
        }
        AutoCount::Count(cores) => Ok(cores),
        AutoCount::Auto => {
            let usable = u16::try_from(processors - spared).unwrap_or(u16::MAX);
            if usable > lanes {
                tracing::warn!("{usable} cores could run, but the store has {lanes} lanes: using {lanes}");
            }
            Ok(usable.min(lanes))
        }
    }
}

/// The names of the wire's codes, for metrics.
fn code_name(vocabulary: Vocabulary, code: u8) -> Option<&'static str> {
    let close = |code: u8| CloseCode::from_code(u16::from(code)).map(CloseCode::name);
    match vocabulary {
        Vocabulary::Close | Vocabulary::Login => close(code),
        Vocabulary::Reject => RejectReason::from_code(code).map(RejectReason::name),
        Vocabulary::Refuse => {
            ["Full", "TooManyFromSource", "TooFastFromSource"].get(usize::from(code)).copied()
        }
        Vocabulary::Class => ["durable", "ephemeral"].get(usize::from(code)).copied(),
        Vocabulary::Status => match code {
            1 => Some("accepted"),
            2 => Some("delivered"),
            3 => Some("rejected"),
            4 => Some("relayed"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::admin::Signal;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_clock_more_than_a_day_before_the_store_was_made_is_refused_with_the_fix() {
        let created = 20_000 * DAY_MS;
        for now in [created, created + DAY_MS, created - DAY_MS] {
            assert!(check_clock(now, created).is_ok(), "{now}");
        }
        let error = check_clock(created - DAY_MS - 1, created).unwrap_err();
        assert_eq!(error.exit(), Exit::Host);
        assert!(error.to_string().contains("24 h before") && error.to_string().contains("timedatectl"));
        assert!(check_clock(0, created).is_err(), "a machine whose clock has lost its battery");
    }

    #[tokio::test]
    async fn a_drain_ends_by_itself_by_a_second_signal_or_by_its_deadline() {
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(3_600));
        let by_itself = until_drained(ready(7), pending(), long).await;
        assert_eq!(by_itself, Drained::Ended(7));
        let second = ready(Shutdown::AtOnce(Signal::Terminate));
        assert_eq!(until_drained(pending::<u8>(), second, long).await, Drained::Signalled);
        assert_eq!(until_drained(pending::<u8>(), pending(), short).await, Drained::TimedOut);
    }

    #[test]
    fn a_drain_that_did_not_end_says_what_was_left() {
        let rings = [Arc::new(RingStats::default()), Arc::new(RingStats::default())];
        let said = left_over(&rings, Duration::from_secs(30));
        assert!(said.contains("in 30s: 0 connections and 0 disk operations"), "{said}");
        assert!(said.contains("deadlines.drain"), "{said}");
    }
}
