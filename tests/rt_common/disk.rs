//! Disk operations from a test's thread to a driver and back.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use shards::AlignedBuf;
use shards::io::{DiskDone, DiskOp, LaneId, OpId, SegmentId, Volume};
use trine::rt::api::{CoreLogic, Effects, Event, Next, Now};
use trine::rt::executor::{CoreContext, RunningNode, run};
use trine::rt::ring::{RingConfig, RingStats};
use trine::rt::volume::FsVolume;

use super::{setup, stop};

pub const LANE: LaneId = LaneId(0);
pub const SEGMENT: SegmentId = SegmentId(1);
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// Passes operations from the test to the driver and their ends back.
struct Relay {
    ops: Receiver<DiskOp>,
    done: Sender<DiskDone>,
    draining: bool,
}

impl CoreLogic for Relay {
    fn on_event(&mut self, _now: Now, event: Event<'_>, _effects: &mut Effects) {
        let Event::Disk(done) = event else { panic!("only the disk is used: {event:?}") };
        self.done.send(done).expect("the test listens");
    }

    fn turn(&mut self, _now: Now, effects: &mut Effects) -> Next {
        effects.disk.extend(self.ops.try_iter());
        if self.draining { Next::Done } else { Next::Event }
    }

    fn begin_shutdown(&mut self, _now: Now, _effects: &mut Effects) {
        self.draining = true;
    }
}

pub struct Disk {
    pub node: Option<RunningNode>,
    ops: Sender<DiskOp>,
    done: Receiver<DiskDone>,
    pub buffers: Vec<AlignedBuf>,
}

impl Disk {
    pub fn start(dir: &Path, registered: u16) -> Self {
        let volume = Arc::new(FsVolume::open(dir).expect("a directory of our own"));
        volume.create_lane(LANE).expect("a lane");
        let (ops, ops_out) = channel();
        let (done_in, done) = channel();
        let (buffers_in, buffers) = channel();
        let factory = move |context: CoreContext<()>| {
            buffers_in.send(context.disk_buffers).expect("the test listens");
            Ok::<_, Infallible>(Relay { ops: ops_out, done: done_in, draining: false })
        };
        let ring =
            RingConfig { disk_buffers: registered, disk_buffer_bytes: 64 << 10, ..RingConfig::default() };
        let mut setup = setup(ring);
        (setup.listen, setup.volume) = (None, Some(volume));
        let node = run(setup, vec![factory]).expect("it starts");
        Self { node: Some(node), ops, done, buffers: buffers.recv().expect("sent by the factory") }
    }

    pub fn ask(&self, op: DiskOp) -> DiskDone {
        self.submit(op);
        self.await_done()
    }

    pub fn submit(&self, op: DiskOp) {
        self.ops.send(op).expect("the core runs");
        self.node.as_ref().expect("running").controls()[0].notify();
    }

    /// The counters of the driver.
    pub fn stats(&self) -> Arc<RingStats> {
        Arc::clone(&self.node.as_ref().expect("running").stats()[0])
    }

    pub fn await_done(&self) -> DiskDone {
        self.done.recv_timeout(Duration::from_secs(20)).expect("every operation ends")
    }

    pub fn prepare(&self, segment: SegmentId, size: u64) -> DiskDone {
        self.ask(DiskOp::Prepare { lane: LANE, segment, size, op: OpId(1) })
    }

    pub fn write(&self, offset: u64, fill: u8, mut buf: AlignedBuf, len: usize) -> DiskDone {
        buf.fill(fill);
        self.ask(DiskOp::Write { lane: LANE, segment: SEGMENT, offset, buf, len, op: OpId(2) })
    }

    pub fn read(&self, offset: u64, len: usize) -> DiskDone {
        let buf = AlignedBuf::zeroed(64 << 10);
        self.ask(DiskOp::Read { lane: LANE, segment: SEGMENT, offset, buf, len, op: OpId(3) })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(node) = self.node.take().filter(|_| !std::thread::panicking()) {
            stop(node);
        }
    }
}

/// A directory beside the sources: temporary directories may be on a file system without direct I/O.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory")
}
