//! What changes while the server runs: SIGHUP, or another content of the configuration file, has
//! the configuration read anew. This is the one place that reloads anything.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pagewire_http::tls::CertificateFacts;
use pagewire_http::{Listen, Relistened, Reloader};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::config::Config;
use crate::serve::acme::{Acme, Wanted};
use crate::serve::admin::Shown;
use crate::serve::banner::place_of;
use crate::serve::doors::{self, Doors};
use crate::serve::error::at_reload;
use crate::serve::systemd::Notifier;
use crate::serve::watch::FileWatch;

/// Files whose changes are seen within such a time are read once.
const TOGETHER: Duration = Duration::from_millis(50);

/// Reloads a running server.
pub(crate) struct Reload {
    /// The process's command line.
    pub(crate) line: Vec<OsString>,
    /// What is in effect.
    pub(crate) config: Config,
    /// Sockets that were inherited.
    pub(crate) sockets: Vec<Listen>,
    /// What is listened on, and shown to clients.
    pub(crate) doors: Doors,
    /// The certificates among that, for the admin pages.
    pub(crate) certificates: Shown,
    /// Who sees to those that are to be had by ACME.
    pub(crate) acme: Acme,
    /// What the process was started with and keeps.
    pub(crate) fixed: BTreeMap<String, Option<String>>,
    /// Other directories than at start cannot be opened.
    pub(crate) sandboxed: bool,
    pub(crate) reloader: Reloader,
    pub(crate) notifier: Arc<Notifier>,
    /// SIGHUP.
    pub(crate) hangup: Signal,
    pub(crate) changes: Changes,
}

/// From this call on SIGHUP ends the process no more.
pub(crate) fn catch_hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Changes of the configuration file, where there is one, and of certificates and keys.
pub(crate) struct Changes {
    sender: mpsc::Sender<()>,
    seen: mpsc::Receiver<()>,
    watches: BTreeMap<PathBuf, JoinHandle<()>>,
}

impl Changes {
    pub(crate) fn watch(config: &Config) -> Self {
        let (sender, seen) = mpsc::channel(1);
        let mut changes = Self { sender, seen, watches: BTreeMap::new() };
        changes.follow(config);
        changes
    }

    /// Until no more files change: a certificate and its key do so together.
    async fn settle(&mut self) {
        while timeout(TOGETHER, self.seen.recv()).await.is_ok() {}
    }

    /// For whoever else has something to be read anew: certificates that ACME gave.
    pub(crate) fn sender(&self) -> mpsc::Sender<()> {
        self.sender.clone()
    }

    /// Watches what `config` names, and nothing else any more.
    fn follow(&mut self, config: &Config) {
        let paths = config.path.iter().cloned().chain(doors::files(&config.flags));
        let paths: BTreeSet<_> = paths.collect();
        self.watches.retain(|path, watch| {
            let stays = paths.contains(path);
            if !stays {
                watch.abort();
            }
            stays
        });
        for path in paths {
            if self.watches.contains_key(&path) {
                continue;
            }
            match FileWatch::new(&path) {
                Ok(watch) => {
                    let watch = tokio::spawn(tell(watch, self.sender.clone()));
                    self.watches.insert(path, watch);
                }
                Err(error) => {
                    let path = path.display();
                    eprintln!("pagewire: changes of {path} are seen at SIGHUP only: {error}");
                }
            }
        }
    }
}

impl Reload {
    /// Reloads as often as there is reason to, for ever.
    pub(crate) async fn whenever_asked(mut self) {
        loop {
            let is_asked = tokio::select! {
                _ = self.hangup.recv() => true,
                Some(()) = self.changes.seen.recv() => {
                    self.changes.settle().await;
                    false
                }
            };
            self.notifier.reloading();
            let said = match self.reload(is_asked).await {
                Ok(said) => format!("reloaded: {said}"),
                Err(error) => format!("not reloaded, all stays as it was: {error:#}"),
            };
            self.notifier.status(&said);
            self.notifier.ready();
            // Standard error may be a pipe that nobody reads.
            spawn_blocking(move || eprintln!("pagewire: {said}"));
        }
    }

    /// `is_asked`: somebody wants it, and what ACME refused tried again.
    async fn reload(&mut self, is_asked: bool) -> anyhow::Result<String> {
        let line = self.line.clone();
        let config = spawn_blocking(move || Config::load(&line)).await??;
        let (sockets, challenges) = (self.sockets.clone(), self.acme.challenges().clone());
        let (config, doors) = spawn_blocking(move || {
            let doors = Doors::of(&config, &sockets, &challenges);
            doors::probe(&config);
            (config, doors)
        })
        .await?;
        let sandboxed = self.sandboxed;
        let doors = doors.map_err(|error| at_reload(sandboxed, error))?;
        let done = self.reloader.reload(doors.listen.clone(), config.mounts.clone()).await;
        let Some(done) = done else {
            return Ok("the server is ending".to_owned());
        };
        let done = done.map_err(|error| at_reload(sandboxed, error.into()))?;
        let mut said = changes(&self.config, &config, &done);
        said.extend(doors.changes(&self.doors));
        let known = &self.doors.certificates;
        let is_new = |facts: &&CertificateFacts| !known.contains(facts);
        said.extend(doors.certificates.iter().filter(is_new).map(doors::line));
        let differs = |(key, value): &(String, _)| self.fixed.get(key) != Some(value);
        let fixed = config.fixed().into_iter().filter(differs);
        said.extend(fixed.map(|(key, _)| format!("'{key}' stays as it was until a restart")));
        said.extend(doors.bare_passwords(&config));
        let is_other = doors.acme != self.doors.acme;
        if is_other {
            let domains = doors.acme.as_ref().map_or("nothing".to_owned(), Wanted::domains);
            said.push(format!("certificates by ACME are for {domains}"));
        }
        if is_asked || is_other {
            self.acme.want(doors.acme.clone())?;
        }
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) =
            doors.certificates.clone();
        self.changes.follow(&config);
        (self.config, self.doors) = (config, doors);
        Ok(if said.is_empty() { "nothing changed".to_owned() } else { said.join("; ") })
    }
}

/// Tells of each change, for ever.
async fn tell(mut watch: FileWatch, changed: mpsc::Sender<()>) {
    loop {
        watch.changed().await;
        if changed.send(()).await.is_err() {
            return;
        }
    }
}

/// The places of sites whose passwords became others: those are never printed, nor compared as
/// text.
fn with_other_passwords(old: &Config, new: &Config) -> BTreeSet<String> {
    let before = |place: &str| old.mounts.iter().find(|mount| place_of(mount) == place);
    let places = new.mounts.iter().filter_map(|mount| {
        let place = place_of(mount);
        let differs = before(&place)?.site.passwords != mount.site.passwords;
        differs.then_some(place)
    });
    places.collect()
}

/// What another configuration made different.
fn changes(old: &Config, new: &Config, listeners: &Relistened) -> Vec<String> {
    let mut said = Vec::new();
    let sites = |config: &Config| -> BTreeSet<String> {
        config.mounts.iter().map(|mount| format!("{mount:?}")).collect()
    };
    let place = |config: &Config, sites: &BTreeSet<String>, other: &BTreeSet<String>| {
        let differs = |text: &String| sites.contains(text) && !other.contains(text);
        let differing = config.mounts.iter().filter(|mount| differs(&format!("{mount:?}")));
        differing.map(place_of).collect::<BTreeSet<_>>()
    };
    let (before, after) = (sites(old), sites(new));
    let gone = place(old, &before, &after);
    let come = place(new, &after, &before);
    let kept: BTreeSet<_> = gone.intersection(&come).cloned().collect();
    let changed = kept.union(&with_other_passwords(old, new)).cloned().collect::<BTreeSet<_>>();
    let list = |places: &mut dyn Iterator<Item = &String>| {
        places.map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    for (what, places) in [
        ("site changed", list(&mut changed.iter())),
        ("site added", list(&mut come.difference(&gone))),
        ("site removed", list(&mut gone.difference(&come))),
    ] {
        if !places.is_empty() {
            said.push(format!("{what}: {places}"));
        }
    }
    let Relistened { opened, closed, .. } = listeners;
    said.extend(opened.iter().map(|address| format!("listening on {address}")));
    said.extend(closed.iter().map(|address| format!("no longer listening on {address}")));
    said
}
