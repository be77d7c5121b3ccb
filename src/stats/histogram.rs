//! A histogram of fixed size: recording is two additions and allocates nothing.
//!
//! Buckets are log-linear. Values up to 128 have a bucket each; above, every power of two is cut into 64
//! equal parts. A bucket is at most 1/64 of its value wide, so its middle is off by less than 1 %: two
//! significant digits. A bucket holds `low < value <= high`, so that a power of two (a block, a full batch)
//! counts as *at most* itself, which is what the `le` label of OpenMetrics means. Zero shares the bucket of
//! one.
//!
//! The unit is the caller's, in whole steps: microseconds for times, bytes or records for sizes. Values above
//! [`Histogram::VALUE_MAX`] (67 s in microseconds) are counted in the last bucket.

use super::cell::Counter;

/// Parts that a power of two is cut into, as a power of two itself.
const PARTS_LOG2: u32 = 6;
const PARTS: usize = 1 << PARTS_LOG2;
/// Values up to here, a power of two, have a bucket of their own.
const LINEAR: usize = 2 * PARTS;
/// The highest power of two that is told apart.
const TOP_LOG2: u32 = 26;
const BUCKETS: usize = LINEAR + (TOP_LOG2 - PARTS_LOG2 - 1) as usize * PARTS;

/// Counts of values, by size. One writer, many readers.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

impl Histogram {
    /// The largest value told apart from larger ones.
    pub const VALUE_MAX: u64 = 1 << TOP_LOG2;

    /// Counts `value`. Only the owning core may call this.
    pub fn record(&self, value: u64) {
        self.buckets[index(value)].inc();
        self.sum.add(value);
    }

    /// Counts `value` so many times: for numbers that were sorted into coarser buckets elsewhere.
    pub fn record_many(&self, value: u64, times: u64) {
        self.buckets[index(value)].add(times);
        self.sum.add(value.saturating_mul(times));
    }

    /// The sum of all values, exact.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// How many values were counted up to and including each power of two `2^0..=2^26`, as `(bound,
    /// cumulative)`. The last bound stands for everything.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut below = 0;
        let mut next = 0;
        (0..=TOP_LOG2).map(move |log2| {
            let bound = 1 << log2;
            let end = index(bound) + 1;
            below += self.buckets[next..end].iter().map(Counter::get).sum::<u64>();
            next = end;
            (bound, below)
        })
    }

    /// The value that the share `q` (0 to 1) of the counted values does not exceed, off by less than 1 %;
    /// `None` if nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        quantile(&[self], q)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { Counter::new() }; BUCKETS], sum: Counter::new() }
    }
}

/// As [`Histogram::quantile`], over several histograms at once.
pub fn quantile(histograms: &[&Histogram], q: f64) -> Option<u64> {
    let bucket = |i: usize| histograms.iter().map(|h| h.buckets[i].get()).sum::<u64>();
    let count: u64 = (0..BUCKETS).map(bucket).sum();
    let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
    let mut seen = 0;
    (0..BUCKETS)
        .find(|&i| {
            seen += bucket(i);
            seen >= rank
        })
        .map(middle)
}

/// The bucket of `value`.
fn index(value: u64) -> usize {
    // One less, because a bucket contains its upper bound and not its lower one.
    let v = value.saturating_sub(1).min(Histogram::VALUE_MAX - 1);
    if v < LINEAR as u64 {
        return v as usize;
    }
    let log2 = v.ilog2();
    let part = (v >> (log2 - PARTS_LOG2)) as usize - PARTS;
    LINEAR + (log2 - PARTS_LOG2 - 1) as usize * PARTS + part
}

/// The middle of a bucket, rounded up.
fn middle(bucket: usize) -> u64 {
    if bucket < LINEAR {
        return bucket as u64 + 1;
    }
    let above = bucket - LINEAR;
    let shift = (above / PARTS) as u32 + 1;
    let low = ((PARTS + above % PARTS) as u64) << shift;
    low + (1 << (shift - 1)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_single_value_is_given_back_within_one_percent(value in 1..=Histogram::VALUE_MAX) {
            let back = middle(index(value));
            prop_assert!(back.abs_diff(value) * 100 <= value, "{value} came back as {back}");
        }

        #[test]
        fn a_larger_value_never_has_a_lower_bucket(a in 0..=u64::MAX, b in 0..=u64::MAX) {
            prop_assert_eq!(index(a.min(b)).cmp(&index(a.max(b))).is_gt(), false);
        }

        #[test]
        fn powers_of_two_count_as_at_most_themselves(log2 in 0..=TOP_LOG2, more in 0..3_u64) {
            let histogram = Histogram::default();
            histogram.record((1 << log2) + more);
            let at = histogram.cumulative().find(|&(bound, _)| bound == 1 << log2).map(|(_, n)| n);
            prop_assert_eq!(at, Some(u64::from(more == 0 || log2 == TOP_LOG2)));
        }
    }

    #[test]
    fn every_bucket_is_reached_and_none_beyond_the_last() {
        assert!((0..BUCKETS).all(|bucket| index(middle(bucket)) == bucket));
        assert_eq!(index(u64::MAX), BUCKETS - 1);
        assert_eq!(index(0), 0);
    }

    #[test]
    fn quantiles_of_a_known_distribution_are_right() {
        let histogram = Histogram::default();
        (1..=10_000).for_each(|value| histogram.record(value));
        for (q, exact) in [(0.5, 5_000_u64), (0.99, 9_900), (0.999, 9_990), (1.0, 10_000)] {
            let estimate = histogram.quantile(q).unwrap();
            assert!(estimate.abs_diff(exact) * 100 <= exact, "{q}: {estimate} for {exact}");
        }
        assert_eq!((histogram.count(), histogram.sum()), (10_000, 50_005_000));
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn the_last_cumulative_count_is_everything() {
        let histogram = Histogram::default();
        [0, 1, 900, u64::MAX / 4].into_iter().for_each(|value| histogram.record(value));
        assert_eq!(histogram.cumulative().last().map(|(_, n)| n), Some(4));
    }
}
