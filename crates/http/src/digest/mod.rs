//! Digests of files for Repr-Digest (RFC 9530, section 3): read once on threads that may wait for
//! a disk, kept by what the file was. A download is never held for the digest of a large file.

mod want;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use pagewire_engine::{Identity, SendError, SourceFile};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

pub(crate) use want::wants_sha256;

pub(crate) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Digests that are kept, in some 10 MB.
const KEPT_MAX: usize = 1 << 16;

/// Files that are read at once: more would only take the disk from downloads.
const READ_AT_ONCE: usize = 2;

/// Files that wait to be read, those that are read included; of others nothing is said.
const WAITING_MAX: usize = 256;

/// Bytes of one read.
const READ_BYTES: u64 = 256 * 1024;

/// Up to this length a GET waits for its digest: it takes a millisecond or two.
const DIGESTED_FIRST_MAX: u64 = 1024 * 1024;

/// How long a HEAD, and a GET of what is that short, waits. Clients give up after a minute.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The digests of a server's files: those of all its sites, also after a reload.
#[derive(Clone, Debug)]
pub(crate) struct Digests(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: Cache<Identity, HeaderValue>,
    /// Those that are being read, or wait for it.
    coming: Mutex<HashMap<Identity, watch::Receiver<bool>>>,
    turns: Arc<Semaphore>,
}

impl Digests {
    pub(crate) fn new() -> Self {
        let turns = Arc::new(Semaphore::new(READ_AT_ONCE));
        Self(Arc::new(Shared { known: Cache::new(KEPT_MAX), coming: Mutex::default(), turns }))
    }

    /// The digest of `source` as a field value, if it is known.
    pub(crate) fn known(&self, source: &SourceFile) -> Option<HeaderValue> {
        self.0.known.get(&source.identity())
    }

    /// The same; what is not known is looked for, and waited for where `may_wait` or the file is
    /// short.
    pub(crate) async fn find(&self, source: &SourceFile, may_wait: bool) -> Option<HeaderValue> {
        if let Some(known) = self.known(source) {
            return Some(known);
        }
        let mut done = self.0.begin(source)?;
        if may_wait || source.len() <= DIGESTED_FIRST_MAX {
            // An error is the end of the reader, which has said what it had to.
            let ended = timeout(WAIT_MAX, done.wait_for(|done| *done)).await;
            tracing::trace!(in_time = ended.is_ok(), "waited for a digest");
        }
        self.known(source)
    }
}

impl Shared {
    /// Has the file read, unless that is under way or too much is.
    fn begin(self: &Arc<Self>, source: &SourceFile) -> Option<watch::Receiver<bool>> {
        let identity = source.identity();
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = coming.get(&identity) {
            return Some(done.clone());
        }
        if coming.len() >= WAITING_MAX {
            return None;
        }
        let (said, done) = watch::channel(false);
        coming.insert(identity, done.clone());
        let (shared, source) = (Arc::clone(self), source.clone());
        tokio::spawn(async move {
            let turn = Arc::clone(&shared.turns).acquire_owned().await;
            let read = spawn_blocking(move || {
                let _turn = turn;
                digest(&source)
            });
            match read.await.map_err(io::Error::other).and_then(|digest| digest) {
                Ok(Some(digest)) => shared.known.insert(identity, digest),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a digest could not be made"),
            }
            shared.coming.lock().unwrap_or_else(PoisonError::into_inner).remove(&identity);
            said.send_replace(true);
        });
        Some(done)
    }
}

/// The field value for a file; `None` if it changed while it was read.
fn digest(source: &SourceFile) -> io::Result<Option<HeaderValue>> {
    let mut hash = Sha256::new();
    let mut left = source.whole();
    while !left.is_empty() {
        match left.read_front(READ_BYTES) {
            Ok(bytes) => hash.update(&bytes),
            Err(SendError::FileShrank { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    // What was written meanwhile may have been read, or not.
    let now = rustix::fs::fstat(source)?;
    let Identity { len, modified, .. } = source.identity();
    let same = u64::try_from(now.st_size) == Ok(len)
        && now.st_mtime == modified.seconds
        && u32::try_from(now.st_mtime_nsec) == Ok(modified.nanoseconds);
    let value = format!("sha-256=:{}:", STANDARD.encode(hash.finalize()));
    Ok(Some(value).filter(|_| same).and_then(|value| HeaderValue::try_from(value).ok()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;

    /// Of "hello world", by sha256sum.
    const HELLO: &str = "sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:";

    fn source(path: &Path) -> SourceFile {
        SourceFile::new(File::open(path).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn short_files_are_waited_for_and_long_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let (short, long) = (directory.path().join("short"), directory.path().join("long"));
        fs::write(&short, "hello world").unwrap();
        let digests = Digests::new();
        assert_eq!(digests.known(&source(&short)), None);
        assert_eq!(digests.find(&source(&short), false).await.unwrap(), HELLO);
        assert_eq!(digests.known(&source(&short)).unwrap(), HELLO);
        File::create(&long).unwrap().set_len(DIGESTED_FIRST_MAX + 1).unwrap();
        // With no turn to be had it cannot be there by chance.
        let turns = digests.0.turns.acquire_many(2).await.unwrap();
        assert_eq!(digests.find(&source(&long), false).await, None);
        drop(turns);
        let waited = digests.find(&source(&long), true).await;
        assert!(waited.is_some());
        assert_eq!(digests.find(&source(&long), false).await, waited);
        assert!(digests.0.coming.lock().unwrap().is_empty());
    }

    #[test]
    fn of_what_changed_meanwhile_nothing_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "hello world").unwrap();
        let before = source(&path);
        assert_eq!(digest(&before).unwrap().unwrap(), HELLO);
        fs::write(&path, "other words").unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(5);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(digest(&before).unwrap(), None);
        fs::write(&path, "cut").unwrap();
        assert_eq!(digest(&before).unwrap(), None);
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let digests = Digests::new();
        let _turns = digests.0.turns.acquire_many(2).await.unwrap();
        let files: Vec<SourceFile> = (0..=WAITING_MAX)
            .map(|index| {
                let path = directory.path().join(index.to_string());
                File::create(&path).unwrap().set_len(DIGESTED_FIRST_MAX + 1).unwrap();
                source(&path)
            })
            .collect();
        for file in &files {
            assert_eq!(digests.find(file, false).await, None);
        }
        assert_eq!(digests.0.coming.lock().unwrap().len(), WAITING_MAX);
    }
}
