//! A server under measurement: started in its place, waited for until it answers, ended with all
//! its processes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::lab::files::{Files, Target};
use crate::lab::load::{Clients, Load, Outcome};
use crate::lab::peers::{Peer, Setup};
use crate::lab::place::Place;
use crate::lab::process;
use crate::lab::stop::Stop;

/// How long a server may take to answer its first request.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take to end before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// Ports that are tried when another program takes the one that was free a moment ago.
const PORTS_TRIED: u32 = 4;
/// How much of what a server said is shown.
const WORDS_BYTES_MAX: usize = 4096;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) place: Place,
    child: Child,
    said: Said,
    /// Its configuration; removed with it.
    _home: TempDir,
}

/// Resident memory of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// Before anybody connected but whoever saw whether it serves.
    pub(crate) rest_bytes: f64,
    /// What it grew by for each silent connection.
    pub(crate) connection_bytes: f64,
}

/// What it writes, in files without a name.
#[derive(Debug)]
struct Said {
    out: File,
    errors: File,
}

impl Server {
    /// Starts `peer` in `place` and waits until it serves `probe`, a file of `files`.
    pub(crate) fn start(
        peer: &Peer,
        place: &Place,
        files: &Files,
        probe: &Target,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            let mut server = Self::spawn(peer, place, files)?;
            match server.wait_until_it_answers(probe, stop) {
                Ok(()) => return Ok(server),
                // Somebody was faster and has the port: try the next one.
                Err(error) if !server.place.is_free(server.address.port()) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("{} was not started", peer.name())))
    }

    fn spawn(peer: &Peer, place: &Place, files: &Files) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("pagewire-lab-").tempdir();
        let home = home.context("cannot make a directory for a server's configuration")?;
        let address = place.run(|| free_address(place))?;
        let setup = Setup { address, files: files.path(), home: home.path() };
        let mut command = peer.command(&setup)?;
        let said = Said { out: tempfile::tempfile()?, errors: tempfile::tempfile()? };
        command.stdin(Stdio::null());
        command.stdout(said.out.try_clone()?).stderr(said.errors.try_clone()?);
        // A group of its own: Ctrl-C is for the lab, which ends its servers itself.
        command.process_group(0);
        let child = place.run(|| {
            let program = command.get_program().display().to_string();
            command.spawn().with_context(|| format!("cannot run {program}"))
        })?;
        let (name, place) = (peer.name().to_owned(), place.clone());
        Ok(Self { name, address, place, child, said, _home: home })
    }

    fn wait_until_it_answers(&mut self, probe: &Target, stop: &Stop) -> anyhow::Result<()> {
        let load = Load {
            address: self.address,
            targets: std::slice::from_ref(probe),
            connections: 1,
            time: Duration::ZERO,
            verify: false,
        };
        let mut refusal = None;
        let place = self.place.clone();
        let answered = stop.wait_for(START_PATIENCE, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} does not start ({status}){}", self.name, self.said.words()?);
            }
            let asked = place.run(|| Clients::open_and_ask(load.clone(), START_PATIENCE, stop));
            match asked {
                Ok(_) => return Ok(Some(())),
                Err(error) => refusal = Some(error),
            }
            stop.check()?;
            Ok(None)
        })?;
        if answered.is_none() {
            let why = refusal.map_or(String::new(), |error| format!(": {error:#}"));
            let words = self.said.words()?;
            bail!("{} does not answer within {START_PATIENCE:?}{why}{words}", self.name);
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time that it has spent so far.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        process::cpu_time(self.pid())
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        process::resident_bytes(self.pid())
    }

    /// Puts a load on it, from `place`.
    pub(crate) fn measure(
        &self,
        place: &Place,
        targets: &[Target],
        connections: usize,
        time: Duration,
        verify: bool,
        stop: &Stop,
    ) -> anyhow::Result<Outcome> {
        let load = Load { address: self.address, targets, connections, time, verify };
        let measured = place.run(|| Clients::open(load, stop)?.run(stop, || self.cpu_time()));
        measured.with_context(|| format!("{} cannot be measured", self.name))
    }

    /// Opens `connections`, lets each ask once, and looks at the memory after some `silence`.
    pub(crate) fn idle(
        &self,
        place: &Place,
        target: &Target,
        connections: usize,
        silence: Duration,
        stop: &Stop,
    ) -> anyhow::Result<Idle> {
        let targets = std::slice::from_ref(target);
        let (address, time) = (self.address, Duration::ZERO);
        let load = Load { address, targets, connections, time, verify: false };
        let rest = self.resident_bytes();
        let silent = place.run(|| {
            let clients = Clients::open_and_ask(load, START_PATIENCE, stop)?;
            stop.pause(silence)?;
            let silent = self.resident_bytes();
            drop(clients);
            Ok(silent)
        });
        let silent = silent.with_context(|| format!("{} cannot be measured", self.name))?;
        let grown = silent.saturating_sub(rest);
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
        Ok(Idle { rest_bytes: rest as f64, connection_bytes: grown as f64 / connections as f64 })
    }

    /// Ends it as an administrator would; kills it when that takes too long.
    fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM);
        let until = Instant::now() + END_PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            // A signal may end the pause early, which does no harm.
            rustix::event::poll(&mut [], Some(&moment)).ok();
        }
        self.signal(Signal::KILL);
        Ok(self.child.wait()?)
    }

    fn signal(&self, signal: Signal) {
        // The whole group has ended already, which is what is wanted.
        kill_process_group(Pid::from_child(&self.child), signal).ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("pagewire: cannot wait for {}: {error:#}", self.name);
        }
        // Workers that outlived their master.
        self.signal(Signal::KILL);
    }
}

impl Said {
    /// What was said last, errors first, as the end of a sentence.
    fn words(&mut self) -> anyhow::Result<String> {
        let said = [read_from_start(&mut self.errors)?, read_from_start(&mut self.out)?];
        let said = said.join("\n");
        let lines: Vec<&str> =
            said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Ok(match lines.as_slice() {
            [] => "; it said nothing".to_owned(),
            lines => format!("; it said: {}", lines.join("; ")),
        })
    }
}

fn read_from_start(file: &mut File) -> anyhow::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = vec![0; WORDS_BYTES_MAX];
    let read = file.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

/// An address in `place` that nobody listens on. To be asked for in that place.
fn free_address(place: &Place) -> anyhow::Result<SocketAddr> {
    let free = TcpListener::bind((place.address, 0)).and_then(|listener| listener.local_addr());
    free.with_context(|| format!("no free port on {}", place.address))
}

impl Place {
    /// Whether nobody listens on `port` here.
    fn is_free(&self, port: u16) -> bool {
        self.run(|| Ok(TcpListener::bind((self.address, port))?)).is_ok()
    }
}
