//! A load that costs the client little: connections that are kept busy with GET requests over
//! HTTP/1.1, on one thread. Bodies are dropped in the kernel, or read and hashed.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::RecvFlags;
use sha2::{Digest as _, Sha256};

use crate::lab::files::Target;
use crate::lab::stop::Stop;

/// Bytes of a body that one call asks to be dropped.
const DROP_BYTES: usize = 1024 * 1024;
/// Room for a response's head and a small body after it.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How often a quiet client looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Connections that ask at the same time when each asks only once.
const ASK_TOGETHER: usize = 16;
/// So many connections are opened in a row. Some servers let no more than five wait to be
/// accepted, and who is turned away comes back after a second.
const CONNECT_TOGETHER: usize = 4;
/// Enough for a slow server to accept them.
const CONNECT_PAUSE: Duration = Duration::from_micros(500);
/// How much of a measurement's time passes before it, on the same connections.
const WARM_UP_PART: f64 = 0.15;

/// What to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    /// Connection N asks for target N, and begins again behind the last one.
    pub(crate) targets: &'a [Target],
    pub(crate) connections: usize,
    pub(crate) time: Duration,
    /// Read and hash every body; else they are dropped in the kernel (recv(2) with MSG_TRUNC).
    pub(crate) verify: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Responses that were read to the end.
    pub(crate) requests: u64,
    /// Bytes of bodies, those of unfinished responses included.
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// From asking to the last byte, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    /// CPU time that the probe saw pass.
    pub(crate) cpu: Duration,
}

impl Outcome {
    /// Responses a second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.requests) / self.elapsed.as_secs_f64()
    }

    /// Bytes of bodies a second.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        count(self.bytes) / self.elapsed.as_secs_f64()
    }

    /// Seconds of the probed CPU time for 10⁹ bytes; none if nothing moved.
    pub(crate) fn cpu_seconds_per_gb(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.cpu.as_secs_f64() / (count(self.bytes) / 1e9))
    }

    /// Seconds of the probed CPU time for a response; none if no response ended.
    pub(crate) fn cpu_seconds_per_request(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.cpu.as_secs_f64() / count(self.requests))
    }

    /// Seconds within which this part of the requests was answered.
    pub(crate) fn latency(&self, part: f64) -> f64 {
        count(self.latencies.value_at_quantile(part)) / 1e6
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53, and shown with a few digits")]
fn count(of: u64) -> f64 {
    of as f64
}

/// Open connections that can be kept busy.
#[derive(Debug)]
pub(crate) struct Clients<'a> {
    load: Load<'a>,
    readiness: OwnedFd,
    connections: Vec<Connection<'a>>,
    scratch: Scratch,
    totals: Totals,
}

#[derive(Debug)]
struct Totals {
    requests: u64,
    bytes: u64,
    latencies: Histogram<u64>,
}

/// Buffers that all connections share.
#[derive(Debug)]
struct Scratch {
    dropped: Vec<MaybeUninit<u8>>,
    head: Vec<u8>,
    /// The last head that was understood, and its Content-Length: most heads equal it.
    known: (Vec<u8>, u64),
}

#[derive(Debug)]
struct Connection<'a> {
    socket: TcpStream,
    target: &'a Target,
    request: String,
    asked_at: Instant,
    /// What was read of a head that is not whole yet.
    head: Vec<u8>,
    /// Body bytes to come; `None` while the head is read.
    left: Option<u64>,
    hash: Option<Sha256>,
}

impl<'a> Clients<'a> {
    /// Connects all of them.
    pub(crate) fn open(load: Load<'a>, stop: &Stop) -> anyhow::Result<Self> {
        let mut clients = Self::none(load)?;
        clients.connect(clients.load.connections, stop)?;
        Ok(clients)
    }

    /// Connects all of them, and lets each ask once, a few at a time: a server that has many
    /// connections which have not asked yet may hold a thread for each.
    pub(crate) fn open_and_ask(
        load: Load<'a>,
        patience: Duration,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let mut clients = Self::none(load)?;
        let opened_at = Instant::now();
        while clients.connections.len() < clients.load.connections {
            let first = clients.connections.len();
            clients.connect(clients.load.connections.min(first + ASK_TOGETHER), stop)?;
            let patience = patience.saturating_sub(opened_at.elapsed());
            clients.ask_once(first, patience, stop)?;
        }
        Ok(clients)
    }

    fn none(load: Load<'a>) -> anyhow::Result<Self> {
        let scratch = Scratch {
            dropped: vec![MaybeUninit::uninit(); DROP_BYTES],
            head: vec![0; HEAD_BYTES_MAX],
            known: (Vec::new(), 0),
        };
        let readiness = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let connections = Vec::with_capacity(load.connections);
        Ok(Self { load, readiness, connections, scratch, totals: Totals::new()? })
    }

    /// Connects until there are `count`.
    fn connect(&mut self, count: usize, stop: &Stop) -> anyhow::Result<()> {
        for index in self.connections.len()..count {
            let target = &self.load.targets[index % self.load.targets.len()];
            let connection = Connection::open(self.load.address, target);
            let connection =
                connection.with_context(|| format!("connection {} failed", index + 1))?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&self.readiness, &connection.socket, data, epoll::EventFlags::IN)?;
            self.connections.push(connection);
            if (index + 1) % CONNECT_TOGETHER == 0 {
                stop.pause(CONNECT_PAUSE)?;
            }
        }
        Ok(())
    }

    /// Lets every connection from `first` on ask once, and waits for all answers.
    pub(crate) fn ask_once(
        &mut self,
        first: usize,
        patience: Duration,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        self.totals = Totals::new()?;
        let asked_at = Instant::now();
        for connection in &mut self.connections[first..] {
            connection.ask(self.load.verify)?;
        }
        let all = (self.connections.len() - first) as u64;
        while self.totals.requests < all {
            stop.check()?;
            self.turn(false)?;
            let answered = self.totals.requests;
            let waited = asked_at.elapsed();
            ensure!(waited < patience, "{answered} of {all} requests answered in {waited:.1?}");
        }
        Ok(())
    }

    /// Keeps them all busy for the load's time; `probe` tells the CPU time spent so far, and is
    /// asked when the measurement starts and when it ends.
    pub(crate) fn run(
        &mut self,
        stop: &Stop,
        probe: impl Fn() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Outcome> {
        for connection in &mut self.connections {
            connection.ask(self.load.verify)?;
        }
        self.keep_busy(self.load.time.mul_f64(WARM_UP_PART), stop)?;
        self.totals = Totals::new()?;
        let before = probe()?;
        let started = Instant::now();
        self.keep_busy(self.load.time, stop)?;
        let elapsed = started.elapsed();
        let cpu = probe()?.saturating_sub(before);
        self.count_the_unanswered()?;
        let Totals { requests, bytes, latencies } =
            std::mem::replace(&mut self.totals, Totals::new()?);
        Ok(Outcome { requests, bytes, elapsed, latencies, cpu })
    }

    fn keep_busy(&mut self, time: Duration, stop: &Stop) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut looked_at = started;
        while started.elapsed() < time {
            self.turn(true)?;
            if looked_at.elapsed() > LOOK_EVERY {
                stop.check()?;
                looked_at = Instant::now();
            }
        }
        Ok(())
    }

    /// Reads what has arrived; who has a whole response asks again, if it `goes_on`.
    fn turn(&mut self, goes_on: bool) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(256);
        let timeout = Timespec::try_from(LOOK_EVERY).context("a short time")?;
        let buffer = spare_capacity(&mut events);
        match epoll::wait(&self.readiness, buffer, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        for event in &events {
            let connection = &mut self.connections[usize::try_from(event.data.u64())?];
            let is_whole = connection
                .read(&mut self.scratch, &mut self.totals)
                .with_context(|| format!("GET {} failed", connection.target.path))?;
            if is_whole && goes_on {
                connection.ask(self.load.verify)?;
            }
        }
        Ok(())
    }

    /// A request that waits longer than any answered one did must not be left out of the
    /// latencies: it counts with what it has waited by now.
    fn count_the_unanswered(&mut self) -> anyhow::Result<()> {
        let longest = self.totals.latencies.max();
        for connection in &self.connections {
            let waited = u64::try_from(connection.asked_at.elapsed().as_micros())?;
            if waited > longest {
                self.totals.latencies.record(waited.max(1))?;
            }
        }
        Ok(())
    }
}

impl Totals {
    fn new() -> anyhow::Result<Self> {
        // Three digits; it grows with the longest latency.
        Ok(Self { requests: 0, bytes: 0, latencies: Histogram::new(3)? })
    }
}

impl<'a> Connection<'a> {
    fn open(address: SocketAddr, target: &'a Target) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        // Closing resets: thousands of connections a round must not wait in TIME_WAIT.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", target.path);
        let asked_at = Instant::now();
        Ok(Self { socket, target, request, asked_at, head: Vec::new(), left: None, hash: None })
    }

    fn ask(&mut self, verify: bool) -> anyhow::Result<()> {
        self.asked_at = Instant::now();
        self.head.clear();
        self.left = None;
        self.hash = verify.then(Sha256::new);
        self.socket.write_all(self.request.as_bytes()).context("cannot ask")
    }

    /// Reads once; returns whether the response is whole.
    fn read(&mut self, scratch: &mut Scratch, totals: &mut Totals) -> anyhow::Result<bool> {
        let (left, bytes) = match self.left {
            // Of no interest: the server closes, or says something that nobody asked for.
            Some(0) => bail!("the server spoke or closed between two requests"),
            Some(left) => match self.read_body(left, scratch)? {
                None => return Ok(false),
                Some(bytes) => (left - bytes, bytes),
            },
            None => match self.read_head(scratch)? {
                None => return Ok(false),
                Some((left, bytes)) => (left, bytes),
            },
        };
        totals.bytes += bytes;
        self.left = Some(left);
        if left > 0 {
            return Ok(false);
        }
        totals.requests += 1;
        let took = u64::try_from(self.asked_at.elapsed().as_micros())?;
        totals.latencies.record(took.max(1))?;
        self.check_hash()?;
        Ok(true)
    }

    /// How much of the body was read, or `None` when there is nothing to read now.
    fn read_body(&mut self, left: u64, scratch: &mut Scratch) -> anyhow::Result<Option<u64>> {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX);
        let bytes = match &mut self.hash {
            None => {
                let room = &mut scratch.dropped[..wanted.min(DROP_BYTES)];
                let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
                let dropped = retry_on_intr(|| {
                    rustix::net::recv(&self.socket, &mut *room, flags).map(|(_, bytes)| bytes)
                });
                match dropped {
                    Err(Errno::AGAIN) => return Ok(None),
                    dropped => dropped?,
                }
            }
            Some(hash) => {
                let room = &mut scratch.head[..wanted.min(HEAD_BYTES_MAX)];
                match retry_on_intr(|| rustix::io::read(&self.socket, &mut *room)) {
                    Err(Errno::AGAIN) => return Ok(None),
                    read => {
                        let bytes = read?;
                        hash.update(&room[..bytes]);
                        bytes
                    }
                }
            }
        };
        ensure!(bytes > 0, "the server closed the connection {left} bytes before the end");
        Ok(Some(bytes as u64))
    }

    /// What of the body is still to come and what came with the head, once the head is whole.
    fn read_head(&mut self, scratch: &mut Scratch) -> anyhow::Result<Option<(u64, u64)>> {
        let bytes = match retry_on_intr(|| rustix::io::read(&self.socket, &mut *scratch.head)) {
            Err(Errno::AGAIN) => return Ok(None),
            Ok(0) => bail!("the server closed the connection instead of answering"),
            read => read?,
        };
        self.head.extend_from_slice(&scratch.head[..bytes]);
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
            ensure!(self.head.len() < HEAD_BYTES_MAX, "a head of more than {HEAD_BYTES_MAX} bytes");
            return Ok(None);
        };
        let (head, body) = self.head.split_at(end + 4);
        if scratch.known.0 != head {
            scratch.known = (head.to_owned(), content_length(head)?);
        }
        let due = scratch.known.1;
        let expected = self.target.bytes;
        ensure!(due == expected, "a body of {due} bytes was announced, the file has {expected}");
        let read = body.len() as u64;
        ensure!(read <= due, "{read} bytes came instead of {due}");
        if let Some(hash) = &mut self.hash {
            hash.update(body);
        }
        Ok(Some((due - read, read)))
    }

    fn check_hash(&mut self) -> anyhow::Result<()> {
        let (Some(hash), Some(expected)) = (self.hash.take(), &self.target.digest) else {
            return Ok(());
        };
        ensure!(hash.finalize()[..] == expected[..], "the bytes are not those of the file");
        Ok(())
    }
}

/// The Content-Length of a head, which must be that of a 200.
fn content_length(head: &[u8]) -> anyhow::Result<u64> {
    let head = std::str::from_utf8(head).context("a head that is not text")?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200"), "the answer is `{status}`");
    let fields = lines.filter_map(|line| line.split_once(':'));
    let (_, len) = fields
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("the answer has no Content-Length")?;
    len.trim().parse().with_context(|| format!("a Content-Length of `{}`", len.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_found_in_any_case() {
        for name in ["Content-Length", "content-length", "CONTENT-LENGTH"] {
            let head = format!("HTTP/1.1 200 OK\r\nServer: x\r\n{name}: 12\r\n\r\n");
            assert_eq!(content_length(head.as_bytes()).unwrap(), 12);
        }
    }

    #[test]
    fn heads_that_cannot_be_measured_are_refused() {
        for (head, named) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", "HTTP/1.0"),
            ("HTTP/1.1 200 OK\r\n\r\n", "Content-Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "many"),
        ] {
            let error = content_length(head.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(named), "{head:?}: {error}");
        }
    }
}
