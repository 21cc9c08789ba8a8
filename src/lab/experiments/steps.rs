//! What a gigabyte costs by the size of a step and the number of connections: a loop of
//! sendfile(2) and nothing else, on one thread, whose CPU time its own clock tells.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
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
use crate::lab::report::{Chart, Column, Experiment, Mark, Scale, Table, Unit};
use crate::lab::samples::Samples;
use crate::lab::stage::Stage;

/// What one call of sendfile is asked for.
const STEPS: [u64; 8] =
    [16 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 2 * MIB, 8 * MIB];
const CONNECTIONS: [usize; 3] = [1, 4, 64];
const FILE_BYTES: u64 = 256 * MIB;
const ROUNDS: usize = 3;
const TIME_MS: u64 = 250;
const TABLE: &str = "steps";
/// The largest cost, of the cheapest step's, at which a step still counts as cheap.
const CHEAP: f64 = 1.1;

pub(crate) fn sizes(stage: &Stage<'_>) -> Vec<u64> {
    vec![stage.size(FILE_BYTES)]
}

pub(crate) fn run(stage: &Stage<'_>, into: &mut Experiment) -> anyhow::Result<()> {
    into.title = "Steps".to_owned();
    into.question = "How large should a step be?".to_owned();
    into.notes.push(
        "a bare loop of sendfile on one thread, no HTTP; loopback, not paced; the thread pays for \
         the receiver's half of TCP as well"
            .to_owned(),
    );
    let mut samples = Samples::of(table());
    let ended = measure(stage, &mut samples);
    into.finding = finding(stage, &samples);
    into.tables.push(samples.into_table());
    into.charts.push(chart());
    ended
}

fn measure(stage: &Stage<'_>, samples: &mut Samples) -> anyhow::Result<()> {
    let target = stage.file(stage.size(FILE_BYTES))?;
    stage.files.warm(&target, &stage.stop)?;
    let counts = connections(stage);
    stage.expect(stage.rounds(ROUNDS) * counts.len() * STEPS.len());
    for _ in 0..stage.rounds(ROUNDS) {
        for count in &counts {
            for step in STEPS {
                stage.step(&format!("steps of {} KiB, {count} connections", step / KIB));
                let sent = send(stage, &target, *count, step)?;
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

fn send(stage: &Stage<'_>, target: &Target, count: usize, step: u64) -> anyhow::Result<Sent> {
    let (tell, address) = channel();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            // The sender says where it listens, or is gone because it could not.
            let Ok(address) = address.recv() else { return Ok(()) };
            stage.client.run(|| receive(address, count))
        });
        let sent = stage.server.run(|| send_steps(stage, target, count, step, &tell));
        drop(tell);
        let received = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        let sent = sent?;
        received.context("the receiver failed")?;
        Ok(sent)
    })
}

/// Sends until time is over, one step for each socket that can take some.
fn send_steps(
    stage: &Stage<'_>,
    target: &Target,
    count: usize,
    step: u64,
    tell: &Sender<SocketAddr>,
) -> anyhow::Result<Sent> {
    let listener = TcpListener::bind((stage.server.address, 0))?;
    // As the server's own listeners are.
    pacing::spare_loopback(&listener, stage.server.address)?;
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

fn table() -> Table {
    let keys = vec![
        Column::new("connections", "connections", Unit::Connections),
        Column::new("step_bytes", "step", Unit::Bytes),
    ];
    let columns = vec![
        Column::new(COST, "CPU per GB", Unit::CentisecondsPerGigabyte),
        Column::new("rate_bytes_per_second", "rate", Unit::BytesPerSecond),
    ];
    Table::new(TABLE, "Cost by step and connections", keys, columns)
}

fn chart() -> Chart {
    let label = "the engine's step".to_owned();
    #[expect(clippy::cast_precision_loss, reason = "half a million")]
    let mark = Mark { at: STEP_BYTES_MAX as f64, label };
    Chart::Lines {
        title: "CPU per GB by step size".to_owned(),
        table: TABLE.to_owned(),
        x: "step_bytes".to_owned(),
        series: "connections".to_owned(),
        column: COST.to_owned(),
        scale: Scale::Linear,
        marks: vec![mark],
    }
}

/// For each number of connections: the smallest step that is about as cheap as the cheapest, and
/// what the engine's own step costs.
fn finding(stage: &Stage<'_>, samples: &Samples) -> String {
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
                "with {count} connections steps from {step} on cost at most a tenth more than the \
                 cheapest, and the engine's {ours} of it"
            ));
        }
    }
    if parts.is_empty() { "nothing was measured".to_owned() } else { parts.join("; ") }
}
