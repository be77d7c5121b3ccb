//! How full a partition is, as numbers and as a state that others can act on.

use crate::io::{BLOCK_BYTES, Errno};
use crate::keyed::{Class, Family, KeyedStore};
use crate::lane::Lane;

/// What a partition still takes. Each state is left five percent below where it is entered, so that a
/// partition near a threshold does not change its mind all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapacityState {
    /// Below 70 %: takes everything.
    #[default]
    Green,
    /// From 70 %: takes everything; others should be preferred.
    Yellow,
    /// From 85 %: takes everything; new stripes should go elsewhere.
    Orange,
    /// From 92 %: refuses shards; takes smaller records, leases and deletions.
    Red,
    /// From 97 %: takes only what frees space: deletions, and the longer leases of what is there.
    Reserve,
}

impl CapacityState {
    const ALL: [Self; 5] = [Self::Green, Self::Yellow, Self::Orange, Self::Red, Self::Reserve];
    /// How much lower a state is left than entered, in thousandths.
    const HYSTERESIS_PERMILLE: u64 = 50;

    /// Thousandths from which it is entered.
    fn enter_permille(self) -> u64 {
        match self {
            Self::Green => 0,
            Self::Yellow => 700,
            Self::Orange => 850,
            Self::Red => 920,
            Self::Reserve => 970,
        }
    }

    /// The state after it, at so many thousandths.
    pub(super) fn next(self, permille: u64) -> Self {
        let holds = |state: Self| {
            let kept = if state <= self { Self::HYSTERESIS_PERMILLE } else { 0 };
            permille >= state.enter_permille().saturating_sub(kept)
        };
        Self::ALL.into_iter().rfind(|state| holds(*state)).unwrap_or_default()
    }

    /// True if a new record of this family is taken.
    pub fn takes(self, family: Family) -> bool {
        match family {
            Family::Shard => self < Self::Red,
            Family::DhtRecord | Family::KeyBundle => self < Self::Reserve,
        }
    }
}

/// Lanes of a partition: those of the classes and that of checkpoints.
pub(super) const LANES: u32 = Class::ALL.len() as u32 + 1;
/// How much of a segment may live at most for emptying it to be worth it; more than that of all cannot live.
pub(super) const LIVE_PERMILLE_MAX: u64 = 850;
/// Segments that must be left for a record to be taken, and for a deletion. Below that there is room for
/// copies alone, so that emptying a segment can always be brought to its end.
pub(super) const LEFT_FOR_RECORDS: u32 = 3;
pub(super) const LEFT_FOR_DELETIONS: u32 = 2;
/// Segments that are left to deletions and leases when records are refused.
pub(super) const FOR_DELETIONS: u32 = 2;

/// Bytes of a partition, by what they are used for. `live + dead + free + kept + retired = total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// What it takes.
    pub state: CapacityState,
    /// Live records, with their headers, and the checkpoint that counts.
    pub live_bytes: u64,
    /// Dead records, and what headers and padding take, in segments in use.
    pub dead_bytes: u64,
    /// Not written yet.
    pub free_bytes: u64,
    /// Kept back so that a full partition can free itself: one segment for each lane.
    pub kept_bytes: u64,
    /// Out of use after a failure.
    pub retired_bytes: u64,
    /// All that the partition may use.
    pub total_bytes: u64,
    /// Why no segment could be made, if the last attempt failed: the disk has less than was promised.
    pub prepare_error: Option<Errno>,
}

impl KeyedStore {
    /// How full it is. Looks at every segment; not meant for every record.
    pub fn capacity(&self) -> Capacity {
        let segment_bytes = u64::from(self.config.lane.segment_bytes);
        let total_bytes = u64::from(self.config.segments_max) * segment_bytes;
        let mut out = Capacity { state: self.state, total_bytes, ..Capacity::default() };
        let mut in_use = 0;
        for lane in self.lanes.iter().chain([&self.checkpointer.lane]) {
            let usage = lane.usage();
            out.live_bytes += usage.live_bytes;
            out.retired_bytes += u64::from(usage.retired) * segment_bytes;
            out.prepare_error = out.prepare_error.or(usage.prepare_error);
            let room = if lane.is_writing() { u64::from(usage.active_room_bytes) } else { 0 };
            in_use += u64::from(lane.used_segments() - usage.retired) * segment_bytes - room;
        }
        out.dead_bytes = in_use.saturating_sub(out.live_bytes);
        let unused = total_bytes.saturating_sub(out.live_bytes + out.dead_bytes + out.retired_bytes);
        out.kept_bytes = unused.min(u64::from(LANES) * segment_bytes);
        out.free_bytes = unused - out.kept_bytes;
        out
    }

    /// The state, from what lives and from what is left. To be asked once per turn.
    pub(super) fn update_state(&mut self) {
        let lanes = LANES;
        let (segments_max, segment_bytes) =
            (self.config.segments_max, u64::from(self.config.lane.segment_bytes));
        // Each lane has a segment that it keeps back and one that is only begun, and each segment a header
        // and a block for a marker.
        let usable_segments = u64::from(segments_max.saturating_sub(2 * lanes).max(1));
        let each = (segment_bytes - 2 * BLOCK_BYTES as u64) * LIVE_PERMILLE_MAX / 1_000;
        let usable_bytes = usable_segments * each;
        let live: u64 = self.lanes.iter().map(Lane::live_bytes).sum();
        let permille = live * 1_000 / usable_bytes;
        let used = self.used_segments();
        let is_used_up = used + lanes + FOR_DELETIONS >= segments_max && self.compactor.has_nothing_to_do();
        self.state = self.state.next(if is_used_up { permille.max(970) } else { permille });
    }

    /// Segments that hold records, or may.
    pub(super) fn used_segments(&self) -> u32 {
        self.lanes.iter().chain([&self.checkpointer.lane]).map(Lane::used_segments).sum()
    }

    /// Segments that could still be opened for records.
    pub(super) fn segments_left(&self) -> u32 {
        self.lanes.iter().map(Lane::spares).sum::<u32>() + self.free_segments()
    }

    /// True if there will be more space soon, without anything being deleted.
    pub(super) fn may_win_space(&self) -> bool {
        self.lanes.iter().any(Lane::awaits_spare) || self.is_compacting()
    }

    /// Bytes that copies may take.
    pub(super) fn room_for_copies(&self) -> u64 {
        let each = u64::from(self.config.lane.segment_bytes) - 2 * BLOCK_BYTES as u64;
        u64::from(self.segments_left()) * each + self.lanes.iter().map(Lane::room_bytes).sum::<u64>()
    }

    /// True if some lane has nothing to go on with but what is kept back.
    pub(super) fn is_short(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_short_of(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_left_five_percent_below_where_it_is_entered() {
        use CapacityState::{Green, Orange, Red, Reserve, Yellow};
        let mut state = Green;
        let mut seen = vec![];
        for permille in (0..=1_000).chain((0..1_000).rev()) {
            let next = state.next(permille);
            if next != state {
                seen.push((permille, next));
                state = next;
            }
        }
        let up = [(700, Yellow), (850, Orange), (920, Red), (970, Reserve)];
        let down = [(919, Red), (869, Orange), (799, Yellow), (649, Green)];
        assert_eq!(seen, [up, down].concat());
    }

    #[test]
    fn a_jump_goes_to_where_it_leads() {
        assert_eq!(CapacityState::Green.next(1_000), CapacityState::Reserve);
        assert_eq!(CapacityState::Reserve.next(0), CapacityState::Green);
        assert!(CapacityState::Orange.takes(Family::Shard) && !CapacityState::Red.takes(Family::Shard));
        assert!(
            CapacityState::Red.takes(Family::DhtRecord) && !CapacityState::Reserve.takes(Family::DhtRecord)
        );
    }
}
