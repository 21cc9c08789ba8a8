//! Several certificates: which one a client gets, by the name that it asks for (SNI).

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::certificate::{Certificate, CertificateError, CertificateFacts};
use crate::tls::challenges::Challenges;
use crate::tls::self_signed::SelfSigned;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the certificate, then those that lead to one which clients know.
    pub chain: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1, without a password.
    pub key: PathBuf,
}

/// The certificates of a listener.
pub struct Certificates {
    /// In the order in which they were given.
    all: Vec<Certificate>,
    /// Places in `all`, by name; several where a name has keys of several kinds.
    by_name: HashMap<String, Vec<usize>>,
    /// Where ACME servers are answered.
    pub(crate) challenges: Option<Challenges>,
}

impl Certificates {
    /// Reads `files`; the first is for clients that ask for no name, or for one that none has.
    /// Without any, all handshakes fail.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], which names the file.
    pub fn load(files: &[CertificateFiles]) -> Result<Self, CertificateError> {
        let load = |files: &CertificateFiles| Certificate::load(&files.chain, &files.key);
        Ok(Self::of(files.iter().map(load).collect::<Result<_, _>>()?))
    }

    /// The one that `wanted` describes: it is made if it is not there or has expired.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], which names the file.
    pub fn self_signed(wanted: &SelfSigned) -> Result<Self, CertificateError> {
        Ok(Self::of(vec![wanted.load_or_make()?]))
    }

    fn of(all: Vec<Certificate>) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for (place, certificate) in all.iter().enumerate() {
            for name in &certificate.facts.names {
                by_name.entry(name.clone()).or_default().push(place);
            }
        }
        Self { all, by_name, challenges: None }
    }

    /// Has ACME servers that look whether names are this server's (TLS-ALPN-01, RFC 8737) shown
    /// `challenges`.
    #[must_use]
    pub fn answering(self, challenges: Challenges) -> Self {
        Self { challenges: Some(challenges), ..self }
    }

    /// What each of them says of itself.
    pub fn facts(&self) -> impl Iterator<Item = &CertificateFacts> {
        self.all.iter().map(|certificate| &certificate.facts)
    }

    /// The first that is for `name` and that a client which knows `schemes` can check; for no or
    /// another name the first of all, also if it can check none.
    fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || Some(format!("*.{}", name.split_once('.')?.1));
            self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard()?))
        });
        let mut named = named.into_iter().flatten().map(|place| &self.all[*place]);
        let fits =
            |certificate: &&Certificate| certificate.key.key.choose_scheme(schemes).is_some();
        let chosen = named.find(fits).or_else(|| self.all.iter().find(fits));
        // With a certificate rustls finds out what there is not in common, and says so
        // (handshake_failure); without, access_denied is all that the client hears.
        let chosen = chosen.or(self.all.first());
        chosen.map(|certificate| &certificate.key)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(proof) = self.challenges.as_ref().and_then(|all| all.proof(&hello)) {
            return proof;
        }
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.facts()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Files of a certificate for `names` with a key of the kind `algorithm`.
    fn make(
        directory: &Path,
        file: &str,
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> CertificateFiles {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let files = CertificateFiles {
            chain: directory.join(format!("{file}.pem")),
            key: directory.join(format!("{file}.key")),
        };
        fs::write(&files.chain, made.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn the_name_and_the_schemes_choose() {
        let dir = tempfile::tempdir().unwrap();
        let (ecdsa, ed25519) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519);
        let files = [
            make(dir.path(), "first", &["first.example"], ecdsa),
            make(dir.path(), "any", &["*.Example", "127.0.0.1"], ecdsa),
            make(dir.path(), "both-ed", &["both.example"], ed25519),
            make(dir.path(), "both-ec", &["both.example"], ecdsa),
        ];
        let certificates = Certificates::load(&files).unwrap();
        let facts: Vec<_> = certificates.facts().collect();
        assert_eq!(facts[1].names, ["*.example"]);
        let all = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];
        for (name, schemes, expected) in [
            (None, &all[..], Some(0)),
            (Some("First.Example"), &all, Some(0)),
            (Some("other.example"), &all, Some(1)),
            (Some("deep.other.example"), &all, Some(0)),
            (Some("example"), &all, Some(0)),
            (Some("both.example"), &all, Some(2)),
            (Some("both.example"), &all[1..], Some(3)),
            (Some("first.example"), &all[..1], Some(2)),
            (Some("first.example"), &[], Some(0)),
        ] {
            let chosen = certificates.choose(name, schemes);
            let place = chosen.and_then(|chosen| {
                certificates.all.iter().position(|one| Arc::ptr_eq(&one.key, chosen))
            });
            assert_eq!(place, expected, "{name:?} {schemes:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let ecdsa = &rcgen::PKCS_ECDSA_P256_SHA256;
        let [one, other] =
            ["one", "other"].map(|name| make(dir.path(), name, &["a.example"], ecdsa));
        let empty = dir.path().join("empty");
        fs::write(&empty, "").unwrap();
        let broken = dir.path().join("broken");
        fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let der = dir.path().join("der");
        fs::write(&der, [0x30, 0x82, 0xff, 0xfe]).unwrap();
        let commented = dir.path().join("commented");
        let chain = fs::read_to_string(&one.chain).unwrap();
        fs::write(&commented, [b"CN=M\xfcller\n", chain.as_bytes()].concat()).unwrap();
        let missing = dir.path().join("missing");
        let with = |chain: &PathBuf, key: &PathBuf| {
            let files = CertificateFiles { chain: chain.clone(), key: key.clone() };
            Certificates::load(&[files]).unwrap_err()
        };
        let error = with(&one.chain, &other.key);
        assert!(matches!(&error, CertificateError::Mismatch { .. }), "{error}");
        let error = with(&empty, &one.key);
        assert!(matches!(&error, CertificateError::NoCertificate { path } if *path == empty));
        let error = with(&der, &one.key);
        assert!(matches!(&error, CertificateError::NoCertificate { path } if *path == der));
        let error = with(&one.chain, &der);
        assert!(matches!(&error, CertificateError::NoKey { path } if *path == der));
        let error = with(&commented, &other.key);
        assert!(matches!(&error, CertificateError::Mismatch { .. }), "{error}");
        let error = with(&dir.path().to_owned(), &one.key);
        assert!(matches!(&error, CertificateError::Unreadable { .. }), "{error}");
        let error = with(&one.chain, &one.chain);
        assert!(matches!(&error, CertificateError::NoKey { path } if *path == one.chain));
        let error = with(&broken, &one.key);
        assert!(matches!(&error, CertificateError::Malformed { path, .. } if *path == broken));
        let error = with(&missing, &one.key);
        assert!(matches!(&error, CertificateError::Unreadable { path, .. } if *path == missing));
    }
}
