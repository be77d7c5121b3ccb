//! The lanes of one core, side by side.

use crate::io::{DiskDone, DiskOp, LaneId};
use crate::lane::{Committed, Completion, Lane, Usage};
use crate::store::Store;

/// A contiguous run of lanes, all owned by one core.
#[derive(Debug)]
pub struct LaneSet {
    store: Store,
    first: LaneId,
    lanes: Vec<Lane>,
}

impl LaneSet {
    /// `lanes` in rising order without gaps, the first being `first`.
    pub fn new(store: Store, first: LaneId, lanes: Vec<Lane>) -> Self {
        Self { store, first, lanes }
    }

    /// The lane of a key, on whatever core.
    pub fn lane_of(&self, key: &[u8; 32]) -> LaneId {
        self.store.lane_of(key)
    }

    /// A lane of this core.
    ///
    /// # Panics
    /// If the lane is another core's.
    pub fn lane(&self, lane: LaneId) -> &Lane {
        &self.lanes[usize::from(lane.0 - self.first.0)]
    }

    /// A lane of this core.
    ///
    /// # Panics
    /// If the lane is another core's.
    pub fn lane_mut(&mut self, lane: LaneId) -> &mut Lane {
        &mut self.lanes[usize::from(lane.0 - self.first.0)]
    }

    /// The lanes with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        (self.first.0..).map(LaneId).zip(&self.lanes)
    }

    /// [`Lane::poll`] of every lane; once per turn.
    pub fn poll(&mut self, now_us: u64, out: &mut Vec<DiskOp>) {
        for lane in &mut self.lanes {
            lane.poll(now_us, out);
        }
    }

    /// [`Lane::complete`] of the lane whose operation ended.
    pub fn complete(
        &mut self,
        now_us: u64,
        done: DiskDone,
        committed: impl FnMut(Committed<'_>),
    ) -> Completion {
        self.lane_mut(done.lane).complete(now_us, done, committed)
    }

    /// When some lane must be polled next, in monotonic microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.lanes.iter().filter_map(Lane::next_deadline).min()
    }

    /// [`Lane::begin_shutdown`] of every lane.
    pub fn begin_shutdown(&mut self) {
        self.lanes.iter_mut().for_each(Lane::begin_shutdown);
    }

    /// True if every lane is drained.
    pub fn is_drained(&self) -> bool {
        self.lanes.iter().all(Lane::is_drained)
    }

    /// How full each lane is.
    pub fn usage(&self) -> impl Iterator<Item = Usage> {
        self.lanes.iter().map(Lane::usage)
    }
}
