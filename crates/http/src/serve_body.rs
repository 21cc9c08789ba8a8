//! The body of `ServeDir`'s responses: one of its own, or that of its fallback.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use crate::body::FileBody;

/// The body of a [`ServeDir`](crate::ServeDir)'s response.
pub struct ServeBody(Kind);

enum Kind {
    File(FileBody),
    Fallback(UnsyncBoxBody<Bytes, io::Error>),
}

impl ServeBody {
    pub(crate) fn of_fallback<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io_error = |error: B::Error| match error.into().downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        };
        Self(Kind::Fallback(body.map_err(io_error).boxed_unsync()))
    }
}

impl From<FileBody> for ServeBody {
    fn from(body: FileBody) -> Self {
        Self(Kind::File(body))
    }
}

impl fmt::Debug for ServeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::File(body) => f.debug_tuple("File").field(body).finish(),
            Kind::Fallback(_) => f.debug_tuple("Fallback").finish_non_exhaustive(),
        }
    }
}

impl Body for ServeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Kind::File(body) => Pin::new(body).poll_frame(cx),
            Kind::Fallback(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::File(body) => body.is_end_stream(),
            Kind::Fallback(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::File(body) => body.size_hint(),
            Kind::Fallback(body) => body.size_hint(),
        }
    }
}
