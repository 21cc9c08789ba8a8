//! The mutation oracle: did bytes reach the socket as references to the file's pages, or as
//! copies? It needs no tracing and no privilege.
//!
//! A range of a file is sent, then overwritten in the file before the peer reads. New bytes at
//! the peer: the socket held references. Old bytes: somebody had copied.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::blocking::send;
use crate::error::TransferError;
use crate::route::{Route, RouteChoice};
use crate::source::{Payload, SourceFile};

/// As much as one skb holds (17 fragments of a page): enough to be segmented by a device, little
/// enough to lie in the receiver's buffer until it is read.
const SAMPLE_BYTES: usize = 64 * 1024;
const OLD: u8 = 0xA5;
const NEW: u8 = 0x5A;
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(10);

/// How bytes of a file passed into a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Passage {
    /// The socket held references to the file's pages: nobody copied them.
    ByReference,
    /// They were copied on the way, by this process, by the socket or for the device.
    Copied,
}

impl std::fmt::Display for Passage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::ByReference => "by reference",
            Self::Copied => "copied",
        })
    }
}

/// Why the oracle gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The kernel refuses the route for this file and socket.
    #[error("the kernel refuses {route} for this file and socket")]
    RouteRefused {
        /// The route that was asked about.
        route: Route,
    },
    /// The sample did not reach the receiver.
    #[error("{arrived} of {SAMPLE_BYTES} bytes arrived within {ARRIVAL_DEADLINE:?}")]
    NotArrived {
        /// Bytes that did.
        arrived: u64,
    },
    /// Some pages passed by reference and some were copied.
    #[error("{new} of {SAMPLE_BYTES} bytes passed by reference, the others were copied")]
    Mixed {
        /// Bytes that arrived as overwritten after sending.
        new: usize,
    },
    /// Sending the sample failed.
    #[error(transparent)]
    Send(#[from] TransferError),
    /// The scratch file or the receiver failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sends a sample of `scratch` by `route` from `sender` to `receiver`, two ends of one
/// connection with nothing else on it, and tells how it passed.
///
/// `scratch` is overwritten. On loopback the answer is about the route; through a device it is
/// about the route and the device.
///
/// # Errors
///
/// Those of [`ProofError`].
pub fn mutation_oracle(
    route: Route,
    scratch: &File,
    sender: impl AsFd,
    receiver: impl AsFd,
) -> Result<Passage, ProofError> {
    scratch.write_all_at(&[OLD; SAMPLE_BYTES], 0)?;
    let sample = SourceFile::new(scratch.try_clone()?)?.range(0, SAMPLE_BYTES as u64);
    let sample = sample.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let report = send(Payload::new().file(sample), sender, RouteChoice::Only(route))?;
    if report.tally.routes_taken().ne([route]) {
        return Err(ProofError::RouteRefused { route });
    }
    wait_for_arrival(&receiver)?;
    scratch.write_all_at(&[NEW; SAMPLE_BYTES], 0)?;
    verdict(&receiver)
}

/// Waits until the receiver's queue holds the whole sample: only then has every copy been made
/// that a device or the receiving stack makes.
fn wait_for_arrival(receiver: &impl AsFd) -> Result<(), ProofError> {
    let deadline = Instant::now() + ARRIVAL_DEADLINE;
    loop {
        let arrived = rustix::io::ioctl_fionread(receiver).map_err(io::Error::from)?;
        if arrived >= SAMPLE_BYTES as u64 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(ProofError::NotArrived { arrived });
        }
        // The socket is readable from its first byte on, so its readiness says nothing of the
        // last one: look again in a moment.
        let moment = Timespec { tv_sec: 0, tv_nsec: 100_000 };
        retry_on_intr(|| poll(&mut [], Some(&moment))).map_err(io::Error::from)?;
    }
}

fn verdict(receiver: &impl AsFd) -> Result<Passage, ProofError> {
    let mut sample = [0; SAMPLE_BYTES];
    let mut filled = 0;
    while filled < SAMPLE_BYTES {
        match retry_on_intr(|| rustix::io::read(receiver, &mut sample[filled..])) {
            Ok(0) => {
                return Err(ProofError::NotArrived { arrived: filled as u64 });
            }
            Ok(bytes) => filled += bytes,
            Err(errno) => return Err(ProofError::Io(errno.into())),
        }
    }
    match sample.iter().filter(|byte| **byte == NEW).count() {
        SAMPLE_BYTES => Ok(Passage::ByReference),
        0 => Ok(Passage::Copied),
        new => Err(ProofError::Mixed { new }),
    }
}

/// [`mutation_oracle`] over a TCP connection on loopback that it makes for the purpose.
///
/// # Errors
///
/// Those of [`ProofError`].
pub fn on_loopback(route: Route, scratch: &File) -> Result<Passage, ProofError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    let (receiver, _) = listener.accept()?;
    mutation_oracle(route, scratch, sender, receiver)
}

/// A file without a name on the file system of `directory`, for the oracle to write to
/// (`O_TMPFILE`, Linux 3.11).
///
/// # Errors
///
/// EACCES or EROFS when the directory cannot be written to; EOPNOTSUPP when its file system has
/// no nameless files.
pub fn scratch_file_in(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// A file in memory (`memfd_create`, on tmpfs), for where no directory can be written to.
///
/// # Errors
///
/// Those of memfd_create(2).
pub fn scratch_file_in_memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("pagewire-proof", MemfdFlags::CLOEXEC)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_tells_references_from_copies() {
        let scratch = scratch_file_in_memory().unwrap();
        for (route, expected) in [
            (Route::Sendfile, Passage::ByReference),
            (Route::Splice, Passage::ByReference),
            (Route::MmapWrite, Passage::Copied),
            (Route::ReadWrite, Passage::Copied),
        ] {
            assert_eq!(on_loopback(route, &scratch).unwrap(), expected, "{route}");
        }
    }

    #[test]
    fn a_directory_that_is_missing_is_named_by_the_errno() {
        let refusal = scratch_file_in(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::NotFound);
    }
}
