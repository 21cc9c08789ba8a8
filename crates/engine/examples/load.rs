//! A load that costs the client little: connections that are kept busy with GET requests, whose
//! bodies are dropped in the kernel (recv(2) with MSG_TRUNC).
//!
//! `load ADDR PATH CONNECTIONS SECONDS` prints requests, bytes and seconds; latencies of the
//! requests as p50 and p99 in microseconds after them. `bench/drive.py` runs it.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// Bytes asked to be dropped by one call.
const DROP_BYTES: usize = 1024 * 1024;

struct Connection {
    socket: TcpStream,
    asked_at: Instant,
    head: Vec<u8>,
    /// Body bytes to come; `None` while the head is read.
    left: Option<usize>,
}

#[derive(Default)]
struct Totals {
    requests: u64,
    bytes: u64,
    latencies: Vec<Duration>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, connections, seconds] = arguments.as_slice() else {
        return Err("usage: load ADDR PATH CONNECTIONS SECONDS".into());
    };
    let address: SocketAddr = address.parse()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let deadline = Duration::from_secs_f64(seconds.parse()?);

    let readiness = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = open(address, connections.parse()?, &readiness)?;
    let started = Instant::now();
    for connection in &mut connections {
        connection.ask(&request)?;
    }
    let mut totals = Totals::default();
    let mut events = Vec::with_capacity(256);
    let mut dropped = vec![MaybeUninit::uninit(); DROP_BYTES];
    while started.elapsed() < deadline {
        events.clear();
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        epoll::wait(&readiness, spare_capacity(&mut events), Some(&timeout))?;
        for event in &events {
            let connection = &mut connections[usize::try_from(event.data.u64())?];
            connection.read(&request, &mut dropped, &mut totals)?;
        }
    }
    totals.print(started.elapsed());
    Ok(())
}

fn open(
    address: SocketAddr,
    count: usize,
    readiness: &impl std::os::fd::AsFd,
) -> Result<Vec<Connection>, Box<dyn Error>> {
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(readiness, &socket, data, epoll::EventFlags::IN)?;
        let asked_at = Instant::now();
        connections.push(Connection { socket, asked_at, head: Vec::new(), left: None });
    }
    Ok(connections)
}

impl Connection {
    fn ask(&mut self, request: &str) -> std::io::Result<()> {
        self.asked_at = Instant::now();
        self.head.clear();
        self.left = None;
        self.socket.write_all(request.as_bytes())
    }

    fn read(
        &mut self,
        request: &str,
        dropped: &mut [MaybeUninit<u8>],
        totals: &mut Totals,
    ) -> Result<(), Box<dyn Error>> {
        let left = match self.left {
            Some(left) => match self.drop_body(left, dropped) {
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
                Ok(0) => return Err("the server closed the connection within a body".into()),
                Ok(bytes) => {
                    totals.bytes += bytes as u64;
                    left - bytes
                }
            },
            None => match self.read_head(totals)? {
                Some(left) => left,
                None => return Ok(()),
            },
        };
        self.left = Some(left);
        if left == 0 {
            totals.requests += 1;
            totals.latencies.push(self.asked_at.elapsed());
            self.ask(request)?;
        }
        Ok(())
    }

    fn drop_body(&self, left: usize, dropped: &mut [MaybeUninit<u8>]) -> Result<usize, Errno> {
        let wanted = left.min(dropped.len());
        let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        rustix::net::recv(&self.socket, &mut dropped[..wanted], flags).map(|(_, bytes)| bytes)
    }

    /// The length of the body that is still to come, once the head is whole.
    fn read_head(&mut self, totals: &mut Totals) -> Result<Option<usize>, Box<dyn Error>> {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(bytes) => self.head.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&self.head[..end])?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(format!("not a 200: {}", head.lines().next().unwrap_or("")).into());
        }
        let len = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let len: usize = len.ok_or("no content-length")?.trim().parse()?;
        let body = self.head.len() - (end + 4);
        totals.bytes += body as u64;
        Ok(Some(len - body))
    }
}

impl Totals {
    fn print(mut self, elapsed: Duration) {
        self.latencies.sort_unstable();
        let quantile = |per_mille: usize| {
            let index = self.latencies.len() * per_mille / 1000;
            self.latencies.get(index).map_or(0, Duration::as_micros)
        };
        let Self { requests, bytes, .. } = self;
        let seconds = elapsed.as_secs_f64();
        println!("{requests} {bytes} {seconds:.4} {} {}", quantile(500), quantile(990));
    }
}
