//! Taking up the lanes of one core at start.

use shards::io::{LaneId, Volume};
use shards::{AlignedBuf, Lane, LaneSet, Ledger, RecoverError, RecoveredRecord, RecoveryReport};

use super::shared::Shared;
use crate::relay::{Recovering, Relay};
use crate::rt::api::{CoreId, Now};
use crate::stats::CoreCounters;

/// The lanes and mailboxes that a core starts with.
pub struct Recovery {
    /// The lanes of this core, ready to append.
    pub lanes: LaneSet,
    /// The mailboxes found in them.
    pub relay: Recovering,
    /// Lanes in which acknowledged data was lost.
    pub damaged: Vec<LaneId>,
}

/// What a core takes up, and how.
pub struct RecoveryPlan<'a> {
    /// What every core knows.
    pub shared: &'a Shared,
    /// The core.
    pub core: CoreId,
    /// Cores of the node.
    pub cores: u16,
    /// Segments each lane may own.
    pub segments_per_lane: u32,
    /// Batch buffers each lane gets.
    pub buffers_per_lane: usize,
    /// Seed of this core's tables.
    pub hash_seed: u64,
    /// The time of the start.
    pub now: Now,
}

impl RecoveryPlan<'_> {
    /// Reads the lanes of the core from the store. `buffers` are shared out among them.
    pub fn recover(
        &self,
        volume: &dyn Volume,
        stats: &CoreCounters,
        mut buffers: Vec<AlignedBuf>,
    ) -> Result<Recovery, RecoverError> {
        let store = &self.shared.store;
        let range = store.lanes_of_core(self.core.0, self.cores);
        let first = LaneId(range.start);
        let created_ms = store.created_ms();
        let relay =
            Relay::new(self.shared.relay, first, range.len(), created_ms, self.hash_seed, stats.clone());
        let mut relay = Recovering::new(relay, self.now.wall_ms);
        let (mut lanes, mut damaged) = (Vec::new(), Vec::new());
        for lane in range.map(LaneId) {
            let own = buffers.split_off(buffers.len() - self.buffers_per_lane);
            let (recovered, report) = self.recover_lane(volume, lane, own, &mut relay)?;
            count(stats, &report);
            if report.has_loss() {
                damaged.push(lane);
            }
            lanes.push(recovered);
        }
        if relay.foreign() > 0 {
            tracing::error!(
                records = relay.foreign(),
                "records that no version can have written were skipped"
            );
        }
        Ok(Recovery { lanes: LaneSet::new(store.clone(), first, lanes), relay, damaged })
    }

    fn recover_lane(
        &self,
        volume: &dyn Volume,
        lane: LaneId,
        buffers: Vec<AlignedBuf>,
        relay: &mut Recovering,
    ) -> Result<(Lane, RecoveryReport), RecoverError> {
        let mut config = self.shared.store.lane_config(lane);
        config.segments_max = self.segments_per_lane;
        config.owner_reclaims = true;
        config.opened_ms = self.now.wall_ms;
        let mut visitor =
            |record: RecoveredRecord<'_>, ledger: &mut Ledger| relay.record(lane, &record, ledger);
        Lane::recover(volume, config, buffers, &mut visitor)
    }
}

fn count(stats: &CoreCounters, report: &RecoveryReport) {
    stats.log.recovered_records.add(report.records);
    stats.log.recovered_torn_bytes.add(report.torn_bytes);
    stats.log.recovered_lost_ranges.add(report.lost.len() as u64);
    for lost in &report.lost {
        tracing::error!(
            lane = lost.lane.0,
            first = lost.first.0,
            last = lost.last.0,
            reason = ?lost.reason,
            "acknowledged records are lost; the mailboxes of this lane get a new epoch"
        );
    }
}
