//! Directories without an index.html as answers: a page for people, JSON for programs. `read.rs`
//! reads them, on a thread that may wait for a disk; the other rooms only turn facts into text.

mod asked;
mod entry;
mod json;
mod kind;
mod page;
mod qr;
mod read;
mod readme;
mod show;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Request, Response};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::body::FileBody;
use crate::error::RequestError;
use crate::listing::asked::{Asked, Form};
use crate::listing::qr::Phone;
use crate::partial::conditioned;
use crate::resolve::{Root, TargetPath};

/// How many directories are read at once: each may take some hundred megabytes.
const READ_AT_ONCE: usize = 8;
/// How long a request waits for its turn before it is told to come back.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// The directories below a root, as answers.
#[derive(Debug)]
pub(crate) struct Listing {
    root: Root,
    /// What the root is called on pages.
    root_name: Arc<str>,
    /// Percent-encoded, what the paths of its pages begin with.
    prefix: Arc<str>,
    /// Names that start with a dot are listed, too.
    hidden: bool,
    turns: Arc<Semaphore>,
}

impl Listing {
    /// `name` is what the root is called, `prefix` what the paths of its pages begin with.
    pub(crate) fn new(root: Root, name: &[u8], prefix: &str, hidden: bool) -> Self {
        let (root_name, prefix) = (Arc::from(show::name(name)), Arc::from(prefix));
        Self { root, root_name, prefix, hidden, turns: Arc::new(Semaphore::new(READ_AT_ONCE)) }
    }

    /// The answer to a request for the directory at `target`.
    pub(crate) async fn answer<B>(
        &self,
        request: &Request<B>,
        target: &TargetPath,
    ) -> Result<Response<FileBody>, RequestError> {
        let (method, headers, uri) = (request.method(), request.headers(), request.uri());
        let turn = timeout(TURN_WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| RequestError::Busy)?;
        let asked = Asked::parse(uri.query().unwrap_or_default());
        let form = asked.form(headers);
        let host = uri.authority().map(|authority| authority.as_str().to_owned());
        let named = || headers.get(HOST)?.to_str().ok().map(str::to_owned);
        let host = host.or_else(named);
        let (root, target) = (self.root.clone(), target.clone());
        let (root_name, prefix) = (Arc::clone(&self.root_name), Arc::clone(&self.prefix));
        let hidden = self.hidden;
        let rendering = spawn_blocking(move || {
            let _turn = turn;
            let listed = read::read(&root, &target, hidden, &asked, form)?;
            let rendered = match form {
                Form::Json => json::render(&target, &asked, &listed).map_err(io::Error::other),
                Form::Page => {
                    let path = format!("{prefix}{}", target.with_slash());
                    let phone = Phone::new(host.as_deref(), &path);
                    page::render(&root_name, &target, &asked, &listed, phone)
                        .map_err(io::Error::other)
                }
            };
            rendered.map_err(RequestError::Io)
        });
        let rendered = rendering.await.map_err(|failure| RequestError::Io(failure.into()))??;
        Ok(conditioned(response(rendered, form), method, headers))
    }
}

/// What holds for every query: the one for its own page asks for the same.
#[cfg(fuzzing)]
pub(crate) fn check_query(query: &str, headers: &http::HeaderMap) {
    let asked = Asked::parse(query);
    asked.form(headers);
    if asked.page < usize::MAX {
        let again = asked.for_page(asked.page);
        assert_eq!(Asked::parse(again.trim_start_matches('?')), asked);
    }
}

fn response(text: String, form: Form) -> Response<FileBody> {
    let digest = Sha256::digest(&text);
    let tag: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let len = text.len();
    let mut response = Response::new(FileBody::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, len.into());
    if let Ok(tag) = HeaderValue::try_from(format!("\"{tag}\"")) {
        headers.insert(ETAG, tag);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    // A directory has no date that every change of what it lists would change.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let media_type = match form {
        Form::Json => "application/json",
        Form::Page => "text/html; charset=utf-8",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if form == Form::Page {
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        if let Ok(policy) = HeaderValue::try_from(page::POLICY.as_str()) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
    }
    response
}
