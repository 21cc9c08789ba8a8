//! `ServeFile`, a tower service over one file: what stands where tower-http's `ServeFile` does.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::HeaderValue;
use http::{Method, Request, Response};
use tower_service::Service;

use crate::body::FileBody;
use crate::encoding::Coding;
use crate::error::RequestError;
use crate::offer::Offer;
use crate::respond::{FileHead, media_type, refusal};
use crate::send_file::open;

/// Serves one file, whatever the target of the request is.
///
/// The builder methods that tower-http's `ServeFile` has too mean the same here. The path is the
/// program's own: symbolic links are followed. Each request opens the file, so that another one
/// at its path is seen at once.
///
/// ```
/// let service = pagewire_http::ServeFile::new("assets/index.html").precompressed_gzip();
/// ```
#[derive(Clone, Debug)]
pub struct ServeFile {
    path: Arc<Path>,
    media_type: HeaderValue,
    offer: Offer,
}

impl ServeFile {
    /// Serves the file at `path`, which need not exist yet. Its media type is guessed from its
    /// extension.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let media_type = media_type(path.as_ref());
        Self::new_with_content_type(path, media_type)
    }

    /// The same with another Content-Type.
    pub fn new_with_content_type(path: impl AsRef<Path>, content_type: HeaderValue) -> Self {
        let (path, offer) = (Arc::from(path.as_ref()), Offer::default());
        Self { path, media_type: content_type, offer }
    }

    /// Whether a request for several ranges is answered with the whole file. Where not, which is
    /// the default, it gets `multipart/byteranges`.
    #[must_use]
    pub fn ignore_multi_range_requests(mut self, ignore: bool) -> Self {
        self.offer.ignore_multi_range = ignore;
        self
    }

    /// Looks for `name.gz` beside `name`, for clients that accept gzip.
    #[must_use]
    pub fn precompressed_gzip(self) -> Self {
        self.precompressed(Coding::Gzip)
    }

    /// Looks for `name.br` beside `name`, for clients that accept brotli.
    #[must_use]
    pub fn precompressed_br(self) -> Self {
        self.precompressed(Coding::Brotli)
    }

    /// Looks for `name.zst` beside `name`, for clients that accept zstd.
    #[must_use]
    pub fn precompressed_zstd(self) -> Self {
        self.precompressed(Coding::Zstd)
    }

    /// Looks for `name.zz` beside `name`, for clients that accept deflate.
    #[must_use]
    pub fn precompressed_deflate(self) -> Self {
        self.precompressed(Coding::Deflate)
    }

    fn precompressed(mut self, coding: Coding) -> Self {
        self.offer.codings = self.offer.codings.with(coding);
        self
    }

    async fn answer<B>(&self, request: &Request<B>) -> Result<Response<FileBody>, RequestError> {
        let (method, headers) = (request.method(), request.headers());
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(RequestError::Method);
        }
        for coding in self.offer.preferred(headers) {
            if let Ok(source) = open(&with_suffix(&self.path, coding.suffix())).await {
                let head = FileHead::new(&source.identity(), &self.path);
                let coding = Some((coding, self.media_type.clone()));
                return Ok(self.offer.answer(method, headers, &source, &head, coding));
            }
        }
        let source = open(&self.path).await?;
        let head = FileHead::new(&source.identity(), &self.path).of_type(&self.media_type);
        Ok(self.offer.answer(method, headers, &source, &head, None))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

impl<B: Send + 'static> Service<Request<B>> for ServeFile {
    type Response = Response<FileBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        // Only the head is needed; a body need not be one that several threads may see.
        let request = request.map(|_| ());
        Box::pin(async move {
            let response = service.answer(&request).await.unwrap_or_else(|error| {
                let error = if error.is_not_here() { RequestError::Missing } else { error };
                refusal(&error)
            });
            Ok(match *request.method() {
                Method::HEAD => response.map(|_| FileBody::default()),
                _ => response,
            })
        })
    }
}
