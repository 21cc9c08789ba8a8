//! Basic authentication (RFC 7617): who may see a site. Passwords are checked on other threads
//! than the event loop's, few at a time; who was right just now is remembered.

mod attempts;
mod file;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::auth::attempts::Attempts;
use crate::auth::file::{Hash, People};
use crate::error::{PasswordFileError, RequestError};
use crate::refusals::Refusal;

/// How long a password that was right is not checked again: 100 ranges of a video are not to cost
/// 100 times what is made to be costly.
const REMEMBERED: Duration = Duration::from_secs(60);

/// So many are remembered.
const REMEMBERED_MAX: usize = 1024;

/// So many passwords may wait to be checked.
const WAITING_MAX: usize = 64;

/// Longer ones are not looked at: bcrypt takes 72 bytes, and argon2 must not be fed megabytes.
const CREDENTIALS_MAX: usize = 1024;

/// Who is asking, as far as the site is concerned.
#[derive(Clone, Debug)]
pub(crate) struct User(pub(crate) Arc<str>);

/// The people who may see a site, by the file that has their passwords.
#[derive(Clone, Debug)]
pub struct Passwords(Arc<Auth>);

impl Passwords {
    /// Reads a file in htpasswd's form, with bcrypt or argon2 hashes.
    ///
    /// # Errors
    ///
    /// [`PasswordFileError`], which names the line.
    pub fn open(path: &Path) -> Result<Self, PasswordFileError> {
        Ok(Self(Arc::new(Auth::open(path)?)))
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.0
    }
}

/// Of the same names and hashes.
impl PartialEq for Passwords {
    fn eq(&self, other: &Self) -> bool {
        self.0.people == other.0.people
    }
}

/// Decides who may see a site.
pub(crate) struct Auth {
    people: People,
    /// So that what is remembered cannot be searched for the password.
    key: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    attempts: Attempts,
    /// Held by those whose password is being checked.
    checks: Arc<Semaphore>,
    waiting: AtomicUsize,
}

struct Remembered {
    user: User,
    until: Instant,
}

impl Auth {
    pub(crate) fn open(path: &Path) -> Result<Self, PasswordFileError> {
        let people = People::read(path)?;
        let mut key = [0; 32];
        getrandom(&mut key, GetRandomFlags::empty()).map_err(io::Error::from)?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            people,
            key,
            remembered: Mutex::default(),
            attempts: Attempts::default(),
            checks: Arc::new(Semaphore::new(processors.div_ceil(2))),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Who is asking, if that was found out just before `now`.
    pub(crate) fn known(&self, headers: &HeaderMap, now: Instant) -> Option<User> {
        let remembered = self.lock();
        let known = remembered.get(&self.keyed(headers.get(AUTHORIZATION)?.as_bytes()))?;
        (known.until > now).then(|| known.user.clone())
    }

    /// Who is asking, from `address` (`None` for a Unix socket).
    pub(crate) async fn check(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<User, RequestError> {
        if let Some(user) = self.known(headers, now) {
            return Ok(user);
        }
        let refused = |reason| RequestError::Unauthorized { reason };
        let said = headers.get(AUTHORIZATION).ok_or(refused(Refusal::Password))?.as_bytes();
        let (user, password) = credentials(said).ok_or(refused(Refusal::Password))?;
        if let Some(address) = address
            && !self.attempts.begin(address, now)
        {
            return Err(refused(Refusal::PasswordAttempts));
        }
        let hash = self.people.hash_of(&user);
        let matches = self.matches(hash, password).await?;
        if !matches || !self.people.has(&user) {
            return Err(refused(Refusal::Password));
        }
        if let Some(address) = address {
            self.attempts.succeeded(address);
        }
        let user = User(user.into());
        self.remember(self.keyed(said), user.clone(), now);
        Ok(user)
    }

    /// Checks a password where that may take as long as it is made to.
    async fn matches(&self, hash: Hash, password: Vec<u8>) -> Result<bool, RequestError> {
        let waiting = Waiting::join(&self.waiting)
            .ok_or(RequestError::Unauthorized { reason: Refusal::PasswordChecks })?;
        let turn = Arc::clone(&self.checks).acquire_owned().await;
        let turn = turn.map_err(|closed| RequestError::Io(io::Error::other(closed)))?;
        drop(waiting);
        let check = move || {
            let _turn = turn;
            hash.matches(&password)
        };
        spawn_blocking(check).await.map_err(|error| RequestError::Io(io::Error::other(error)))
    }

    fn remember(&self, keyed: [u8; 32], user: User, now: Instant) {
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, known| known.until > now);
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(keyed, Remembered { user, until: now + REMEMBERED });
        }
    }

    fn keyed(&self, said: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.key).chain_update(said).finalize().into()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("people", &self.people).finish_non_exhaustive()
    }
}

/// One of those who wait for their password to be checked.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Option<Self> {
        let one_more = |waiting: usize| (waiting < WAITING_MAX).then_some(waiting + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The name and the password of `Basic` credentials (RFC 7617, section 2).
fn credentials(said: &[u8]) -> Option<(String, Vec<u8>)> {
    if said.len() > CREDENTIALS_MAX {
        return None;
    }
    let (scheme, token) = str::from_utf8(said).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(token.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = str::from_utf8(&decoded[..colon]).ok()?.to_owned();
    Some((user, decoded[colon + 1..].into()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::HeaderValue;

    use super::*;

    /// By `htpasswd -nbB -C 4 ann secret`.
    const ANN: &str = "ann:$2y$04$mvC1Ja3Z5Zp6ww1RRXRf5OGzG3CgVFBjfMhdCcPCRbKvhkXjGpJQO";

    fn auth(lines: &str) -> Auth {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        Auth::open(file.path()).unwrap()
    }

    fn said(user: &str, password: &str) -> HeaderMap {
        let token = BASE64_STANDARD.encode(format!("{user}:{password}"));
        HeaderMap::from_iter([(
            AUTHORIZATION,
            HeaderValue::try_from(format!("bAsIc {token}")).unwrap(),
        )])
    }

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    fn reason(answer: Result<User, RequestError>) -> Result<String, Refusal> {
        match answer {
            Ok(user) => Ok(user.0.to_string()),
            Err(RequestError::Unauthorized { reason }) => Err(reason),
            Err(other) => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn who_is_right_is_remembered_for_a_while() {
        let auth = auth(&line("ann", "s:e c\u{fc}"));
        let now = Instant::now();
        let right = said("ann", "s:e c\u{fc}");
        assert!(auth.known(&right, now).is_none());
        assert_eq!(reason(auth.check(&right, None, now).await), Ok("ann".to_owned()));
        assert_eq!(auth.known(&right, now).unwrap().0.as_ref(), "ann");
        assert!(auth.known(&right, now + REMEMBERED).is_none());
        assert!(auth.known(&said("ann", "other"), now).is_none());
    }

    #[tokio::test]
    async fn who_is_wrong_is_refused_and_soon_not_even_checked() {
        let auth = auth(&line("ann", "right"));
        let address = Some("10.0.0.1".parse().unwrap());
        let now = Instant::now();
        for headers in [HeaderMap::new(), said("ann", "wrong"), said("bob", "right")] {
            let answer = reason(auth.check(&headers, address, now).await);
            assert_eq!(answer, Err(Refusal::Password), "{headers:?}");
        }
        for _ in 0..20 {
            let answer = reason(auth.check(&said("ann", "wrong"), address, now).await);
            assert!(answer.is_err());
        }
        let right = said("ann", "right");
        let answer = reason(auth.check(&right, address, now).await);
        assert_eq!(answer, Err(Refusal::PasswordAttempts));
        let other = Some("10.0.0.2".parse().unwrap());
        assert!(auth.check(&right, other, now).await.is_ok());
        // Whoever is remembered is not kept out by others of the same address.
        assert!(auth.check(&right, address, now).await.is_ok());
    }

    #[test]
    fn credentials_are_read_as_the_standard_says() {
        let read = |said: &str| credentials(said.as_bytes());
        // The example of RFC 7617, section 2.
        let aladdin = read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").unwrap();
        assert_eq!(aladdin, ("Aladdin".to_owned(), Vec::from(b"open sesame")));
        for wrong in ["", "Basic", "Basic !", "Bearer QTpi", "Basic QQ==", &"x".repeat(5000)] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(auth(ANN).people.has("ann"));
    }
}
