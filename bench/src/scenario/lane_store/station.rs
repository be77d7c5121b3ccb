//! A store on disk, and the core that serves it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use shards::format::BATCH_BYTES_MAX;
use shards::io::{LaneId, SegmentId, Volume};
use shards::keyed::{Class, KeyedConfig, KeyedStore, RestoreError, SCRUB_WITHIN_S};
use shards::{LaneConfig, StoreId};
use tempfile::TempDir;
use trine::rt::clock::Clock;
use trine::rt::executor::{CoreContext, NodeSetup, RunningNode, run};
use trine::rt::ring::RingConfig;
use trine::rt::volume::FsVolume;

use super::core::{Answer, StoreCore};
use super::work::{Outcome, Step, Work};
use crate::error::{BenchError, Context, Result};
use crate::host::{self, ProcessorTimes};
use crate::server::Bench;

const PARTITION: LaneId = LaneId(0);
/// Segments of each class that the records are not of: none of them is used.
const OTHER_SEGMENTS: u32 = 2;
const LOOKUPS_MAX: usize = 256;
const ENTRIES_MAX: u64 = 32 << 20;

/// Size of a store.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of a segment, in bytes.
    pub segment_bytes: u32,
    /// Segments of all classes.
    pub segments: u32,
    /// Size of a batch buffer, in bytes.
    pub batch_bytes: usize,
    /// Batch buffers of each class. They must all fit into a segment.
    pub batch_buffers: usize,
}

impl Sizes {
    /// So many segments of the size that nodes have, and as many buffers as there may be.
    pub fn whole(segments: u32) -> Self {
        Self { segment_bytes: 256 << 20, segments, batch_bytes: BATCH_BYTES_MAX, batch_buffers: 16 }
    }

    /// What the partition takes before it calls itself full: its own measure.
    pub fn usable_bytes(&self) -> u64 {
        const HEADER_AND_MARKER_BYTES: u64 = 8 << 10;
        let kept = 2 * Class::ALL.len() as u32;
        u64::from(self.segments - kept) * (u64::from(self.segment_bytes) - HEADER_AND_MARKER_BYTES)
    }
}

/// A store in a directory that is removed with it. All its segments are there from the beginning, so that
/// none is made while something is measured.
pub struct Depot {
    volume: Arc<FsVolume>,
    dir: TempDir,
    sizes: Sizes,
}

/// A checkpoint is written after so many bytes of log at least.
const CHECKPOINT_BYTES_MIN: u64 = 64 << 20;
/// Segments for checkpoints: the one that counts and the next.
const CHECKPOINT_SEGMENTS: u32 = 6;

impl Depot {
    /// Makes an empty one.
    pub fn new(bench: &Bench, sizes: Sizes) -> Result<Self> {
        let dir = bench.fresh_dir("lane-store")?;
        let volume = FsVolume::open(dir.path()).map_err(|error| failed(error.to_string()))?;
        let made = "making the segments of a store";
        KeyedStore::format(&volume, PARTITION, sizes.segment_bytes).context(made)?;
        for class in Class::ALL {
            let segments =
                if class == Class::Years { sizes.segments - 2 * OTHER_SEGMENTS } else { OTHER_SEGMENTS };
            for segment in (1..segments).map(SegmentId) {
                let bytes = u64::from(sizes.segment_bytes);
                volume.create_segment(class.lane(PARTITION), segment, bytes).context(made)?;
            }
        }
        Ok(Self { volume: Arc::new(volume), dir, sizes })
    }

    /// The segment files that records are in.
    pub fn files(&self) -> Result<Vec<std::path::PathBuf>> {
        let lane = Class::Years.lane(PARTITION);
        let segments = self.volume.segments(lane).context("listing the segments of a store")?;
        let path = |segment: SegmentId| format!("lane-{:03}/{:08x}.seg", lane.0, segment.0);
        Ok(segments.iter().map(|found| self.dir.path().join(path(found.segment))).collect())
    }

    fn config(&self, clock: &Clock) -> KeyedConfig {
        KeyedConfig {
            partition: PARTITION,
            lane: LaneConfig::new(StoreId([7; 16]), PARTITION, self.sizes.segment_bytes),
            segments_max: self.sizes.segments + CHECKPOINT_SEGMENTS,
            entries_max: ENTRIES_MAX,
            lookups_max: LOOKUPS_MAX,
            batch_bytes: self.sizes.batch_bytes,
            batch_buffers: self.sizes.batch_buffers,
            checkpoint_bytes_min: CHECKPOINT_BYTES_MIN,
            scrub_within_s: SCRUB_WITHIN_S,
            mixing_secret: [1; 32],
            now_s: clock.now().wall_ms / 1_000,
        }
    }

    /// Starts a core on it, in which the first `keys` numbers live.
    pub fn open(&self, bench: &Bench, keys: u64) -> Result<Station> {
        let (steps, steps_in) = channel();
        let (answers_out, answers) = channel();
        let (restored_out, restored) = channel();
        let clock = Clock::start();
        let (config, processor) = (self.config(&clock), bench.processors.server);
        let setup = NodeSetup {
            listen: None,
            ring: RingConfig { connections_max: 1, recv_buffers: 16, ..RingConfig::default() },
            crossings: None,
            volume: Some(Arc::clone(&self.volume)),
            clock,
        };
        let volume = Arc::clone(&self.volume);
        let factory = move |context: CoreContext<()>| -> std::result::Result<StoreCore, RestoreError> {
            let (started, times) = (Instant::now(), ProcessorTimes::of(processor).unwrap_or_default());
            let before_us = host::thread_cpu_us().unwrap_or_default();
            let store = KeyedStore::restore(&*volume, config)?.store;
            let own_us = host::thread_cpu_us().unwrap_or_default() - before_us;
            let foreign_share = times.foreign_until_now(processor, own_us).unwrap_or_default();
            // The starter waits for it.
            let _ = restored_out.send(Restored {
                time: started.elapsed(),
                own: Duration::from_micros(own_us),
                foreign_share,
            });
            Ok(StoreCore::new(store, keys, context.clock, processor, steps_in, answers_out))
        };
        let node = bench
            .processors
            .on(&[processor], || run(setup, vec![factory]).map_err(|error| failed(error.to_string())))?;
        let restored = restored.recv().map_err(|_| failed("the core said nothing of its start"))?;
        Ok(Station { node, steps, answers, restored })
    }
}

/// A core that waits for steps.
pub struct Station {
    node: RunningNode,
    steps: Sender<Step>,
    answers: Receiver<Answer>,
    /// What reading the store back took.
    pub restored: Restored,
}

/// Reading a store back.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// From the first look at the disk to a store that serves.
    pub time: Duration,
    /// Processor time of it.
    pub own: Duration,
    /// Share of the processor that other programs took meanwhile.
    pub foreign_share: f64,
}

impl Station {
    /// Runs a piece of work.
    pub fn work(&self, work: Work) -> Result<Outcome> {
        self.step(Step::Work(work))
    }

    /// Lets everything expire.
    pub fn forget(&self) -> Result<()> {
        self.step(Step::Forget).map(drop)
    }

    fn step(&self, step: Step) -> Result<Outcome> {
        let gone = || failed("the core has ended");
        self.steps.send(step).map_err(|_| gone())?;
        self.answers.recv().map_err(|_| gone())?.map_err(failed)
    }

    /// Stops the core; what it took is durable.
    pub fn stop(self) -> Result<()> {
        drop(self.steps);
        self.node.join().map_err(|error| failed(error.to_string()))
    }
}

fn failed(what: impl Into<String>) -> BenchError {
    BenchError::Peer { peer: "the lane store", what: what.into() }
}
