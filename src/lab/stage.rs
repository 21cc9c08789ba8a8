//! What every experiment works with: settings, files, places, progress, and the wish to stop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::geteuid;

use crate::flags::{LabFlags, Topic};
use crate::lab::files::{Files, Target};
use crate::lab::load::Outcome;
use crate::lab::netns::Netns;
use crate::lab::peers::Peer;
use crate::lab::place::{Place, Processors};
use crate::lab::server::{Idle, Server};
use crate::lab::stop::{Stop, Stopped};

/// The congestion control that does not pace, which every kernel has.
pub(crate) const RENO: &str = "reno";

/// What every experiment works with.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) flags: &'a LabFlags,
    pub(crate) files: Files,
    pub(crate) stop: Stop,
    /// Where servers run, in the network of the host.
    pub(crate) server: Place,
    /// Where the load runs.
    pub(crate) client: Place,
    pub(crate) root: bool,
    /// Whether servers and load disturb each other, because there is one processor.
    pub(crate) client_shares_the_processor: bool,
    bar: ProgressBar,
    /// What went wrong and did not end the run.
    faults: Mutex<Vec<String>>,
}

/// A network to measure in.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Its congestion control.
    pub(crate) congestion: String,
    pub(crate) server: Place,
    pub(crate) client: Place,
}

impl<'a> Stage<'a> {
    pub(crate) fn set(flags: &'a LabFlags, stop: Stop) -> anyhow::Result<Self> {
        let processors = Processors::first_two()?;
        let parent = flags.dir.clone().unwrap_or_else(std::env::temp_dir);
        let files = Files::below(&parent, flags.verify)?;
        let bar = ProgressBar::new(0);
        let style =
            ProgressStyle::with_template("{prefix:12} {bar:24} {pos}/{len} {elapsed} {msg}");
        bar.set_style(style?);
        Ok(Self {
            flags,
            files,
            stop,
            server: Place::on(processors.server),
            client: Place::on(processors.client),
            root: geteuid().is_root(),
            client_shares_the_processor: processors.are_one(),
            bar,
            faults: Mutex::default(),
        })
    }

    /// The time of one measurement, unless the command line says another.
    pub(crate) fn time(&self, usual_ms: u64) -> Duration {
        self.flags.seconds.unwrap_or(Duration::from_millis(usual_ms))
    }

    /// The number of rounds, unless the command line says another.
    pub(crate) fn rounds(&self, usual: usize) -> usize {
        self.flags.rounds.map_or(usual, std::num::NonZeroUsize::get)
    }

    /// `bytes`, but not more than the largest file may have.
    pub(crate) fn size(&self, bytes: u64) -> u64 {
        bytes.min(self.flags.size)
    }

    /// Those of `sizes` that are allowed; if one is too large, the largest that is.
    pub(crate) fn sizes(&self, sizes: &[u64]) -> Vec<u64> {
        let mut sizes: Vec<u64> = sizes.iter().map(|bytes| self.size(*bytes)).collect();
        sizes.dedup();
        sizes
    }

    /// `count`, but not more connections than the command line allows.
    pub(crate) fn connections(&self, count: usize) -> usize {
        count.min(self.flags.connections.get())
    }

    pub(crate) fn file(&self, bytes: u64) -> anyhow::Result<Target> {
        self.files.of(bytes, &self.stop)
    }

    /// The networks to compare servers in: that of the host, and one without pacing, if the host
    /// paces and we may make one; else the reason why there is only one.
    pub(crate) fn networks(&self) -> anyhow::Result<(Vec<Network>, Option<String>)> {
        let congestion = congestion_control()?;
        let (server, client) = (self.server.clone(), self.client.clone());
        let is_reno = congestion == RENO;
        let mut networks = vec![Network { congestion, server, client }];
        if is_reno {
            return Ok((networks, None));
        }
        if !self.root {
            let why = "the host's congestion control may pace loopback, which costs peers more \
                       than pagewire, which does without on loopback; comparing all of them with \
                       reno needs root";
            return Ok((networks, Some(why.to_owned())));
        }
        match self.reno_network() {
            Ok(network) => networks.push(network),
            Err(error) => {
                return Ok((networks, Some(format!("not compared with reno: {error:#}"))));
            }
        }
        Ok((networks, None))
    }

    /// The network in which servers are compared most fairly, and what must be known of it.
    pub(crate) fn fair_network(&self) -> anyhow::Result<(Network, String)> {
        let (mut networks, why) = self.networks()?;
        let network = networks.pop().context("there is no network")?;
        let congestion = &network.congestion;
        let note = why.unwrap_or_else(|| format!("congestion control {congestion} for all"));
        Ok((network, note))
    }

    fn reno_network(&self) -> anyhow::Result<Network> {
        let (netns, server) = Netns::make(&self.server)?;
        server.run(|| Ok(std::fs::write(CONGESTION_CONTROL, RENO)?))?;
        let client = self.client.within(&Arc::clone(&netns), self.client.address);
        Ok(Network { congestion: RENO.to_owned(), server, client })
    }

    /// Starts `peer`; a peer that does not start is a fault that is told, and no server.
    pub(crate) fn start(
        &self,
        peer: &Peer,
        place: &Place,
    ) -> anyhow::Result<Result<Server, String>> {
        let probe = self.file(1024)?;
        self.bar.set_message(format!("starting {}", peer.name()));
        match Server::start(peer, place, &self.files, &probe, &self.stop) {
            Ok(server) => Ok(Ok(server)),
            Err(error) if error.is::<Stopped>() => Err(error),
            Err(error) => Ok(Err(self.fault(error))),
        }
    }

    /// One measurement; one that fails is a fault that is told, and no outcome.
    pub(crate) fn measure(
        &self,
        server: &Server,
        client: &Place,
        targets: &[Target],
        connections: usize,
        time: Duration,
    ) -> anyhow::Result<Result<Outcome, String>> {
        self.step(&format!("{}, {} connections", server.name, connections));
        let verify = self.flags.verify;
        match server.measure(client, targets, connections, time, verify, &self.stop) {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(error) if error.is::<Stopped>() => Err(error),
            Err(error) => Ok(Err(self.fault(error))),
        }
    }

    /// Memory of a server with silent connections; a failure is a fault that is told.
    pub(crate) fn idle(
        &self,
        server: &Server,
        client: &Place,
        connections: usize,
        silence: Duration,
    ) -> anyhow::Result<Result<Idle, String>> {
        let target = self.file(1024)?;
        match server.idle(client, &target, connections, silence, &self.stop) {
            Ok(idle) => Ok(Ok(idle)),
            Err(error) if error.is::<Stopped>() => Err(error),
            Err(error) => Ok(Err(self.fault(error))),
        }
    }

    /// Remembers, and says at once, what went wrong without ending the run.
    pub(crate) fn fault(&self, error: anyhow::Error) -> String {
        let error = format!("{error:#}");
        self.bar.suspend(|| eprintln!("pagewire: {error}"));
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(error.clone());
        error
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins the bar of an experiment.
    pub(crate) fn begin(&self, topic: Topic) {
        self.bar.reset();
        self.bar.set_length(0);
        self.bar.set_prefix(topic.name());
        self.bar.set_message("making files");
    }

    /// Adds measurements to come to the bar.
    pub(crate) fn expect(&self, measurements: usize) {
        self.bar.inc_length(measurements as u64);
    }

    /// Says on the bar what is measured now.
    pub(crate) fn step(&self, what: &str) {
        self.bar.inc(1);
        self.bar.set_message(what.to_owned());
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

pub(crate) const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The congestion control that connections get here.
pub(crate) fn congestion_control() -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(CONGESTION_CONTROL)?.trim().to_owned())
}
