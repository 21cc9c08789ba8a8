//! TLS for wires: rustls shakes hands, then the records are sealed by the kernel (kTLS), so that
//! sendfile works, or here, from where a file is mapped or was read to.
//!
//! To read a mapping this module installs a handler of SIGBUS (sigaction(2)) when it first does
//! so: a file that is cut meanwhile is an error of its transfer. Every other SIGBUS is passed on
//! to whoever handled it before.
//!
//! docs/tls.md says what is done when, and why.

mod batch;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod inbound;
mod kernel;
mod mapped;
mod outbound;
mod probe;
mod record;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::io;
use std::str::FromStr;

use crate::error::SendError;

pub use probe::{SuiteSupport, TlsCost, TlsSupport, probe};
pub use wire::{TlsAccepted, TlsWire, accept};

/// Who seals the records of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsChoice {
    /// The kernel where [`probe`] found that it does so correctly and for less CPU, else this
    /// process.
    #[default]
    Auto,
    /// The kernel wherever it accepts the keys, else this process.
    Kernel,
    /// The same, for files that never change: a network device that seals records itself reads
    /// the page cache as it sends (TLS_TX_ZEROCOPY_RO, Linux 5.19), where before the kernel copies
    /// it first. What is changed in place after all may break connections: a record that is sent
    /// once more is then not the one that was.
    KernelImmutable,
    /// This process.
    UserSpace,
}

impl fmt::Display for TlsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::KernelImmutable => "kernel-immutable",
            Self::UserSpace => "user-space",
        })
    }
}

/// A name that is not a [`TlsChoice`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no such way to seal TLS records; the ways are auto, kernel, kernel-immutable and user-space"
)]
pub struct UnknownTlsChoice;

impl FromStr for TlsChoice {
    type Err = UnknownTlsChoice;

    fn from_str(name: &str) -> Result<Self, UnknownTlsChoice> {
        let all = [Self::Auto, Self::Kernel, Self::KernelImmutable, Self::UserSpace];
        all.into_iter().find(|choice| choice.to_string() == name).ok_or(UnknownTlsChoice)
    }
}

/// Why a TLS connection did not come about, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer closed the connection within its handshake.
    #[error("the peer closed the connection within the TLS handshake")]
    Closed,
    /// The configuration asks for what this crate does not do.
    #[error("the TLS configuration cannot be used: {0}")]
    Config(&'static str),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// As many records were sealed with one key as is safe, and it cannot be changed.
    #[error("the TLS key has sealed as many records as is safe")]
    KeyUsedUp,
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] rustls::Error),
    /// A record could not be sealed.
    #[error("a TLS record could not be sealed")]
    Seal,
    /// The cipher is none of AES-128-GCM, AES-256-GCM and ChaCha20-Poly1305.
    #[error("the TLS cipher is not one that this program can use")]
    UnknownCipher,
}

impl TlsError {
    /// The kind of failure, in one of a few fixed words, for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed by peer",
            Self::Config(_) => "configuration",
            Self::Io(_) => "socket",
            Self::KeyUsedUp | Self::Seal | Self::UnknownCipher => "cipher",
            Self::Handshake(rustls::Error::InvalidMessage(_)) => "not TLS",
            Self::Handshake(rustls::Error::PeerIncompatible(_)) => "nothing in common",
            Self::Handshake(
                rustls::Error::PeerMisbehaved(_)
                | rustls::Error::InappropriateMessage { .. }
                | rustls::Error::InappropriateHandshakeMessage { .. }
                | rustls::Error::DecryptError,
            ) => "misbehaved",
            Self::Handshake(rustls::Error::AlertReceived(_)) => "alert from peer",
            Self::Handshake(rustls::Error::NoApplicationProtocol) => "no common protocol",
            // The words are all that rustls says of it.
            Self::Handshake(rustls::Error::General(what)) if what.contains("no server cert") => {
                "no certificate"
            }
            Self::Handshake(_) => "other",
        }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        if let TlsError::Io(error) = error { error } else { Self::other(error) }
    }
}

impl From<TlsError> for SendError {
    fn from(error: TlsError) -> Self {
        Self::Io(error.into())
    }
}
