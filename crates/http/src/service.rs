//! From a request to its response: over the open files and the pure rooms. Knows no sockets.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use http::header::{ACCEPT_RANGES, ALLOW, CACHE_CONTROL, ETAG, LAST_MODIFIED, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::archive::{self, Archives};
use crate::auth::Passwords;
use crate::body::FileBody;
use crate::cors::Cors;
use crate::digest::{Digests, REPR_DIGEST, wants_sha256};
use crate::encoding::{Codings, preferred};
use crate::error::{RequestError, StartError};
use crate::fallback::{Fallback, Instead};
use crate::files::{Entry, Files, Look, OpenFile, Representation};
use crate::listen::PeerAddress;
use crate::listing::Listing;
use crate::resolve::{self, TargetPath};
use crate::respond::{redirect, refusal, respond, whole_file, written_head};
use crate::rules::Rules;
use crate::serve::SiteConfig;
use crate::sites::PathPrefix;

/// The files below one directory, as answers to requests.
#[derive(Debug)]
pub(crate) struct FileService {
    files: Files,
    /// The precompressed forms that are looked for beside files.
    codings: Codings,
    cors: Cors,
    fallback: Fallback,
    digests: Digests,
    /// What targets begin with, which is no part of the names below the directory.
    prefix: PathPrefix,
    /// What answers for directories without an index.html.
    listing: Option<Listing>,
    /// What packs folders, where they are listed.
    archives: Option<Archives>,
    /// Names that start with a dot are served, too.
    hidden: bool,
    /// Who may see them; `None` for everybody.
    passwords: Option<Passwords>,
}

impl FileService {
    /// One of so many `sites`, which share what may be kept open.
    pub(crate) fn open(
        config: &SiteConfig,
        at: &PathPrefix,
        sites: usize,
        digests: Digests,
    ) -> Result<Self, StartError> {
        let SiteConfig { directory, listing, hidden, precompressed, .. } = config;
        let (listing, hidden) = (*listing, *hidden);
        let cors = Cors::new(&config.cors);
        let mut rules = Rules::new(&config.cache_control, &config.headers);
        cors.add_to(&mut rules);
        let codings = if *precompressed { Codings::of_today() } else { Codings::default() };
        let files = Files::open(directory, codings, rules, sites, config.follow_symlinks)
            .map_err(|source| StartError::Root { path: directory.clone(), source })?;
        let page = |path: &Option<PathBuf>| {
            path.as_deref().map(|page| page_at(&files, directory, page)).transpose()
        };
        let fallback = Fallback::new(page(&config.application)?, page(&config.not_found)?);
        let name = match at.target().names().next_back() {
            Some(name) => name.into(),
            None => name_of(directory),
        };
        let root = || files.root().clone();
        let archives = listing.then(|| Archives::new(root(), name.clone(), hidden));
        let listing = listing.then(|| Listing::new(root(), &name, &at.encoded(), hidden));
        Ok(Self {
            files,
            prefix: at.clone(),
            codings,
            cors,
            fallback,
            digests,
            listing,
            archives,
            hidden,
            passwords: config.passwords.clone(),
        })
    }

    fn wants_encoded(&self, headers: &HeaderMap) -> bool {
        !self.codings.is_empty() && !preferred(headers, self.codings).is_empty()
    }

    /// Whether `target` lies below what this answers for.
    pub(crate) fn holds(&self, target: &TargetPath) -> bool {
        target.clone().below(self.prefix.target()).is_some()
    }

    /// What a request's path means below the directory.
    fn below(&self, path: &str) -> Result<TargetPath, RequestError> {
        TargetPath::parse(path)?.below(self.prefix.target()).ok_or(RequestError::Missing)
    }

    /// The answer to a request for a folder as an archive; `None` for any other.
    async fn packed<B>(
        &self,
        request: &Request<B>,
        target: &TargetPath,
    ) -> Option<Result<Response<FileBody>, RequestError>> {
        let format = archive::asked(request.uri().query()).filter(|_| target.is_directory())?;
        Some(self.archives.as_ref()?.answer(request, target, format).await)
    }

    /// As `file_now`, for those who may see it.
    pub(crate) fn answer_now<B>(
        &self,
        request: &Request<B>,
        now: Instant,
    ) -> Option<Response<FileBody>> {
        let Some(passwords) = &self.passwords else { return self.file_now(request, now) };
        let user = passwords.auth().known(request.headers(), now)?;
        let mut response = self.file_now(request, now)?;
        response.extensions_mut().insert(user);
        Some(response)
    }

    /// As `response`, for those who may see it. The request's extensions have the peer's address.
    pub(crate) async fn answer<B>(&self, request: &Request<B>, now: Instant) -> Response<FileBody> {
        let Some(passwords) = &self.passwords else { return self.response(request, now).await };
        let address = request.extensions().get::<PeerAddress>().and_then(PeerAddress::ip);
        if *request.method() == Method::OPTIONS {
            // Browsers ask before a request with a password, and without it (Fetch, 4.8).
            return self.response(request, now).await;
        }
        match passwords.auth().check(request.headers(), address, now).await {
            Ok(user) => {
                let mut response = self.response(request, now).await;
                response.extensions_mut().insert(user);
                response
            }
            Err(error) => {
                let mut response = self.page(request, None, error_response(request, &error));
                if let Some(reason) = error.refusal() {
                    response.extensions_mut().insert(reason);
                }
                response
            }
        }
    }

    /// The response to `request`, which came in at `now`, if it is a file that was looked at just
    /// now.
    fn file_now<B>(&self, request: &Request<B>, now: Instant) -> Option<Response<FileBody>> {
        let (method, headers) = (request.method(), request.headers());
        if !matches!(*method, Method::GET | Method::HEAD) || wants_recheck(headers) {
            return None;
        }
        if self.archives.is_some() && archive::asked(request.uri().query()).is_some() {
            return None;
        }
        // Hidden names are never kept where they are not to be served.
        let target = self.below(request.uri().path()).ok()?;
        let file = self.files.kept(&target, now)?;
        if !file.has_encoded_known() && self.wants_encoded(headers) {
            return None;
        }
        if wants_sha256(headers) && self.digests.known(&file.preferred(headers).source).is_none() {
            return None;
        }
        Some(self.file(request, &target, &file))
    }

    /// The file that answers a plain request for `path`, with its head written, if it was looked
    /// at just before `now`. `codings` says that the client takes some.
    pub(crate) fn plain_now(
        &self,
        path: &str,
        codings: bool,
        now: Instant,
    ) -> Option<Arc<OpenFile>> {
        // Hidden names are never kept where they are not to be served.
        let target = self.for_everybody(path)?;
        let file = self.files.kept(&target, now)?;
        self.with_written_head(path, &target, file, codings)
    }

    /// The same, after a look at what `path` leads to.
    pub(crate) async fn plain(
        &self,
        path: &str,
        codings: bool,
        now: Instant,
    ) -> Option<Arc<OpenFile>> {
        let target = self.for_everybody(path).filter(|it| self.hidden || !it.is_hidden())?;
        let look = Look { now, recheck: false, encoded: codings && !self.codings.is_empty() };
        match self.files.find(&target, look).await.ok()? {
            Entry::File(file) => self.with_written_head(path, &target, file, codings),
            Entry::DirectoryWithoutSlash => None,
        }
    }

    /// What `path` means here, where nobody is asked who they are.
    fn for_everybody(&self, path: &str) -> Option<TargetPath> {
        if self.passwords.is_some() { None } else { self.below(path).ok() }
    }

    fn with_written_head(
        &self,
        path: &str,
        target: &TargetPath,
        file: Arc<OpenFile>,
        codings: bool,
    ) -> Option<Arc<OpenFile>> {
        if codings && !self.codings.is_empty() && !file.is_only_plain() {
            return None;
        }
        let write = || {
            let request = Request::get(path).body(()).ok()?;
            written_head(&self.file(&request, target, &file))
        };
        file.written_head(write)?;
        Some(file)
    }

    /// The response to `request`, which came in at `now`.
    async fn response<B>(&self, request: &Request<B>, now: Instant) -> Response<FileBody> {
        let target = match self.target(request) {
            Ok(target) => target,
            Err(error) => return self.page(request, None, error_response(request, &error)),
        };
        if *request.method() == Method::OPTIONS {
            return self.page(request, Some(&target), options(request, &self.cors));
        }
        let response = match self.found(request, &target, now).await {
            Ok(Found::File(file)) => return self.digested(request, &target, &file).await,
            Ok(Found::Page(page)) => page,
            Err(error) if error.status() == StatusCode::NOT_FOUND => {
                let instead = self.instead(request, &target, now).await;
                let mut response = instead.unwrap_or_else(|| {
                    self.page(request, Some(&target), error_response(request, &error))
                });
                let chosen_by = HeaderValue::from_static(self.fallback.chosen_by());
                response.headers_mut().append(VARY, chosen_by);
                return response;
            }
            Err(error) => error_response(request, &error),
        };
        self.page(request, Some(&target), response)
    }

    /// What `request` is for, if it may be answered at all.
    fn target<B>(&self, request: &Request<B>) -> Result<TargetPath, RequestError> {
        let target = match *request.method() {
            Method::GET | Method::HEAD => self.below(request.uri().path())?,
            // Of the server as a whole, or of any resource (RFC 9110, section 9.3.7).
            Method::OPTIONS => {
                return Ok(self.below(request.uri().path()).unwrap_or_default());
            }
            _ => return Err(RequestError::Method),
        };
        if !self.hidden && target.is_hidden() {
            return Err(RequestError::Missing);
        }
        Ok(target)
    }

    async fn found<B>(
        &self,
        request: &Request<B>,
        target: &TargetPath,
        now: Instant,
    ) -> Result<Found, RequestError> {
        if let Some(packed) = self.packed(request, target).await {
            return packed.map(Found::Page);
        }
        let headers = request.headers();
        let (recheck, encoded) = (wants_recheck(headers), self.wants_encoded(headers));
        match (self.files.find(target, Look { now, recheck, encoded }).await, &self.listing) {
            (Ok(Entry::File(file)), _) => Ok(Found::File(file)),
            (Ok(Entry::DirectoryWithoutSlash), _) => {
                let query = request.uri().query().map(|query| format!("?{query}"));
                let (prefix, query) = (self.prefix.encoded(), query.unwrap_or_default());
                let location = format!("{prefix}{}{query}", target.with_slash());
                Ok(Found::Page(without_body_for_head(request, redirect(&location))))
            }
            (Err(RequestError::NoIndex), Some(listing)) => {
                listing.answer(request, target).await.map(Found::Page)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The response in place of one that says that nothing is at `target`.
    async fn instead<B>(
        &self,
        request: &Request<B>,
        target: &TargetPath,
        now: Instant,
    ) -> Option<Response<FileBody>> {
        let headers = request.headers();
        let instead = self.fallback.instead(target, headers)?;
        let (Instead::Application(page) | Instead::NotFound(page)) = instead;
        let (recheck, encoded) = (wants_recheck(headers), self.wants_encoded(headers));
        let found = self.files.find(page, Look { now, recheck, encoded }).await;
        let Ok(Entry::File(file)) = found else { return None };
        let response = match instead {
            Instead::Application(page) => self.digested(request, page, &file).await,
            Instead::NotFound(_) => {
                self.page(request, Some(target), not_found(request.headers(), &file))
            }
        };
        Some(without_body_for_head(request, response))
    }

    /// The response that sends `file`, whose head has what the site adds to it.
    fn file<B>(
        &self,
        request: &Request<B>,
        target: &TargetPath,
        file: &OpenFile,
    ) -> Response<FileBody> {
        let mut response = respond(request.method(), request.headers(), file);
        if response.status().is_client_error() {
            return self.page(request, Some(target), response);
        }
        let headers = request.headers();
        self.cors.allow(headers, response.headers_mut());
        if wants_sha256(headers)
            && response.status().is_success()
            && let Some(digest) = self.digests.known(&file.preferred(headers).source)
        {
            response.headers_mut().insert(REPR_DIGEST, digest);
        }
        response
    }

    /// The same, once its digest is known, if it is asked for and worth to be waited for.
    async fn digested<B>(
        &self,
        request: &Request<B>,
        target: &TargetPath,
        file: &OpenFile,
    ) -> Response<FileBody> {
        if wants_sha256(request.headers()) {
            let source = &file.preferred(request.headers()).source;
            self.digests.find(source, *request.method() == Method::HEAD).await;
        }
        self.file(request, target, file)
    }

    /// Any other response, with what the site adds to it.
    fn page<B>(
        &self,
        request: &Request<B>,
        target: Option<&TargetPath>,
        mut response: Response<FileBody>,
    ) -> Response<FileBody> {
        let path = target.map_or_else(|| PathBuf::from("/"), TargetPath::absolute);
        self.files.rules().of_page(&path, response.headers_mut());
        self.cors.allow(request.headers(), response.headers_mut());
        response
    }
}

/// What a request leads to.
enum Found {
    File(Arc<OpenFile>),
    /// Made by the server.
    Page(Response<FileBody>),
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

pub(crate) fn error_response<B>(request: &Request<B>, error: &RequestError) -> Response<FileBody> {
    let mut response = without_body_for_head(request, refusal(error));
    if let Some(allow) = response.headers_mut().get_mut(ALLOW) {
        *allow = METHODS;
    }
    response
}

fn without_body_for_head<B>(
    request: &Request<B>,
    response: Response<FileBody>,
) -> Response<FileBody> {
    match *request.method() {
        Method::HEAD => response.map(|_| FileBody::default()),
        _ => response,
    }
}

/// The answer to an OPTIONS request, a preflight of CORS or not.
fn options<B>(request: &Request<B>, cors: &Cors) -> Response<FileBody> {
    let mut response = Response::new(FileBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, METHODS);
    cors.preflight(request.headers(), response.headers_mut());
    response
}

/// The page that says that there is none: neither conditions nor ranges of the request are about
/// it (RFC 9110, section 13.2.1), and nobody is to keep it.
fn not_found(headers: &HeaderMap, file: &OpenFile) -> Response<FileBody> {
    let Representation { source, head } = &**file.preferred(headers);
    let mut response = whole_file(source, head);
    *response.status_mut() = StatusCode::NOT_FOUND;
    for name in [ACCEPT_RANGES, CACHE_CONTROL, ETAG, LAST_MODIFIED] {
        response.headers_mut().remove(name);
    }
    response
}

/// A page that a site names, which has to be there.
fn page_at(files: &Files, directory: &Path, page: &Path) -> Result<TargetPath, StartError> {
    let look = || {
        let target = TargetPath::of_names(page)?;
        match files.root().find(&target)? {
            resolve::Found::File { .. } => Ok(target),
            resolve::Found::DirectoryWithoutSlash => Err(RequestError::NotRegular),
        }
    };
    let (page_path, path) = (page.to_owned(), directory.to_owned());
    look().map_err(|source| StartError::Page { page: page_path, path, source })
}

/// What the directory at this path is called.
fn name_of(directory: &Path) -> Box<[u8]> {
    let absolute = std::fs::canonicalize(directory).ok();
    let name = absolute.as_deref().and_then(Path::file_name);
    name.map_or(b"files".as_slice(), OsStrExt::as_bytes).into()
}

/// `Cache-Control: no-cache` (RFC 9111, section 5.2.1.4): nothing is taken for unchanged.
pub(crate) fn wants_recheck(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).into_iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    values.any(|value| {
        value.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
    })
}
