//! What changes while the server runs: SIGHUP, or another content of the configuration file, has
//! the configuration read anew. This is the one place that reloads anything.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::sync::{Arc, PoisonError};

use pagewire_http::{Listen, Relistened, Reloader};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::serve::acme::{Acme, Wanted};
use crate::serve::admin::Shown;
use crate::serve::doors::{self, Doors};
use crate::serve::error::with_way_out_of;
use crate::serve::systemd::Notifier;
use crate::serve::watch::FileWatch;

/// Reloads a running server.
pub(crate) struct Reload {
    /// The process's command line.
    pub(crate) line: Vec<OsString>,
    /// What is in effect.
    pub(crate) config: Config,
    /// Sockets that were inherited.
    pub(crate) sockets: Vec<Listen>,
    /// What clients are shown.
    pub(crate) certificates: Shown,
    /// What is to be had by ACME, and who sees to it.
    pub(crate) wanted: Option<Wanted>,
    pub(crate) acme: Acme,
    /// Other directories than at start cannot be opened.
    pub(crate) sandboxed: bool,
    pub(crate) reloader: Reloader,
    pub(crate) notifier: Arc<Notifier>,
    /// SIGHUP.
    pub(crate) hangup: Signal,
    /// See [`watch`]; and certificates that ACME gave.
    pub(crate) changes: mpsc::Receiver<()>,
}

/// From this call on SIGHUP ends the process no more.
pub(crate) fn catch_hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Has `changed` told of changes of the configuration file, where there is one, and of
/// certificates and keys.
pub(crate) fn watch(config: &Config, changed: &mpsc::Sender<()>) {
    for path in config.path.iter().cloned().chain(doors::files(&config.flags)) {
        match FileWatch::new(&path) {
            Ok(watch) => drop(tokio::spawn(tell(watch, changed.clone()))),
            Err(error) => {
                let path = path.display();
                eprintln!("pagewire: changes of {path} are seen at SIGHUP only: {error}");
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
                Some(()) = self.changes.recv() => false,
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
            let doors = Doors::of(&config, &sockets, &challenges)?;
            anyhow::Ok((config, doors))
        })
        .await??;
        let done = self.reloader.reload(doors.listen, config.mounts.clone()).await;
        let Some(done) = done else {
            return Ok("the server is ending".to_owned());
        };
        let done = done.map_err(|error| with_way_out_of(self.sandboxed, error))?;
        let mut said = changes(&self.config, &config, &done);
        let mut shown = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let new = doors.certificates.iter().filter(|facts| !shown.contains(facts));
        said.extend(new.map(doors::line));
        *shown = doors.certificates;
        drop(shown);
        self.config = config;
        let is_other = doors.acme != self.wanted;
        if is_other {
            let domains = doors.acme.as_ref().map_or("nothing".to_owned(), Wanted::domains);
            said.push(format!("certificates by ACME are for {domains}"));
        }
        if is_asked || is_other {
            self.acme.want(doors.acme.clone())?;
            self.wanted = doors.acme;
        }
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

/// What another configuration made different.
fn changes(old: &Config, new: &Config, listeners: &Relistened) -> Vec<String> {
    let mut said = Vec::new();
    let sites = |config: &Config| -> BTreeSet<String> {
        config.mounts.iter().map(|mount| format!("{mount:?}")).collect()
    };
    let place = |config: &Config, sites: &BTreeSet<String>, other: &BTreeSet<String>| {
        let differs = |text: &String| sites.contains(text) && !other.contains(text);
        let differing = config.mounts.iter().filter(|mount| differs(&format!("{mount:?}")));
        differing.map(super::banner::place_of).collect::<BTreeSet<_>>()
    };
    let (before, after) = (sites(old), sites(new));
    let gone = place(old, &before, &after);
    let come = place(new, &after, &before);
    let list = |places: &mut dyn Iterator<Item = &String>| {
        places.map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    for (what, places) in [
        ("site changed", list(&mut gone.intersection(&come))),
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
    for key in old.fixed_differences(new) {
        said.push(format!("'{key}' stays as it was until a restart"));
    }
    said
}
