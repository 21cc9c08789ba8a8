//! When a certificate is ordered: PURE.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The first pause after a failure; each is twice the one before. Four tries fall into the first
/// hour: Let's Encrypt refuses a name after five failures in one.
const PAUSE_MIN: Duration = Duration::from_secs(5 * 60);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// When a certificate is to be replaced: when two thirds of its life are over, and up to a
/// thirtieth of it sooner, by `chance` (0 to 1), so that not all are on one day.
pub(crate) fn renewal(not_before: Timestamp, not_after: Timestamp, chance: f64) -> Timestamp {
    let life = not_after.duration_since(not_before);
    let age = life.mul_f64((2.0 / 3.0) - chance / 30.0);
    not_before.saturating_add(age).unwrap_or(not_before)
}

/// How long is waited after that many failures in a row: up to a quarter longer by `chance`, so
/// that servers which fail together do not come back together.
pub(crate) fn pause(failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
    pause + pause.mul_f64(chance / 4.0)
}

/// The part of a wait until `at` that is slept through at once: clocks are set, and hosts sleep.
pub(crate) fn nap(now: Timestamp, at: Timestamp) -> Duration {
    let left = at.duration_since(now).max(SignedDuration::ZERO);
    left.unsigned_abs().min(Duration::from_secs(10 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_certificate_is_replaced_after_two_thirds_of_its_life() {
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-04-01T00:00:00Z"));
        assert_eq!(renewal(from, to, 0.0), at("2026-03-02T00:00:00Z"));
        assert_eq!(renewal(from, to, 1.0), at("2026-02-27T00:00:00Z"));
        assert_eq!(renewal(to, to, 1.0), to);
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let minutes = |failures| pause(failures, 0.0).as_secs() / 60;
        assert_eq!([1, 2, 3, 4].map(minutes), [5, 10, 20, 40]);
        assert_eq!([9, u32::MAX].map(minutes), [720, 720]);
        assert_eq!(pause(1, 1.0), PAUSE_MIN + PAUSE_MIN / 4);
    }

    #[test]
    fn long_waits_are_looked_at_now_and_then() {
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(nap(now, at("2026-01-01T00:01:00Z")), Duration::from_secs(60));
        assert_eq!(nap(now, at("2026-02-01T00:00:00Z")), Duration::from_secs(600));
        assert_eq!(nap(now, at("2025-01-01T00:00:00Z")), Duration::ZERO);
    }
}
