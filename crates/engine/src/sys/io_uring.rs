//! io_uring_setup(2), Linux 5.1, to learn whether a ring can be had. No ring is used.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `struct io_uring_params` of linux/io_uring.h; zero asks for nothing special.
#[repr(C, align(8))]
struct Params([u8; 120]);

const _: () = assert!(size_of::<Params>() == 120 && align_of::<Params>() == 8);

/// Makes a ring of `entries`.
///
/// ENOSYS where the kernel or a filter of system calls has none, EPERM where
/// `kernel.io_uring_disabled` or a filter forbids it.
pub(crate) fn ring(entries: u32) -> io::Result<OwnedFd> {
    let mut params = Params([0; 120]);
    // SAFETY: the kernel reads and writes one `io_uring_params`, whose size and alignment
    // `params` has, and which is alive here.
    let returned = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut params) };
    match i32::try_from(returned) {
        // SAFETY: the kernel just made this descriptor, and nobody else knows of it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_ring_is_had_or_forbidden() {
        match ring(1) {
            Ok(_) => {}
            Err(refusal) => {
                let errno = Errno::from_io_error(&refusal);
                assert!(matches!(errno, Some(Errno::NOSYS | Errno::PERM)), "{refusal}");
                eprintln!("skipped: no io_uring here: {refusal}");
            }
        }
    }

    #[test]
    fn a_ring_of_nothing_is_refused() {
        let refusal = ring(0).unwrap_err();
        let errno = Errno::from_io_error(&refusal);
        assert!(matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::PERM)), "{refusal}");
    }
}
