//! Wrong passwords by address, so that nobody guesses for long. The time comes in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::slots::network_of;

/// So many passwords of one address may be wrong in [`WINDOW`].
const WRONG_MAX: u32 = 10;

/// After it an address begins anew.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// So many addresses are watched; while there are more, the passwords of others are not checked.
const ADDRESSES_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<HashMap<IpAddr, Wrong>>);

#[derive(Debug)]
struct Wrong {
    count: u32,
    since: Instant,
}

impl Attempts {
    /// Whether a password from `address` may be checked. It counts as wrong until it was found to
    /// be right, so that asking many at once gains nothing.
    pub(crate) fn begin(&self, address: IpAddr, now: Instant) -> bool {
        let mut all = self.lock();
        let is_over = |wrong: &Wrong| now.saturating_duration_since(wrong.since) >= WINDOW;
        let address = network_of(address);
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&address) {
            all.retain(|_, wrong| !is_over(wrong));
            if all.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let wrong = all.entry(address).or_insert(Wrong { count: 0, since: now });
        if is_over(wrong) {
            *wrong = Wrong { count: 0, since: now };
        }
        let may = wrong.count < WRONG_MAX;
        wrong.count += u32::from(may);
        may
    }

    /// It was right.
    pub(crate) fn succeeded(&self, address: IpAddr) {
        if let Some(wrong) = self.lock().get_mut(&network_of(address)) {
            wrong.count = wrong.count.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Wrong>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_begins_anew_after_a_while() {
        let attempts = Attempts::default();
        let address = "2001:db8::1".parse().unwrap();
        let neighbour = "2001:db8::2".parse().unwrap();
        let now = Instant::now();
        for _ in 0..WRONG_MAX {
            assert!(attempts.begin(address, now));
        }
        assert!(!attempts.begin(neighbour, now));
        assert!(attempts.begin(neighbour, now + WINDOW));
    }

    #[test]
    fn right_passwords_do_not_count() {
        let attempts = Attempts::default();
        let address = "10.0.0.1".parse().unwrap();
        let now = Instant::now();
        for _ in 0..10 * WRONG_MAX {
            assert!(attempts.begin(address, now));
            attempts.succeeded(address);
        }
    }
}
