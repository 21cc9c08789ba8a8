//! `SendFile`, a file as the answer of a handler.

use std::io;
use std::path::{Path, PathBuf};

use http::header::HeaderValue;
use http::{HeaderMap, Method, Response};
use pagewire_engine::{Outcome, SourceFile};
use tokio::task::spawn_blocking;

use crate::body::FileBody;
use crate::error::RequestError;
use crate::partial::narrowed;
use crate::resolve::{open_path, open_path_cached};
use crate::respond::{FileHead, whole_file};

/// A file to be sent as a response, with Content-Length, Content-Type, ETag and Last-Modified.
///
/// Told of the request, it answers HEAD, ranges and preconditions too. With the feature `axum`
/// it is a response of axum.
///
/// ```
/// use http::{HeaderMap, Method};
/// use pagewire_http::{RequestError, SendFile};
///
/// async fn download(method: Method, headers: HeaderMap) -> Result<SendFile, RequestError> {
///     Ok(SendFile::open("x.bin").await?.for_request(&method, &headers))
/// }
/// ```
pub struct SendFile {
    source: SourceFile,
    head: FileHead,
    request: Option<(Method, HeaderMap)>,
    settle: Option<Settle>,
}

type Settle = Box<dyn FnOnce(Outcome) + Send>;

impl SendFile {
    /// Opens the file at `path`, which is the program's own: a path that a peer had a say in is
    /// for [`ServeDir`](crate::ServeDir). Its media type is guessed from its extension.
    ///
    /// # Errors
    ///
    /// [`RequestError::Missing`] and others that opening a file has, and
    /// [`RequestError::NotRegular`] for what is not a file.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, RequestError> {
        let path = path.as_ref();
        Ok(Self::new(open(path).await?, path))
    }

    /// Takes a file that is open already. `name` is for its media type only.
    pub fn new(source: SourceFile, name: impl AsRef<Path>) -> Self {
        let head = FileHead::new(&source.identity(), name.as_ref());
        Self { source, head, request: None, settle: None }
    }

    /// Sends it with another Content-Type.
    #[must_use]
    pub fn content_type(mut self, content_type: &HeaderValue) -> Self {
        self.head = self.head.of_type(content_type);
        self
    }

    /// Has the response be the one to a request with this head: HEAD, ranges and preconditions
    /// (RFC 9110, sections 13 and 14) are obeyed.
    #[must_use]
    pub fn for_request(mut self, method: &Method, headers: &HeaderMap) -> Self {
        self.request = Some((method.clone(), headers.clone()));
        self
    }

    /// Has `settle` called with what became of the body. It must not block. See
    /// [`Outcome::on_wire`].
    #[must_use]
    pub fn on_end(mut self, settle: impl FnOnce(Outcome) + Send + 'static) -> Self {
        self.settle = Some(Box::new(settle));
        self
    }

    /// The response.
    #[must_use]
    pub fn into_response(self) -> Response<FileBody> {
        let mut response = whole_file(&self.source, &self.head);
        if let Some((method, headers)) = self.request {
            response = narrowed(response, &self.source, &method, &headers);
            if method == Method::HEAD {
                response = response.map(|_| FileBody::default());
            }
        }
        match self.settle {
            Some(settle) => response.map(|body| body.on_end(settle)),
            None => response,
        }
    }
}

impl std::fmt::Debug for SendFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendFile")
            .field("source", &self.source)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// Opens a path here if the kernel has all of it in its cache, else on a thread that may wait.
pub(crate) async fn open(path: &Path) -> Result<SourceFile, RequestError> {
    if let Some(opened) = open_path_cached(path) {
        return opened;
    }
    let path = PathBuf::from(path);
    let opened = spawn_blocking(move || open_path(&path)).await;
    opened.unwrap_or_else(|failure| Err(RequestError::Io(io::Error::other(failure))))
}
