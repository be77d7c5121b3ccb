//! Up to 64 children, and for each what is below it.

use super::arena::NodeId;
use super::due::{Due, Origin};
use super::{Entry, FANOUT, Fingerprint, Place, Prefix};

/// The separator of a child is not above any entry below it, and above all entries below the child before.
/// The one of the first child is not looked at.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    len: u8,
    separators: [Entry; FANOUT],
    children: [NodeId; FANOUT],
    totals: [Fingerprint; FANOUT],
    /// Apart from the totals: a search for the minimum touches two cache lines.
    dues: [Due; FANOUT],
}

/// What an inner node knows of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Count and sum of the entries below it.
    pub(super) total: Fingerprint,
    /// The first due below it.
    pub(super) due: Due,
}

const NO_ENTRY: Entry = Entry { prefix: Prefix::MIN, place: Place(0) };

impl Inner {
    pub(super) const EMPTY: Self = Self {
        len: 0,
        separators: [NO_ENTRY; FANOUT],
        children: [NodeId::NONE; FANOUT],
        totals: [Fingerprint { count: 0, sum: 0 }; FANOUT],
        dues: [Due::LATER; FANOUT],
    };

    pub(super) fn root(left: (NodeId, Summary), separator: Entry, right: (NodeId, Summary)) -> Self {
        let mut root = Self::EMPTY;
        root.insert(0, NO_ENTRY, left.0, left.1);
        root.insert(1, separator, right.0, right.1);
        root
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn child(&self, at: usize) -> NodeId {
        self.children[at]
    }

    pub(super) fn separator(&self, at: usize) -> Entry {
        self.separators[at]
    }

    /// Which child an entry is below, or belongs below.
    pub(super) fn child_of(&self, entry: Entry) -> usize {
        self.separators[1..self.len()].partition_point(|separator| *separator <= entry)
    }

    /// What is below the children at these positions.
    pub(super) fn sum(&self, range: std::ops::Range<usize>) -> Fingerprint {
        let mut total = Fingerprint::default();
        self.totals[range].iter().for_each(|part| total += *part);
        total
    }

    pub(super) fn total(&self) -> Fingerprint {
        self.sum(0..self.len())
    }

    /// The first due below a child.
    pub(super) fn due(&self, at: usize) -> Due {
        self.dues[at]
    }

    /// The first due below all children.
    pub(super) fn earliest_due(&self, origin: Origin) -> Due {
        origin.earliest(self.dues[..self.len()].iter().copied())
    }

    /// A child below which something is due first.
    pub(super) fn earliest(&self, origin: Origin) -> usize {
        let due = self.earliest_due(origin);
        self.dues[..self.len()].iter().position(|there| *there == due).unwrap_or(0)
    }

    pub(super) fn set_due(&mut self, at: usize, due: Due) {
        self.dues[at] = due;
    }

    pub(super) fn set_summary(&mut self, at: usize, summary: Summary) {
        (self.totals[at], self.dues[at]) = (summary.total, summary.due);
    }

    pub(super) fn add(&mut self, at: usize, part: Fingerprint) {
        self.totals[at] += part;
    }

    pub(super) fn subtract(&mut self, at: usize, part: Fingerprint) {
        self.totals[at] -= part;
    }

    /// Puts a child at a position. `false` if there is no room.
    pub(super) fn insert(&mut self, at: usize, separator: Entry, child: NodeId, summary: Summary) -> bool {
        let len = self.len();
        if len == FANOUT {
            return false;
        }
        self.separators.copy_within(at..len, at + 1);
        self.children.copy_within(at..len, at + 1);
        self.totals.copy_within(at..len, at + 1);
        self.dues.copy_within(at..len, at + 1);
        (self.separators[at], self.children[at]) = (separator, child);
        self.set_summary(at, summary);
        self.len += 1;
        true
    }

    /// Takes a child out.
    pub(super) fn remove(&mut self, at: usize) {
        let len = self.len();
        self.separators.copy_within(at + 1..len, at);
        self.children.copy_within(at + 1..len, at);
        self.totals.copy_within(at + 1..len, at);
        self.dues.copy_within(at + 1..len, at);
        self.len -= 1;
    }

    /// Takes the upper half out; returns it with the separator before it.
    pub(super) fn split(&mut self) -> (Entry, Self) {
        let (half, len) = (self.len() / 2, self.len());
        let mut upper = Self::EMPTY;
        upper.separators[..len - half].copy_from_slice(&self.separators[half..len]);
        upper.children[..len - half].copy_from_slice(&self.children[half..len]);
        upper.totals[..len - half].copy_from_slice(&self.totals[half..len]);
        upper.dues[..len - half].copy_from_slice(&self.dues[half..len]);
        (self.len, upper.len) = (half as u8, (len - half) as u8);
        (upper.separators[0], upper)
    }

    /// Adds all children of the neighbour above, whose separator this is. Both fit.
    pub(super) fn append(&mut self, separator: Entry, upper: &Self) {
        for at in 0..upper.len() {
            let separator = if at == 0 { separator } else { upper.separators[at] };
            let summary = Summary { total: upper.totals[at], due: upper.dues[at] };
            self.insert(self.len(), separator, upper.children[at], summary);
        }
    }
}
