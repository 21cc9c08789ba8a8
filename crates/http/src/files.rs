//! The open-file cache: descriptor, mapping and ready-made header values of files that were
//! served, so that the next request for one opens nothing. Bounded, and revalidated.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pagewire_engine::SourceFile;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::error::RequestError;
use crate::limits::open_files_max;
use crate::resolve::{Found, Local, Root, TargetPath};
use crate::respond::FileHead;

/// How long a file is taken for unchanged without another look at its name.
const UNCHECKED_MAX: Duration = Duration::from_secs(1);

/// Looks at names of other mounts than the root's that may be under way: of tokio's 512 threads
/// for what may wait, a server that hangs holds no more than these.
const ELSEWHERE_MAX: usize = 64;

/// The files below one directory.
pub(crate) struct Files {
    root: Root,
    open: Cache<TargetPath, Arc<OpenFile>>,
    /// Held by looks at names of other mounts.
    elsewhere: Arc<Semaphore>,
    /// The instant from which `OpenFile::checked` counts.
    started: Instant,
}

/// A file that is open and whose response heads are made.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) source: SourceFile,
    pub(crate) head: FileHead,
    /// When its name was last seen to lead to it, in milliseconds after `Files::started`.
    checked: AtomicU64,
}

/// What lies at a target.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    File(Arc<OpenFile>),
    DirectoryWithoutSlash,
}

impl Files {
    pub(crate) fn open(directory: &Path, follow_symlinks: bool) -> io::Result<Self> {
        let root = Root::open(directory)?.following_symlinks(follow_symlinks);
        let elsewhere = Arc::new(Semaphore::new(ELSEWHERE_MAX));
        let open = Cache::new(open_files_max());
        Ok(Self { root, open, elsewhere, started: Instant::now() })
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
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

    /// What lies at `target`, at most [`UNCHECKED_MAX`] before `now`; at `now` when `recheck`.
    ///
    /// Names that the kernel has in its cache are looked up here; others, and those of other
    /// mounts than the root's, on a thread that may wait for the disk, or a server.
    pub(crate) async fn find(
        &self,
        target: &TargetPath,
        now: Instant,
        recheck: bool,
    ) -> Result<Entry, RequestError> {
        if !recheck && let Some(kept) = self.kept(target, now) {
            return Ok(Entry::File(kept));
        }
        let known = self.open.get(target);
        let now = self.milliseconds(now);
        match self.look_up(target).await {
            Ok(Found::File { source, path }) => {
                let file = match known {
                    Some(known) if known.source.identity() == source.identity() => {
                        known.checked.store(now, Ordering::Relaxed);
                        known
                    }
                    _ => {
                        let head = FileHead::new(&source.identity(), &path);
                        let file = OpenFile { source, head, checked: AtomicU64::new(now) };
                        let file = Arc::new(file);
                        self.open.insert(target.clone(), Arc::clone(&file));
                        file
                    }
                };
                Ok(Entry::File(file))
            }
            other => {
                if known.is_some() {
                    self.open.remove(target);
                }
                other.map(|_| Entry::DirectoryWithoutSlash)
            }
        }
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

fn failed(failure: impl std::error::Error + Send + Sync + 'static) -> RequestError {
    RequestError::Io(io::Error::other(failure))
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { root, open, elsewhere: _, started } = self;
        f.debug_struct("Files")
            .field("root", root)
            .field("open", &open.len())
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
            let files = Files::open(directory.path(), true).unwrap();
            Self { directory, files, start: Instant::now() }
        }

        /// The open file that a request `after` the start is answered from.
        fn find(&self, after: Duration, recheck: bool) -> Result<Arc<OpenFile>, u16> {
            let target = TargetPath::parse("/file").unwrap();
            let find = self.files.find(&target, self.start + after, recheck);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            match runtime.block_on(find) {
                Ok(Entry::File(file)) => Ok(file),
                Ok(Entry::DirectoryWithoutSlash) => panic!("it is a file"),
                Err(error) => Err(error.status().as_u16()),
            }
        }

        fn len(&self, after: Duration, recheck: bool) -> u64 {
            self.find(after, recheck).unwrap().source.len()
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
}
