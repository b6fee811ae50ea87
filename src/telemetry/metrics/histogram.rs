//! A histogram without a lock: an observation is three atomic additions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// What the whole numbers inside of a histogram stand for outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds, shown as seconds.
    Microseconds,
    /// Things, shown as they are.
    Count,
}

/// Counts observations by size. Clones count into the same histogram.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    unit: Unit,
    /// Upper bounds, each within its bucket, ascending.
    bounds: &'static [u64],
    /// One more than bounds: the last is for what is beyond them all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// `bounds`: the upper ends of the buckets, ascending, in `unit`.
    pub(super) fn new(unit: Unit, bounds: &'static [u64]) -> Histogram {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Histogram(Arc::new(Inner { unit, bounds, counts, sum: AtomicU64::new(0) }))
    }

    /// Counts one value, in the histogram's unit.
    pub fn observe(&self, value: u64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts one time, in a histogram of [`Unit::Microseconds`].
    pub fn observe_duration(&self, duration: Duration) {
        debug_assert_eq!(self.0.unit, Unit::Microseconds);
        self.observe(duration.as_micros().try_into().unwrap_or(u64::MAX));
    }
}

impl Unit {
    /// Exact below 2^53, which neither sums of times nor of sizes come near.
    fn shown(self, value: u64) -> f64 {
        match self {
            Unit::Microseconds => value as f64 / 1e6,
            Unit::Count => value as f64,
        }
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Inner { unit, bounds, counts, sum } = &*self.0;
        let ends = bounds.iter().map(|bound| unit.shown(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = ends.zip(counts.iter().map(|count| count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|bucket| bucket.1).sum();
        encoder.encode_histogram::<NoLabelSet>(unit.shown(sum.load(Ordering::Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Half a millisecond to a minute.
pub(super) const REQUEST_TIMES: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// 25 µs to five seconds.
pub(super) const COMMIT_TIMES: &[u64] =
    &[25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000];

/// One to a few thousand.
pub(super) const SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096];
