//! cachestat(2), Linux 6.5: how many pages of a range are in the page cache. rustix lacks it.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The same on every architecture: numbers from 424 on are shared.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` of linux/mman.h.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// `struct cachestat` of linux/mman.h.
#[repr(C)]
#[derive(Default)]
struct Answer {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

const _: () = assert!(size_of::<Range>() == 16 && size_of::<Answer>() == 40);

/// Pages in the page cache of the `len` bytes from `position` on.
///
/// EPERM for files that the caller neither owns nor may write to (since the fix of
/// CVE-2025-21691, in 6.13 and stable kernels), ENOSYS before Linux 6.5.
pub(crate) fn cached_pages(file: impl AsFd, position: u64, len: u64) -> Result<u64, Errno> {
    let range = Range { offset: position, len };
    let mut answer = Answer::default();
    let no_flags: libc::c_uint = 0;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for the whole call, being borrowed; the kernel reads one
    // `Range` and writes one `Answer`, both of the layout of linux/mman.h and alive here.
    let returned =
        unsafe { libc::syscall(SYS_CACHESTAT, fd, &raw const range, &raw mut answer, no_flags) };
    if returned == 0 {
        return Ok(answer.cached);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn written_pages_are_cached() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 3 * 4096]).unwrap();
        match cached_pages(&file, 0, 3 * 4096) {
            Err(Errno::NOSYS) => eprintln!("skipped: no cachestat before Linux 6.5"),
            answer => assert_eq!(answer, Ok(3)),
        }
    }

    #[test]
    fn what_has_no_page_cache_is_refused() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        match cached_pages(&read, 0, 4096) {
            Err(_) => {}
            // Some kernels count a pipe's empty mapping.
            Ok(pages) => assert_eq!(pages, 0),
        }
    }
}
