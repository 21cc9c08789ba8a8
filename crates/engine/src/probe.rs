//! What this kernel lets this process do beside the routes: tried, not looked up by version.
//! `Ok` is yes; an error is the kernel's own answer, whose meaning is told with each question.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use socket2::SockRef;

use crate::pacing::bound_unsent;
use crate::sys::cachestat::cached_pages;
use crate::sys::io_uring::ring;
use crate::sys::sockopt::{set_tls_layer, set_zerocopy};

/// Can the kernel encrypt TLS records of a connection (kTLS: TCP_ULP "tls", Linux 4.13)?
///
/// A process with CAP_NET_ADMIN that asks has the kernel load its module `tls`.
///
/// # Errors
///
/// ENOENT: the kernel was built without it, or its module is not loaded.
pub fn kernel_tls() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    set_tls_layer(TcpStream::connect(listener.local_addr()?)?)
}

/// May a TCP socket send with MSG_ZEROCOPY (SO_ZEROCOPY, Linux 4.14)?
///
/// # Errors
///
/// ENOPROTOOPT before Linux 4.14.
pub fn zerocopy_sends() -> io::Result<()> {
    set_zerocopy(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
}

/// How many pages of the first 4 KiB of `file` does the kernel say are in the page cache
/// (cachestat, Linux 6.5)? None of a file that was just written: the pages are kept where it does
/// not look, as with overlayfs.
///
/// # Errors
///
/// ENOSYS before Linux 6.5 or behind a filter; EPERM for a file that this user neither owns nor
/// may write to; EOPNOTSUPP where the file system has no page cache.
pub fn cachestat(file: &File) -> io::Result<u64> {
    Ok(cached_pages(file, 0, 4096)?)
}

/// Does a read of `file` come back instead of waiting for a disk (RWF_NOWAIT, Linux 4.14)?
///
/// # Errors
///
/// EOPNOTSUPP where its file system cannot: tmpfs, overlayfs, NFS, FUSE.
pub fn nowait_reads(file: &File) -> io::Result<()> {
    let mut byte = [0];
    match preadv2(file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// May this process have an io_uring (Linux 5.1)?
///
/// # Errors
///
/// EPERM: `kernel.io_uring_disabled` or a filter of system calls forbids it. ENOSYS: there is
/// none.
pub fn io_uring() -> io::Result<()> {
    ring(1).map(drop)
}

/// Can names be kept below a directory by the kernel (openat2 with RESOLVE_BENEATH, Linux 5.6)?
///
/// # Errors
///
/// ENOSYS before Linux 5.6; EPERM behind filters of system calls that do not know it.
pub fn beneath_lookups(directory: impl AsFd) -> io::Result<()> {
    look_up(directory, ResolveFlags::BENEATH)
}

/// Can names be looked up without waiting for a disk (openat2 with RESOLVE_CACHED, Linux 5.12)?
///
/// # Errors
///
/// EINVAL before Linux 5.12; ENOSYS and EPERM as for [`beneath_lookups`].
pub fn cached_lookups(directory: impl AsFd) -> io::Result<()> {
    match look_up(directory, ResolveFlags::BENEATH | ResolveFlags::CACHED) {
        // It can, but cannot open this one without waiting.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => Ok(()),
        answer => answer,
    }
}

fn look_up(directory: impl AsFd, resolve: ResolveFlags) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(directory, ".", flags, Mode::empty(), resolve).map(drop)?)
}

/// How many bytes a connection holds unsent at most, once it was bounded as
/// [`bound_unsent`] does it.
///
/// # Errors
///
/// Those of setsockopt(2) with TCP_NOTSENT_LOWAT (Linux 3.12).
pub fn unsent_bound() -> io::Result<u32> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    bound_unsent(&listener)?;
    SockRef::from(&listener).tcp_notsent_lowat()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_every_supported_kernel_has_is_found() {
        zerocopy_sends().unwrap();
        let directory = File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
        beneath_lookups(&directory).unwrap();
        assert!(unsent_bound().unwrap() > 0);
    }

    #[test]
    fn the_kernel_lists_the_tls_layer_that_was_found() {
        let found = kernel_tls();
        let Ok(listed) = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp") else {
            return eprintln!("skipped: no list of layers in /proc");
        };
        let listed = listed.split_whitespace().any(|layer| layer == "tls");
        assert_eq!(found.is_ok(), listed, "{found:?}");
    }

    #[test]
    fn memory_answers_no_read_without_waiting() {
        let file = crate::proof::scratch_file_in_memory().unwrap();
        file.write_all_at(&[1], 0).unwrap();
        let refusal = nowait_reads(&file).unwrap_err();
        assert_eq!(Errno::from_io_error(&refusal), Some(Errno::OPNOTSUPP));
        match cachestat(&file) {
            Ok(pages) => assert_eq!(pages, 1),
            Err(refusal) => assert_eq!(Errno::from_io_error(&refusal), Some(Errno::NOSYS)),
        }
    }
}
