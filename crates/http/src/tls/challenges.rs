//! Proofs for ACME servers that a name is this server's: certificates that only they are shown
//! (TLS-ALPN-01, RFC 8737). Who orders certificates puts them here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use crate::tls::certificate::CertificateError;

/// The protocol of connections that ask for a proof, by ALPN (RFC 8737 section 6.2).
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";

/// The proofs that are to be shown now, by name. Clones share them.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Mutex<HashMap<String, Arc<CertifiedKey>>>>);

impl Challenges {
    /// Shows whoever asks for a proof of `name` that of `digest`, the SHA-256 of a key
    /// authorization (RFC 8555 section 8.1), until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Unmakeable`] when `name` is no DNS name.
    pub fn answer(&self, name: &str, digest: &[u8; 32]) -> Result<Answer, CertificateError> {
        let name = name.to_ascii_lowercase();
        let made = CertificateParams::new(vec![name.clone()]).and_then(|mut params| {
            params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
            let pair = KeyPair::generate()?;
            Ok((params.self_signed(&pair)?, pair))
        });
        let (certificate, pair) = made.map_err(CertificateError::Unmakeable)?;
        let chain = vec![CertificateDer::from(certificate)];
        let secret = PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
        let key = default_provider().key_provider.load_private_key(secret);
        let key = key.map_err(CertificateError::Unusable)?;
        // Not checked against each other: the extension is critical, and rustls knows it not.
        self.proofs().insert(name.clone(), Arc::new(CertifiedKey::new(chain, key)));
        Ok(Answer { name, challenges: self.clone() })
    }

    /// What a client is to be shown that asks for a proof, if it does: nothing where there is none.
    pub(crate) fn proof(&self, hello: &ClientHello<'_>) -> Option<Option<Arc<CertifiedKey>>> {
        let is_asked = hello.alpn().is_some_and(|mut offered| {
            offered.next() == Some(PROTOCOL) && offered.next().is_none()
        });
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        is_asked.then(|| self.proofs().get(&name).cloned())
    }

    fn proofs(&self) -> MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.proofs().keys()).finish()
    }
}

/// A proof that is shown until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Answer {
    name: String,
    challenges: Challenges,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.challenges.proofs().remove(&self.name);
    }
}
