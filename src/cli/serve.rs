//! The housekeeping thread of a node: starts the cores, serves HTTP, waits for signals, drains.

use std::sync::Arc;

use super::error::{CliError, Exit};
use super::output::Output;
use super::session::random;
use super::store::NodeDir;
use crate::admin::{AdminState, Readiness, ReadinessCell, Shutdown, ShutdownSignals, serve};
use crate::config::{Config, Cores};
use crate::node::{Assembly, AssemblyError};
use crate::rt::clock::Clock;
use crate::rt::executor::{RunningNode, StartError};
use crate::rt::preflight;
use crate::stats::{CoreStats, Vocabulary, per_core};
use crate::wire::{CloseCode, RejectReason};

/// Machines with at least this many processors keep one free for everything that is not a core.
const PROCESSORS_TO_SPARE_ONE: usize = 4;

/// Runs a node until it is told to stop.
pub fn run(config: Config, dir: NodeDir) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(Exit::Host, error.to_string()))?;
    runtime.block_on(run_until_signal(config, dir))
}

async fn run_until_signal(config: Config, dir: NodeDir) -> Result<Exit, CliError> {
    let host = |error: std::io::Error| CliError::new(Exit::Host, error.to_string());
    let mut signals = ShutdownSignals::install().map_err(host)?;
    let clock = Clock::start();
    let started = clock.now();
    let node_id = dir.key.node_id().to_string();
    let cores = choose_cores(config.cores, dir.store.lanes());
    check_host(&config, dir.store.lanes(), cores)?;
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
    let node = start(config, cores, dir, &stats, clock).await?;
    readiness.set(Readiness::Ready);
    let listen = node.address().map(|addr| addr.to_string()).unwrap_or_default();
    Output::stdout().line(&format!("ready: node {node_id} on {listen}, {cores} cores, http {http_addr}"))?;

    let exit = wait(node, &mut signals, &readiness, &stats).await;
    admin.abort();
    exit
}

/// Looks at the machine before anything is started; says everything that is missing at once.
fn check_host(config: &Config, lanes: u16, cores: u16) -> Result<(), CliError> {
    let ring = Assembly::ring_config(config, lanes, cores);
    let report = preflight::check(cores, &ring, Some(&config.data));
    if !report.can_start() {
        return Err(CliError::new(Exit::Host, format!("this machine cannot run the node:\n{report}")));
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

/// Waits for the first signal, then for the cores to drain or for a second signal.
async fn wait(
    node: RunningNode,
    signals: &mut ShutdownSignals,
    readiness: &ReadinessCell,
    stats: &Arc<[CoreStats]>,
) -> Result<Exit, CliError> {
    let mut watch = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = signals.next() => break,
            _ = watch.tick() => {
                let read_only = stats.iter().any(|core| core.log.lanes_read_only.get() > 0);
                readiness.set(if read_only { Readiness::StoreReadOnly } else { Readiness::Ready });
            }
        }
    }
    readiness.set(Readiness::Draining);
    tracing::info!("draining; a second signal stops at once");
    node.shutdown();
    let drained = tokio::task::spawn_blocking(|| node.join());
    tokio::select! {
        joined = drained => match joined {
            Ok(Ok(())) => Ok(Exit::Ok),
            Ok(Err(error)) => Err(CliError::new(Exit::Failed, error.to_string())),
            Err(error) => Err(CliError::new(Exit::Failed, error.to_string())),
        },
        signal = signals.next() => {
            debug_assert!(matches!(signal, Shutdown::AtOnce(_)));
            // What was acknowledged is on disk; nothing else is owed to anybody.
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
    }
}

fn choose_cores(wanted: Cores, lanes: u16) -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let spared = usize::from(processors >= PROCESSORS_TO_SPARE_ONE);
    match wanted {
        Cores::Count(cores) => cores,
        Cores::Auto => u16::try_from(processors - spared).unwrap_or(u16::MAX).min(lanes),
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
