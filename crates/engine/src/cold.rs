//! The cold pool: a bounded number of threads that bring windows of files into the page cache
//! or, where the page cache is not theirs to rely on, into pipes, and then wake who waits for them.
//! They never hold a socket, so no client can hold them.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, retry_on_intr};

use crate::error::Fault;
use crate::routes::splice::Pipe;
use crate::source::{FileRange, SourceFile};

/// Threads in all. They wait for disks: more than a disk has in its queue gain nothing.
const THREADS_MAX: usize = 16;

/// Threads that may wait for files of one file system, so that one dead disk or server does not
/// hold those of all others.
const THREADS_MAX_A_DEVICE: usize = 8;

/// A thread that had nothing to do for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The kernel cuts one request for readahead to what the device advises (`read_ahead_kb`, 128
/// by default): a window is asked for in slices of that size.
const READAHEAD_BYTES: u64 = 128 * 1024;

/// A window that is being brought in. Dropping every handle of a window that no thread has begun
/// cancels it.
#[derive(Debug)]
pub(crate) struct Fetch {
    job: Arc<Job>,
}

#[derive(Debug)]
struct Job {
    range: FileRange,
    into: Into,
    state: Mutex<State>,
}

/// Where a job puts its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Into {
    PageCache,
    /// Of one socket: such jobs are not shared.
    Pipe,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<(), Fault>>,
    /// What `Into::Pipe` filled, until it is taken.
    pipe: Option<Pipe>,
    begun: bool,
    waiting: Vec<Waker>,
}

/// How soon a window is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A client waits for it.
    Now,
    /// It follows the one that is being sent.
    Ahead,
}

impl Fetch {
    /// Has `range` brought in; shares the work with whoever asked for the same before.
    pub(crate) fn begin(range: &FileRange, urgency: Urgency) -> Self {
        Self { job: POOL.enqueue(range, urgency) }
    }

    /// Has as much of the front of `range` as fits put into a pipe.
    pub(crate) fn into_pipe(range: &FileRange, urgency: Urgency) -> Self {
        let job = Job::new(range, Into::Pipe);
        POOL.push(&job, urgency);
        Self { job }
    }

    /// Whether it fills a pipe with the front of `range`.
    pub(crate) fn fills_pipe_with(&self, range: &FileRange) -> bool {
        let Job { range: job, into, .. } = &*self.job;
        *into == Into::Pipe && job.source().is(range.source()) && job.position() == range.position()
    }

    /// The pipe, when it is filled; `None` too if the file does not splice.
    pub(crate) fn take_pipe(&self) -> Option<Pipe> {
        self.job.lock().pipe.take()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.job.is_done()
    }

    pub(crate) fn range(&self) -> &FileRange {
        &self.job.range
    }

    /// Whether it brings in the byte of `source` at `position`.
    pub(crate) fn covers(&self, position: u64, source: &SourceFile) -> bool {
        let range = &self.job.range;
        self.job.into == Into::PageCache
            && range.source().is(source)
            && (range.position()..range.end()).contains(&position)
    }

    /// A window that was fetched ahead is waited for.
    pub(crate) fn hurry(&self) {
        if !self.job.is_begun() {
            POOL.push(&self.job, Urgency::Now);
        }
    }

    /// Ready when the window was brought in, or the disk said why it cannot be.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut state = self.job.lock();
        if let Some(outcome) = state.outcome {
            return Poll::Ready(outcome);
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Job {
    fn new(range: &FileRange, into: Into) -> Arc<Self> {
        Arc::new(Self { range: range.clone(), into, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_begun(&self) -> bool {
        self.lock().begun
    }

    fn is_done(&self) -> bool {
        self.lock().outcome.is_some()
    }

    fn run(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.begun, true) {
            return;
        }
        drop(state);
        let (outcome, pipe) = match self.into {
            Into::PageCache => (bring_in(&self.range).map_err(Fault::from), None),
            Into::Pipe => match Pipe::filled(&self.range) {
                Ok(pipe) => (Ok(()), pipe),
                Err(fault) => (Err(fault), None),
            },
        };
        let mut state = self.lock();
        (state.outcome, state.pipe) = (Some(outcome), pipe);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Which window a job brings in: the file by the address of its shared state, which is alive
/// while a job for it is.
type WindowKey = (usize, u64, u64);

fn key(range: &FileRange) -> WindowKey {
    (range.source().address(), range.position(), range.end())
}

static POOL: LazyLock<Pool> = LazyLock::new(Pool::default);

#[derive(Debug, Default)]
struct Pool {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    now: VecDeque<Weak<Job>>,
    ahead: VecDeque<Weak<Job>>,
    known: HashMap<WindowKey, Weak<Job>>,
    threads: usize,
    idle: usize,
    /// Threads that bring in files of each device.
    busy: HashMap<u64, usize>,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, range: &FileRange, urgency: Urgency) -> Arc<Job> {
        let mut queue = self.lock();
        let known = queue.known.get(&key(range)).and_then(Weak::upgrade);
        if let Some(job) = known.filter(|job| !job.is_done()) {
            drop(queue);
            if urgency == Urgency::Now {
                Fetch { job: Arc::clone(&job) }.hurry();
            }
            return job;
        }
        let job = Job::new(range, Into::PageCache);
        queue.known.insert(key(range), Arc::downgrade(&job));
        drop(queue);
        self.push(&job, urgency);
        job
    }

    fn push(&self, job: &Arc<Job>, urgency: Urgency) {
        let mut queue = self.lock();
        match urgency {
            Urgency::Now => queue.now.push_back(Arc::downgrade(job)),
            Urgency::Ahead => queue.ahead.push_back(Arc::downgrade(job)),
        }
        let waiting = queue.now.len() + queue.ahead.len();
        if waiting > queue.idle && queue.threads < THREADS_MAX {
            let builder = thread::Builder::new().name("cold".to_owned());
            match builder.spawn(|| POOL.work()) {
                Ok(_) => queue.threads += 1,
                // With no thread at all the window would never come in: this one must do it.
                Err(error) if queue.threads == 0 => {
                    tracing::warn!(%error, "no thread for cold files: reading on this one");
                    drop(queue);
                    return job.run();
                }
                Err(error) => tracing::debug!(%error, "no further thread for cold files"),
            }
        }
        drop(queue);
        self.more.notify_one();
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.take() {
                let device = job.range.source().identity().device;
                *queue.busy.entry(device).or_default() += 1;
                drop(queue);
                job.run();
                queue = self.lock();
                queue.forget(&job);
                queue.release(device);
                drop(job);
                // A job that was passed over because of this device may go on.
                self.more.notify_one();
                continue;
            }
            queue.idle += 1;
            let waited = self.more.wait_timeout(queue, IDLE_MAX);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timeout.timed_out() && queue.now.is_empty() && queue.ahead.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

impl Queue {
    /// The next job that somebody still waits for and whose device has a thread to spare.
    fn take(&mut self) -> Option<Arc<Job>> {
        let Self { now, ahead, busy, .. } = self;
        let take_from = |jobs: &mut VecDeque<Weak<Job>>| {
            // Cancelled ones, and those that were hurried and begun, are gone for good.
            jobs.retain(|job| job.upgrade().is_some_and(|job| !job.is_begun()));
            let next = jobs.iter().position(|job| {
                let device = job.upgrade().map(|job| job.range.source().identity().device);
                let busy = device.and_then(|device| busy.get(&device)).copied();
                busy.unwrap_or(0) < THREADS_MAX_A_DEVICE
            });
            jobs.remove(next?)?.upgrade()
        };
        take_from(now).or_else(|| take_from(ahead))
    }

    fn forget(&mut self, job: &Arc<Job>) {
        let key = key(&job.range);
        if self.known.get(&key).is_some_and(|known| known.as_ptr() == Arc::as_ptr(job)) {
            self.known.remove(&key);
        }
        if self.known.len() > 2 * (self.now.len() + self.ahead.len()) + THREADS_MAX {
            // What was cancelled in the queue is still known by its window.
            self.known.retain(|_, job| job.strong_count() > 0);
        }
    }

    fn release(&mut self, device: u64) {
        if let Some(busy) = self.busy.get_mut(&device) {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(&device);
            }
        }
    }
}

/// Reads `range` into the page cache, and waits until all of it is there.
///
/// First the reads are asked for, all at once: with POSIX_FADV_WILLNEED, because the readahead
/// state of a descriptor that many share makes their reads look random. Then sendfile to
/// /dev/null waits for each page without copying it. A file that shrank is no error here: who
/// sends it will see.
fn bring_in(range: &FileRange) -> Result<(), Errno> {
    let slices = range.position()..range.end();
    for position in slices.step_by(usize::try_from(READAHEAD_BYTES).unwrap_or(usize::MAX)) {
        let len = READAHEAD_BYTES.min(range.end() - position);
        fadvise(range.source(), position, std::num::NonZeroU64::new(len), Advice::WillNeed)?;
    }
    let Some(null) = NULL.as_ref() else { return read_through(range) };
    let mut position = range.position();
    while position < range.end() {
        let left = usize::try_from(range.end() - position).unwrap_or(usize::MAX);
        match retry_on_intr(|| {
            let mut from = position;
            rustix::fs::sendfile(null, range.source(), Some(&mut from), left)
        }) {
            Ok(0) => break,
            Ok(moved) => position += moved as u64,
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return read_through(range),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Where there is no /dev/null, or the file does not splice into it.
static NULL: LazyLock<Option<File>> =
    LazyLock::new(|| File::options().write(true).open("/dev/null").ok());

fn read_through(range: &FileRange) -> Result<(), Errno> {
    let mut buffer = [0; 16 * 1024];
    let mut position = range.position();
    while position < range.end() {
        match retry_on_intr(|| rustix::io::pread(range.source(), &mut buffer, position))? {
            0 => break,
            read => position += read as u64,
        }
    }
    Ok(())
}
