//! Accounts for bytes that reach a wire through a writer above it, hyper for instance: which of
//! them did the socket accept, by which route, and why did it end. Sends nothing.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::error::SendError;
use crate::meter::{Cold, Count, Report, Tally};
use crate::registry::{self, Owner};
use crate::route::Route;
use crate::transfer::{Moved, PartRef, Progress};

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
    /// The wire is to send nothing more: what it was given is not what was promised.
    broken: bool,
    /// What the wire is about to be asked to write, by a writer that mixes deliveries.
    offered: Option<Offered>,
    /// Bytes that were read beside what is sent, and that the wire does not know of yet.
    read_aside: u64,
    /// What was brought in beside the wire, which does not know of it yet.
    cold_aside: Cold,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, failure, closed, broken, offered, read_aside, cold_aside } = self;
        f.debug_struct("Entries")
            .field("expected", &expected.len())
            .field("failure", failure)
            .field("closed", closed)
            .field("broken", broken)
            .field("offered", &offered.is_some())
            .field("read_aside", read_aside)
            .field("cold_aside", cold_aside)
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

/// A run of memory that the wire will be asked to write next, whatever is expected.
struct Offered {
    address: usize,
    /// They were read from a file into memory.
    copied: bool,
    /// Not held: what was offered last stays here until something else is.
    account: Weak<Account>,
}

/// What one delivery has come to; settled when the last handle and the last expected run go.
struct Account {
    /// That of the wire which the delivery was seen to reach.
    ledger: OnceLock<Ledger>,
    due: u64,
    started: Instant,
    /// How long after the start the first byte left, where it did not leave with the last one.
    first_byte: OnceLock<Duration>,
    /// What the wire sent.
    tally: Mutex<Tally>,
    /// Bytes that were handed to a writer of which it was not known where it ends.
    handed_on: AtomicU64,
    /// Those of them that were read from files.
    handed_on_copied: AtomicU64,
    /// What kept the bytes from being made.
    failure: OnceLock<String>,
    settle: Mutex<Option<Settle>>,
}

/// Why a delivery ended early where nothing failed.
const CLOSED_HERE: &str = "connection closed by this server";

type Settle = Box<dyn FnOnce(Outcome) + Send>;

/// What became of a delivery.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Bytes that were to be sent.
    pub due: u64,
    /// Whether they were seen to reach a `Wire`.
    ///
    /// Where not, the writer they were handed to copied or changed them (TLS in user space, a
    /// compression layer, HTTP/2), or it ends in another socket. What the report then counts is
    /// what that writer took, and whether the peer got it is not known here.
    pub on_wire: bool,
    /// What the socket accepted, by route, and the time from the opening to the end.
    pub report: Report,
    /// From the opening to the first byte of those due; `None` when none was sent.
    pub first_byte: Option<Duration>,
    /// Why it ended early; `None` when all that was due was sent.
    pub cut_short: Option<String>,
}

impl Outcome {
    /// What became of `due` bytes that [`Wire::send_counting`](crate::Wire::send_counting) was to
    /// send since `started`: `tally` says what it sent of them, and `failure` why no more.
    #[must_use]
    pub fn on_wire(due: u64, started: Instant, tally: Tally, failure: Option<String>) -> Self {
        let cut_short =
            (tally.total().bytes < due).then(|| failure.unwrap_or_else(|| CLOSED_HERE.to_owned()));
        let elapsed = started.elapsed();
        // Small, and sent in one step as a rule: its first byte left with the last.
        let first_byte = (tally.total().bytes > 0).then_some(elapsed);
        let report = Report { tally, elapsed };
        Self { due, on_wire: true, report, first_byte, cut_short }
    }
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
        let delivery = Delivery::open(due, started, settle);
        delivery.account.ledger.get_or_init(|| self.clone());
        delivery
    }

    fn expect(&self, bytes: &Bytes, copied: bool, account: &Arc<Account>) {
        let mut entries = self.lock();
        if !bytes.is_empty() && !entries.closed {
            entries.expected.push_back(Expected {
                address: bytes.as_ptr().addr(),
                bytes: bytes.len(),
                copied,
                account: Arc::clone(account),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ticks off what a step moved. Bytes that were read from a file into memory look plain to
    /// the step; here it is known that they took the route read-write.
    pub(crate) fn tick(&self, parts: &[PartRef<'_>], progress: &mut Progress) {
        let mut entries = self.lock();
        progress.read_aside += std::mem::take(&mut entries.read_aside);
        let offered = entries.offered.as_ref().and_then(|offered| offered.tick(parts, progress));
        if progress.bytes() > 0 {
            // Not after a step that moved nothing: the wire may make another one at once.
            entries.offered = None;
        }
        progress.cold += std::mem::take(&mut entries.cold_aside);
        if let Some(account) = offered {
            drop(entries);
            // It may settle here, outside the lock.
            drop(account);
            return;
        }
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
            if moved.count.bytes < front.account.due {
                front.account.begun();
            }
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

    /// An error if the wire is to send nothing more.
    pub(crate) fn refuse_if_broken(&self) -> io::Result<()> {
        let entries = self.lock();
        match &entries.failure {
            Some(failure) if entries.broken => Err(io::Error::other(failure.clone())),
            _ => Ok(()),
        }
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

impl Offered {
    /// Credits what a step moved to its account, if that is what was offered.
    fn tick(&self, parts: &[PartRef<'_>], progress: &mut Progress) -> Option<Arc<Account>> {
        let account = self.account.upgrade()?;
        let offered = |moved: &&mut Moved| address_of(&parts[moved.part]) == Some(self.address);
        let moved = progress.moved.iter_mut().find(offered)?;
        if self.copied {
            moved.way = Some(Route::ReadWrite);
            moved.count.user_copied_bytes = moved.count.bytes;
        }
        let mut tally = account.tally();
        tally.count(moved.way, &moved.count);
        tally.count_step_downs(progress.step_downs);
        tally.count_cold(progress.cold);
        drop(tally);
        Some(account)
    }
}

/// Where a part lies in memory, if it does.
fn address_of(part: &PartRef<'_>) -> Option<usize> {
    match part {
        PartRef::Bytes(bytes) => Some(bytes.as_ptr().addr()),
        PartRef::File(range) => range.mapped_address(),
    }
}

/// The open account of one response, say. It settles when its handles were dropped and every
/// expected run was sent, or the wire was dropped.
#[derive(Clone)]
pub struct Delivery {
    account: Arc<Account>,
}

impl Delivery {
    /// Opens an account of `due` bytes of which it is not known whether they will reach a wire.
    /// Its bytes go out by [`Delivery::trace`] until one was seen to; `settle` is as for
    /// [`Ledger::open`].
    pub fn open(due: u64, started: Instant, settle: impl FnOnce(Outcome) + Send + 'static) -> Self {
        let account = Account {
            ledger: OnceLock::new(),
            due,
            started,
            first_byte: OnceLock::new(),
            tally: Mutex::default(),
            handed_on: AtomicU64::new(0),
            handed_on_copied: AtomicU64::new(0),
            failure: OnceLock::new(),
            settle: Mutex::new(Some(Box::new(settle))),
        };
        Self { account: Arc::new(account) }
    }

    /// Whether its bytes were seen to reach a wire: then mapped bytes, handed out the same way,
    /// will be sent from the file.
    #[must_use]
    pub fn is_on_wire(&self) -> bool {
        self.account.ledger.get().is_some()
    }

    /// The same bytes, such that a wire which is asked to write them, untouched and from their
    /// first byte on, recognises them. Then [`Delivery::is_on_wire`], and they are counted there.
    /// `copied` says that they were read from a file into memory.
    ///
    /// Nothing has to wait for that. A writer that copies or changes what it is handed gets
    /// ordinary bytes.
    #[must_use]
    pub fn trace(&self, bytes: Bytes, copied: bool) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        self.account.begun();
        self.account.handed_on.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if copied {
            self.account.handed_on_copied.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        let account = Arc::clone(&self.account);
        let run = Arc::new(Run { bytes, copied, arrived: AtomicBool::new(false), account });
        registry::insert(&run.bytes, Owner::Run(Arc::downgrade(&run)));
        Bytes::from_owner(Traced(run))
    }

    /// Says that `bytes` are about to be handed to the writer above the wire.
    pub fn expect(&self, bytes: &Bytes) {
        self.push(bytes, false);
    }

    /// The same for bytes that were read from a file into memory: they are counted as user
    /// copies, on the route read-write.
    pub fn expect_copied(&self, bytes: &Bytes) {
        self.push(bytes, true);
    }

    /// Says that `bytes` of files were read into memory for what is sent, and not to be sent: for
    /// a checksum, say. They are counted as user copies, on the route read-write.
    pub fn count_read_aside(&self, bytes: u64) {
        let count = Count { user_copied_bytes: bytes, ..Count::default() };
        self.account.tally().count(Some(Route::ReadWrite), &count);
        if let Some(ledger) = self.account.ledger.get() {
            ledger.lock().read_aside += bytes;
        }
    }

    /// A look at how far it has come, for whoever shows that while it is under way.
    #[must_use]
    pub fn watch(&self) -> DeliveryWatch {
        DeliveryWatch(Arc::downgrade(&self.account))
    }

    /// Says that the writer above is about to ask the wire to write `memory`, or the front of it,
    /// before anything else: for writers that mix deliveries (HTTP/2), so that there is no order
    /// to [expect](Delivery::expect). `copied` says that it was read from a file into memory.
    pub fn offer(&self, memory: &[u8], copied: bool) {
        if let Some(ledger) = self.account.ledger.get() {
            let address = memory.as_ptr().addr();
            let account = Arc::downgrade(&self.account);
            ledger.lock().offered = Some(Offered { address, copied, account });
        }
    }

    /// Says that such a writer took `bytes` into a buffer of its own, which it sends with the next
    /// frame: read from a file (`copied`), they are counted as user copies.
    pub fn count_taken(&self, bytes: u64, copied: bool) {
        let mut count = Count { bytes, ..Count::default() };
        let way = copied.then_some(Route::ReadWrite);
        if copied {
            count.user_copied_bytes = bytes;
            if let Some(ledger) = self.account.ledger.get() {
                ledger.lock().read_aside += bytes;
            }
        }
        self.account.tally().count(way, &count);
    }

    /// Counts what had to be brought into the page cache before the wire was asked.
    pub fn count_cold(&self, cold: Cold) {
        self.account.tally().count_cold(cold);
        if let Some(ledger) = self.account.ledger.get() {
            ledger.lock().cold_aside += cold;
        }
    }

    /// Has the wire send nothing more, and the rest of its deliveries fail: bytes that were
    /// promised are not there, and the writer above has taken others in their place.
    pub fn break_wire(&self, why: &SendError) {
        self.fail(why);
        if let Some(ledger) = self.account.ledger.get() {
            ledger.note(|| why.to_string());
            ledger.lock().broken = true;
        }
    }

    /// Says why the rest of its bytes will not come: the file could not be read, say.
    pub fn fail(&self, why: &SendError) {
        self.account.failure.get_or_init(|| why.to_string());
    }

    fn push(&self, bytes: &Bytes, copied: bool) {
        if let Some(ledger) = self.account.ledger.get() {
            ledger.expect(bytes, copied, &self.account);
        }
    }
}

/// Sees how far a delivery has come, and does not keep it from settling.
#[derive(Clone, Debug)]
pub struct DeliveryWatch(Weak<Account>);

impl DeliveryWatch {
    /// What was sent by now; `None` once the delivery has settled. It may settle in this call, so
    /// no lock may be held that `settle` takes.
    #[must_use]
    pub fn tally(&self) -> Option<Tally> {
        let account = self.0.upgrade()?;
        Some(if account.ledger.get().is_some() { *account.tally() } else { account.handed_on() })
    }
}

/// A run of bytes on its way through a writer of which it is not known where it ends.
pub(crate) struct Run {
    bytes: Bytes,
    copied: bool,
    arrived: AtomicBool,
    account: Arc<Account>,
}

impl Run {
    /// A wire with this ledger was asked to write the run, or the front of it: `slice`.
    pub(crate) fn arrived_at(&self, ledger: &Ledger, slice: &[u8]) {
        // A wire whose socket was full is asked again, with the same slice.
        if slice.len() <= self.bytes.len() && !self.arrived.swap(true, Ordering::Relaxed) {
            let bound = self.account.ledger.get_or_init(|| ledger.clone());
            if Arc::ptr_eq(&bound.entries, &ledger.entries) {
                ledger.expect(&self.bytes, self.copied, &self.account);
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        registry::remove(self.bytes.as_ptr().addr());
    }
}

/// Owner of the memory behind [`Delivery::trace`].
struct Traced(Arc<Run>);

impl AsRef<[u8]> for Traced {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("due", &self.account.due).finish_non_exhaustive()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("due", &self.due).finish_non_exhaustive()
    }
}

impl Account {
    /// Its first bytes leave.
    fn begun(&self) {
        self.first_byte.get_or_init(|| self.started.elapsed());
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the writer took that the bytes were handed to, where no wire was seen.
    fn handed_on(&self) -> Tally {
        let bytes = self.handed_on.load(Ordering::Relaxed);
        let copied = self.handed_on_copied.load(Ordering::Relaxed);
        let mut tally = *self.tally();
        let count = Count { bytes: copied, user_copied_bytes: copied, ..Count::default() };
        tally.count(Some(Route::ReadWrite), &count);
        tally.count(None, &Count { bytes: bytes - copied, ..Count::default() });
        tally
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let ledger = self.ledger.get();
        let tally = if ledger.is_some() { *self.tally() } else { self.handed_on() };
        let cut_short = (tally.total().bytes < self.due).then(|| {
            let own = self.failure.get().cloned();
            let failure = own.or_else(|| ledger.and_then(|ledger| ledger.lock().failure.clone()));
            failure.unwrap_or_else(|| match ledger {
                // Nothing is wrong with the wire: of its deliveries this one was not wanted.
                Some(ledger) if !ledger.lock().closed => "cancelled by the peer".to_owned(),
                Some(_) => CLOSED_HERE.to_owned(),
                None => "dropped before its end".to_owned(),
            })
        });
        let elapsed = self.started.elapsed();
        let any = tally.total().bytes > 0;
        let first_byte = any.then(|| self.first_byte.get().copied().unwrap_or(elapsed));
        let report = Report { tally, elapsed };
        let settle = self.settle.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(settle) = settle {
            let on_wire = self.ledger.get().is_some();
            settle(Outcome { due: self.due, on_wire, report, first_byte, cut_short });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::routes::Cost;

    fn opened(due: u64) -> (Delivery, mpsc::Receiver<Outcome>) {
        let (settled, outcomes) = mpsc::channel();
        let settle = move |outcome| drop(settled.send(outcome));
        (Delivery::open(due, Instant::now(), settle), outcomes)
    }

    #[test]
    fn what_reaches_no_wire_counts_as_handed_on() {
        let (delivery, outcomes) = opened(14);
        let file = delivery.trace(Bytes::from_static(b"from a file"), true);
        let text = delivery.trace(Bytes::from_static(b"end"), false);
        assert!(!delivery.is_on_wire());
        drop((delivery, file));
        assert!(outcomes.try_recv().is_err(), "a run is still on its way");
        drop(text);
        let outcome = outcomes.try_recv().unwrap();
        assert!(!outcome.on_wire && outcome.cut_short.is_none());
        assert_eq!(outcome.report.tally.route(Route::ReadWrite).user_copied_bytes, 11);
        assert_eq!(outcome.report.tally.plain().bytes, 3);
    }

    #[test]
    fn what_is_read_aside_is_a_user_copy() {
        let (delivery, outcomes) = opened(3);
        delivery.count_read_aside(1000);
        drop(delivery.trace(Bytes::from_static(b"end"), false));
        drop(delivery);
        let tally = outcomes.try_recv().unwrap().report.tally;
        assert_eq!((tally.total().bytes, tally.total().user_copied_bytes), (3, 1000));
        assert_eq!(tally.routes_taken().next(), None);
    }

    #[test]
    fn what_was_never_handed_on_is_cut_short() {
        let (delivery, outcomes) = opened(2);
        drop(delivery.trace(Bytes::from_static(b"1"), true));
        drop(delivery);
        let outcome = outcomes.try_recv().unwrap();
        assert_eq!(outcome.cut_short.as_deref(), Some("dropped before its end"));
    }

    /// The wire steps again at once when the socket takes bytes by then.
    #[test]
    fn what_was_offered_waits_for_bytes_to_move() {
        let (settled, outcomes) = mpsc::channel();
        let ledger = Ledger::default();
        let delivery = ledger.open(3, Instant::now(), move |outcome| drop(settled.send(outcome)));
        let memory = b"end";
        delivery.offer(memory, false);
        let parts = [PartRef::Bytes(memory)];
        for bytes in [0, 3] {
            let mut progress = Progress::default();
            progress.record(0, None, bytes, Cost { calls: 1, user_copied_bytes: 0 });
            ledger.tick(&parts, &mut progress);
        }
        drop(delivery);
        let outcome = outcomes.try_recv().unwrap();
        assert_eq!((outcome.cut_short, outcome.report.tally.total().calls), (None, 2));
    }

    #[test]
    fn only_a_whole_front_is_an_arrival() {
        let (delivery, _outcomes) = opened(5);
        let run = delivery.trace(Bytes::from(vec![1; 5]), true);
        assert!(registry::recognise(&run[1..]).is_none());
        assert!(registry::recognise(&[1; 5]).is_none());
        assert!(registry::recognise(&run[..2]).is_some());
    }
}
