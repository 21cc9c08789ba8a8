//! A rate that many wires share: each takes its turn, a quantum at a time. PURE but for the lock:
//! the time comes in. The wire waits.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much of a second a rate may be ahead of its time after a silence.
const BURST: Duration = Duration::from_millis(50);

/// At most so many bytes per second, of all wires together.
///
/// Wires take turns in the order in which they ask, so that each of those that are busy gets the
/// same share, and what one does not use the others have.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: NonZeroU64,
    /// When the next quantum may go.
    next: Mutex<Option<Instant>>,
}

impl Throttle {
    /// A throttle of so many bytes per second.
    #[must_use]
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, next: Mutex::new(None) }
    }

    /// What goes in one turn: a fiftieth of a second's worth, within reason.
    pub(crate) fn quantum(&self) -> u64 {
        (self.bytes_per_second.get() / 50).clamp(1 << 10, 256 << 10)
    }

    /// When the next quantum of its caller may go. It has to be used.
    pub(crate) fn reserve(&self, now: Instant) -> Instant {
        let nanos =
            u128::from(self.quantum()) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let turn = next.map_or(earliest, |next| next.max(earliest));
        *next = Some(turn.checked_add(cost).unwrap_or(turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that may go within a second of asking as often as it is allowed.
    fn in_a_second(rate: u64) -> u64 {
        let throttle = Throttle::new(NonZeroU64::new(rate).unwrap());
        let start = Instant::now();
        let (mut now, mut bytes) = (start, 0);
        loop {
            now = now.max(throttle.reserve(now));
            if now > start + Duration::from_secs(1) {
                return bytes;
            }
            bytes += throttle.quantum();
        }
    }

    #[test]
    fn no_more_than_the_rate_goes_and_not_much_less() {
        for rate in [1_000, 100_000, 12_500_000, 5_000_000_000] {
            let bytes = in_a_second(rate);
            let quantum = Throttle::new(NonZeroU64::new(rate).unwrap()).quantum();
            assert!(bytes <= rate + rate / 20 + quantum, "{rate}: {bytes}");
            assert!(bytes + quantum >= rate, "{rate}: {bytes}");
        }
    }

    #[test]
    fn a_silence_is_not_saved_up() {
        let throttle = Throttle::new(NonZeroU64::new(1_000_000).unwrap());
        let start = Instant::now();
        throttle.reserve(start);
        let later = start + Duration::from_secs(3600);
        let turns = (0..1_000).take_while(|_| throttle.reserve(later) <= later).count();
        assert!(turns <= 4, "{turns}");
    }
}
