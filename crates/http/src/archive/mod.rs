//! Folders as archives: a request becomes a response whose length is known and whose ranges can
//! be asked for, before any file is opened. `walk.rs` finds the members, `layout.rs` says where
//! they lie, `parts.rs` makes the bytes as they are sent.

mod checksum;
mod layout;
mod member;
mod parts;
mod tar;
mod walk;
mod zip;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
};
use http::{HeaderValue, Method, Request, Response};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::archive::checksum::Checksums;
use crate::archive::layout::{Format, Layout};
use crate::archive::parts::Archive;
use crate::archive::walk::Walk;
use crate::body::FileBody;
use crate::conditional::Validators;
use crate::error::RequestError;
use crate::partial::{Due, due, failed, not_modified, part, unsatisfiable};
use crate::resolve::{Root, TargetPath, encoded};

pub(crate) use crate::archive::parts::{ArchiveParts, Batch};

/// How many trees are walked at once: each may take some hundred megabytes.
const WALKS_AT_ONCE: usize = 4;
/// How long a request waits for its turn before it is told to come back.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// The folders below a root, as archives.
#[derive(Debug)]
pub(crate) struct Archives {
    root: Root,
    /// What an archive of the root is called.
    root_name: Box<[u8]>,
    /// Names that start with a dot are packed, too.
    hidden: bool,
    turns: Arc<Semaphore>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    checksums: Arc<Checksums>,
    /// Archives that are being sent, by their tags: many downloads of one folder cost the memory
    /// of one.
    sent: Mutex<HashMap<Tag, Weak<Archive>>>,
}

type Tag = [u8; 16];

/// Which archive a query asks for.
pub(crate) fn asked(query: Option<&str>) -> Option<Format> {
    let mut keys = query?.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    keys.find_map(|key| match key {
        "tar" => Some(Format::Tar),
        "zip" => Some(Format::Zip),
        _ => None,
    })
}

impl Archives {
    pub(crate) fn new(root: Root, root_name: Box<[u8]>, hidden: bool) -> Self {
        let checksums = Arc::new(Checksums::new());
        let shared = Arc::new(Shared { checksums, sent: Mutex::default() });
        Self { root, root_name, hidden, turns: Arc::new(Semaphore::new(WALKS_AT_ONCE)), shared }
    }

    /// The answer to a request for the directory at `target` as an archive.
    pub(crate) async fn answer<B>(
        &self,
        request: &Request<B>,
        target: &TargetPath,
        format: Format,
    ) -> Result<Response<FileBody>, RequestError> {
        let turn = timeout(TURN_WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| RequestError::Busy)?;
        let name: Box<[u8]> = target.names().next_back().unwrap_or(&self.root_name).into();
        let (root, target, hidden) = (self.root.clone(), target.clone(), self.hidden);
        let shared = Arc::clone(&self.shared);
        let file_name = name.clone();
        let lay_out = move || -> Result<_, RequestError> {
            let _turn = turn;
            let walk = Walk { root: &root, target: &target, name: &name, hidden };
            let layout = Layout::new(format, walk.members()?);
            let directory = target.relative().to_owned();
            let checksums = Arc::clone(&shared.checksums);
            Ok(shared.same(Archive { layout, root, directory, checksums }))
        };
        let laid_out =
            spawn_blocking(lay_out).await.map_err(|failure| RequestError::Io(failure.into()))?;
        let (tag, archive) = laid_out?;
        Ok(respond(request, archive, tag, &file_name))
    }
}

impl Shared {
    /// The same archive, if it is being sent already.
    fn same(&self, archive: Archive) -> (Tag, Arc<Archive>) {
        let mut digest = Sha256::new();
        archive.layout.identify(|fact| digest.update(fact));
        digest.update(archive.directory.as_os_str().as_encoded_bytes());
        let mut tag = Tag::default();
        tag.iter_mut().zip(digest.finalize()).for_each(|(byte, digested)| *byte = digested);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sent.get(&tag).and_then(Weak::upgrade) {
            return (tag, known);
        }
        sent.retain(|_, archive| archive.strong_count() > 0);
        let archive = Arc::new(archive);
        sent.insert(tag, Arc::downgrade(&archive));
        (tag, archive)
    }
}

fn respond<B>(
    request: &Request<B>,
    archive: Arc<Archive>,
    tag: Tag,
    name: &[u8],
) -> Response<FileBody> {
    let (method, headers) = (request.method(), request.headers());
    let tag: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
    let len = archive.layout.len();
    let (suffix, media_type) = match archive.layout.format() {
        Format::Tar => ("tar", "application/x-tar"),
        Format::Zip => ("zip", "application/zip"),
    };
    let Ok(etag) = HeaderValue::try_from(format!("\"{tag}\"")) else {
        return failed();
    };
    let mut whole = Response::new(FileBody::default());
    let fields = whole.headers_mut();
    fields.insert(CONTENT_LENGTH, len.into());
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(ETAG, etag.clone());
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(disposition) = HeaderValue::try_from(disposition(name, suffix)) {
        fields.insert(CONTENT_DISPOSITION, disposition);
    }
    let body = |position, len| FileBody::from(ArchiveParts::new(archive, position, len));
    let now = Validators { etag: &etag, modified: None };
    match due(method, headers, now, len) {
        Due::NotModified => not_modified(whole),
        Due::Failed => failed(),
        Due::Unsatisfiable => unsatisfiable(len),
        Due::Ranges(ranges) if ranges.len() == 1 => {
            part(whole, ranges[0], |range| body(range.first, range.len()))
        }
        _ if *method == Method::HEAD => whole,
        // Of several ranges, too: nobody asks for them of an archive.
        Due::Whole | Due::Ranges(_) => whole.map(|_| body(0, len)),
    }
}

/// Under which name a browser saves an archive (RFC 6266): plainly for old ones, and as UTF-8.
fn disposition(name: &[u8], suffix: &str) -> String {
    let shown = String::from_utf8_lossy(name);
    let plain: String = shown
        .chars()
        .map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() || " -_.()".contains(letter) => letter,
            _ => '_',
        })
        .collect();
    let exact = encoded(shown.as_bytes());
    format!("attachment; filename=\"{plain}.{suffix}\"; filename*=UTF-8''{exact}.{suffix}")
}
