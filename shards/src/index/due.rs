//! When records are due, in 13 bits each, and the one that is due first.
//!
//! Hours are kept modulo 8,191, so a due says its hour only relative to an *origin*: it means the one hour
//! from the origin to 8,190 after it that has this remainder. Moving the origin forward, to no later than the
//! earliest due, changes neither the hour that a due means nor the order of any two; so the minima that inner
//! nodes keep stay right, and moving costs nothing. [`KeyIndex::set_origin`] stops at the earliest due by
//! itself: no owner can break this.
//!
//! **What an owner can get wrong** is a due made for another origin: one that was meant for an hour before
//! the index's origin, or beyond 8,190 after it, is read as one a multiple of 8,191 hours away. Such a record
//! is due at the wrong hour; it is found, counted and removed like any other. [`Due::of_hour`] with
//! [`KeyIndex::origin`] never makes one.

use super::arena::NodeId;
use super::{Entry, KeyIndex, Path, Place};

/// Hours until remainders repeat. One less than 13 bits can tell apart: the last is [`Due::LATER`].
const ROUND_HOURS: u16 = 8_191;

/// The hour at which a record is due to expire, as its place keeps it. Two of them compare only relative to
/// an origin; so there is no order here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Due(u16);

impl Due {
    /// Later than can be said, or never. After every hour, whatever the origin.
    pub const LATER: Self = Self(ROUND_HOURS);
    /// How far after an origin an hour may be to be kept. 190 less than could be: by so much the origin of
    /// whoever makes a due may be ahead of that of the index (which stands still while something overdue
    /// waits).
    pub const HORIZON_HOURS: u64 = 8_000;
    /// Bits of a [`Place`] that hold one: the lowest.
    pub const BITS: u32 = 13;
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// Of an hour since 1970. What is overdue at the origin is due at the origin; what is beyond
    /// [`Self::HORIZON_HOURS`] after it is [`Self::LATER`].
    pub fn of_hour(hour_since_1970: u64, origin_hour: u64) -> Self {
        let hour = hour_since_1970.max(origin_hour);
        if hour - origin_hour > Self::HORIZON_HOURS { Self::LATER } else { Self(remainder(hour)) }
    }

    /// The hour since 1970 that it means: from the origin to 8,190 after it. `None` for [`Self::LATER`].
    pub fn hour(self, origin_hour: u64) -> Option<u64> {
        (self != Self::LATER)
            .then(|| origin_hour.saturating_add(u64::from(Origin::at(origin_hour).rank(self))))
    }
}

impl Place {
    /// When its record is due.
    pub fn due(self) -> Due {
        Due((self.0 & Due::MASK) as u16)
    }

    /// The same with another due.
    pub fn with_due(self, due: Due) -> Self {
        Self(self.0 & !Due::MASK | u64::from(due.0))
    }
}

fn remainder(hour: u64) -> u16 {
    (hour % u64::from(ROUND_HOURS)) as u16
}

/// The hour from which dues are counted. Puts them in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    hour: u64,
    remainder: u16,
}

impl Origin {
    pub(super) fn at(hour: u64) -> Self {
        Self { hour, remainder: remainder(hour) }
    }

    /// Hours from the origin to a due; that of [`Due::LATER`] is above all.
    pub(super) fn rank(self, due: Due) -> u16 {
        match due {
            Due::LATER => ROUND_HOURS,
            Due(hour) if hour >= self.remainder => hour - self.remainder,
            Due(hour) => hour + (ROUND_HOURS - self.remainder),
        }
    }

    /// The first of some; [`Due::LATER`] of none.
    pub(super) fn earliest(self, dues: impl Iterator<Item = Due>) -> Due {
        dues.min_by_key(|due| self.rank(*due)).unwrap_or(Due::LATER)
    }
}

impl KeyIndex {
    /// The hour since 1970 from which dues are counted: no entry is due before it.
    pub fn origin(&self) -> u64 {
        self.origin.hour
    }

    /// Moves the origin forward to an hour, or to the earliest due if that comes before. It never moves back.
    pub fn set_origin(&mut self, hour: u64) {
        let hour = self.earliest_due().map_or(hour, |due| due.min(hour));
        self.origin = Origin::at(hour.max(self.origin.hour));
    }

    /// The hour since 1970 at which the first entry is due. `None` if none ever is.
    pub fn earliest_due(&self) -> Option<u64> {
        self.due(self.root, self.levels).hour(self.origin.hour)
    }

    /// The entry that is due first, if it is due at or before an hour since 1970. Of several, any.
    pub fn due_by(&self, hour: u64) -> Option<Entry> {
        self.earliest_due().filter(|due| *due <= hour)?;
        let mut node = self.root;
        for _ in 0..self.levels {
            let inner = &self.inners[node];
            node = inner.child(inner.earliest(self.origin));
        }
        self.leaves[node].earliest(self.origin)
    }

    /// The first due below a node, `level` levels above the leaves.
    pub(super) fn due(&self, node: NodeId, level: usize) -> Due {
        if level == 0 {
            self.leaves[node].earliest_due(self.origin)
        } else {
            self.inners[node].earliest_due(self.origin)
        }
    }

    /// Lowers the minima along a way to the due of an entry that came to its leaf.
    pub(super) fn lower_dues(&mut self, path: &Path, come: Due) {
        for (inner, child) in &path.steps[..self.levels] {
            let inner = &mut self.inners[*inner];
            if self.origin.rank(come) < self.origin.rank(inner.due(*child)) {
                inner.set_due(*child, come);
            }
        }
    }

    /// Raises the minima along a way after an entry of this due has left its leaf.
    pub(super) fn raise_dues(&mut self, path: &Path, gone: Due) {
        let steps = &path.steps[..self.levels];
        if steps.last().is_none_or(|(inner, child)| self.inners[*inner].due(*child) != gone) {
            return;
        }
        let mut due = self.due(path.leaf, 0);
        for (inner, child) in steps.iter().rev() {
            let inner = &mut self.inners[*inner];
            if inner.due(*child) == due {
                return;
            }
            inner.set_due(*child, due);
            due = inner.earliest_due(self.origin);
        }
    }
}
