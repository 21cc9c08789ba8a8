//! What kind of storage the devices are that files were opened on: known without asking a server,
//! for a moment. Asked and told by `resolve.rs`.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pagewire_engine::{SourceFile, Storage};
use rustix::fs::{AtFlags, StatxFlags, makedev, statx};

/// The number of a device that is unmounted is soon another's.
const TRUSTED: Duration = Duration::from_secs(1);

type Known = HashMap<u64, (Storage, Instant)>;

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

fn lock() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers what `source` lies on.
pub(crate) fn remember(source: &SourceFile) {
    lock().insert(source.identity().device, (source.storage(), Instant::now()));
}

/// What an open file, or the place of one (O_PATH), lies on; `None` where that is not known, or
/// where opening it may wait for a server. Asks nobody: AT_STATX_DONT_SYNC has the kernel answer
/// from what it has.
pub(crate) fn known(place: impl AsFd) -> Option<Storage> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(place, c"", flags, StatxFlags::empty()).ok()?;
    let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    let (storage, seen) = *lock().get(&device)?;
    (storage != Storage::Remote && seen.elapsed() < TRUSTED).then_some(storage)
}

#[cfg(test)]
mod tests {
    use crate::resolve::{open_path, open_path_cached};

    #[test]
    fn a_device_is_known_once_a_file_was_opened_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let opened = open_path(&path).unwrap();
        // The kernel may have no openat2, or its cache have lost the name.
        if let Some(again) = open_path_cached(&path) {
            let again = again.unwrap();
            assert_eq!(again.identity(), opened.identity());
            assert_eq!(again.storage(), opened.storage());
        }
        let missing = open_path_cached(&directory.path().join("none"));
        assert!(missing.is_none_or(|missing| missing.is_err()));
    }
}
