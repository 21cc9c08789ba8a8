//! Counts in the kernel what each route copies of a file that it sends.
//!
//! Receiver and sender are threads. The receiver sits in the network namespace NETNS at ADDRESS,
//! if they are given, else on loopback, and drops what it gets in the kernel. The CSV on standard
//! output has one line for each route.
//!
//! `copies DIR [NETNS ADDRESS]`; as root, Linux 6.5 or newer. docs/routes.md has the command.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use pagewire_engine::copies::{Copies, CopyCounters};
use pagewire_engine::{FileRange, Payload, Route, RouteChoice, SourceFile, blocking, proof};
use rustix::net::{RecvFlags, recv};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const BYTES: usize = 16 * 1024 * 1024;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (dir, netns, address) = match words.as_slice() {
        [dir] => (dir, None, Ipv4Addr::LOCALHOST.into()),
        [dir, netns, address] => (dir, Some(netns.as_str()), address.parse()?),
        _ => return Err("usage: copies DIR [NETNS ADDRESS]".into()),
    };
    let mut file = proof::scratch_file_in(Path::new(dir))?;
    file.write_all(&vec![7; BYTES])?;
    let range = SourceFile::new(file)?.range(0, BYTES as u64)?;
    let counters = CopyCounters::open().map_err(|unavailable| unavailable.to_string())?;
    println!("route,bytes,out_of_file,user_memory,packets,by_reference");
    for route in Route::ALL {
        let Copies { out_of_file, user_memory, packets, by_reference, .. } =
            count(&counters, route, range.clone(), netns, address)?;
        println!("{route},{BYTES},{out_of_file},{user_memory},{packets},{by_reference}");
    }
    Ok(())
}

fn count(
    counters: &CopyCounters,
    route: Route,
    range: FileRange,
    netns: Option<&str>,
    address: IpAddr,
) -> Result<Copies, Failure> {
    let listener = listen(netns, address)?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let receiver = thread::spawn(move || receive(&listener));
    let payload = Payload::new().file(range);
    let send = || -> Result<_, Failure> {
        let report = blocking::send(payload, &socket, RouteChoice::Only(route))?;
        drop(socket);
        let received = receiver.join().map_err(|_| "the receiver panicked")??;
        Ok((report, received))
    };
    let (sent, copies) = counters.count(send)?;
    let (report, received) = sent?;
    if report.tally.routes_taken().ne([route]) || received != BYTES {
        return Err(format!("{received} of {BYTES} bytes arrived, {:?}", report.tally).into());
    }
    Ok(copies)
}

/// A thread that enters the namespace makes the listener, which then stays there.
fn listen(netns: Option<&str>, address: IpAddr) -> Result<TcpListener, Failure> {
    let Some(name) = netns else {
        return Ok(TcpListener::bind((address, 0))?);
    };
    let link = File::open(format!("/run/netns/{name}"))?;
    let inside = move || -> Result<_, Failure> {
        move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(TcpListener::bind((address, 0))?)
    };
    thread::spawn(inside).join().map_err(|_| "the listener panicked")?
}

fn receive(listener: &TcpListener) -> std::io::Result<usize> {
    let (socket, _) = listener.accept()?;
    let mut buffer = vec![0; 1 << 20];
    let mut received = 0;
    loop {
        // On TCP, MSG_TRUNC throws bytes away instead of copying them.
        match recv(&socket, &mut buffer, RecvFlags::TRUNC)?.1 {
            0 => return Ok(received),
            bytes => received += bytes,
        }
    }
}
