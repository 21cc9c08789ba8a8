//! Bodies for hyper: file ranges as mapped bytes, which a wire recognises and sends from the
//! file; short texts from memory.
//!
//! Where a file cannot be mapped, its bytes are read in chunks on a thread that may block, and
//! copied: the only case in which a body of this crate copies.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pagewire_engine::{Delivery, FileRange, SendError};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes of one chunk where a file cannot be mapped.
const CHUNK_BYTES: u64 = 128 * 1024;

/// The body of a response: a file range, a short text, or nothing.
#[derive(Debug)]
pub(crate) struct FileBody {
    rest: Rest,
    delivery: Option<Delivery>,
}

/// What is still to be handed to hyper.
#[derive(Debug)]
enum Rest {
    Nothing,
    Text(Bytes),
    File(FileRange),
    /// A file that cannot be mapped, between two reads.
    Unmapped(FileRange),
    /// A read under way, of a range that had so many bytes left before it.
    Reading {
        read: JoinHandle<ReadChunk>,
        bytes: u64,
    },
}

type ReadChunk = Result<(Bytes, FileRange), SendError>;

impl FileBody {
    pub(crate) fn empty() -> Self {
        Self { rest: Rest::Nothing, delivery: None }
    }

    pub(crate) fn from_text(text: String) -> Self {
        Self { rest: Rest::Text(text.into()), delivery: None }
    }

    pub(crate) fn from_range(range: FileRange) -> Self {
        let rest = if range.is_empty() { Rest::Nothing } else { Rest::File(range) };
        Self { rest, delivery: None }
    }

    /// Has every run of bytes that this body hands out announced to `delivery`.
    pub(crate) fn announced_to(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// Bytes still to be handed out.
    pub(crate) fn bytes_left(&self) -> u64 {
        match &self.rest {
            Rest::Nothing => 0,
            Rest::Text(text) => text.len() as u64,
            Rest::File(range) | Rest::Unmapped(range) => range.len(),
            Rest::Reading { bytes, .. } => *bytes,
        }
    }

    fn hand_out(&self, bytes: Bytes, copied: bool) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &self.delivery {
            Some(delivery) if copied => delivery.expect_copied(&bytes),
            Some(delivery) => delivery.expect(&bytes),
            None => {}
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match std::mem::replace(&mut self.rest, Rest::Nothing) {
                Rest::Nothing => return Poll::Ready(None),
                Rest::Text(text) => return self.hand_out(text, false),
                Rest::File(range) => match range.mapped_bytes() {
                    // hyper takes a run of any length, and asks the wire to write all of it.
                    Ok(bytes) => return self.hand_out(bytes, false),
                    Err(error) => {
                        tracing::debug!(%error, "the file cannot be mapped: reading it in chunks");
                        self.rest = Rest::Unmapped(range);
                    }
                },
                Rest::Unmapped(range) if range.is_empty() => return Poll::Ready(None),
                Rest::Unmapped(mut range) => {
                    let bytes = range.len();
                    let read = spawn_blocking(move || {
                        let chunk = range.read_front(CHUNK_BYTES)?;
                        Ok((chunk, range))
                    });
                    self.rest = Rest::Reading { read, bytes };
                }
                Rest::Reading { mut read, bytes } => match Pin::new(&mut read).poll(cx) {
                    Poll::Pending => {
                        self.rest = Rest::Reading { read, bytes };
                        return Poll::Pending;
                    }
                    Poll::Ready(finished) => {
                        let (chunk, range) = finished.map_err(io::Error::other)??;
                        self.rest = Rest::Unmapped(range);
                        return self.hand_out(chunk, true);
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left())
    }
}
