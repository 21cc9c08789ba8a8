//! Bodies for HTTP/2, whose writer (h2) cuts them into frames and copies the first 247 bytes of
//! each frame, and all of a short one, behind the frame's head. Here those bytes are read from
//! the file, because no code reads a mapping; the rest of the frame is handed on as mapped memory,
//! which the wire recognises and sends from the file.
//!
//! What tells the two apart: to copy, h2 asks for `chunk`; to write, for `chunks_vectored`.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pagewire_engine::{Delivery, FileRange, Part, SendError, Storage, Warmth};

use crate::body::FileBody;

/// File bytes that are handed to h2 at a time. They are in the page cache when they are, so they
/// should not lie there long; a frame is 16 KiB for most clients.
const UNIT_BYTES: u64 = 256 * 1024;

/// What h2 copies from the front of a frame (its CHAIN_THRESHOLD).
const COPIED_BYTES_MAX: u64 = 256;

/// A [`FileBody`] for HTTP/2 over a wire.
#[derive(Debug)]
pub(crate) struct FramedBody {
    body: FileBody,
    warmth: Warmth,
}

impl From<FileBody> for FramedBody {
    fn from(body: FileBody) -> Self {
        Self { body, warmth: Warmth::default() }
    }
}

impl FramedBody {
    fn poll_unit(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Unit, SendError>>> {
        if let Some(read) = ready!(self.body.poll_reading(cx)) {
            return Poll::Ready(Some(read.map(|(chunk, rest)| self.copied(chunk, rest))));
        }
        match ready!(self.body.poll_next(cx)) {
            None => Poll::Ready(None),
            Some(Ok(Part::File(range))) => self.poll_range(cx, range).map(Some),
            Some(Ok(Part::Bytes(text))) => Poll::Ready(Some(Ok(self.unit(Memory::Text(text))))),
            Some(Ok(part)) => Poll::Ready(Some(Err(SendError::Io(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{part:?}"),
            ))))),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
        }
    }

    fn poll_range(
        &mut self,
        cx: &mut Context<'_>,
        range: FileRange,
    ) -> Poll<Result<Unit, SendError>> {
        let delivery = self.body.delivery().cloned();
        // What lies behind a server is read where one may wait for it: even what is in the page
        // cache may ask that server again.
        let (Some(delivery), Ok(mapped), false) =
            (delivery, range.mapped_bytes(), range.source().storage() == Storage::Remote)
        else {
            let read = ready!(self.body.poll_read(cx, range));
            return Poll::Ready(read.map(|(chunk, rest)| self.copied(chunk, rest)));
        };
        let Poll::Ready(hot) = self.warmth.poll_front(cx, &range, &delivery) else {
            self.body.put_back(range);
            return Poll::Pending;
        };
        let unit = hot?.min(UNIT_BYTES).min(range.len());
        let (file, position) = (range.source(), range.position());
        let rest = file.range(position + unit, range.len() - unit);
        if let Ok(rest) = rest {
            self.body.put_back(rest);
        }
        let len = usize::try_from(unit).unwrap_or(usize::MAX);
        let unit = Mapped { bytes: mapped.slice(..len), file: range, front: OnceCell::new() };
        Poll::Ready(Ok(self.unit(Memory::Mapped(unit))))
    }

    fn copied(&mut self, chunk: Bytes, rest: FileRange) -> Unit {
        self.body.put_back(rest);
        self.unit(Memory::Read(chunk))
    }

    fn unit(&self, memory: Memory) -> Unit {
        Unit { memory, delivery: self.body.delivery().cloned(), offered: Cell::new(false) }
    }
}

impl Body for FramedBody {
    type Data = Unit;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Unit>>>> {
        let unit = ready!(self.poll_unit(cx));
        Poll::Ready(unit.map(|unit| match unit {
            Ok(unit) => Ok(Frame::data(unit)),
            Err(error) => {
                self.body.fail(&error);
                Err(error.into())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A run of a body, as h2 holds it until it was sent.
pub(crate) struct Unit {
    memory: Memory,
    delivery: Option<Delivery>,
    /// Whether it was asked for to be written, last.
    offered: Cell<bool>,
}

enum Memory {
    Text(Bytes),
    /// Read from a file.
    Read(Bytes),
    Mapped(Mapped),
}

struct Mapped {
    bytes: Bytes,
    /// Begins where `bytes` does.
    file: FileRange,
    /// Of `bytes`, read.
    front: OnceCell<Bytes>,
}

impl Mapped {
    fn front(&self, delivery: Option<&Delivery>) -> &[u8] {
        self.front.get_or_init(|| {
            let len = COPIED_BYTES_MAX.min(self.bytes.len() as u64);
            let range = self.file.source().range(self.file.position(), len);
            let read = range.map_err(|error| SendError::Io(io::Error::other(error)));
            read.and_then(|mut range| match range.read_front_now(len)? {
                Some(read) => Ok(read),
                // Evicted since it was asked about, a moment ago.
                None => range.read_front(len),
            })
            .unwrap_or_else(|error| {
                if let Some(delivery) = delivery {
                    delivery.break_wire(&error);
                }
                // Never sent: the wire is broken.
                Bytes::from_static(&[0])
            })
        })
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        let (position, len) = (self.file.position(), self.file.len());
        let rest = self.file.source().range(position + bytes as u64, len - bytes as u64);
        self.file = rest.expect("h2 advances by what remains at most");
        let front = self.front.take();
        // A front that was read shorter than was asked for is advanced over piece by piece.
        if let Some(rest) = front.filter(|front| front.len() > bytes) {
            self.front = OnceCell::from(rest.slice(bytes..));
        }
    }
}

impl Buf for Unit {
    fn remaining(&self) -> usize {
        match &self.memory {
            Memory::Text(bytes) | Memory::Read(bytes) => bytes.len(),
            Memory::Mapped(mapped) => mapped.bytes.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        self.offered.set(false);
        match &self.memory {
            Memory::Text(bytes) | Memory::Read(bytes) => bytes,
            Memory::Mapped(mapped) if mapped.bytes.is_empty() => &[],
            Memory::Mapped(mapped) => mapped.front(self.delivery.as_ref()),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (bytes, copied) = match &self.memory {
            Memory::Text(bytes) => (bytes, false),
            Memory::Read(bytes) => (bytes, true),
            Memory::Mapped(mapped) => (&mapped.bytes, false),
        };
        let (Some(slice), false) = (slices.first_mut(), bytes.is_empty()) else { return 0 };
        *slice = IoSlice::new(bytes);
        self.offered.set(true);
        if let Some(delivery) = &self.delivery {
            delivery.offer(bytes, copied);
        }
        1
    }

    fn advance(&mut self, bytes: usize) {
        if let (Some(delivery), false) = (&self.delivery, self.offered.get()) {
            delivery.count_taken(bytes as u64, !matches!(self.memory, Memory::Text(_)));
        }
        match &mut self.memory {
            Memory::Text(memory) | Memory::Read(memory) => memory.advance(bytes),
            Memory::Mapped(mapped) => mapped.advance(bytes),
        }
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit").field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}
