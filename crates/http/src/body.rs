//! Bodies for hyper: runs of text and file ranges. On a wire a file range goes out as mapped
//! bytes, which the wire recognises and sends from the file. Anywhere else, and until a wire was
//! seen, it goes out as bounded chunks that were read into memory, never on the event loop where
//! that may wait for a disk. So no code of this crate reads a mapping.
//!
//! How a body learns what it sits on: the first chunk is traced (`Delivery::trace`). A wire that
//! is asked to write it recognises it by its address; a layer that copies or changes it, or
//! another socket, does not. The body gives the writer above one occasion to write (it is pending
//! once), and looks again before each chunk. Nothing waits for an answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pagewire_engine::{Delivery, FileRange, Outcome, Part, Payload, SendError};
use tokio::task::{JoinHandle, coop, spawn_blocking};

use crate::archive::{ArchiveParts, Batch};

/// The most bytes of a file that are read into memory at a time. hyper holds up to six such
/// chunks for a slow peer, so larger ones cost memory; 64 KiB is what tower-http reads too.
const CHUNK_BYTES: u64 = 64 * 1024;

/// The body of a response: file ranges, texts, or nothing.
///
/// Its length is known from the start. It yields mapped bytes where it ends in a
/// [`Wire`](pagewire_engine::Wire) of this process, chunks read into memory elsewhere; see the
/// crate's documentation for which stack means what.
///
/// Chunks that would have to wait for a disk are read by [`tokio::task::spawn_blocking`]: it has
/// to be polled on a tokio runtime.
#[derive(Debug, Default)]
pub struct FileBody {
    left: Payload,
    reading: Option<Reading>,
    /// What comes after `left` and is made when it is reached.
    later: Option<Box<Later>>,
    flush: Flush,
    delivery: Option<Delivery>,
}

/// A read under way, of a range that had so many bytes left before it.
#[derive(Debug)]
struct Reading {
    read: JoinHandle<ReadChunk>,
    bytes: u64,
}

/// The rest of an archive. While one batch of it is sent the next one is made.
#[derive(Debug)]
struct Later {
    /// Bytes that are not in `left` yet.
    bytes: u64,
    making: JoinHandle<MadeBatch>,
}

type MadeBatch = Result<(Batch, ArchiveParts), SendError>;

pub(crate) type ReadChunk = Result<(Bytes, FileRange), SendError>;

/// Whether the writer above had its occasion to write the first chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flush {
    #[default]
    NothingYet,
    Due,
    Done,
}

impl FileBody {
    /// Bytes still to be handed out.
    pub(crate) fn bytes_left(&self) -> u64 {
        let reading = self.reading.as_ref().map_or(0, |reading| reading.bytes);
        self.left.len() + reading + self.later.as_ref().map_or(0, |later| later.bytes)
    }

    /// Has every run of bytes that this body hands out announced to `delivery`. With that of a
    /// wire the body is known to end there, and does not have to find out.
    pub(crate) fn announced_to(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// Has `settle` called with what became of the body: when all of it was sent, or nobody will
    /// send the rest any more. It must not block. See [`Outcome::on_wire`].
    #[must_use]
    pub fn on_end(self, settle: impl FnOnce(Outcome) + Send + 'static) -> Self {
        let delivery = Delivery::open(self.bytes_left(), Instant::now(), settle);
        self.announced_to(delivery)
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SendError>>> {
        if self.flush == Flush::Due {
            self.flush = Flush::Done;
            if !self.left.is_empty() || self.later.is_some() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if let Some(read) = ready!(self.poll_reading(cx)) {
            return Poll::Ready(Some(read.map(|(chunk, rest)| self.chunk(chunk, rest))));
        }
        let part = match ready!(self.poll_next(cx)) {
            Some(part) => part?,
            None => {
                self.delivery = None;
                return Poll::Ready(None);
            }
        };
        let range = match part {
            Part::File(range) => range,
            Part::Bytes(text) => return Poll::Ready(Some(Ok(self.text(text)))),
            part => return Poll::Ready(Some(Err(unknown(&part)))),
        };
        match self.mapped(&range) {
            // hyper takes a run of any length, and asks the wire to write all of it.
            Some(bytes) => Poll::Ready(Some(Ok(bytes))),
            None => {
                let read = ready!(self.poll_read(cx, range));
                Poll::Ready(Some(read.map(|(chunk, rest)| self.chunk(chunk, rest))))
            }
        }
    }

    /// What the read under way brought, if there is one.
    pub(crate) fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<Option<ReadChunk>> {
        let Some(Reading { read, .. }) = &mut self.reading else { return Poll::Ready(None) };
        let finished = ready!(Pin::new(read).poll(cx));
        self.reading = None;
        Poll::Ready(Some(
            finished.unwrap_or_else(|error| Err(SendError::Io(io::Error::other(error)))),
        ))
    }

    /// The part at the front, taken out; those of an archive are made when it is their turn.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, SendError>>> {
        loop {
            if let Some(part) = self.left.pop_front() {
                return Poll::Ready(Some(Ok(part)));
            }
            let Some(later) = &mut self.later else { return Poll::Ready(None) };
            let made = ready!(Pin::new(&mut later.making).poll(cx));
            self.later = None;
            match made.map_err(|error| SendError::Io(io::Error::other(error))).and_then(|made| made)
            {
                Ok(made) => self.take_batch(made),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn take_batch(&mut self, (batch, rest): (Batch, ArchiveParts)) {
        if let (1.., Some(delivery)) = (batch.read_aside, &self.delivery) {
            delivery.count_read_aside(batch.read_aside);
        }
        self.left = batch.payload;
        self.later = Later::make(rest);
    }

    fn mapped(&self, range: &FileRange) -> Option<Bytes> {
        let delivery = self.delivery.as_ref().filter(|delivery| delivery.is_on_wire())?;
        match range.mapped_bytes() {
            Ok(bytes) => {
                delivery.expect(&bytes);
                Some(bytes)
            }
            Err(error) => {
                tracing::debug!(%error, "the file cannot be mapped: reading it in chunks");
                None
            }
        }
    }

    /// A chunk from the front of `range`, and what follows it.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut range: FileRange,
    ) -> Poll<ReadChunk> {
        // Hot bytes come at once: without a budget a fast peer would keep this thread.
        let Poll::Ready(budget) = coop::poll_proceed(cx) else {
            self.left.push_front(Part::File(range));
            return Poll::Pending;
        };
        if let Some(chunk) = range.read_front_now(CHUNK_BYTES)? {
            budget.made_progress();
            return Poll::Ready(Ok((chunk, range)));
        }
        let bytes = range.len();
        let read = spawn_blocking(move || {
            let chunk = range.read_front(CHUNK_BYTES)?;
            Ok((chunk, range))
        });
        self.reading = Some(Reading { read, bytes });
        self.poll_reading(cx).map(|read| read.expect("it was begun the line before"))
    }

    /// Puts back what was taken from the front.
    pub(crate) fn put_back(&mut self, rest: FileRange) {
        self.left.push_front(Part::File(rest));
    }

    /// What its runs are announced to.
    pub(crate) fn delivery(&self) -> Option<&Delivery> {
        self.delivery.as_ref()
    }

    /// Hands out nothing more, because of `error`.
    pub(crate) fn fail(&mut self, error: &SendError) {
        if let Some(delivery) = &self.delivery {
            delivery.fail(error);
        }
        self.left = Payload::new();
        self.later = None;
    }

    /// A chunk that was read, as it is to be handed out; `rest` is what follows it.
    fn chunk(&mut self, chunk: Bytes, rest: FileRange) -> Bytes {
        self.left.push_front(Part::File(rest));
        let due = chunk.len() as u64 + self.bytes_left();
        let delivery =
            self.delivery.get_or_insert_with(|| Delivery::open(due, Instant::now(), drop));
        if delivery.is_on_wire() {
            delivery.expect_copied(&chunk);
            return chunk;
        }
        if self.flush == Flush::NothingYet {
            self.flush = Flush::Due;
        }
        delivery.trace(chunk, true)
    }

    fn text(&self, text: Bytes) -> Bytes {
        match &self.delivery {
            None => text,
            Some(delivery) if delivery.is_on_wire() => {
                delivery.expect(&text);
                text
            }
            Some(delivery) => delivery.trace(text, false),
        }
    }
}

fn unknown(part: &Part) -> SendError {
    SendError::Io(io::Error::new(io::ErrorKind::Unsupported, format!("{part:?}")))
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let part = ready!(self.poll_part(cx));
        Poll::Ready(part.map(|part| match part {
            Ok(bytes) => Ok(Frame::data(bytes)),
            Err(error) => {
                self.fail(&error);
                Err(error.into())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left())
    }
}

impl From<Payload> for FileBody {
    fn from(payload: Payload) -> Self {
        Self { left: payload, ..Self::default() }
    }
}

/// The first batch is made at once: this has to be called on a tokio runtime.
impl From<ArchiveParts> for FileBody {
    fn from(parts: ArchiveParts) -> Self {
        Self { later: Later::make(parts), ..Self::default() }
    }
}

impl Later {
    fn make(mut parts: ArchiveParts) -> Option<Box<Self>> {
        let bytes = parts.len();
        let make = move || {
            let batch = parts.next_batch()?;
            Ok((batch, parts))
        };
        (bytes > 0).then(|| Box::new(Self { bytes, making: spawn_blocking(make) }))
    }
}

impl From<FileRange> for FileBody {
    fn from(range: FileRange) -> Self {
        Payload::new().file(range).into()
    }
}

impl From<String> for FileBody {
    fn from(text: String) -> Self {
        Payload::new().bytes(text).into()
    }
}
