//! What this process may have open, and how it is shared out.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files kept open at most. Each holds a mapping too once it was sent, of which a process may
/// have 65,530 (`vm.max_map_count`).
const OPEN_FILES_MAX: u64 = 512;

/// Raises the limit of open descriptors (RLIMIT_NOFILE) as far as this user may, and returns it:
/// the soft limit of 1,024 is for programs that still use select(2).
///
/// # Errors
///
/// Those of setrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// How many files may be kept open: a quarter of what the process may, so that connections and
/// their pipes have the rest.
pub(crate) fn open_files_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((descriptors / 4).min(OPEN_FILES_MAX)).unwrap_or(1)
}
