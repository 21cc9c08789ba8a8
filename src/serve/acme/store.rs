//! Where the account and the certificates of one ACME server are kept: for this user alone, each
//! file replaced whole or not at all.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pagewire_http::tls::{CertificateError, CertificateFacts, CertificateFiles, Certificates};
use tempfile::NamedTempFile;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot write {}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Store {
    /// In `state`, apart from what other ACME servers gave: one's trial certificates are not for
    /// clients of the other.
    pub(crate) fn of(state: &Path, server: &str) -> Self {
        let server = server.trim_start_matches("https://");
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
        let name: String =
            server.chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
        Self { directory: state.join("acme").join(name) }
    }

    /// Makes the directory, if it is not there.
    pub(crate) fn make(&self) -> Result<(), StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|source| StoreError::Unwritable { path: self.directory.clone(), source })
    }

    /// The certificate's file for `domain`, if there is one: the key, then the chain.
    pub(crate) fn files(&self, domain: &str) -> Option<CertificateFiles> {
        let path = self.certificate(domain);
        path.exists().then(|| CertificateFiles { chain: path.clone(), key: path })
    }

    /// What the kept certificate for `domain` says of itself, if there is one.
    pub(crate) fn facts(&self, domain: &str) -> Result<Option<CertificateFacts>, StoreError> {
        let Some(files) = self.files(domain) else {
            return Ok(None);
        };
        Ok(Certificates::load(&[files])?.facts().next().cloned())
    }

    /// Keeps what can be used, instead of what was kept.
    pub(crate) fn keep(&self, domain: &str, key: &str, chain: &str) -> Result<(), StoreError> {
        self.replace(&self.certificate(domain), &[key, chain], |new| {
            let files = CertificateFiles { chain: new.to_owned(), key: new.to_owned() };
            Ok(Certificates::load(&[files]).map(drop)?)
        })
    }

    /// The account's file.
    pub(crate) fn account(&self) -> PathBuf {
        self.directory.join("account.json")
    }

    /// What is in it, if it is there.
    pub(crate) fn load_account(&self) -> Result<Option<String>, StoreError> {
        let path = self.account();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Unreadable { path, source }),
        }
    }

    pub(crate) fn keep_account(&self, text: &str) -> Result<(), StoreError> {
        self.replace(&self.account(), &[text], |_| Ok(()))
    }

    /// The ACME server knows it no more.
    pub(crate) fn forget_account(&self) -> Result<(), StoreError> {
        let path = self.account();
        fs::remove_file(&path).map_err(|source| StoreError::Unwritable { path, source })
    }

    fn certificate(&self, domain: &str) -> PathBuf {
        self.directory.join(format!("{domain}.pem"))
    }

    fn replace(
        &self,
        path: &Path,
        parts: &[&str],
        check: impl Fn(&Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let unwritable = |source| StoreError::Unwritable { path: path.to_owned(), source };
        // Nobody else may read it (0600).
        let mut new = NamedTempFile::new_in(&self.directory).map_err(unwritable)?;
        for part in parts {
            new.write_all(part.as_bytes()).map_err(unwritable)?;
        }
        new.as_file().sync_all().map_err(unwritable)?;
        check(new.path())?;
        new.persist(path).map_err(|error| unwritable(error.error))?;
        Ok(())
    }
}
