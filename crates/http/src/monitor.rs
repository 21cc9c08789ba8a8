//! A look into a running server, for whoever shows what it does.

use std::fmt;
use std::sync::Arc;

use crate::serve::{Shared, Totals};
use crate::transfers::Transfer;

/// What a server is doing now. Looking costs it next to nothing.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

impl Monitor {
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// What it did by now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.0.totals()
    }

    /// Whether it accepts nothing more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }

    /// Responses under way whose body has more than 1 MiB: the oldest `max` of them.
    #[must_use]
    pub fn transfers(&self, max: usize) -> Vec<Transfer> {
        self.0.transfers.oldest(max)
    }

    /// How many of those there are.
    #[must_use]
    pub fn transfers_now(&self) -> usize {
        self.0.transfers.count()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}
