//! What to do about an error at start, or at a reload.

use std::error::Error;
use std::io;

use anyhow::anyhow;
use pagewire_http::{ListenAddress, StartError};

/// The error with its way out, where there is one.
pub(crate) fn with_way_out(error: StartError) -> anyhow::Error {
    let kind = error.source().and_then(|source| source.downcast_ref()).map(io::Error::kind);
    match way_out(&error, kind) {
        Some(way_out) => anyhow!("{:#}; {way_out}", anyhow::Error::from(error)),
        None => error.into(),
    }
}

fn way_out(error: &StartError, kind: Option<io::ErrorKind>) -> Option<&'static str> {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, AlreadyExists};
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let is_unix = matches!(error, StartError::Listen { address: ListenAddress::Unix { .. }, .. });
    if matches!(error, StartError::Page { .. }) {
        return Some("name a file that lies below the directory");
    }
    Some(match (error, kind?) {
        (StartError::Root { .. }, NotFound) => "name a directory that exists",
        (StartError::Root { .. }, NotADirectory) => "name the directory that it lies in",
        (StartError::Root { .. }, PermissionDenied) => "this user may not read it",
        (StartError::Listen { .. }, AlreadyExists | AddrInUse) if is_unix => {
            "name another path, or end who listens there"
        }
        (StartError::Listen { .. }, NotFound) if is_unix => {
            "make the directory that it is to lie in"
        }
        (StartError::Listen { .. }, PermissionDenied) if is_unix => "this user may not write there",
        (StartError::Listen { .. }, AddrInUse) => {
            "another program listens there: choose another port with --listen; port 0 takes any"
        }
        (StartError::Listen { .. }, AddrNotAvailable) => {
            "no interface of this host has that address"
        }
        (StartError::Listen { .. }, PermissionDenied) => {
            "ports below 1024 need privilege: choose a higher one with --listen"
        }
        _ => return None,
    })
}

/// The same of any error at a reload, for which the sandbox may stand in the way of files.
pub(crate) fn at_reload(sandboxed: bool, error: anyhow::Error) -> anyhow::Error {
    let is_denied = |cause: &(dyn Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let is_port = matches!(
        error.downcast_ref(),
        Some(StartError::Listen { address: ListenAddress::Tcp(_), .. })
    );
    if sandboxed && !is_port && error.chain().any(is_denied) {
        return anyhow!(
            "{error:#}; the sandbox was closed around what was served at start: restart"
        );
    }
    error.downcast().map_or_else(|error| error, with_way_out)
}
