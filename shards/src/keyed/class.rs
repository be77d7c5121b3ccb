//! Records that die at about the same time lie together, so that their segments die whole.

use crate::io::LaneId;

/// How long a record still has to live when it is written. Only where it is put depends on it: any lane can
/// hold any record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Up to a day.
    Hours = 0,
    /// Up to a hundred days.
    Days = 1,
    /// Longer.
    Years = 2,
}

impl Class {
    /// Every class, by its number.
    pub const ALL: [Self; 3] = [Self::Hours, Self::Days, Self::Years];

    /// Of a record that lives so many hours more.
    pub fn of(hours_left: u64) -> Self {
        match hours_left {
            0..=24 => Self::Hours,
            25..=2_400 => Self::Days,
            _ => Self::Years,
        }
    }

    /// Where to put a record if its own class has no space: with what lives longer, and only then with what
    /// lives shorter.
    pub(super) fn in_order_of_choice(self) -> [Self; 3] {
        match self {
            Self::Hours => [Self::Hours, Self::Days, Self::Years],
            Self::Days => [Self::Days, Self::Years, Self::Hours],
            Self::Years => [Self::Years, Self::Days, Self::Hours],
        }
    }

    /// The lane of this class of the partition with this number. Lanes below 256 are those of the store's
    /// map.
    pub fn lane(self, partition: LaneId) -> LaneId {
        LaneId(256 * (self as u16 + 1) + partition.0)
    }

    /// The class of a lane; `None` for one of the store's map.
    pub(super) fn of_lane(lane: LaneId) -> Option<Self> {
        Self::ALL.get(usize::from(lane.0 / 256).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_belongs_to_one_class_of_one_partition() {
        for class in Class::ALL {
            for partition in [0, 1, 255].map(LaneId) {
                assert_eq!(Class::of_lane(class.lane(partition)), Some(class));
                assert_eq!(class.lane(partition).0 % 256, partition.0);
            }
            assert_eq!(class.in_order_of_choice()[0], class);
        }
        assert_eq!(Class::of_lane(LaneId(255)), None);
        assert_eq!(Class::of_lane(LaneId(4 * 256)), None);
    }

    #[test]
    fn what_lives_a_day_is_apart_from_what_lives_longer() {
        assert_eq!([0, 24, 25, 2_400, 2_401].map(Class::of), {
            use Class::{Days, Hours, Years};
            [Hours, Hours, Days, Days, Years]
        });
    }
}
