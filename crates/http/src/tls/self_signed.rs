//! A certificate that nobody vouches for: made when there is none, and kept, so that whoever
//! trusted it once need not again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use crate::tls::certificate::{Certificate, CertificateError};

/// How long it is valid. Some clients refuse certificates of more than 398 days, whoever signed.
const VALID_DAYS: i64 = 397;

/// A certificate that is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfSigned {
    /// Where it is kept; made, for this user alone, if it is not there.
    pub directory: PathBuf,
    /// Host names and IP addresses that it is to be for, if it has to be made.
    pub names: Vec<String>,
}

impl SelfSigned {
    /// Where the certificate is kept.
    #[must_use]
    pub fn chain(&self) -> PathBuf {
        self.directory.join("self-signed.pem")
    }

    /// Where its key is kept.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.directory.join("self-signed.key")
    }

    pub(crate) fn load_or_make(&self) -> Result<Certificate, CertificateError> {
        let (chain, key) = (self.chain(), self.key());
        // Without the key it is of no use, and was not finished.
        if chain.exists() && key.exists() {
            let kept = Certificate::load(&chain, &key)?;
            if kept.facts.not_after > Timestamp::now() {
                return Ok(kept);
            }
        }
        self.make()?;
        Certificate::load(&chain, &key)
    }

    fn make(&self) -> Result<(), CertificateError> {
        let pair = KeyPair::generate().map_err(CertificateError::Unmakeable)?;
        let params = CertificateParams::new(self.names.clone());
        let mut params = params.map_err(CertificateError::Unmakeable)?;
        params.distinguished_name.push(DnType::CommonName, "pagewire, self-signed");
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let day = |days: i64| {
            let date = today.saturating_add(days.days());
            let [month, day] = [date.month(), date.day()].map(i8::unsigned_abs);
            date_time_ymd(date.year().into(), month, day)
        };
        // From yesterday on: clocks differ.
        (params.not_before, params.not_after) = (day(-1), day(VALID_DAYS - 1));
        let made = params.self_signed(&pair).map_err(CertificateError::Unmakeable)?;
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            |source| CertificateError::Unwritable { path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .create(&self.directory)
            .map_err(unwritable(&self.directory))?;
        for (path, mode, text) in
            [(self.key(), 0o600, pair.serialize_pem()), (self.chain(), 0o644, made.pem())]
        {
            replace(&path, mode, &text).map_err(unwritable(&path))?;
        }
        Ok(())
    }
}

/// Puts a new file in the place of `path`, whole or not at all.
fn replace(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_kept_and_made_anew_when_it_expired() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("state/pagewire");
        let names = ["localhost", "files.example", "192.0.2.7", "2001:db8::1"];
        let names = Vec::from(names.map(str::to_owned));
        let wanted = SelfSigned { directory, names };
        let made = wanted.load_or_make().unwrap().facts;
        assert_eq!(made.names, ["localhost", "files.example"]);
        let mode = fs::metadata(wanted.key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(wanted.load_or_make().unwrap().facts, made, "it is kept");

        let pair = KeyPair::from_pem(&fs::read_to_string(wanted.key()).unwrap()).unwrap();
        let mut expired = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        expired.not_after = date_time_ymd(2020, 1, 1);
        let expired = expired.self_signed(&pair).unwrap();
        fs::write(wanted.chain(), expired.pem()).unwrap();
        let renewed = wanted.load_or_make().unwrap().facts;
        assert!(renewed.not_after > Timestamp::now());
        assert_ne!(renewed.fingerprint, made.fingerprint);
    }

    #[test]
    fn what_somebody_broke_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = SelfSigned { directory: dir.path().to_owned(), names: Vec::new() };
        fs::write(wanted.chain(), "not a certificate").unwrap();
        fs::write(wanted.key(), "not a key").unwrap();
        let error = wanted.load_or_make().unwrap_err();
        assert!(
            matches!(&error, CertificateError::NoCertificate { path } if *path == wanted.chain())
        );
    }
}
