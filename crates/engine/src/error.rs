//! The errors of this crate. A refusal that leads to another route is not one of them.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// A range that does not lie within its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes from {position} on do not lie within a file of {file_len} bytes")]
#[non_exhaustive]
pub struct RangeError {
    /// Where the range starts, in bytes.
    pub position: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The length of the file.
    pub file_len: u64,
}

/// Why a payload could not be sent to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A payload before this one was abandoned half sent: the peer waits for its rest.
    #[error("an earlier payload was abandoned half sent on this socket")]
    Abandoned,
    /// The file holds fewer bytes than when it was opened. What was already sent stands; the
    /// rest does not exist, so the connection must be closed.
    #[error("the file shrank while it was sent: {expected} bytes were due, it holds {found}")]
    FileShrank {
        /// The file must reach at least this far, in bytes.
        expected: u64,
        /// Its length when this was noticed.
        found: u64,
    },
    /// The kernel refused every route for this file and socket.
    #[error("the kernel refused every route from this file to this socket")]
    NoRoute,
    /// The peer took less than this server has patience for.
    #[error("too slow: the peer took {bytes} bytes in {} s", within.as_secs())]
    TooSlow {
        /// Bytes that it acknowledged.
        bytes: u64,
        /// In that time.
        within: Duration,
    },
    /// The socket, or the disk under the file, failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for SendError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Why a window of a file cannot be brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What the disk, or the server behind the file, said.
    Errno(Errno),
    /// The file ends before the window does.
    Shrank {
        /// Where the window ends.
        expected: u64,
        /// Where the file does.
        found: u64,
    },
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Fault> for SendError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Errno(errno) => errno.into(),
            Fault::Shrank { expected, found } => Self::FileShrank { expected, found },
        }
    }
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Io(error) => error,
            SendError::FileShrank { .. } => Self::new(io::ErrorKind::UnexpectedEof, error),
            SendError::NoRoute => Self::new(io::ErrorKind::Unsupported, error),
            SendError::TooSlow { .. } => Self::new(io::ErrorKind::TimedOut, error),
            SendError::Abandoned => Self::new(io::ErrorKind::BrokenPipe, error),
        }
    }
}

/// A transfer that ended early, with what had moved by then.
#[derive(Debug, thiserror::Error)]
#[error("{moved} bytes moved, then: {source}")]
#[non_exhaustive]
pub struct TransferError {
    /// Bytes that the socket accepted before the error.
    pub moved: u64,
    /// What ended it.
    pub source: SendError,
}
