//! What is counted of responses for `--admin`, and nowhere else: statuses, times, hot files.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagewire_http::Exchange;

use super::hottest::Hottest;

/// Upper bounds of the buckets, in seconds: from what is in memory to what takes a night.
pub(crate) const BUCKETS: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 3600.0,
];

/// The classes of statuses, by their first digit.
pub(crate) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters that every response adds to.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    classes: [AtomicU64; CLASSES.len()],
    pub(crate) first_byte: Histogram,
    pub(crate) whole: Histogram,
    hottest: Mutex<Hottest>,
}

impl Stats {
    pub(crate) fn count(&self, exchange: &Exchange) {
        let class = usize::from(exchange.status.as_u16() / 100).saturating_sub(1);
        if let Some(count) = self.classes.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let body = &exchange.body;
        if let Some(first_byte) = body.first_byte {
            self.first_byte.count(first_byte);
        }
        self.whole.count(body.report.elapsed);
        if exchange.status.is_success() {
            self.hottest().count(exchange.target.path(), body.report.tally.total().bytes);
        }
    }

    pub(crate) fn classes(&self) -> [u64; CLASSES.len()] {
        std::array::from_fn(|index| self.classes[index].load(Ordering::Relaxed))
    }

    pub(crate) fn hottest(&self) -> MutexGuard<'_, Hottest> {
        self.hottest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last one has those beyond all bounds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanos: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    /// Up to each bound of [`BUCKETS`], those below included.
    pub(crate) up_to: [u64; BUCKETS.len()],
    pub(crate) count: u64,
    pub(crate) seconds: f64,
}

impl Histogram {
    fn count(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Times {
        let mut count = 0;
        let mut up_to = [0; BUCKETS.len()];
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            if let Some(up_to) = up_to.get_mut(index) {
                *up_to = count;
            }
        }
        let seconds = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        Times { up_to, count, seconds }
    }
}

impl Times {
    /// An upper bound of the time within which this share of them ended; `None` if it lies beyond
    /// all buckets, or there were none.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a bucket is coarser")]
        let sought = self.count as f64 * share;
        #[expect(clippy::cast_precision_loss, reason = "a bucket is coarser")]
        let index =
            self.up_to.iter().position(|count| self.count > 0 && *count as f64 >= sought)?;
        BUCKETS.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        for milliseconds in [0, 1, 1, 40, 2_000, 7_200_000] {
            histogram.count(Duration::from_millis(milliseconds));
        }
        let times = histogram.snapshot();
        assert_eq!((times.count, times.up_to[1], times.up_to[17]), (6, 3, 5));
        assert_eq!((times.quantile(0.5), times.quantile(0.99)), (Some(0.001), None));
        assert!((times.seconds - 7202.042).abs() < 1e-6);
    }
}
