//! Counts of what moved, by route: plain tallies for one transfer, a shared meter for a process.
//! Knows no socket and no file.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::route::Route;

/// What moved by one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// Bytes that the socket accepted.
    pub bytes: u64,
    /// Steps that moved bytes.
    pub steps: u64,
    /// System calls that carry bytes, those that would have blocked or were refused included.
    pub calls: u64,
    /// Bytes of files that were copied into this process's memory.
    pub user_copied_bytes: u64,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.steps += other.steps;
        self.calls += other.calls;
        self.user_copied_bytes += other.user_copied_bytes;
    }
}

/// What was not in the page cache when it was to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cold {
    /// How often a socket waited for it.
    pub waits: u64,
    /// Bytes of the windows that were waited for.
    pub bytes: u64,
}

impl AddAssign for Cold {
    fn add_assign(&mut self, other: Self) {
        self.waits += other.waits;
        self.bytes += other.bytes;
    }
}

/// What moved, by route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    routes: [Count; Route::ALL.len()],
    plain: Count,
    step_downs: u64,
    cold: Cold,
}

impl Tally {
    /// What moved from files by `route`.
    #[must_use]
    pub fn route(&self, route: Route) -> Count {
        self.routes[route.index()]
    }

    /// What moved from memory that is no file's.
    #[must_use]
    pub fn plain(&self) -> Count {
        self.plain
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> Count {
        let mut total = self.plain;
        self.routes.iter().for_each(|count| total.add(count));
        total
    }

    /// The same without what moved from memory that is no file's.
    #[must_use]
    pub fn of_files(mut self) -> Self {
        self.plain = Count::default();
        self
    }

    /// How often a route was refused and another taken for good.
    #[must_use]
    pub fn step_downs(&self) -> u64 {
        self.step_downs
    }

    /// What had to be brought into the page cache first, by the cold pool.
    #[must_use]
    pub fn cold(&self) -> Cold {
        self.cold
    }

    /// The routes that moved bytes, in the order of [`Route::ALL`].
    pub fn routes_taken(&self) -> impl Iterator<Item = Route> {
        Route::ALL.into_iter().filter(|route| self.route(*route).bytes > 0)
    }

    pub(crate) fn count(&mut self, way: Option<Route>, count: &Count) {
        match way {
            Some(route) => self.routes[route.index()].add(count),
            None => self.plain.add(count),
        }
    }

    pub(crate) fn count_step_downs(&mut self, step_downs: u64) {
        self.step_downs += step_downs;
    }

    pub(crate) fn count_cold(&mut self, cold: Cold) {
        self.cold += cold;
    }
}

/// What became of a payload that was sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What moved, by route.
    pub tally: Tally,
    /// From the call to the moment at which the socket had accepted the last byte.
    pub elapsed: Duration,
}

/// A tally that many transfers add to at once.
#[derive(Debug, Default)]
pub struct Meter {
    routes: [SharedCount; Route::ALL.len()],
    plain: SharedCount,
    step_downs: AtomicU64,
    cold_waits: AtomicU64,
    cold_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct SharedCount {
    bytes: AtomicU64,
    steps: AtomicU64,
    calls: AtomicU64,
    user_copied_bytes: AtomicU64,
}

impl Meter {
    /// A meter at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What it has counted so far. Steps under way on other threads may be counted in part.
    #[must_use]
    pub fn snapshot(&self) -> Tally {
        Tally {
            routes: std::array::from_fn(|index| self.routes[index].load()),
            plain: self.plain.load(),
            step_downs: self.step_downs.load(Ordering::Relaxed),
            cold: Cold {
                waits: self.cold_waits.load(Ordering::Relaxed),
                bytes: self.cold_bytes.load(Ordering::Relaxed),
            },
        }
    }

    pub(crate) fn count(&self, way: Option<Route>, count: &Count) {
        match way {
            Some(route) => self.routes[route.index()].add(count),
            None => self.plain.add(count),
        }
    }

    pub(crate) fn count_step_downs(&self, step_downs: u64) {
        if step_downs > 0 {
            self.step_downs.fetch_add(step_downs, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_cold(&self, cold: Cold) {
        if cold.waits > 0 {
            self.cold_waits.fetch_add(cold.waits, Ordering::Relaxed);
            self.cold_bytes.fetch_add(cold.bytes, Ordering::Relaxed);
        }
    }
}

impl SharedCount {
    fn load(&self) -> Count {
        Count {
            bytes: self.bytes.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            user_copied_bytes: self.user_copied_bytes.load(Ordering::Relaxed),
        }
    }

    fn add(&self, count: &Count) {
        self.bytes.fetch_add(count.bytes, Ordering::Relaxed);
        self.steps.fetch_add(count.steps, Ordering::Relaxed);
        self.calls.fetch_add(count.calls, Ordering::Relaxed);
        if count.user_copied_bytes > 0 {
            self.user_copied_bytes.fetch_add(count.user_copied_bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_adds_up_what_was_counted() {
        let meter = Meter::new();
        let count = Count { bytes: 10, steps: 1, calls: 2, user_copied_bytes: 3 };
        meter.count(Some(Route::Splice), &count);
        meter.count(Some(Route::Splice), &count);
        meter.count(None, &count);
        meter.count_step_downs(1);
        let tally = meter.snapshot();
        assert_eq!(tally.route(Route::Splice).bytes, 20);
        assert_eq!(tally.plain().calls, 2);
        assert_eq!(tally.total().user_copied_bytes, 9);
        assert_eq!(tally.step_downs(), 1);
        assert_eq!(tally.routes_taken().collect::<Vec<_>>(), [Route::Splice]);
    }
}
