//! What a gigabyte costs by the size of a step and the number of connections: a loop of
//! sendfile(2) and nothing else, on one thread, whose CPU time its own clock tells.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use pagewire_engine::{STEP_BYTES_MAX, pacing};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::lab::experiments::to_f64;
use crate::lab::files::{KIB, MIB, Target};
use crate::lab::place::Place;
use crate::lab::report::{Chart, Column, Experiment, Mark, Scale, Table, Unit};
use crate::lab::samples::Samples;
use crate::lab::stage::Stage;
use crate::lab::stop::Stopped;
use crate::lab::veth::Veth;

/// What one call of sendfile is asked for.
const STEPS: [u64; 8] =
    [16 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 2 * MIB, 8 * MIB];
const CONNECTIONS: [usize; 3] = [1, 4, 64];
const FILE_BYTES: u64 = 256 * MIB;
const ROUNDS: usize = 3;
const TIME_MS: u64 = 250;
/// The largest cost, of the cheapest step's, at which a step still counts as cheap.
const CHEAP: f64 = 1.1;

pub(crate) fn sizes(stage: &Stage<'_>) -> Vec<u64> {
    vec![stage.size(FILE_BYTES)]
}

/// What the bytes go through, and the table for it.
struct Network {
    name: &'static str,
    table: &'static str,
    server: Place,
    client: Place,
}

pub(crate) fn run(stage: &Stage<'_>, into: &mut Experiment) -> anyhow::Result<()> {
    into.title = "Steps".to_owned();
    into.question = "How large should a step be?".to_owned();
    into.notes.push(
        "a bare loop of sendfile on one thread, no HTTP; not paced; the thread pays for the \
         receiver's half of TCP as well"
            .to_owned(),
    );
    let networks = networks(stage, &mut into.notes)?;
    let counts = connections(stage);
    stage.expect(networks.len() * stage.rounds(ROUNDS) * counts.len() * STEPS.len());
    let target = stage.file(stage.size(FILE_BYTES))?;
    stage.files.warm(&target, &stage.stop)?;
    let mut findings = Vec::new();
    for network in &networks {
        let mut samples = Samples::of(network.table());
        let ended = network.measure(stage, &target, &mut samples);
        findings.push(network.finding(stage, &samples));
        into.finding = findings.join(". ");
        into.tables.push(samples.into_table());
        into.charts.push(network.chart());
        ended?;
    }
    Ok(())
}

/// Loopback and, if we may make one, a pair of devices, which a way out of the host is nearer to.
fn networks(stage: &Stage<'_>, notes: &mut Vec<String>) -> anyhow::Result<Vec<Network>> {
    let (server, client) = (stage.server.clone(), stage.client.clone());
    let mut networks = vec![Network { name: "loopback", table: "steps", server, client }];
    let veth = match stage.root {
        true => Veth::make(&stage.server, &stage.client),
        false => Err(anyhow::anyhow!("that needs root")),
    };
    match veth {
        Ok(Veth { server, client }) => {
            networks.push(Network { name: "veth", table: "steps_veth", server, client });
        }
        Err(error) if error.is::<Stopped>() => return Err(error),
        Err(error) => notes.push(format!("no device of our own was measured: {error:#}")),
    }
    Ok(networks)
}

impl Network {
    fn measure(
        &self,
        stage: &Stage<'_>,
        target: &Target,
        samples: &mut Samples,
    ) -> anyhow::Result<()> {
        for _ in 0..stage.rounds(ROUNDS) {
            for count in connections(stage) {
                for step in STEPS {
                    let (name, kib) = (self.name, step / KIB);
                    stage.step(&format!("{name}, steps of {kib} KiB, {count} connections"));
                    let sent = self.send(stage, target, count, step)?;
                    let keys = [count.to_string(), step.to_string()];
                    let keys = keys.each_ref().map(String::as_str);
                    let gigabytes = to_f64(sent.bytes) / 1e9;
                    let rate = to_f64(sent.bytes) / sent.elapsed.as_secs_f64();
                    samples.add(&keys, COST, sent.cpu.as_secs_f64() * 100.0 / gigabytes);
                    samples.add(&keys, "rate_bytes_per_second", rate);
                }
            }
        }
        Ok(())
    }

    fn send(
        &self,
        stage: &Stage<'_>,
        target: &Target,
        count: usize,
        step: u64,
    ) -> anyhow::Result<Sent> {
        let (tell, address) = channel();
        thread::scope(|scope| {
            let receiver = scope.spawn(move || {
                // The sender says where it listens, or is gone because it could not.
                let Ok(address) = address.recv() else { return Ok(()) };
                self.client.run(|| receive(address, count))
            });
            let address = self.server.address;
            let sent = self.server.run(|| send_steps(stage, target, address, count, step, &tell));
            drop(tell);
            let received = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
            let sent = sent?;
            received.context("the receiver failed")?;
            Ok(sent)
        })
    }

    fn table(&self) -> Table {
        let keys = vec![
            Column::new("connections", "connections", Unit::Connections),
            Column::new("step_bytes", "step", Unit::Bytes),
        ];
        let columns = vec![
            Column::new(COST, "CPU per GB", Unit::CentisecondsPerGigabyte),
            Column::new("rate_bytes_per_second", "rate", Unit::BytesPerSecond),
        ];
        let title = format!("Cost by step and connections, {}", self.name);
        Table::new(self.table, &title, keys, columns)
    }

    fn chart(&self) -> Chart {
        let label = "the engine's step".to_owned();
        #[expect(clippy::cast_precision_loss, reason = "some millions")]
        let mark = Mark { at: STEP_BYTES_MAX as f64, label };
        Chart::Lines {
            title: format!("CPU per GB by step size, {}", self.name),
            table: self.table.to_owned(),
            x: "step_bytes".to_owned(),
            series: "connections".to_owned(),
            column: COST.to_owned(),
            scale: Scale::Linear,
            marks: vec![mark],
        }
    }

    /// For each number of connections: the smallest step that is about as cheap as the cheapest,
    /// and what the engine's own step costs.
    fn finding(&self, stage: &Stage<'_>, samples: &Samples) -> String {
        let mut parts = Vec::new();
        for count in connections(stage) {
            let count = count.to_string();
            let cost = |step: u64| samples.median(&[&count, &step.to_string()], COST);
            let costs = STEPS.iter().filter_map(|step| Some((*step, cost(*step)?)));
            let costs: Vec<(u64, f64)> = costs.collect();
            let cheapest = costs.iter().map(|(_, cost)| *cost).fold(f64::INFINITY, f64::min);
            let cheap = costs.iter().find(|(_, cost)| *cost <= cheapest * CHEAP);
            if let (Some((step, _)), Some(ours)) = (cheap, cost(STEP_BYTES_MAX as u64)) {
                let step = Unit::Bytes.print(to_f64(*step));
                let ours = Unit::Ratio.print(ours / cheapest);
                parts.push(format!(
                    "with {count} connections steps from {step} on cost at most a tenth more than \
                     the cheapest, and the engine's {ours} of it"
                ));
            }
        }
        let found =
            if parts.is_empty() { "nothing was measured".to_owned() } else { parts.join("; ") };
        format!("Over {}: {found}", self.name)
    }
}

const COST: &str = "cpu_cs_per_gb";

fn connections(stage: &Stage<'_>) -> Vec<usize> {
    let mut counts = Vec::from(CONNECTIONS.map(|count| stage.connections(count)));
    counts.dedup();
    counts
}

/// What one thread sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    bytes: u64,
    cpu: Duration,
    elapsed: Duration,
}

/// Sends until time is over, one step for each socket that can take some.
fn send_steps(
    stage: &Stage<'_>,
    target: &Target,
    address: IpAddr,
    count: usize,
    step: u64,
    tell: &Sender<SocketAddr>,
) -> anyhow::Result<Sent> {
    let listener = TcpListener::bind((address, 0))?;
    // As the server's own listeners are.
    pacing::spare_loopback(&listener, address)?;
    pacing::bound_unsent(&listener)?;
    tell.send(listener.local_addr()?).context("the receiver is gone")?;
    let readiness = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut sockets = Vec::with_capacity(count);
    for index in 0..count {
        let (socket, _) = listener.accept()?;
        socket.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&readiness, &socket, data, epoll::EventFlags::OUT)?;
        let file = File::open(stage.files.on_disk(target))?;
        sockets.push((socket, file, 0));
    }
    let step = usize::try_from(step)?;
    let (mut bytes, started, before) = (0, Instant::now(), thread_time()?);
    let time = stage.time(TIME_MS);
    while started.elapsed() < time {
        stage.stop.check()?;
        for index in ready(&readiness)? {
            let (socket, file, position) = &mut sockets[index];
            match rustix::fs::sendfile(&*socket, &*file, Some(position), step) {
                Ok(0) => *position = 0,
                Ok(sent) => bytes += sent as u64,
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }
    Ok(Sent { bytes, cpu: thread_time()?.saturating_sub(before), elapsed: started.elapsed() })
}

/// Drops in the kernel whatever arrives, until all connections are closed.
fn receive(address: SocketAddr, count: usize) -> anyhow::Result<()> {
    let readiness = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut sockets = Vec::with_capacity(count);
    for index in 0..count {
        let socket = TcpStream::connect(address)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&readiness, &socket, data, epoll::EventFlags::IN)?;
        sockets.push(Some(socket));
    }
    let mut dropped = vec![MaybeUninit::uninit(); usize::try_from(MIB)?];
    let mut left = count;
    while left > 0 {
        for index in ready(&readiness)? {
            let Some(socket) = &sockets[index] else { continue };
            let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
            let read = rustix::net::recv(socket, &mut dropped[..], flags).map(|(_, bytes)| bytes);
            match read {
                Ok(0) | Err(Errno::CONNRESET) => {
                    sockets[index] = None;
                    left -= 1;
                }
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }
    Ok(())
}

/// The numbers of the sockets that are ready; none after a moment without.
fn ready(readiness: &OwnedFd) -> anyhow::Result<Vec<usize>> {
    let mut events = Vec::with_capacity(64);
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    match epoll::wait(readiness, spare_capacity(&mut events), Some(&moment)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(io::Error::from(errno).into()),
    }
    events.iter().map(|event| Ok(usize::try_from(event.data.u64())?)).collect()
}

fn thread_time() -> anyhow::Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?)
}
