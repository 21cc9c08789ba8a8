//! Another content of a file, by inotify on its directory: editors and deployments put another
//! file, or a link to another directory, in its place.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How long a directory has to be quiet: who writes a file does so in several steps.
const QUIET: Duration = Duration::from_millis(200);

pub(crate) struct FileWatch {
    events: AsyncFd<OwnedFd>,
    path: PathBuf,
    /// What was in the file.
    content: Option<Vec<u8>>,
}

impl FileWatch {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let absolute = std::path::absolute(path)?;
        let directory = absolute.parent().unwrap_or(Path::new("/"));
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE;
        inotify::add_watch(&events, directory, changes)?;
        #[expect(deprecated, reason = "sound for a descriptor that is owned; the other is unsafe")]
        let events = AsyncFd::with_interest(events, Interest::READABLE)?;
        let content = content(&absolute);
        Ok(Self { events, path: absolute, content })
    }

    /// Until the file holds something else and its directory is quiet. A file that is gone is no
    /// content yet.
    pub(crate) async fn changed(&mut self) {
        loop {
            self.event().await;
            while tokio::time::timeout(QUIET, self.event()).await.is_ok() {}
            let path = self.path.clone();
            let content = spawn_blocking(move || content(&path)).await.ok().flatten();
            if content.is_some() && content != self.content {
                self.content = content;
                return;
            }
        }
    }

    /// Until something happened in the directory.
    async fn event(&self) {
        let drain = |events: &OwnedFd| {
            let mut buffer = [0; 4096];
            match rustix::io::read(events, &mut buffer) {
                Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                read => Ok(read?),
            }
        };
        if self.events.async_io(Interest::READABLE, drain).await.is_err() {
            // Not known to happen; a loop without a pause would be worse.
            sleep(QUIET).await;
        }
    }
}

fn content(path: &Path) -> Option<Vec<u8>> {
    std::fs::read_to_string(path).ok().map(String::into_bytes)
}
