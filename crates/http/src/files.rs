//! The open-file cache: descriptor, mapping and ready-made header values of files that were
//! served, so that the next request for one opens nothing. Bounded, and revalidated.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, VARY};
use http::uri::InvalidUri;
use http::{HeaderMap, HeaderValue, Uri};
use pagewire_engine::{Identity, SourceFile};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use smallvec::SmallVec;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::encoding::{Coding, Codings, preferred};
use crate::error::RequestError;
use crate::limits::open_files_max;
use crate::resolve::{Found, Local, Root, TargetPath};
use crate::respond::FileHead;
use crate::rules::Rules;

/// How long a file is taken for unchanged without another look at its name.
const UNCHECKED_MAX: Duration = Duration::from_secs(1);

/// Looks at names of other mounts than the root's that may be under way: of tokio's 512 threads
/// for what may wait, a server that hangs holds no more than these.
const ELSEWHERE_MAX: usize = 64;

/// The files below one directory.
pub(crate) struct Files {
    root: Root,
    open: Cache<TargetPath, Arc<OpenFile>, Descriptors>,
    /// The precompressed forms that may be looked for beside a file.
    codings: Codings,
    /// The fields that the site adds.
    rules: Rules,
    /// Held by looks at names of other mounts.
    elsewhere: Arc<Semaphore>,
    /// The instant from which `OpenFile::checked` counts.
    started: Instant,
}

/// A file that is open, perhaps with precompressed forms of it.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The file as it is.
    pub(crate) plain: Arc<Representation>,
    /// The precompressed forms that lie beside it; `None` if nobody has looked.
    encoded: Option<Encoded>,
    /// The head of the response that sends all of it to a client that takes no coding, as it is
    /// written, but for the date and the empty line; `None` if it is not for every such client.
    written_head: OnceLock<Option<Box<[u8]>>>,
    /// How it was first asked for, by whoever tells of it as a [`Uri`].
    spelled: OnceLock<Uri>,
    /// When its name was last seen to lead to it, in milliseconds after `Files::started`.
    checked: AtomicU64,
}

/// Something that can be sent, open, with its response head made.
#[derive(Debug)]
pub(crate) struct Representation {
    pub(crate) source: SourceFile,
    pub(crate) head: FileHead,
}

type Encoded = SmallVec<[(Coding, Arc<Representation>); 1]>;

/// How a file is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) now: Instant,
    /// Whether a file that was looked at a moment ago is looked at again.
    pub(crate) recheck: bool,
    /// Whether its precompressed forms are looked for, too.
    pub(crate) encoded: bool,
}

/// Weighs a kept file by the descriptors that it holds.
#[derive(Clone, Debug)]
struct Descriptors;

impl Weighter<TargetPath, Arc<OpenFile>> for Descriptors {
    fn weight(&self, _: &TargetPath, file: &Arc<OpenFile>) -> u64 {
        1 + file.encoded.as_ref().map_or(0, |encoded| encoded.len() as u64)
    }
}

impl OpenFile {
    /// What a client with these `headers` would rather have of what is there (RFC 9110, section
    /// 12.5.3).
    pub(crate) fn preferred(&self, headers: &HeaderMap) -> &Arc<Representation> {
        let Some(encoded) = self.encoded.as_ref().filter(|encoded| !encoded.is_empty()) else {
            return &self.plain;
        };
        let offered =
            encoded.iter().fold(Codings::default(), |offered, (coding, _)| offered.with(*coding));
        let best = preferred(headers, offered).into_iter().next();
        let found = encoded.iter().find(|(coding, _)| Some(*coding) == best);
        found.map_or(&self.plain, |(_, representation)| representation)
    }

    /// The head of the response that sends all of it as it is, if `write` can make one that goes
    /// for every client.
    pub(crate) fn written_head(&self, write: impl FnOnce() -> Option<Box<[u8]>>) -> Option<&[u8]> {
        self.written_head.get_or_init(write).as_deref()
    }

    /// `path`, by which it was asked for, as a [`Uri`]: to parse one for each request costs more
    /// than the look for the file.
    pub(crate) fn spelled(&self, path: &str) -> Result<Uri, InvalidUri> {
        match self.spelled.get() {
            Some(spelled) if spelled.path() == path => Ok(spelled.clone()),
            _ => {
                let uri = Uri::try_from(path)?;
                self.spelled.get_or_init(|| uri.clone());
                Ok(uri)
            }
        }
    }

    /// Whether it is known to have no precompressed forms.
    pub(crate) fn is_only_plain(&self) -> bool {
        self.encoded.as_ref().is_some_and(SmallVec::is_empty)
    }

    /// Whether its precompressed forms were looked for.
    pub(crate) fn has_encoded_known(&self) -> bool {
        self.encoded.is_some()
    }

    /// Whether the other holds the same open files.
    fn is_same(&self, other: &Self) -> bool {
        let same = |one: &Encoded, two: &Encoded| {
            one.len() == two.len()
                && one.iter().zip(two).all(|(one, two)| Arc::ptr_eq(&one.1, &two.1))
        };
        let encoded = match (&self.encoded, &other.encoded) {
            (None, None) => true,
            (Some(one), Some(two)) => same(one, two),
            (None, Some(_)) | (Some(_), None) => false,
        };
        Arc::ptr_eq(&self.plain, &other.plain) && encoded
    }
}

/// What lies at a target.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    File(Arc<OpenFile>),
    DirectoryWithoutSlash,
}

impl Files {
    /// One of so many `sharers` of what may be kept open.
    pub(crate) fn open(
        directory: &Path,
        codings: Codings,
        rules: Rules,
        sharers: usize,
        follow_symlinks: bool,
    ) -> io::Result<Self> {
        let root = Root::open(directory)?.following_symlinks(follow_symlinks);
        let elsewhere = Arc::new(Semaphore::new(ELSEWHERE_MAX));
        let descriptors = (open_files_max() / sharers.max(1)).max(1);
        let open = Cache::with_weighter(descriptors, descriptors as u64, Descriptors);
        Ok(Self { root, open, codings, rules, elsewhere, started: Instant::now() })
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The file at `target`, if it is kept and was looked at at most [`UNCHECKED_MAX`] before
    /// `now`.
    pub(crate) fn kept(&self, target: &TargetPath, now: Instant) -> Option<Arc<OpenFile>> {
        let kept = self.open.get(target)?;
        let age = self.milliseconds(now).saturating_sub(kept.checked.load(Ordering::Relaxed));
        (u128::from(age) < UNCHECKED_MAX.as_millis()).then_some(kept)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// What lies at `target`, at most [`UNCHECKED_MAX`] before the look's `now`.
    ///
    /// Names that the kernel has in its cache are looked up here; others, and those of other
    /// mounts than the root's, on a thread that may wait for the disk, or a server.
    pub(crate) async fn find(
        &self,
        target: &TargetPath,
        look: Look,
    ) -> Result<Entry, RequestError> {
        let Look { now, recheck, encoded } = look;
        let is_enough = |kept: &Arc<OpenFile>| kept.has_encoded_known() || !encoded;
        if !recheck && let Some(kept) = self.kept(target, now).filter(is_enough) {
            return Ok(Entry::File(kept));
        }
        let known = self.open.get(target);
        let (source, path) = match self.look_up(target).await {
            Ok(Found::File { source, path }) => (source, path),
            other => {
                if known.is_some() {
                    self.open.remove(target);
                }
                return other.map(|_| Entry::DirectoryWithoutSlash);
            }
        };
        let before = known.as_ref().map(|known| &known.plain);
        let plain = same_or_new(before, source, |identity| self.head(identity, &path));
        let known_encoded = known.as_ref().and_then(|known| known.encoded.as_ref());
        let encoded = if encoded || known_encoded.is_some() {
            Some(self.encoded(target, &path, &plain, known_encoded).await)
        } else {
            None
        };
        let checked = AtomicU64::new(self.milliseconds(now));
        let found = OpenFile {
            plain,
            encoded,
            written_head: OnceLock::new(),
            spelled: OnceLock::new(),
            checked,
        };
        match known.filter(|known| known.is_same(&found)) {
            Some(known) => {
                known.checked.store(self.milliseconds(now), Ordering::Relaxed);
                Ok(Entry::File(known))
            }
            None => {
                let found = Arc::new(found);
                self.open.insert(target.clone(), Arc::clone(&found));
                Ok(Entry::File(found))
            }
        }
    }

    /// The precompressed forms beside the file at `target`, whose path is `path`. One that is
    /// older than the file was made of another.
    async fn encoded(
        &self,
        target: &TargetPath,
        path: &Path,
        plain: &Representation,
        known: Option<&Encoded>,
    ) -> Encoded {
        let mut found = Encoded::new();
        let name = path.as_os_str().as_bytes();
        if self.codings.iter().any(|coding| name.ends_with(coding.suffix().as_bytes())) {
            return found;
        }
        let modified = |source: &SourceFile| source.identity().modified.seconds;
        for coding in self.codings.iter() {
            let beside = target.file().with_suffix(coding.suffix());
            let Ok(Found::File { source, .. }) = self.look_up(&beside).await else { continue };
            // In whole seconds: not every compressor passes the rest of the time on.
            if modified(&source) < modified(&plain.source) {
                let file = beside.relative().display();
                tracing::debug!(%file, "is older than the file that it stands for");
                continue;
            }
            let mut before = known.into_iter().flatten();
            let before = before.find(|(kept, _)| *kept == coding).map(|(_, kept)| kept);
            let head = |identity: &Identity| {
                let coding = HeaderValue::from_static(coding.name());
                self.head(identity, path).with(CONTENT_ENCODING, coding)
            };
            found.push((coding, same_or_new(before, source, head)));
        }
        found
    }

    /// The head of a representation of the file at `path`.
    fn head(&self, identity: &Identity, path: &Path) -> FileHead {
        // Ranges can be asked for of every file; so it is not inserted each time.
        let mut head =
            FileHead::new(identity, path).with(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        self.rules.of_file(&Path::new("/").join(path), head.fields());
        if self.codings.is_empty() {
            return head;
        }
        head.with(VARY, HeaderValue::from_static("Accept-Encoding"))
    }

    async fn look_up(&self, target: &TargetPath) -> Result<Found, RequestError> {
        let mut local = self.root.find_cached(target);
        if matches!(local, Local::Unknown) {
            let (root, target) = (self.root.clone(), target.clone());
            let elsewhere = Arc::clone(&self.elsewhere);
            let find = move || match root.find_local(&target) {
                Local::Found(found) => Local::Found(found),
                // At once, if it may.
                Local::Unknown | Local::Elsewhere => match elsewhere.try_acquire() {
                    Ok(_turn) => Local::Found(root.find(&target)),
                    Err(_) => Local::Elsewhere,
                },
            };
            local = spawn_blocking(find).await.map_err(failed)?;
        }
        if let Local::Found(found) = local {
            return found;
        }
        let turn = Arc::clone(&self.elsewhere).acquire_owned().await.map_err(failed)?;
        let (root, target) = (self.root.clone(), target.clone());
        let find = move || {
            let _turn = turn;
            root.find(&target)
        };
        spawn_blocking(find).await.map_err(failed)?
    }
}

/// What was open before, if it still is the file at its name.
fn same_or_new(
    before: Option<&Arc<Representation>>,
    source: SourceFile,
    head: impl FnOnce(&Identity) -> FileHead,
) -> Arc<Representation> {
    let identity = source.identity();
    match before.filter(|before| before.source.identity() == identity) {
        Some(before) => Arc::clone(before),
        None => Arc::new(Representation { head: head(&identity), source }),
    }
}

fn failed(failure: impl std::error::Error + Send + Sync + 'static) -> RequestError {
    RequestError::Io(io::Error::other(failure))
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { root, open, codings, rules, elsewhere: _, started } = self;
        f.debug_struct("Files")
            .field("root", root)
            .field("open", &open.len())
            .field("codings", codings)
            .field("rules", rules)
            .field("started", started)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Served {
        directory: tempfile::TempDir,
        files: Files,
        start: Instant,
    }

    impl Served {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("file"), "first").unwrap();
            let codings = Codings::default().with(Coding::Gzip).with(Coding::Brotli);
            let files = Files::open(directory.path(), codings, Rules::default(), 1, true).unwrap();
            Self { directory, files, start: Instant::now() }
        }

        /// The open file that a request `after` the start is answered from.
        fn find(&self, after: Duration, recheck: bool) -> Result<Arc<OpenFile>, u16> {
            let target = TargetPath::parse("/file").unwrap();
            let look = Look { now: self.start + after, recheck, encoded: true };
            let find = self.files.find(&target, look);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            match runtime.block_on(find) {
                Ok(Entry::File(file)) => Ok(file),
                Ok(Entry::DirectoryWithoutSlash) => panic!("it is a file"),
                Err(error) => Err(error.status().as_u16()),
            }
        }

        fn len(&self, after: Duration, recheck: bool) -> u64 {
            self.find(after, recheck).unwrap().plain.source.len()
        }

        fn replace(&self, content: &str) {
            let new = self.directory.path().join("new");
            fs::write(&new, content).unwrap();
            fs::rename(new, self.directory.path().join("file")).unwrap();
        }
    }

    const LATE: Duration = UNCHECKED_MAX;

    #[test]
    fn an_unchanged_file_is_opened_once() {
        let served = Served::new();
        let first = served.find(Duration::ZERO, false).unwrap();
        for (after, recheck) in [(Duration::ZERO, false), (LATE, false), (LATE * 2, true)] {
            assert!(Arc::ptr_eq(&first, &served.find(after, recheck).unwrap()));
        }
    }

    #[test]
    fn a_replaced_file_is_seen_a_second_late_or_at_once_on_demand() {
        let served = Served::new();
        let soon = Duration::from_millis(10);
        assert_eq!(served.len(Duration::ZERO, false), 5);
        served.replace("longer than before");
        assert_eq!(served.len(soon, false), 5);
        assert_eq!(served.len(soon, true), 18);
        served.replace("third");
        assert_eq!(served.len(soon, false), 18);
        assert_eq!(served.len(soon + LATE, false), 5);
    }

    #[test]
    fn a_removed_file_is_closed() {
        let served = Served::new();
        assert!(served.find(Duration::ZERO, false).is_ok());
        fs::remove_file(served.directory.path().join("file")).unwrap();
        assert_eq!(served.find(LATE, false).unwrap_err(), 404);
        assert_eq!(served.files.open.len(), 0);
    }

    #[test]
    fn precompressed_forms_come_and_go_with_the_file() {
        let served = Served::new();
        let beside = |suffix: &str| served.directory.path().join(format!("file{suffix}"));
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT_ENCODING, "gzip, br".parse().unwrap());
        let len = |after| served.find(after, false).unwrap().preferred(&headers).source.len();
        let first = served.find(Duration::ZERO, false).unwrap();
        fs::write(beside(".gz"), "gz").unwrap();
        assert_eq!(len(Duration::ZERO), 5, "nobody has looked again");
        assert_eq!(len(LATE), 2);
        fs::write(beside(".br"), "b").unwrap();
        assert_eq!(len(LATE * 2), 1);
        assert_eq!(served.files.open.weight(), 3);
        let kept = served.find(LATE * 2, false).unwrap();
        assert!(Arc::ptr_eq(&first.plain, &kept.plain));
        assert!(Arc::ptr_eq(&kept, &served.find(LATE * 3, true).unwrap()));
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        fs::File::open(beside(".br")).unwrap().set_modified(hour_ago).unwrap();
        assert_eq!(len(LATE * 4), 2, "older than the file");
        fs::remove_file(beside(".gz")).unwrap();
        assert_eq!(len(LATE * 5), 5);
        assert_eq!(
            served.find(LATE * 5, false).unwrap().preferred(&HeaderMap::new()).source.len(),
            5
        );
    }
}
