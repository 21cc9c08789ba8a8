//! `ServeDir`, a tower service over the files of a directory: what stands where tower-http's
//! `ServeDir` does. Resolution is that of `resolve.rs`, open files are those of `files.rs`.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use pagewire_engine::Outcome;
use tower_service::Service;

use crate::body::FileBody;
use crate::encoding::Coding;
use crate::error::RequestError;
use crate::files::{Entry, Files, Look, Representation};
use crate::offer::Offer;
use crate::resolve::TargetPath;
use crate::respond::{media_type, redirect, refusal};
use crate::serve_body::ServeBody;
use crate::service::wants_recheck;
use crate::site::Site;

/// Serves the files below a directory.
///
/// The builder methods that tower-http's `ServeDir` has too mean the same here, and the defaults
/// are the same; the crate's `docs/layers.md` lists what differs. Where the connection is a
/// [`Wire`](pagewire_engine::Wire), bodies go from the page cache to the socket.
///
/// Nothing outside of the directory is served, neither by `..` nor by a symbolic link. Files
/// stay open for a while: that one was replaced is seen at most a second late, at once by a
/// request with `Cache-Control: no-cache`.
///
/// ```
/// use pagewire_http::{ServeDir, ServeFile};
///
/// let site = ServeDir::new("assets")
///     .precompressed_br()
///     .not_found_service(ServeFile::new("assets/404.html"));
/// ```
#[derive(Clone)]
pub struct ServeDir<F = NoFallback> {
    site: Arc<Site>,
    settings: Settings,
    prefix: Arc<str>,
    on_end: Option<OnEnd>,
    fallback: Option<F>,
    /// What the fallback's responses get for a status, if not their own.
    fallback_status: Option<StatusCode>,
}

type OnEnd = Arc<dyn Fn(&Uri, Outcome) + Send + Sync>;

#[derive(Clone, Copy, Debug)]
struct Settings {
    offer: Offer,
    index: bool,
    redirect: bool,
    html_extension: bool,
    fallback_for_other_methods: bool,
}

impl ServeDir {
    /// Serves the files below `directory`, which need not exist yet.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        let settings = Settings {
            offer: Offer::default(),
            index: true,
            redirect: true,
            html_extension: false,
            fallback_for_other_methods: false,
        };
        Self {
            site: Arc::new(Site::new(PathBuf::from(directory.as_ref()))),
            settings,
            prefix: Arc::from(""),
            on_end: None,
            fallback: None,
            fallback_status: None,
        }
    }
}

impl<F> ServeDir<F> {
    /// Whether a directory is answered with its `index.html`. Defaults to `true`.
    #[must_use]
    pub fn append_index_html_on_directories(mut self, append: bool) -> Self {
        self.settings.index = append;
        self
    }

    /// Whether the target of a directory without its closing slash is redirected; where not, its
    /// `index.html` is sent at once. Defaults to `true`.
    #[must_use]
    pub fn redirect_to_trailing_slash(mut self, redirect: bool) -> Self {
        self.settings.redirect = redirect;
        self
    }

    /// Whether `/name` is answered with `name.html` where there is no `name` and it has no
    /// extension. Defaults to `false`.
    #[must_use]
    pub fn html_as_default_extension(mut self, append: bool) -> Self {
        self.settings.html_extension = append;
        self
    }

    /// What redirects put before the path: where a router took a prefix off it, that prefix.
    #[must_use]
    pub fn redirect_path_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Arc::from(prefix.into());
        self
    }

    /// Whether a request for several ranges is answered with the whole file. Where not, which is
    /// the default, it gets `multipart/byteranges`.
    #[must_use]
    pub fn ignore_multi_range_requests(mut self, ignore: bool) -> Self {
        self.settings.offer.ignore_multi_range = ignore;
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
        self.settings.offer.codings = self.settings.offer.codings.with(coding);
        self
    }

    /// Has `fallback` answer requests for which there is no file.
    pub fn fallback<F2>(self, fallback: F2) -> ServeDir<F2> {
        let Self { site, settings, prefix, on_end, .. } = self;
        let fallback = Some(fallback);
        ServeDir { site, settings, prefix, on_end, fallback, fallback_status: None }
    }

    /// The same, and gives its responses the status 404 Not Found.
    pub fn not_found_service<F2>(self, fallback: F2) -> ServeDir<F2> {
        let fallback_status = Some(StatusCode::NOT_FOUND);
        ServeDir { fallback_status, ..self.fallback(fallback) }
    }

    /// Whether the fallback answers requests that are neither GET nor HEAD too. Where not, which
    /// is the default, they get 405 Method Not Allowed.
    #[must_use]
    pub fn call_fallback_on_method_not_allowed(mut self, call_fallback: bool) -> Self {
        self.settings.fallback_for_other_methods = call_fallback;
        self
    }

    /// Has `settle` called with the request's target and what became of each body that this
    /// service made. It must not block. See [`Outcome::on_wire`].
    #[must_use]
    pub fn on_end(mut self, settle: impl Fn(&Uri, Outcome) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Arc::new(settle));
        self
    }
}

impl<F> fmt::Debug for ServeDir<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeDir")
            .field("site", &self.site)
            .field("settings", &self.settings)
            .field("fallback", &self.fallback.is_some())
            .finish_non_exhaustive()
    }
}

impl<ReqBody, F, ResBody> Service<Request<ReqBody>> for ServeDir<F>
where
    ReqBody: Send + 'static,
    F: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>,
    F: Clone + Send + 'static,
    F::Future: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ServeBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match &mut self.fallback {
            Some(fallback) => fallback.poll_ready(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The fallback that was polled ready is the one to be called: its clone is not.
        let next = self.fallback.clone();
        let fallback = std::mem::replace(&mut self.fallback, next);
        let (site, settings) = (Arc::clone(&self.site), self.settings);
        let (prefix, on_end) = (Arc::clone(&self.prefix), self.on_end.clone());
        let status = self.fallback_status;
        Box::pin(async move {
            let (method, headers) = (request.method(), request.headers());
            let error = match settings.answer(&site, method, headers, request.uri(), &prefix).await
            {
                Ok(response) => {
                    let response = match on_end {
                        None => response,
                        Some(settle) => {
                            let uri = request.uri().clone();
                            response.map(|body| body.on_end(move |outcome| settle(&uri, outcome)))
                        }
                    };
                    return Ok(response.map(ServeBody::from));
                }
                Err(error) => error,
            };
            match fallback.filter(|_| settings.is_for_fallback(&error)) {
                Some(mut fallback) => {
                    let mut response = fallback.call(request).await?;
                    *response.status_mut() = status.unwrap_or(response.status());
                    Ok(response.map(ServeBody::of_fallback))
                }
                None => Ok(refused(&error, method).map(ServeBody::from)),
            }
        })
    }
}

/// As the program's other 404s: whoever asks does not learn what there is that it may not have.
fn refused(error: &RequestError, method: &Method) -> Response<FileBody> {
    let response = refusal(if error.is_not_here() { &RequestError::Missing } else { error });
    if *method == Method::HEAD { response.map(|_| FileBody::default()) } else { response }
}

impl Settings {
    fn is_for_fallback(self, error: &RequestError) -> bool {
        let is_other_method = matches!(error, RequestError::Method);
        error.is_not_here() || (is_other_method && self.fallback_for_other_methods)
    }

    async fn answer(
        self,
        site: &Site,
        method: &Method,
        headers: &HeaderMap,
        uri: &Uri,
        prefix: &str,
    ) -> Result<Response<FileBody>, RequestError> {
        let target = match *method {
            Method::GET | Method::HEAD => TargetPath::parse(uri.path())?,
            _ => return Err(RequestError::Method),
        };
        let now = Instant::now();
        let look = Look { now, recheck: wants_recheck(headers), encoded: false };
        let look = LookIn { files: site.files(now).await?, look };
        let (target, plain) = match self.plain(&look, target).await {
            Ok((target, Entry::DirectoryWithoutSlash)) => {
                return Ok(to_directory(&target, uri, prefix));
            }
            Ok((target, Entry::File(file))) => (target, Ok(file)),
            Err((target, error)) => (target, Err(error)),
        };
        // A precompressed file may stand alone, without its plain form.
        let alone = matches!(plain, Err(RequestError::Missing | RequestError::NoIndex));
        if (alone && !target.is_directory() || plain.is_ok()) && !self.offer.codings.is_empty() {
            let name = target.file();
            for coding in self.offer.preferred(headers) {
                if let Ok(Entry::File(file)) = look.up(&name.with_suffix(coding.suffix())).await {
                    let coding = Some((coding, media_type(name.relative())));
                    let Representation { source, head } = &*file.plain;
                    return Ok(self.offer.answer(method, headers, source, head, coding));
                }
            }
        }
        let file = plain?;
        let Representation { source, head } = &*file.plain;
        Ok(self.offer.answer(method, headers, source, head, None))
    }

    /// What lies at `target`, or at the one that the settings lead to instead.
    async fn plain(
        self,
        look: &LookIn,
        target: TargetPath,
    ) -> Result<(TargetPath, Entry), (TargetPath, RequestError)> {
        let found = match look.up(&target).await {
            Ok(Entry::File(_)) if target.is_directory() && !self.index => {
                Err(RequestError::NoIndex)
            }
            Ok(Entry::DirectoryWithoutSlash) if !self.index => Err(RequestError::NoIndex),
            Ok(Entry::DirectoryWithoutSlash) if !self.redirect => {
                return look.up_as(target.directory()).await;
            }
            Err(RequestError::Missing) if self.html_extension && !has_extension(&target) => {
                return look.up_as(target.with_suffix(".html")).await;
            }
            found => found,
        };
        match found {
            Ok(entry) => Ok((target, entry)),
            Err(error) => Err((target, error)),
        }
    }
}

/// A directory's target has no name that one could append to.
fn has_extension(target: &TargetPath) -> bool {
    target.is_directory() || target.relative().extension().is_some()
}

/// 307, as tower-http: a directory may become a file again.
fn to_directory(target: &TargetPath, uri: &Uri, prefix: &str) -> Response<FileBody> {
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let location = format!("{prefix}{}{query}", target.with_slash());
    let mut response = redirect(&location);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response
}

/// One request's look at the open files.
struct LookIn {
    files: Arc<Files>,
    look: Look,
}

impl LookIn {
    async fn up(&self, target: &TargetPath) -> Result<Entry, RequestError> {
        self.files.find(target, self.look).await
    }

    /// The same, and says what was looked for.
    async fn up_as(
        &self,
        target: TargetPath,
    ) -> Result<(TargetPath, Entry), (TargetPath, RequestError)> {
        match self.up(&target).await {
            Ok(entry) => Ok((target, entry)),
            Err(error) => Err((target, error)),
        }
    }
}

/// The fallback of a [`ServeDir`] that has none.
#[derive(Clone, Copy, Debug)]
pub struct NoFallback(Infallible);

impl<B> Service<Request<B>> for NoFallback {
    type Response = Response<FileBody>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.0 {}
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        match self.0 {}
    }
}
