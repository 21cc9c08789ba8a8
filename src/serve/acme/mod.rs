//! Certificates by ACME (RFC 8555), while the server runs: ordered, kept, and replaced in time, on
//! a thread and an event loop of their own. What is kept is taken over by a reload.

mod order;
mod schedule;
mod store;

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use pagewire_http::tls::{CertificateFacts, CertificateFiles, Challenges};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use self::order::{OrderError, order};
use self::store::Store;
use crate::flags::AcmeFlags;

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How long one order may take: servers that hang are asked again later.
const ORDER_MAX: Duration = Duration::from_secs(5 * 60);

/// What certificates are to be had, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    domains: Vec<String>,
    contact: Option<String>,
    /// The URL of the server's directory.
    directory: String,
    /// What its certificate leads to, if it is none that the system trusts.
    authority: Option<PathBuf>,
    store: Store,
}

impl Wanted {
    /// Makes the directory below `state` that all is kept in.
    pub(crate) fn of(flags: &AcmeFlags, state: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let AcmeFlags { acme_domain, acme_contact, acme_directory, acme_ca } = flags;
        if acme_domain.is_empty() {
            for (flag, is_given) in [
                ("--acme-contact", acme_contact.is_some()),
                ("--acme-directory", acme_directory.is_some()),
                ("--acme-ca", acme_ca.is_some()),
            ] {
                if is_given {
                    bail!("{flag} without --acme-domain: name what the certificate is to be for");
                }
            }
            return Ok(None);
        }
        let Some(state) = state else {
            bail!("no directory to keep certificates of --acme-domain in: name a --state-dir");
        };
        let directory = acme_directory.clone().unwrap_or_else(|| LETS_ENCRYPT.to_owned());
        let store = Store::of(state, &directory);
        store.make()?;
        let mut domains = acme_domain.clone();
        domains.sort();
        domains.dedup();
        let (contact, authority) = (acme_contact.clone(), acme_ca.clone());
        Ok(Some(Self { domains, contact, directory, authority, store }))
    }

    /// What there is already.
    pub(crate) fn files(&self) -> impl Iterator<Item = CertificateFiles> {
        self.domains.iter().filter_map(|domain| self.store.files(domain))
    }

    /// The names, as a person writes them.
    pub(crate) fn domains(&self) -> String {
        self.domains.join(", ")
    }

    /// For the start lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let missing = self.domains.iter().filter(|domain| self.store.files(domain).is_none());
        let missing = missing.map(|domain| {
            format!("certificate for {domain}: none yet, handshakes fail until it is issued")
        });
        let (server, place) = (&self.directory, self.store.directory.display());
        let first = format!("acme: certificates of {server} are kept in {place}");
        std::iter::once(first).chain(missing)
    }

    /// When the certificate for `domain` is to be replaced, or ordered: what cannot be read was
    /// refused at start, and is replaced when it broke since.
    fn due(&self, domain: &str) -> Timestamp {
        match self.store.facts(domain) {
            Ok(Some(CertificateFacts { not_before, not_after, .. })) => {
                schedule::renewal(not_before, not_after, chance())
            }
            Ok(None) | Err(_) => Timestamp::now(),
        }
    }
}

/// Files and directories that an ACME server cannot be talked to without: how names are looked up
/// (resolv.conf(5), nsswitch.conf(5)), and what authorities the system trusts.
const READ: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    RESOLVERS,
    "/etc/ca-certificates/extracted",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/ca-bundle.pem",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/var/lib/ca-certificates",
];
const RESOLVERS: &str = "/etc/resolv.conf";

/// What the sandbox must let be read.
pub(crate) fn paths() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = READ.iter().map(PathBuf::from).collect();
    // As rustls-native-certs has it.
    paths.extend(env::var_os("SSL_CERT_FILE").map(PathBuf::from));
    paths.extend(env::var_os("SSL_CERT_DIR").iter().flat_map(env::split_paths));
    // Those who keep it elsewhere put another one in its place.
    let elsewhere = Path::new(RESOLVERS).canonicalize().ok();
    let elsewhere = elsewhere.as_deref().and_then(Path::parent);
    paths.extend(elsewhere.filter(|place| *place != Path::new("/etc")).map(PathBuf::from));
    paths
}

/// Has certificates ordered.
pub(crate) struct Acme {
    challenges: Challenges,
    /// Told of each new certificate.
    renewed: mpsc::Sender<()>,
    /// The thread's ear; it ends when this is gone.
    thread: Option<watch::Sender<Wanted>>,
}

impl Acme {
    pub(crate) fn new(challenges: Challenges, renewed: mpsc::Sender<()>) -> Self {
        Self { challenges, renewed, thread: None }
    }

    /// From now on has `wanted` at hand, and nothing else. What failed is tried again at once.
    pub(crate) fn want(&mut self, wanted: Option<Wanted>) -> io::Result<()> {
        match (&self.thread, wanted) {
            (_, None) => self.thread = None,
            (Some(thread), Some(wanted)) => drop(thread.send_replace(wanted)),
            (None, Some(wanted)) => {
                let (sender, receiver) = watch::channel(wanted);
                let (challenges, renewed) = (self.challenges.clone(), self.renewed.clone());
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let run = move || runtime.block_on(provide(receiver, challenges, renewed));
                thread::Builder::new().name("acme".to_owned()).spawn(run)?;
                self.thread = Some(sender);
            }
        }
        Ok(())
    }

    pub(crate) fn challenges(&self) -> &Challenges {
        &self.challenges
    }
}

/// One name, and what became of it so far.
struct Due {
    domain: String,
    at: Timestamp,
    failures: u32,
}

/// Orders what is wanted when it is due, until nobody wants anything any more.
async fn provide(
    mut wanted: watch::Receiver<Wanted>,
    challenges: Challenges,
    renewed: mpsc::Sender<()>,
) {
    loop {
        let now = wanted.borrow_and_update().clone();
        let due =
            |domain: &String| Due { domain: domain.clone(), at: now.due(domain), failures: 0 };
        let mut dues: Vec<Due> = now.domains.iter().map(due).collect();
        while let Some(next) = dues.iter_mut().min_by_key(|due| due.at) {
            tokio::select! {
                () = reached(next.at) => {}
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
            let done = timeout(ORDER_MAX, order(&now, &next.domain, &challenges)).await;
            match done.unwrap_or(Err(OrderError::Slow(ORDER_MAX))) {
                Ok(()) => {
                    if renewed.send(()).await.is_err() {
                        return;
                    }
                    (next.at, next.failures) = (now.due(&next.domain), 0);
                    if next.at <= Timestamp::now() {
                        failed(&now, next, &OrderError::Stale);
                    }
                }
                Err(error) => failed(&now, next, &error),
            }
        }
    }
}

/// Says why, and waits.
fn failed(wanted: &Wanted, due: &mut Due, error: &OrderError) {
    due.failures += 1;
    let pause = schedule::pause(due.failures, chance());
    due.at = Timestamp::now().saturating_add(pause).unwrap_or(Timestamp::MAX);
    let (domain, server) = (&due.domain, &wanted.directory);
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // Some say what their cause says, too.
        let cause_said = cause.to_string();
        if !said.ends_with(&cause_said) {
            said = format!("{said}: {cause_said}");
        }
        source = cause.source();
    }
    let way_out = error.way_out(domain);
    let minutes = pause.as_secs().div_ceil(60);
    eprintln!(
        "pagewire: no certificate for {domain} from {server}: {said}; {way_out}. Next try in \
         {minutes} minutes, or at SIGHUP"
    );
}

/// Until the clock on the wall says so.
async fn reached(at: Timestamp) {
    loop {
        let nap = schedule::nap(Timestamp::now(), at);
        if nap.is_zero() {
            return;
        }
        sleep(nap).await;
    }
}

/// A number from 0 to 1 that nobody needs to be unable to guess.
fn chance() -> f64 {
    // As much of it as a f64 holds.
    let bits = RandomState::new().hash_one(()) >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / f64::from(u32::MAX)
}
