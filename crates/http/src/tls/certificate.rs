//! One certificate with its key: read, checked against each other, and what it says of itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A file with certificates or a key that is larger is none.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why TLS cannot be spoken with what there is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What writing it said.
        source: io::Error,
    },
    /// A file has no certificate in PEM.
    #[error("{} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file has no private key in PEM.
    #[error(
        "{} holds no key in PEM without a password (-----BEGIN PRIVATE KEY-----)",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The first certificate of a file is no X.509.
    #[error("the certificate in {} cannot be understood: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The key is of another certificate, or of a kind that is not known.
    #[error("the key {} does not go with the certificate {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says of the two.
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Unusable(#[source] rustls::Error),
    /// A certificate cannot be made.
    #[error("a self-signed certificate cannot be made")]
    Unmakeable(#[source] rcgen::Error),
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFacts {
    /// The DNS names that it is for, in lower case; those of a wildcard begin with `*.`.
    pub names: Vec<String>,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// SHA-256 of it, as browsers and openssl show it.
    pub fingerprint: String,
}

/// A certificate that can be used.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) facts: CertificateFacts,
}

impl Certificate {
    /// Reads a chain and the key of its first certificate, both PEM.
    pub(crate) fn load(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let no_certificate = || CertificateError::NoCertificate { path: chain.to_owned() };
        let certificates = CertificateDer::pem_reader_iter(open(chain)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unread(chain, error, |error| malformed(chain, &error)))?;
        let first = certificates.first().ok_or_else(no_certificate)?;
        let facts = CertificateFacts::of(first).map_err(|error| malformed(chain, &error))?;
        let secret = PrivateKeyDer::from_pem_reader(open(key)?).map_err(|error| {
            unread(key, error, |_| CertificateError::NoKey { path: key.to_owned() })
        })?;
        let pair = CertifiedKey::from_der(certificates, secret, &default_provider());
        let pair = pair.map_err(|source| {
            let (certificate, key) = (chain.to_owned(), key.to_owned());
            CertificateError::Mismatch { certificate, key, source }
        })?;
        Ok(Self { key: Arc::new(pair), facts })
    }
}

fn malformed(path: &Path, problem: &impl ToString) -> CertificateError {
    CertificateError::Malformed { path: path.to_owned(), problem: problem.to_string() }
}

fn unreadable(path: &Path, source: io::Error) -> CertificateError {
    CertificateError::Unreadable { path: path.to_owned(), source }
}

/// Why `path` is not read: its disk, or what `otherwise` makes of what is in it.
fn unread(
    path: &Path,
    error: pem::Error,
    otherwise: impl FnOnce(pem::Error) -> CertificateError,
) -> CertificateError {
    if let pem::Error::Io(source) = error { unreadable(path, source) } else { otherwise(error) }
}

/// What is in PEM need not all be text: comments are in any encoding.
fn open(path: &Path) -> Result<impl Read, CertificateError> {
    let open = || {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        if len > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("{len} bytes are more than {FILE_BYTES_MAX}")));
        }
        Ok(file.take(FILE_BYTES_MAX))
    };
    open().map_err(|source| unreadable(path, source))
}

impl CertificateFacts {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed = X509Certificate::from_der(certificate);
        let (_, parsed) = parsed.map_err(|error| error.to_string())?;
        let time = |seconds: i64| {
            Timestamp::from_second(seconds).map_err(|error| format!("its validity: {error}"))
        };
        let alternatives = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
        let mut names: Vec<String> = match &alternatives {
            Some(alternatives) => {
                let mut names = Vec::new();
                for name in &alternatives.value.general_names {
                    if let GeneralName::DNSName(name) = name {
                        names.push(name.to_ascii_lowercase());
                    }
                }
                names
            }
            // Of old: browsers do not look there any more, some clients do.
            None => {
                let names = parsed.subject().iter_common_name();
                names.filter_map(|name| Some(name.as_str().ok()?.to_ascii_lowercase())).collect()
            }
        };
        names.dedup();
        let fingerprint = Sha256::digest(certificate);
        let fingerprint: Vec<_> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self {
            names,
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
            fingerprint: fingerprint.join(":"),
        })
    }
}
