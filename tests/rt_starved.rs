//! The driver when the machine runs out: of receive buffers, of completion room, of descriptors, of patience.

mod rt_common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rt_common::disk::{Disk, LANE, SEGMENT, SEGMENT_BYTES, directory};
use rt_common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shards::AlignedBuf;
use shards::io::{BLOCK_BYTES, DiskOp, OpId, SegmentId, Volume};
use trine::rt::clock::Clock;
use trine::rt::crossing::{CrossingSizes, Doorbell, mesh};
use trine::rt::descriptors::DescriptorPlan;
use trine::rt::executor::CoreContext;
use trine::rt::ring::{CoreControl, Driver, DriverSetup, HandOvers, RingConfig, Turn};
use trine::rt::volume::FsVolume;

/// One test of this binary at a time: they change limits of the process and count its descriptors.
#[allow(clippy::disallowed_types, reason = "tests of one binary share a process")]
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

macro_rules! alone {
    () => {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    };
}

/// A driver on this very thread, listening.
fn driver(config: RingConfig) -> (Driver<Echo>, SocketAddr, Arc<CoreControl>, Arc<Seen>) {
    let control = Arc::new(CoreControl::new().expect("an eventfd"));
    let bells: Arc<[Doorbell]> = Arc::new([Doorbell::default()]);
    let hand_overs = HandOvers::mesh(&bells).remove(0);
    let clock = Clock::start();
    let setup = DriverSetup { config, clock, control: Arc::clone(&control), hand_overs, disk: None };
    let mut driver = Driver::new(setup).expect("a ring");
    let crossings = mesh(1, CrossingSizes::for_cores(1)).remove(0);
    let core = crossings.core();
    let stats = driver.stats();
    let seen = Arc::new(Seen::default());
    let context = CoreContext { core, crossings, disk_buffers: Vec::new(), volume: None, clock, stats };
    let logic = Echo::new(context, Arc::clone(&seen));
    let (mut sockets, address) =
        trine::rt::ring::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).expect("a free port");
    driver.start(logic, Arc::new([]), Some(sockets.remove(0))).expect("it listens");
    (driver, address, control, seen)
}

fn turn_until(driver: &mut Driver<Echo>, mut done: impl FnMut() -> bool) {
    eventually("the driver gets there", || driver.turn(Some(1_000)) == Turn::Done || done());
}

#[test]
fn a_driver_dropped_with_a_receive_on_a_silent_socket_lets_go_of_it() {
    alone!();
    let before = open_descriptors();
    let (mut driver, address, _control, seen) = driver(RingConfig::default());
    turn_until(&mut driver, || true);
    let mut silent = TcpStream::connect(address).expect("it listens");
    turn_until(&mut driver, || seen.accepted.load(Ordering::Relaxed) == 1);
    assert!(driver.in_flight() >= 3, "accept, notification and receive are in the kernel");
    let stats = driver.stats();
    drop(driver);
    assert_eq!(stats.in_flight.get(), 0);
    assert_eq!(silent.read(&mut [0; 8]).expect("the node's end was closed"), 0);
    drop((silent, _control, seen));
    assert_eq!(open_descriptors(), before, "a descriptor is still held by the kernel");
}

#[test]
fn a_driver_dropped_with_a_send_that_nobody_reads_lets_go_of_it() {
    alone!();
    let before = open_descriptors();
    let (mut driver, address, control, seen) = driver(RingConfig::default());
    turn_until(&mut driver, || true);
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_nonblocking(true).expect("an option of every socket");
    // More than the socket buffers of both sides hold, never read, so that the node's send waits in the
    // kernel.
    let block = pattern(1, 1 << 20);
    let mut written = 0;
    turn_until(&mut driver, || {
        written += (&stream).write(&block).unwrap_or(0);
        written >= 32 << 20
    });
    assert!(driver.in_flight() >= 4, "a send waits in the kernel");
    drop(driver);
    drop((stream, control, seen));
    assert_eq!(open_descriptors(), before, "a descriptor is still held by the kernel");
}

#[test]
fn a_storm_on_two_receive_buffers_and_a_tiny_completion_queue_loses_nothing() {
    alone!();
    let ring =
        RingConfig { submission_entries: 4, completion_entries: 8, recv_buffers: 2, ..RingConfig::default() };
    let Some((node, seen)) = start_echo(1, ring) else { return };
    let stats = Arc::clone(&node.stats()[0]);
    std::thread::scope(|scope| {
        for worker in 0..32 {
            let node = &node;
            scope.spawn(move || round_trip(&connect(node), &pattern(worker, 400_000), 30_000));
        }
    });
    assert!(stats.recv_starved.get() > 0, "the buffers never ran out, so the test shows nothing");
    eventually("all are closed", || seen.closed.load(Ordering::Relaxed) == 32);
    stop(node);
}

#[test]
fn without_descriptors_the_node_serves_on_waits_without_spinning_and_accepts_again() {
    alone!();
    // An accept remembers the limit of the moment when it was armed, so it falls before the node starts.
    let limits = getrlimit(Resource::Nofile);
    let lowered = Rlimit { current: Some(100), maximum: limits.maximum };
    setrlimit(Resource::Nofile, lowered).expect("lowering is always allowed");
    let Some((node, seen)) = start_echo(1, RingConfig::default()) else { return };
    let stats = Arc::clone(&node.stats()[0]);
    let first = connect(&node);
    round_trip(&first, b"before", 6);
    // The client's own descriptors count too, so they are made before there are none.
    let waiting: Vec<socket2::Socket> = (0..4)
        .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket"))
        .collect();
    let fillers: Vec<_> = std::iter::from_fn(|| rustix::io::dup(&waiting[0]).ok()).collect();
    let address = node.address().expect("it listens").into();
    for socket in &waiting {
        socket.connect(&address).expect("the backlog takes it");
    }
    eventually("the kernel refuses", || seen.accept_failed.load(Ordering::Relaxed) >= 2);
    let (refusals, turns) = (stats.accepts_failed.get(), stats.turns.get());
    round_trip(&first, b"during", 6);
    eventually("it keeps trying", || stats.accepts_failed.get() >= refusals + 3);
    let spent = stats.turns.get() - turns;
    assert!(spent < 200, "{spent} turns for a few retries");
    drop(fillers);
    for socket in waiting {
        round_trip(&TcpStream::from(std::os::fd::OwnedFd::from(socket)), b"after", 5);
    }
    eventually("all are accepted", || seen.accepted.load(Ordering::Relaxed) == 5);
    drop(first);
    stop(node);
    setrlimit(Resource::Nofile, limits).expect("back to where it was");
}

#[test]
fn a_full_connection_table_sheds_new_connections_and_takes_them_again_later() {
    alone!();
    let ring = RingConfig { connections_max: 2, ..RingConfig::default() };
    let Some((node, seen)) = start_echo(1, ring) else { return };
    let (one, two) = (connect(&node), connect(&node));
    round_trip(&one, b"one", 3);
    round_trip(&two, b"two", 3);
    assert_eq!(connect(&node).read(&mut [0; 8]).unwrap_or(0), 0, "the third is closed");
    drop(one);
    eventually("one is gone", || seen.closed.load(Ordering::Relaxed) == 1);
    round_trip(&connect(&node), b"three", 5);
    stop(node);
}

/// While it lives, this process may open no descriptor numbered `limit` or above.
struct Lowered(Rlimit);

impl Lowered {
    fn to(limit: u64) -> Self {
        let before = getrlimit(Resource::Nofile);
        let lowered = Rlimit { current: Some(limit), maximum: before.maximum };
        setrlimit(Resource::Nofile, lowered).expect("lowering is always allowed");
        Self(before)
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).expect("back to where it was");
    }
}

#[test]
fn connections_beyond_what_the_limit_of_descriptors_leaves_are_closed_at_once() {
    alone!();
    let lowered = Lowered::to(230);
    let plan = DescriptorPlan::now(1, 0, RingConfig::default().connections_max);
    let Some((node, seen)) = start_echo(1, RingConfig::default()) else { return };
    let stats = Arc::clone(&node.stats()[0]);
    let taken: Vec<_> = (0..plan.connections).map(|_| connect(&node)).collect();
    taken.iter().for_each(|stream| round_trip(stream, b"in", 2));
    assert_eq!(connect(&node).read(&mut [0; 8]).unwrap_or(0), 0, "one too many is closed");
    eventually("it is counted", || stats.accepts_shed.get() == 1);
    eventually("the logic hears of it", || seen.accept_failed.load(Ordering::Relaxed) == 1);
    assert_eq!(stats.accepts_failed.get(), 0, "the kernel never had to refuse");
    drop(taken);
    eventually("all are closed", || seen.closed.load(Ordering::Relaxed) == plan.connections as u64);
    drop(lowered);
    stop(node);
}

/// A store of one lane with two blank segments.
fn store() -> tempfile::TempDir {
    let dir = directory();
    let volume = FsVolume::open(dir.path()).expect("a directory of our own");
    volume.create_lane(LANE).expect("a lane");
    for segment in [SEGMENT, SegmentId(2)] {
        volume.create_segment(LANE, segment, SEGMENT_BYTES).expect("there is room");
    }
    dir
}

#[test]
fn a_lane_that_was_used_once_needs_no_descriptor_for_its_other_segments() {
    alone!();
    let dir = store();
    let disk = Disk::start(dir.path(), 0);
    assert_eq!(disk.read(0, BLOCK_BYTES).result, Ok(BLOCK_BYTES));
    let _none = Lowered::to(0);
    let (buf, len) = (AlignedBuf::zeroed(BLOCK_BYTES), BLOCK_BYTES);
    let other = DiskOp::Read { lane: LANE, segment: SegmentId(2), offset: 0, buf, len, op: OpId(4) };
    assert_eq!(disk.ask(other).result, Ok(BLOCK_BYTES));
    assert_eq!(disk.stats().disk_put_off.get(), 0);
}

#[test]
fn disk_operations_that_find_no_descriptor_wait_for_one_and_then_succeed() {
    alone!();
    let dir = store();
    let disk = Disk::start(dir.path(), 0);
    let none = Lowered::to(0);
    let (buf, len) = (AlignedBuf::zeroed(BLOCK_BYTES), BLOCK_BYTES);
    disk.submit(DiskOp::Write { lane: LANE, segment: SEGMENT, offset: 0, buf, len, op: OpId(1) });
    disk.submit(DiskOp::Prepare { lane: LANE, segment: SegmentId(3), size: SEGMENT_BYTES, op: OpId(2) });
    let stats = disk.stats();
    eventually("both were put off", || stats.disk_put_off.get() >= 4);
    assert!(stats.turns.get() < 200, "{} turns for a few retries", stats.turns.get());
    drop(none);
    let mut done = [disk.await_done(), disk.await_done()].map(|done| (done.op.0, done.result));
    done.sort_unstable_by_key(|(op, _)| *op);
    assert_eq!(done, [(1, Ok(BLOCK_BYTES)), (2, Ok(0))]);
}
