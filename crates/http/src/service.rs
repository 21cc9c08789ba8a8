//! From a request to its response: over the open files and the pure rooms. Knows no sockets.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, Method, Request, Response};

use crate::archive::{self, Archives};
use crate::auth::Passwords;
use crate::body::FileBody;
use crate::error::RequestError;
use crate::files::{Entry, Files};
use crate::listen::PeerAddress;
use crate::listing::Listing;
use crate::resolve::TargetPath;
use crate::respond::respond;
use crate::serve::SiteConfig;

/// The files below one directory, as answers to requests.
#[derive(Debug)]
pub(crate) struct FileService {
    files: Files,
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
    pub(crate) fn open(config: &SiteConfig) -> io::Result<Self> {
        let SiteConfig { directory, listing, hidden, .. } = config;
        let (listing, hidden) = (*listing, *hidden);
        let files = Files::open(directory, config.follow_symlinks)?;
        let name = name_of(directory);
        let root = || files.root().clone();
        let archives = listing.then(|| Archives::new(root(), name.clone(), hidden));
        let listing = listing.then(|| Listing::new(root(), &name, hidden));
        let passwords = config.passwords.clone();
        Ok(Self { files, listing, archives, hidden, passwords })
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

    /// As `found`, for those who may see it. The request's extensions have the peer's address.
    pub(crate) async fn answer<B>(&self, request: &Request<B>, now: Instant) -> Response<FileBody> {
        let Some(passwords) = &self.passwords else { return self.found(request, now).await };
        let address = request.extensions().get::<PeerAddress>().and_then(PeerAddress::ip);
        match passwords.auth().check(request.headers(), address, now).await {
            Ok(user) => {
                let mut response = self.found(request, now).await;
                response.extensions_mut().insert(user);
                response
            }
            Err(error) => {
                let reason = error.refusal();
                let mut response =
                    respond(request.method(), request.headers(), Err(error), String::new);
                if let Some(reason) = reason {
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
        let file = self.files.kept(&TargetPath::parse(request.uri().path()).ok()?, now)?;
        Some(respond(method, headers, Ok(Entry::File(file)), String::new))
    }

    /// The response to `request`, which came in at `now`.
    async fn found<B>(&self, request: &Request<B>, now: Instant) -> Response<FileBody> {
        let method = request.method();
        let target = match *method {
            Method::GET | Method::HEAD => TargetPath::parse(request.uri().path()),
            _ => Err(RequestError::Method),
        };
        let target = match target {
            Ok(target) if !self.hidden && target.is_hidden() => Err(RequestError::Missing),
            target => target,
        };
        match target {
            Err(error) => respond(method, request.headers(), Err(error), String::new),
            Ok(target) => {
                if let Some(answer) = self.packed(request, &target).await {
                    return answer.unwrap_or_else(|error| {
                        respond(method, request.headers(), Err(error), String::new)
                    });
                }
                let found = self.files.find(&target, now, wants_recheck(request.headers())).await;
                let found = match (&self.listing, found) {
                    (Some(listing), Err(RequestError::NoIndex)) => {
                        match listing.answer(request, &target).await {
                            Ok(page) => return page,
                            Err(error) => Err(error),
                        }
                    }
                    (_, found) => found,
                };
                respond(method, request.headers(), found, || match request.uri().query() {
                    None => target.with_slash(),
                    Some(query) => format!("{}?{query}", target.with_slash()),
                })
            }
        }
    }
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
