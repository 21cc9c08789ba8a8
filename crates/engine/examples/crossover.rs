//! Measures where the routes cross: CPU time of the sending thread per response, by size.
//!
//! A response is a head of 200 bytes and a file range, asked for over one TCP connection on
//! loopback. Sender and receiver sit on different processors. Routes are interleaved in every
//! round; the CSV on standard output has one line for each round, size, route and kind of
//! source: `kept` (open and mapped already) or `fresh` (opened and mapped for each response).
//!
//! `cargo run --release -p pagewire-engine --example crossover [ROUNDS] > crossover.csv`

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use pagewire_engine::{Payload, Route, RouteChoice, SourceFile, blocking, proof};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const HEAD: &[u8] = &[b'h'; 200];
const SIZES: [usize; 15] = [
    1, 1024, 4096, 8192, 16384, 24576, 32768, 49152, 65536, 98304, 131_072, 196_608, 262_144,
    524_288, 1_048_576,
];
const ROUTES: [Route; 3] = [Route::Sendfile, Route::MmapWrite, Route::ReadWrite];
/// Bytes per round, size and route: enough that a scheduler's tick does not show.
const BYTES_PER_CELL: usize = 64 * 1024 * 1024;
const RESPONSES_MAX: usize = 4000;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(7), |rounds| rounds.parse())?;
    let path = std::env::temp_dir().join(format!("pagewire-crossover-{}", std::process::id()));
    let mut file = File::create_new(&path)?;
    file.write_all(&vec![7; SIZES[SIZES.len() - 1]])?;
    let opened = File::open(&path)?;
    let measured = measure(rounds, &path, &opened);
    std::fs::remove_file(&path)?;
    measured
}

fn measure(rounds: usize, path: &std::path::Path, opened: &File) -> Result<(), Box<dyn Error>> {
    eprintln!("sendfile on loopback: {}", proof::on_loopback(Route::Sendfile, &scratch()?)?);
    println!("round,source,bytes,route,responses,cpu_ns_per_response");
    let kept = SourceFile::new(opened.try_clone()?)?;
    for round in 0..rounds {
        for size in SIZES {
            for route in ROUTES {
                for source in ["kept", "fresh"] {
                    let next = || match source {
                        "kept" => Ok(kept.clone()),
                        _ => File::open(path).and_then(SourceFile::new),
                    };
                    let responses = (BYTES_PER_CELL / size).clamp(64, RESPONSES_MAX);
                    let cpu = respond(next, size, route, responses)?.as_nanos();
                    let cpu = cpu / responses as u128;
                    println!("{round},{source},{size},{route},{responses},{cpu}");
                }
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    Ok(())
}

fn scratch() -> std::io::Result<File> {
    proof::scratch_file_in(&std::env::temp_dir()).or_else(|_| proof::scratch_file_in_memory())
}

fn respond(
    next: impl Fn() -> std::io::Result<SourceFile>,
    size: usize,
    route: Route,
    responses: usize,
) -> Result<Duration, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let receiver = thread::spawn(move || receive(TcpStream::connect(address)?, size, responses));
    pin(0)?;
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let mut request = [0];
    let before = thread_time();
    for _ in 0..responses {
        socket.read_exact(&mut request)?;
        let range = next()?.range(0, size as u64)?;
        // Whoever hands bytes to hyper maps them, whatever the route.
        let _mapped = range.mapped_bytes()?;
        let payload = Payload::new().bytes(HEAD).file(range);
        blocking::send(payload, &socket, RouteChoice::Only(route))?;
    }
    let spent = thread_time() - before;
    receiver.join().map_err(|_| "the receiver panicked")??;
    Ok(spent)
}

fn receive(mut socket: TcpStream, size: usize, responses: usize) -> std::io::Result<()> {
    pin(1)?;
    let mut buffer = vec![0; HEAD.len() + size];
    for _ in 0..responses {
        socket.write_all(b"?")?;
        socket.read_exact(&mut buffer)?;
    }
    Ok(())
}

fn pin(processor: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor % thread::available_parallelism()?.get());
    Ok(sched_setaffinity(None, &set)?)
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
