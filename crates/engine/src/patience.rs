//! When a wire gives up on a peer that takes too little. PURE: how many bytes were acknowledged
//! comes in, with the time. The wire asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::SendError;

/// What is asked of a peer that was sent something and has not taken all of it.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// The longest time in which it may take nothing at all.
    pub stalled_max: Duration,
    /// The least it must take, in bytes per second over each [`PACE_WINDOW`].
    pub pace_min: u64,
}

/// Over such a time a pace is measured: a train in a tunnel is no slow client.
pub const PACE_WINDOW: Duration = Duration::from_secs(120);

/// A wire that was not found waiting for so long did something else meanwhile.
const NOT_WAITING: Duration = Duration::from_secs(10);

/// As often the kernel is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How patient the wires of a server are, at ease and under pressure.
#[derive(Debug)]
pub struct Patience {
    calm: Tolerance,
    pressed: Tolerance,
    is_pressed: AtomicBool,
}

impl Patience {
    /// At ease, until [`Patience::press`] says otherwise.
    #[must_use]
    pub fn new(calm: Tolerance, pressed: Tolerance) -> Self {
        Self { calm, pressed, is_pressed: AtomicBool::new(false) }
    }

    /// Says whether the server is under pressure.
    pub fn press(&self, is_pressed: bool) {
        self.is_pressed.store(is_pressed, Ordering::Relaxed);
    }

    fn tolerance(&self) -> Tolerance {
        if self.is_pressed.load(Ordering::Relaxed) { self.pressed } else { self.calm }
    }
}

/// How one wire's peer has taken what it was sent.
#[derive(Debug)]
pub(crate) struct Taken {
    looked: Instant,
    /// When it was last seen to have taken more, and how much in all.
    moved: (Instant, u64),
    /// Where the window began that its pace is measured over.
    window: (Instant, u64),
}

impl Taken {
    /// Whether the kernel is to be asked again.
    pub(crate) fn is_due(before: Option<&Self>, now: Instant) -> bool {
        before.is_none_or(|taken| now.saturating_duration_since(taken.looked) >= LOOK_EVERY)
    }

    /// Takes note that by `now` the peer had acknowledged so many bytes, and still was to take
    /// more.
    pub(crate) fn look(
        before: Option<Self>,
        now: Instant,
        acknowledged: u64,
        patience: &Patience,
    ) -> Result<Self, SendError> {
        let fresh = Self { looked: now, moved: (now, acknowledged), window: (now, acknowledged) };
        let Some(mut taken) = before else { return Ok(fresh) };
        if now.saturating_duration_since(taken.looked) >= NOT_WAITING {
            return Ok(fresh);
        }
        taken.looked = now;
        if acknowledged > taken.moved.1 {
            taken.moved = (now, acknowledged);
        }
        let tolerance = patience.tolerance();
        let stalled = now.saturating_duration_since(taken.moved.0);
        if stalled >= tolerance.stalled_max {
            return Err(SendError::TooSlow { bytes: 0, within: stalled });
        }
        let within = now.saturating_duration_since(taken.window.0);
        if within >= PACE_WINDOW {
            let bytes = acknowledged.saturating_sub(taken.window.1);
            if bytes < tolerance.pace_min.saturating_mul(within.as_secs()) {
                return Err(SendError::TooSlow { bytes, within });
            }
            taken.window = (now, acknowledged);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Tolerance = Tolerance { stalled_max: Duration::from_secs(600), pace_min: 0 };
    const PRESSED: Tolerance = Tolerance { stalled_max: Duration::from_secs(60), pace_min: 500 };

    /// The second at which a wire gives up on a peer that has taken `acknowledged(second)` bytes,
    /// looking at it each second.
    fn gives_up(pressed: bool, acknowledged: impl Fn(u64) -> u64) -> Option<u64> {
        let patience = Patience::new(CALM, PRESSED);
        patience.press(pressed);
        let start = Instant::now();
        let mut taken = None;
        for second in 0..3000 {
            let now = start + Duration::from_secs(second);
            match Taken::look(taken, now, acknowledged(second), &patience) {
                Ok(seen) => taken = Some(seen),
                Err(_) => return Some(second),
            }
        }
        None
    }

    #[test]
    fn a_pause_is_tolerated_and_a_stall_is_not() {
        let paused_for = |pause| move |second: u64| second.min(50) + second.saturating_sub(pause);
        assert_eq!(gives_up(false, paused_for(500)), None);
        assert_eq!(gives_up(true, |_| 7), Some(60));
        assert_eq!(gives_up(false, |_| 7), Some(600));
    }

    #[test]
    fn a_trickle_is_cut_under_pressure_only() {
        assert_eq!(gives_up(false, |second| second), None);
        assert_eq!(gives_up(true, |second| second), Some(120));
        assert_eq!(gives_up(true, |second| second * 501), None);
        // In bursts: all of it within the last second of a minute that was silent else.
        assert_eq!(gives_up(true, |second| second / 50 * 50 * 600), None);
    }

    #[test]
    fn time_in_which_nothing_was_to_be_taken_does_not_count() {
        let patience = Patience::new(CALM, PRESSED);
        let start = Instant::now();
        let taken = Taken::look(None, start, 1, &patience).unwrap();
        let much_later = start + Duration::from_secs(5000);
        assert!(Taken::is_due(Some(&taken), much_later));
        assert!(Taken::look(Some(taken), much_later, 1, &patience).is_ok());
    }
}
