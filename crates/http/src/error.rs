//! Why a request is not answered with a file, and the one place where that becomes a status.

use std::io;
use std::path::PathBuf;

use http::StatusCode;
use rustix::io::Errno;

use crate::listen::ListenAddress;
use crate::refusals::Refusal;

/// Why a request is not answered with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Neither GET nor HEAD.
    #[error("only GET and HEAD are answered here")]
    Method,
    /// A request of HTTP/1.1 without a Host field, or with several, or one that names no host.
    #[error("the request needs one Host field, with the name of a host")]
    Host,
    /// Nothing is served here for the host that the request names.
    #[error("no site of that name is served here")]
    Misdirected,
    /// The target holds a NUL byte, which no file name can.
    #[error("the target holds a NUL byte")]
    Nul,
    /// The target holds a `..` segment, plain or percent-encoded.
    #[error("the target holds a '..' segment")]
    DotDot,
    /// There is no such file.
    #[error("no such file")]
    Missing,
    /// A directory without an index.html.
    #[error("this directory has no index.html")]
    NoIndex,
    /// A symbolic link on the way leads out of the served directory.
    #[error("no such file")]
    Outside,
    /// The file may not be read by this server.
    #[error("not readable by this server")]
    Permission,
    /// A device, socket or pipe.
    #[error("not a regular file")]
    NotRegular,
    /// No descriptors left.
    #[error("this server has too many files open; try again")]
    Exhausted,
    /// A directory holds more than is ever listed or packed.
    #[error("this directory holds more than {max} entries")]
    TooManyEntries {
        /// The most entries.
        max: usize,
    },
    /// Something in a directory that was to be packed cannot be read: an archive without it
    /// would look whole.
    #[error("cannot be packed: '{}' is not readable by this server", path.display())]
    Unpackable {
        /// Where it lies, below the directory.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// No password that this site knows, or one that is not looked at now.
    #[error("{}", why_unauthorized(*reason))]
    Unauthorized {
        /// Why.
        reason: Refusal,
    },
    /// The target is longer than this server reads.
    #[error("the target is longer than {max} bytes")]
    TargetTooLong {
        /// The most bytes.
        max: usize,
    },
    /// Too many directories are being read.
    #[error("this server is busy with other directories; try again")]
    Busy,
    /// The file system failed.
    #[error("the file could not be opened")]
    Io(#[source] io::Error),
}

impl RequestError {
    /// Whether there is nothing that could be sent: what other services call not found. The rest
    /// are faults of the request's form or of the machine.
    pub(crate) fn is_not_here(&self) -> bool {
        match self {
            Self::Nul
            | Self::DotDot
            | Self::Missing
            | Self::NoIndex
            | Self::Outside
            | Self::Permission
            | Self::NotRegular => true,
            Self::Method
            | Self::Unauthorized { .. }
            | Self::TargetTooLong { .. }
            | Self::Host
            | Self::Misdirected
            | Self::TooManyEntries { .. }
            | Self::Unpackable { .. }
            | Self::Exhausted
            | Self::Busy
            | Self::Io(_) => false,
        }
    }

    /// As what it is counted, if it protects others.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if let Self::Unauthorized { reason } = self { Some(*reason) } else { None }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host | Self::Nul | Self::DotDot => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Missing | Self::NoIndex | Self::Outside => StatusCode::NOT_FOUND,
            Self::Permission
            | Self::NotRegular
            | Self::TooManyEntries { .. }
            | Self::Unpackable { .. } => StatusCode::FORBIDDEN,
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::Unauthorized { reason: Refusal::PasswordAttempts } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unauthorized { reason: Refusal::PasswordChecks } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Exhausted | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn why_unauthorized(reason: Refusal) -> &'static str {
    if reason == Refusal::PasswordAttempts {
        "too many wrong passwords; try again in a minute"
    } else if reason == Refusal::PasswordChecks {
        "too many passwords are being checked; try again"
    } else {
        "this site asks for a name and a password"
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Self::Missing,
            Some(Errno::XDEV | Errno::LOOP) => Self::Outside,
            Some(Errno::ACCESS | Errno::PERM) => Self::Permission,
            Some(Errno::NXIO | Errno::NODEV) => Self::NotRegular,
            Some(Errno::MFILE | Errno::NFILE) => Self::Exhausted,
            _ => Self::Io(error),
        }
    }
}

/// Why an archive ends before its announced length.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("'{}' changed after the archive's length was announced", path.display())]
    Changed { path: PathBuf },
    #[error("'{}' is gone or unreadable since the archive was announced", path.display())]
    Unreadable { path: PathBuf, source: Box<RequestError> },
}

/// Why a file of passwords cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordFileError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It names nobody.
    #[error("it names nobody: add a line that `pagewire password NAME` prints")]
    Empty,
    /// A line is wrong.
    #[error("line {number}: {why}")]
    Line {
        /// From 1 on.
        number: usize,
        /// What is wrong with it.
        why: PasswordLineError,
    },
}

/// What is wrong with a line of a file of passwords.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordLineError {
    /// `name:hash` it must be.
    #[error("no colon between a name and a hash")]
    NoColon,
    /// Nothing stands before the colon.
    #[error("no name before the colon")]
    NoName,
    /// The same name stands on a line before.
    #[error("the name '{name}' was given on a line before")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// It begins like a hash and is none.
    #[error("this is not a whole {kind} hash")]
    BadHash {
        /// How it begins.
        kind: &'static str,
    },
    /// Whoever reads the file has the password.
    #[error(
        "{kind} does not protect a password; use bcrypt or argon2, as `pagewire password` and \
         `htpasswd -B` do"
    )]
    Weak {
        /// What it is.
        kind: &'static str,
    },
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The directory to be served cannot be opened.
    #[error("cannot serve {}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What opening it said.
        source: io::Error,
    },
    /// The page for what is missing is missing.
    #[error("cannot send '{}' of {} in place of what is missing", page.display(), path.display())]
    Page {
        /// The page, below the directory.
        page: PathBuf,
        /// The directory.
        path: PathBuf,
        /// What looking for it said.
        source: RequestError,
    },
    /// Two directories are to be served for the same requests.
    #[error("two directories are served for {} at {path}", host.as_deref().unwrap_or("all hosts"))]
    Twice {
        /// The host; none: those that no site names.
        host: Option<String>,
        /// What the path begins with.
        path: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: ListenAddress,
        /// What binding to it said.
        source: io::Error,
    },
}

/// Why a text does not say for which requests something is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// Neither a host's name nor `*.` and one.
    #[error("'{text}' is not a host such as files.example, *.example or [::1], without port")]
    Host {
        /// What was given.
        text: String,
    },
    /// Not the front of a path.
    #[error("'{text}' is not a path such as /pub, without '..'")]
    Path {
        /// What was given.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_become_statuses() {
        for (errno, status) in [
            (Errno::NOENT, 404),
            (Errno::NAMETOOLONG, 404),
            (Errno::XDEV, 404),
            (Errno::LOOP, 404),
            (Errno::ACCESS, 403),
            (Errno::NXIO, 403),
            (Errno::MFILE, 503),
            (Errno::IO, 500),
        ] {
            let error = RequestError::from(io::Error::from(errno));
            assert_eq!(error.status().as_u16(), status, "{errno:?}");
        }
    }
}
