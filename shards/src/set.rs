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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::{SEGMENT_BYTES, buffers};
    use crate::testing::SimDisk;
    use crate::{Kind, LaneConfig, Lsn, StoreConfig, StoreId};

    const NODE: [u8; 32] = [7; 32];

    /// The upper half of the lanes of a store of four.
    fn upper_half(disk: &SimDisk) -> LaneSet {
        let config = StoreConfig {
            store_id: StoreId([9; 16]),
            node_id: NODE,
            mixing_secret: [3; 32],
            lanes: 4,
            segment_bytes: SEGMENT_BYTES,
            segments_per_lane: 2,
            created_ms: 0,
        };
        let store = Store::format(disk, &config).unwrap();
        let lanes = [LaneId(2), LaneId(3)].map(|lane| {
            let reserve_bytes = 8 << 10;
            let config =
                LaneConfig { reserve_bytes, idle_us: u64::from(lane.0) * 1_000, ..store.lane_config(lane) };
            Lane::recover(disk, config, buffers(), &mut |_, _| {}).unwrap().0
        });
        LaneSet::new(store, LaneId(2), lanes.into())
    }

    /// Polls and completes until nothing is in flight; returns what was committed, with its lane.
    fn drain(set: &mut LaneSet, disk: &mut SimDisk, now_us: u64) -> Vec<(LaneId, Vec<u8>)> {
        let mut committed = Vec::new();
        loop {
            let mut out = Vec::new();
            set.poll(now_us, &mut out);
            out.into_iter().for_each(|op| disk.submit(op));
            // The newest first, so that the lanes end in another order than they began.
            let Some(newest) = disk.pending().len().checked_sub(1) else { return committed };
            let done = disk.complete(newest).unwrap();
            let lane = done.lane;
            set.complete(now_us, done, |record| committed.push((lane, record.payload.to_vec())));
        }
    }

    #[test]
    fn each_operation_ends_at_the_lane_that_asked_for_it() {
        let mut disk = SimDisk::new(1);
        let mut set = upper_half(&disk);
        assert!(set.iter().map(|(lane, _)| lane).eq([LaneId(2), LaneId(3)]));
        for (lane, payload) in [(LaneId(2), b"two"), (LaneId(3), b"tri")] {
            assert_eq!(set.lane_mut(lane).append(Kind::Message, 0, &[payload]), Ok(Lsn(1)));
        }
        let mut committed = drain(&mut set, &mut disk, 0);
        committed.sort();
        assert_eq!(committed, [(LaneId(2), b"two".to_vec()), (LaneId(3), b"tri".to_vec())]);
        assert_eq!(set.lane(LaneId(3)).durable_lsn(), Lsn(1));
        assert!(set.usage().map(|usage| usage.live_messages).eq([1, 1]));
    }

    #[test]
    fn the_set_is_due_when_its_first_lane_is_and_drained_when_its_last_is() {
        let mut disk = SimDisk::new(1);
        let mut set = upper_half(&disk);
        assert_eq!(set.next_deadline(), None);
        for lane in [LaneId(2), LaneId(3)] {
            set.lane_mut(lane).append(Kind::Message, 0, &[b"x"]).unwrap();
        }
        drain(&mut set, &mut disk, 0);
        assert_eq!(set.next_deadline(), Some(2_000));
        drain(&mut set, &mut disk, 2_000);
        assert_eq!(set.next_deadline(), Some(3_000), "the other lane's marker");
        set.begin_shutdown();
        assert!(!set.is_drained());
        drain(&mut set, &mut disk, 2_000);
        assert!(set.is_drained());
    }

    #[test]
    fn a_key_belongs_to_the_lane_that_the_store_says() {
        let disk = SimDisk::new(1);
        let set = upper_half(&disk);
        let store = Store::open(&disk, &NODE).unwrap();
        let lanes: Vec<_> = (0..64u8).map(|byte| set.lane_of(&[byte; 32])).collect();
        assert!(lanes.iter().eq((0..64u8).map(|byte| store.lane_of(&[byte; 32])).collect::<Vec<_>>().iter()));
        assert!((0..4).all(|lane| lanes.contains(&LaneId(lane))), "{lanes:?}");
    }
}
