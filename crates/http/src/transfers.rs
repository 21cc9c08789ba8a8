//! Responses under way that are worth showing: the large ones. Bounded, and looked at only by who
//! watches the server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;
use pagewire_engine::{DeliveryWatch, Tally};

use crate::listen::PeerAddress;

/// Shorter bodies are gone before anybody sees them, and are not worth the lock.
const SHOWN_BYTES_MIN: u64 = 1024 * 1024 + 1;

/// More are served and not shown.
const SHOWN_MAX: usize = 65_536;

/// A response under way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Transfer {
    /// It has this number from its begin to its end, and no other has it.
    pub id: u64,
    /// Who asked.
    pub peer: PeerAddress,
    /// What for.
    pub target: Uri,
    /// Bytes of its body.
    pub due: u64,
    /// What the socket accepted by now, by route.
    pub tally: Tally,
    /// Since its request.
    pub elapsed: Duration,
}

/// The large responses under way.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    begun: AtomicU64,
    shown: Mutex<BTreeMap<u64, Shown>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) peer: PeerAddress,
    pub(crate) target: Uri,
    pub(crate) due: u64,
    pub(crate) started: Instant,
    pub(crate) watch: DeliveryWatch,
}

impl Transfers {
    /// The number of the next one, if it is to be shown.
    pub(crate) fn number(&self, due: u64) -> Option<u64> {
        (due >= SHOWN_BYTES_MIN).then(|| self.begun.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn show(&self, id: u64, shown: Shown) {
        let mut all = self.lock();
        if all.len() < SHOWN_MAX {
            all.insert(id, shown);
        }
    }

    pub(crate) fn ended(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The oldest `max` of them.
    pub(crate) fn oldest(&self, max: usize) -> Vec<Transfer> {
        let all: Vec<_> =
            self.lock().iter().take(max).map(|(id, one)| (*id, one.clone())).collect();
        // Not under the lock: a delivery that is looked at may settle, which takes it.
        let look = |(id, shown): (u64, Shown)| {
            let Shown { peer, target, due, started, watch } = shown;
            let tally = watch.tally()?;
            Some(Transfer { id, peer, target, due, tally, elapsed: started.elapsed() })
        };
        all.into_iter().filter_map(look).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
