//! Starting and ending a node's cores: one pinned glommio executor per core, with the core's driver inside.
//!
//! *What glommio does here.* It pins the thread and schedules tasks by queue, shares and latency class. The
//! data path is one task, the driver, which sleeps in its own ring; so a core that serves makes one system
//! call per sleep and glommio's rings stay idle. Only while tasks made by [`spawn_background`] exist does the
//! driver yield to glommio between turns.
//!
//! *Known faults of glommio 0.9, and how they are kept away.* It may park with runnable tasks: the driver
//! never waits in glommio, and bounds its own sleep while background tasks run. A task counts its wakers in
//! 16 bits: no task here has more than one. It exits the process when an opcode is missing and falls back in
//! silence when memory cannot be locked: [`preflight`](super::preflight) runs first and `io_memory` is at its
//! minimum. Its blocking pool sits on the executor's own processor unless told otherwise: it is told. It
//! never closes one eventfd per executor: a node starts each once. Its sockets, files and channels are not
//! used.
//!
//! *Order of a start.* Bind the sockets; per core, on its thread: ring, pools, logic (which may recover its
//! lanes with blocking I/O); when every core is ready, listen. If one fails, none listens, and the first
//! reason is returned.
//!
//! *Failure model.* A panic on a core ends the process.

use std::cell::Cell;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{
    ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares, TaskQueueHandle,
};
use shards::AlignedBuf;
use socket2::Socket;

use super::api::{CoreId, CoreLogic};
use super::clock::Clock;
use super::crossing::{CoreCrossings, CrossingSizes, Doorbell, MAX_CORES, doorbells, mesh_with};
use super::descriptors::DescriptorPlan;
use super::ring::{
    AbortOnPanic, ColdQueue, CoreControl, DiskSetup, Driver, DriverSetup, HandOvers, PeerCore, RingConfig,
    RingStats, Turn,
};
use super::volume::FsVolume;

/// Memory that glommio registers per executor, in bytes; its minimum, because the data path is elsewhere.
const GLOMMIO_IO_MEMORY_BYTES: usize = 64 << 10;
const GLOMMIO_RING_DEPTH: usize = 64;
/// How long a driver sleeps at most between two looks at background tasks.
const BACKGROUND_NAP_US: u64 = 500;

/// What a node runs on.
#[derive(Clone)]
pub struct NodeSetup {
    /// Where to listen; port 0 takes a free one. `None` for a node that accepts nothing.
    pub listen: Option<SocketAddr>,
    /// Sizes of rings and pools.
    pub ring: RingConfig,
    /// Sizes of the crossings; `None` for what suits the number of cores.
    pub crossings: Option<CrossingSizes>,
    /// The store, if there is one.
    pub volume: Option<Arc<FsVolume>>,
    /// The node's clock.
    pub clock: Clock,
}

/// What a core's logic is made from, on the core's thread.
pub struct CoreContext<R> {
    /// The core.
    pub core: CoreId,
    /// Its ends of all crossings.
    pub crossings: CoreCrossings<R>,
    /// Buffers registered with this core's ring, as many as configured.
    pub disk_buffers: Vec<AlignedBuf>,
    /// The store.
    pub volume: Option<Arc<FsVolume>>,
    /// The node's clock, for what is done before the first turn.
    pub clock: Clock,
    /// The counters of this core's driver.
    pub stats: Arc<RingStats>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// More cores than processors, or none.
    #[error(
        "{wanted} cores were asked for, but this process may use {allowed} processors; \
         lower --cores or widen its affinity (taskset, cpuset)"
    )]
    Processors { wanted: usize, allowed: usize },
    /// The affinity could not be read, or a helper not be started.
    #[error("{action}: {source}")]
    System { action: &'static str, source: io::Error },
    /// The address is not to be had.
    #[error("cannot listen on {address}: {source}; is another node running there?")]
    Listen { address: SocketAddr, source: io::Error },
    /// glommio did not start.
    #[error(
        "the executor of core {core} did not start: {reason}; \
         check `ulimit -l` (locked memory) and `ulimit -n`"
    )]
    Executor { core: u16, reason: String },
    /// The core's own ring, or its pools, could not be made.
    #[error(
        "core {core} could not make its io_uring: {source}; check `ulimit -l` and the sizes of its pools"
    )]
    Ring { core: u16, source: io::Error },
    /// The logic could not be made.
    #[error("core {core} did not start: {source}")]
    Logic { core: u16, source: Box<dyn Error + Send + Sync> },
}

/// The reason why a core's thread ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("core {core} ended with an error: {reason}")]
pub struct JoinError {
    /// The core.
    pub core: u16,
    /// What it said.
    pub reason: String,
}

/// A node that serves.
pub struct RunningNode {
    address: Option<SocketAddr>,
    cores: Vec<RunningCore>,
    cold: JoinHandle<()>,
}

struct RunningCore {
    control: Arc<CoreControl>,
    stats: Arc<RingStats>,
    thread: ExecutorJoinHandle<Result<(), StartError>>,
}

impl RunningNode {
    /// The address it listens on.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The counters of each core, in order.
    pub fn stats(&self) -> Vec<Arc<RingStats>> {
        self.cores.iter().map(|core| Arc::clone(&core.stats)).collect()
    }

    /// What wakes or stops each core from any thread, in order.
    pub fn controls(&self) -> Vec<Arc<CoreControl>> {
        self.cores.iter().map(|core| Arc::clone(&core.control)).collect()
    }

    /// Asks every core to drain and end. Returns at once.
    pub fn shutdown(&self) {
        self.cores.iter().for_each(|core| core.control.shut_down());
    }

    /// Waits until every core has ended.
    pub fn join(self) -> Result<(), JoinError> {
        let mut first = Ok(());
        for (core, running) in self.cores.into_iter().enumerate() {
            let reason = match running.thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            first = first.and(Err(JoinError { core: core as u16, reason }));
        }
        // It ends with the last core, whose queue was the last.
        let _ = self.cold.join();
        first
    }
}

/// What is said when everybody is ready.
struct Go {
    peers: Arc<[PeerCore]>,
}

/// What a core reports when it is ready.
struct Ready {
    ring: OwnedFd,
    stats: Arc<RingStats>,
}

/// How far a core has come.
enum Report {
    Ready(Ready),
    /// It listens.
    Serving,
}

type Reports = Receiver<Result<Report, StartError>>;

/// Everything a core's thread starts from.
struct CoreSeed<R, F> {
    core: CoreId,
    crossings: CoreCrossings<R>,
    driver: DriverSetup,
    socket: Option<Socket>,
    factory: F,
    reports: Sender<Result<Report, StartError>>,
    go: Receiver<Go>,
}

/// A core's thread that was started and has not reported.
struct Starting {
    control: Arc<CoreControl>,
    reports: Reports,
    go: Sender<Go>,
    thread: ExecutorJoinHandle<Result<(), StartError>>,
}

/// Starts one core per factory. Each factory makes its core's logic on that core's thread, and may block
/// until it is done. Returns when every core serves.
pub fn run<L, R, E, F>(setup: NodeSetup, factories: Vec<F>) -> Result<RunningNode, StartError>
where
    L: CoreLogic + 'static,
    R: Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: FnOnce(CoreContext<R>) -> Result<L, E> + Send + 'static,
{
    let processors = choose_processors(factories.len())?;
    let setup = share_descriptors(setup, factories.len() as u16)?;
    let (sockets, address) = bind(setup.listen, factories.len() as u16)?;
    // Before any core: the helper thread inherits the processors this thread may use, not those of a pinned
    // core.
    let (cold, cold_thread) = ColdQueue::start()
        .map_err(|source| StartError::System { action: "starting the helper thread", source })?;
    let seeds = seeds(&setup, &cold, factories, sockets)?;
    drop(cold);
    let mut starting = Vec::new();
    for (seed, processor) in seeds.into_iter().zip(processors) {
        starting.push(spawn(seed, processor)?);
    }
    let cores = await_serving(starting)?;
    Ok(RunningNode { address, cores, cold: cold_thread })
}

/// The first `count` processors this process may use.
fn choose_processors(count: usize) -> Result<Vec<usize>, StartError> {
    let allowed = rustix::thread::sched_getaffinity(None).map_err(|errno| StartError::System {
        action: "reading the processors this process may use",
        source: errno.into(),
    })?;
    let allowed: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    if count == 0 || count > allowed.len().min(MAX_CORES) {
        return Err(StartError::Processors { wanted: count, allowed: allowed.len() });
    }
    Ok(allowed[..count].to_vec())
}

/// Gives every core its share of descriptors.
fn share_descriptors(mut setup: NodeSetup, cores: u16) -> Result<NodeSetup, StartError> {
    let lanes = setup.volume.as_ref().map_or(Ok(0), |volume| volume.lanes());
    let lanes = lanes.map_err(|source| StartError::System { action: "listing the lanes", source })?;
    let plan = DescriptorPlan::now(cores, lanes, setup.ring.connections_max);
    setup.ring.connections_max = plan.connections;
    setup.ring.segment_files_max = plan.segment_files;
    tracing::info!(
        limit = plan.limit,
        reserved = plan.reserved,
        segment_files_per_core = plan.segment_files,
        connections_per_core = plan.connections,
        "descriptors"
    );
    Ok(setup)
}

type Bound = (Vec<Option<Socket>>, Option<SocketAddr>);

fn bind(listen: Option<SocketAddr>, count: u16) -> Result<Bound, StartError> {
    let Some(address) = listen else { return Ok(((0..count).map(|_| None).collect(), None)) };
    let (sockets, bound) =
        super::ring::bind(address, count).map_err(|source| StartError::Listen { address, source })?;
    Ok((sockets.into_iter().map(Some).collect(), Some(bound)))
}

type Ends<R, F> = (CoreSeed<R, F>, Arc<CoreControl>, Reports, Sender<Go>);

fn seeds<R: Send, F>(
    setup: &NodeSetup,
    cold: &ColdQueue,
    factories: Vec<F>,
    sockets: Vec<Option<Socket>>,
) -> Result<Vec<Ends<R, F>>, StartError> {
    let count = factories.len() as u16;
    let bells: Arc<[Doorbell]> = doorbells(count);
    let sizes = setup.crossings.unwrap_or_else(|| CrossingSizes::for_cores(count));
    let hand_overs = HandOvers::mesh(&bells);
    let parts = mesh_with(count, sizes, &bells).into_iter().zip(hand_overs).zip(factories).zip(sockets);
    parts.map(|part| seed(setup, cold, part)).collect()
}

type Part<R, F> = (((CoreCrossings<R>, HandOvers), F), Option<Socket>);

fn seed<R: Send, F>(setup: &NodeSetup, cold: &ColdQueue, part: Part<R, F>) -> Result<Ends<R, F>, StartError> {
    let (((crossings, hand_overs), factory), socket) = part;
    let control =
        CoreControl::new().map_err(|source| StartError::System { action: "making an eventfd", source })?;
    let control = Arc::new(control);
    let disk = setup.volume.clone().map(|volume| DiskSetup { volume, cold: cold.clone() });
    let driver = DriverSetup {
        config: setup.ring,
        clock: setup.clock,
        control: Arc::clone(&control),
        hand_overs,
        disk,
    };
    let ((reports, reports_out), (go_in, go)) = (channel(), channel());
    let core = crossings.core();
    let seed = CoreSeed { core, crossings, driver, socket, factory, reports, go };
    Ok((seed, control, reports_out, go_in))
}

fn spawn<L, R, E, F>(ends: Ends<R, F>, processor: usize) -> Result<Starting, StartError>
where
    L: CoreLogic + 'static,
    R: Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: FnOnce(CoreContext<R>) -> Result<L, E> + Send + 'static,
{
    let (seed, control, reports, go) = ends;
    let core = seed.core.0;
    let thread = LocalExecutorBuilder::new(Placement::Fixed(processor))
        .name(&format!("core-{core}"))
        .io_memory(GLOMMIO_IO_MEMORY_BYTES)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(move || async move {
            let executor = glommio::executor();
            let queue = executor.create_task_queue(
                Shares::Static(1_000),
                Latency::Matters(Duration::from_millis(1)),
                "driver",
            );
            let driver = async move {
                let _guard = AbortOnPanic;
                live(seed).await
            };
            match executor.spawn_local_into(driver, queue) {
                Ok(driver) => driver.await,
                Err(error) => Err(StartError::Executor { core, reason: error.to_string() }),
            }
        })
        .map_err(|error| StartError::Executor { core, reason: error.to_string() })?;
    Ok(Starting { control, reports, go, thread })
}

/// Waits until every core is ready, lets them all go, and waits until they serve. If one fails, all end.
fn await_serving(starting: Vec<Starting>) -> Result<Vec<RunningCore>, StartError> {
    let (mut cores, mut peers, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    let mut failure = None;
    for (core, Starting { control, reports, go, thread }) in starting.into_iter().enumerate() {
        match reports.recv() {
            Ok(Ok(Report::Ready(Ready { ring, stats }))) => {
                peers.push(PeerCore { ring, control: Arc::clone(&control) });
                waiting.push((go, reports));
                cores.push(RunningCore { control, stats, thread });
            }
            Ok(Ok(Report::Serving)) => unreachable!("a core serves only when it was let go"),
            Ok(Err(error)) => failure = failure.or(Some(error)),
            Err(_) => failure = failure.or(Some(ended_early(core as u16, thread))),
        }
    }
    if failure.is_none() {
        failure = let_go(waiting, peers.into());
    } else {
        // A core that is not let go ends by itself.
        drop(waiting);
    }
    let Some(failure) = failure else { return Ok(cores) };
    cores.iter().for_each(|core| core.control.shut_down());
    for core in cores {
        // It was stopped on account of another; what it says adds nothing.
        let _ = core.thread.join();
    }
    Err(failure)
}

/// Lets every core go and waits until it serves. Returns the first failure.
fn let_go(waiting: Vec<(Sender<Go>, Reports)>, peers: Arc<[PeerCore]>) -> Option<StartError> {
    for (go, _) in &waiting {
        // A core that is gone after its report has panicked, and the process with it.
        let _ = go.send(Go { peers: Arc::clone(&peers) });
    }
    waiting.into_iter().filter_map(|(_, reports)| reports.recv().ok()?.err()).next()
}

/// Why a core's thread ended before it reported.
fn ended_early(core: u16, thread: ExecutorJoinHandle<Result<(), StartError>>) -> StartError {
    let reason = match thread.join() {
        Ok(Ok(())) => "it ended early".into(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    StartError::Executor { core, reason }
}

/// The life of a core, on its thread.
async fn live<L, R, E, F>(seed: CoreSeed<R, F>) -> Result<(), StartError>
where
    L: CoreLogic,
    R: Send,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: FnOnce(CoreContext<R>) -> Result<L, E>,
{
    let CoreSeed { core, crossings, driver, socket, factory, reports, go } = seed;
    let (driver, logic, handle) = match prepare(core, crossings, driver, factory) {
        Ok(prepared) => prepared,
        Err(error) => {
            // The starter always listens; it returns this error.
            let _ = reports.send(Err(error));
            return Ok(());
        }
    };
    let mut driver: Driver<L> = driver;
    let _ = reports.send(Ok(Report::Ready(handle)));
    let Ok(Go { peers }) = go.recv() else { return Ok(()) };
    let started = driver.start(logic, peers, socket);
    let _ = reports
        .send(started.map(|()| Report::Serving).map_err(|source| StartError::Ring { core: core.0, source }));
    drop(reports);
    loop {
        let background = BACKGROUND_TASKS.get() > 0;
        if driver.turn(background.then_some(BACKGROUND_NAP_US)) == Turn::Done {
            return Ok(());
        }
        if background {
            glommio::executor().yield_task_queue_now().await;
        }
    }
}

type Prepared<L> = (Driver<L>, L, Ready);

fn prepare<L, R, E, F>(
    core: CoreId,
    crossings: CoreCrossings<R>,
    setup: DriverSetup,
    factory: F,
) -> Result<Prepared<L>, StartError>
where
    L: CoreLogic,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: FnOnce(CoreContext<R>) -> Result<L, E>,
{
    let failed = |source| StartError::Ring { core: core.0, source };
    let clock = setup.clock;
    let volume = setup.disk.as_ref().map(|disk| Arc::clone(&disk.volume));
    let mut driver = Driver::new(setup).map_err(failed)?;
    let disk_buffers = driver.register_disk_buffers().map_err(failed)?;
    let ring = driver.ring_handle().map_err(failed)?;
    let stats = driver.stats();
    let context = CoreContext { core, crossings, disk_buffers, volume, clock, stats: Arc::clone(&stats) };
    let logic = factory(context).map_err(|error| StartError::Logic { core: core.0, source: error.into() })?;
    Ok((driver, logic, Ready { ring, stats }))
}

thread_local! {
    /// Background tasks of this core that have not ended.
    static BACKGROUND_TASKS: Cell<usize> = const { Cell::new(0) };
    /// Where they run; made with the first.
    static BACKGROUND_QUEUE: Cell<Option<TaskQueueHandle>> = const { Cell::new(None) };
}

/// Counts a background task for as long as it lives.
struct BackgroundTask;

impl BackgroundTask {
    fn begin() -> Self {
        BACKGROUND_TASKS.set(BACKGROUND_TASKS.get() + 1);
        Self
    }
}

impl Drop for BackgroundTask {
    fn drop(&mut self) {
        BACKGROUND_TASKS.set(BACKGROUND_TASKS.get() - 1);
    }
}

/// Runs `task` on this core beside the data path, with whatever time that leaves. To be called on a core's
/// thread. It must yield often, and must not be relied upon to end before the core does.
pub fn spawn_background(task: impl Future<Output = ()> + 'static) {
    let counted = BackgroundTask::begin();
    let queue = BACKGROUND_QUEUE.get().unwrap_or_else(|| {
        glommio::executor().create_task_queue(Shares::Static(100), Latency::NotImportant, "background")
    });
    BACKGROUND_QUEUE.set(Some(queue));
    let task = async move {
        let _guard = AbortOnPanic;
        let _counted = counted;
        task.await;
    };
    match glommio::spawn_local_into(task, queue) {
        Ok(task) => drop(task.detach()),
        Err(error) => unreachable!("the queue lives as long as its core: {error}"),
    }
}
