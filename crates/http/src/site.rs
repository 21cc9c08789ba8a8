//! The directory of a `ServeDir`: opened at the first request, and again when its path leads to
//! another one, so that a release that is switched by a symbolic link is seen.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::encoding::Codings;
use crate::error::RequestError;
use crate::files::Files;
use crate::rules::Rules;

/// How long the path is taken to lead to the same directory without another look.
const UNCHECKED_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Site {
    path: PathBuf,
    opened: Mutex<Option<Opened>>,
}

#[derive(Clone, Debug)]
struct Opened {
    files: Arc<Files>,
    /// Device and inode.
    identity: (u64, u64),
    checked: Instant,
}

impl Site {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, opened: Mutex::new(None) }
    }

    /// The files below the directory that the path led to, at most a second before `now`.
    pub(crate) async fn files(&self, now: Instant) -> Result<Arc<Files>, RequestError> {
        let known = self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Opened { files, checked, .. }) = &known
            && now.saturating_duration_since(*checked) < UNCHECKED_MAX
        {
            return Ok(Arc::clone(files));
        }
        let path = self.path.clone();
        let look = move || -> io::Result<Opened> {
            let stat = rustix::fs::stat(&path)?;
            let identity = (stat.st_dev, stat.st_ino);
            let files = match known.filter(|known| known.identity == identity) {
                Some(known) => known.files,
                None => {
                    Arc::new(Files::open(&path, Codings::default(), Rules::default(), 1, true)?)
                }
            };
            Ok(Opened { files, identity, checked: now })
        };
        let looked = spawn_blocking(look).await.map_err(io::Error::other);
        let opened = looked.and_then(|opened| opened)?;
        let files = Arc::clone(&opened.files);
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(files)
    }
}
