//! Accounts for bytes that reach a wire through a writer above it, hyper for instance: which of
//! them did the socket accept, by which route, and why did it end. Sends nothing.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::meter::{Report, Tally};
use crate::route::Route;
use crate::transfer::{PartRef, Progress};

/// The account of one wire, shared by the wire and by whoever hands bytes to the writer above.
///
/// A writer like hyper takes bytes and says no more of them. The wire sees slices and knows no
/// responses. The ledger joins the two by address: whoever hands bytes up says so with
/// [`Delivery::expect`], in the order in which they will be written, and the wire ticks them off.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    expected: VecDeque<Expected>,
    /// The first thing that went wrong on the wire.
    failure: Option<String>,
    /// The wire is gone.
    closed: bool,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, failure, closed } = self;
        f.debug_struct("Entries")
            .field("expected", &expected.len())
            .field("failure", failure)
            .field("closed", closed)
            .finish()
    }
}

/// A run of memory that the wire will be asked to write.
struct Expected {
    address: usize,
    bytes: usize,
    /// They were read from a file into memory.
    copied: bool,
    account: Arc<Account>,
}

/// What one delivery has come to; settled when the last handle and the last expected run go.
struct Account {
    ledger: Ledger,
    due: u64,
    started: Instant,
    tally: Mutex<Tally>,
    settle: Mutex<Option<Settle>>,
}

type Settle = Box<dyn FnOnce(Outcome) + Send>;

/// What became of a delivery.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Bytes that were to be sent.
    pub due: u64,
    /// What the socket accepted, by route, and the time from [`Ledger::open`] to the end.
    pub report: Report,
    /// Why it ended early; `None` when all that was due was sent.
    pub cut_short: Option<String>,
}

impl Ledger {
    /// Opens the account of `due` bytes. `settle` is called once, on the thread that drops the
    /// last of them, when all were sent or nobody will send them any more. It must not block.
    pub fn open(
        &self,
        due: u64,
        started: Instant,
        settle: impl FnOnce(Outcome) + Send + 'static,
    ) -> Delivery {
        let account = Account {
            ledger: self.clone(),
            due,
            started,
            tally: Mutex::default(),
            settle: Mutex::new(Some(Box::new(settle))),
        };
        Delivery { account: Arc::new(account) }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ticks off what a step moved. Bytes that were read from a file into memory look plain to
    /// the step; here it is known that they took the route read-write.
    pub(crate) fn tick(&self, parts: &[PartRef<'_>], progress: &mut Progress) {
        let mut entries = self.lock();
        let Some(front) = entries.expected.front() else {
            return;
        };
        front.account.tally().count_step_downs(progress.step_downs);
        front.account.tally().count_cold(progress.cold);
        let mut sent: SmallVec<[Expected; 4]> = SmallVec::new();
        for moved in &mut progress.moved {
            let Some(address) = address_of(&parts[moved.part]) else {
                continue;
            };
            let Some(front) = entries.expected.front_mut() else {
                break;
            };
            if front.address != address {
                // A head, or other bytes that nobody asked to be told of.
                continue;
            }
            if front.copied {
                moved.way = Some(Route::ReadWrite);
                moved.count.user_copied_bytes = moved.count.bytes;
            }
            front.account.tally().count(moved.way, &moved.count);
            let bytes = usize::try_from(moved.count.bytes).unwrap_or(usize::MAX).min(front.bytes);
            front.address += bytes;
            front.bytes -= bytes;
            if front.bytes == 0 {
                sent.extend(entries.expected.pop_front());
            }
        }
        drop(entries);
        // Accounts settle here, outside the lock: `settle` may open the next one.
        drop(sent);
    }

    /// Remembers the first failure of the wire, as the reason of deliveries that end early.
    pub(crate) fn failed(&self, error: &io::Error) {
        self.note(|| error.to_string());
    }

    /// Remembers that the peer closed its side.
    pub(crate) fn closed_by_peer(&self) {
        self.note(|| "connection closed by the peer".to_owned());
    }

    fn note(&self, failure: impl FnOnce() -> String) {
        self.lock().failure.get_or_insert_with(failure);
    }

    /// Nothing more will be written.
    pub(crate) fn close(&self) {
        let mut entries = self.lock();
        entries.closed = true;
        let expected = std::mem::take(&mut entries.expected);
        drop(entries);
        drop(expected);
    }
}

/// Where a part lies in memory, if it does.
fn address_of(part: &PartRef<'_>) -> Option<usize> {
    match part {
        PartRef::Bytes(bytes) => Some(bytes.as_ptr().addr()),
        PartRef::File(range) => range.mapped_address(),
    }
}

/// The open account of one response, say. It settles when this handle was dropped and every
/// expected run was sent, or the wire was dropped.
pub struct Delivery {
    account: Arc<Account>,
}

impl Delivery {
    /// Says that `bytes` are about to be handed to the writer above the wire.
    pub fn expect(&self, bytes: &Bytes) {
        self.push(bytes, false);
    }

    /// The same for bytes that were read from a file into memory: they are counted as user
    /// copies, on the route read-write.
    pub fn expect_copied(&self, bytes: &Bytes) {
        self.push(bytes, true);
    }

    fn push(&self, bytes: &Bytes, copied: bool) {
        let mut entries = self.account.ledger.lock();
        if !bytes.is_empty() && !entries.closed {
            entries.expected.push_back(Expected {
                address: bytes.as_ptr().addr(),
                bytes: bytes.len(),
                copied,
                account: Arc::clone(&self.account),
            });
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("due", &self.account.due).finish_non_exhaustive()
    }
}

impl Account {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let tally = *self.tally();
        let cut_short = (tally.total().bytes < self.due).then(|| {
            let failure = self.ledger.lock().failure.clone();
            failure.unwrap_or_else(|| "connection closed by this server".to_owned())
        });
        let report = Report { tally, elapsed: self.started.elapsed() };
        let settle = self.settle.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(settle) = settle {
            settle(Outcome { due: self.due, report, cut_short });
        }
    }
}
