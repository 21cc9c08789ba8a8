//! Which route the next step takes, and how large it is. PURE: facts in, a plan out.

use crate::route::{Route, RouteChoice, RouteSet};

/// File bytes up to this length leave from the mapping, in one system call with what precedes
/// them; longer ranges go by sendfile.
///
/// On loopback the two cost the same at 4 and 8 KiB, where one system call less outweighs the
/// copy; at 16 KiB sendfile costs 0.87 of mmap-write, at 64 KiB 0.6:
/// `bench/runs/2026-11-22-2core-linux6.18/crossover`.
pub const SMALL_RANGE_BYTES_MAX: u64 = 8 * 1024;

/// The most bytes that one step asks the kernel to move.
///
/// Below it every halving costs CPU per byte, above it there is little to gain, and a step is
/// time in which the thread serves nobody else, some 0.2 ms on loopback:
/// `bench/runs/2026-11-23-2core-linux6.18/lab`.
pub const STEP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What is known before a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) choice: RouteChoice,
    /// Routes that this sink refused for files of this file system.
    pub(crate) refused: RouteSet,
    /// The bytes are in the sink's pipe already.
    pub(crate) piped: bool,
    /// The route that the bytes just before these took, if this range is under way.
    pub(crate) under_way: Option<Route>,
    /// Bytes of the range still to be moved.
    pub(crate) range_bytes: u64,
}

/// Why a route was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The caller chose it.
    Chosen,
    /// Every route before it was refused.
    SteppedDown,
    /// The bytes are in a pipe already.
    Piped,
    /// The range is under way on it.
    UnderWay,
    /// The range is small: one call with the head is cheapest.
    SmallRange,
    /// The range is large: references to pages are cheapest.
    LargeRange,
}

/// What the next step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) route: Route,
    pub(crate) step_bytes: usize,
    pub(crate) reason: Reason,
}

/// The plan for the next step, or `None` when every route was refused.
pub(crate) fn plan(facts: Facts) -> Option<Plan> {
    let (preferred, reason) = preference(facts);
    let (route, reason) = if facts.refused.contains(preferred) {
        let lesser = Route::ALL.into_iter().find(|route| !facts.refused.contains(*route))?;
        (lesser, Reason::SteppedDown)
    } else {
        (preferred, reason)
    };
    let step_bytes = usize::try_from(facts.range_bytes).unwrap_or(usize::MAX).min(STEP_BYTES_MAX);
    Some(Plan { route, step_bytes, reason })
}

fn preference(facts: Facts) -> (Route, Reason) {
    if facts.piped {
        return (Route::Splice, Reason::Piped);
    }
    match (facts.choice, facts.under_way) {
        (_, Some(route)) => (route, Reason::UnderWay),
        (RouteChoice::Only(route), None) => (route, Reason::Chosen),
        (RouteChoice::Auto, None) if facts.range_bytes <= SMALL_RANGE_BYTES_MAX => {
            (Route::MmapWrite, Reason::SmallRange)
        }
        (RouteChoice::Auto, None) => (Route::Sendfile, Reason::LargeRange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u64 = SMALL_RANGE_BYTES_MAX;
    const LARGE: u64 = SMALL_RANGE_BYTES_MAX + 1;

    fn check(
        choice: RouteChoice,
        refused: &[Route],
        under_way: Option<Route>,
        range_bytes: u64,
        expected: Option<(Route, Reason)>,
    ) {
        let refused = refused.iter().fold(RouteSet::default(), |set, route| set.with(*route));
        let plan = plan(Facts { choice, refused, piped: false, under_way, range_bytes });
        assert_eq!(plan.map(|plan| (plan.route, plan.reason)), expected, "{choice} {range_bytes}");
    }

    #[test]
    fn size_decides_when_nothing_else_does() {
        let auto = RouteChoice::Auto;
        check(auto, &[], None, 1, Some((Route::MmapWrite, Reason::SmallRange)));
        check(auto, &[], None, SMALL, Some((Route::MmapWrite, Reason::SmallRange)));
        check(auto, &[], None, LARGE, Some((Route::Sendfile, Reason::LargeRange)));
        check(auto, &[], None, u64::MAX, Some((Route::Sendfile, Reason::LargeRange)));
    }

    #[test]
    fn a_range_under_way_keeps_its_route() {
        let auto = RouteChoice::Auto;
        let sendfile = Some(Route::Sendfile);
        check(auto, &[], sendfile, 1, Some((Route::Sendfile, Reason::UnderWay)));
        check(auto, &[Route::Sendfile], sendfile, 1, Some((Route::Splice, Reason::SteppedDown)));
    }

    #[test]
    fn a_choice_holds_for_every_size() {
        for route in Route::ALL {
            for range_bytes in [1, SMALL, LARGE] {
                let only = RouteChoice::Only(route);
                check(only, &[], None, range_bytes, Some((route, Reason::Chosen)));
            }
        }
    }

    #[test]
    fn refusals_walk_down_the_ladder() {
        let auto = RouteChoice::Auto;
        let down = |route| Some((route, Reason::SteppedDown));
        check(auto, &Route::ALL[..1], None, LARGE, down(Route::Splice));
        check(auto, &Route::ALL[..2], None, LARGE, down(Route::MmapWrite));
        check(auto, &Route::ALL[..3], None, LARGE, down(Route::ReadWrite));
        check(auto, &Route::ALL, None, LARGE, None);
        check(auto, &[Route::MmapWrite], None, SMALL, down(Route::Sendfile));
        check(
            RouteChoice::Only(Route::ReadWrite),
            &Route::ALL[3..],
            None,
            1,
            down(Route::Sendfile),
        );
    }

    #[test]
    fn a_step_is_bounded() {
        let facts = Facts {
            choice: RouteChoice::Auto,
            refused: RouteSet::default(),
            piped: false,
            under_way: None,
            range_bytes: u64::MAX,
        };
        let piped = plan(Facts { piped: true, ..facts });
        assert_eq!(piped.map(|plan| plan.reason), Some(Reason::Piped));
        assert_eq!(plan(facts).map(|plan| plan.step_bytes), Some(STEP_BYTES_MAX));
    }
}
