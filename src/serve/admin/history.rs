//! The last minutes, second by second: what left by each route. The page draws it.

use std::collections::VecDeque;

use pagewire_engine::{Route, Tally};

/// Five minutes.
pub(crate) const SECONDS: usize = 300;

/// The ways that bytes leave, as pages and metrics name them: the routes, and `plain` for what
/// was never a file's.
pub(crate) fn ways() -> impl Iterator<Item = (&'static str, Option<Route>)> {
    let routes = Route::ALL.into_iter().map(|route| (route.name(), Some(route)));
    routes.chain([("plain", None)])
}

/// Bytes that left by one way.
pub(crate) fn bytes_by(tally: &Tally, way: Option<Route>) -> u64 {
    way.map_or(tally.plain(), |route| tally.route(route)).bytes
}

const WAYS: usize = Route::ALL.len() + 1;

/// Bytes of each second, by way.
#[derive(Debug, Default)]
pub(crate) struct History {
    before: [u64; WAYS],
    seconds: VecDeque<[u64; WAYS]>,
}

impl History {
    /// A second has passed, and this is what had left by its end.
    pub(crate) fn second(&mut self, tally: &Tally) {
        let mut now = [0; WAYS];
        for (place, (_, way)) in now.iter_mut().zip(ways()) {
            *place = bytes_by(tally, way);
        }
        let moved = std::array::from_fn(|way| now[way].saturating_sub(self.before[way]));
        self.before = now;
        if self.seconds.len() == SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(moved);
    }

    /// Bytes by way, and of each its seconds, the oldest first.
    pub(crate) fn by_way(&self) -> Vec<(&'static str, Vec<u64>)> {
        let of = |index: usize| self.seconds.iter().map(|second| second[index]).collect();
        ways().enumerate().map(|(index, (name, _))| (name, of(index))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_back_five_minutes() {
        let mut history = History::default();
        for _ in 0..SECONDS + 7 {
            history.second(&Tally::default());
        }
        let by_way = history.by_way();
        assert_eq!(by_way.len(), WAYS);
        assert!(by_way.iter().all(|(_, seconds)| *seconds == [0; SECONDS]));
    }
}
