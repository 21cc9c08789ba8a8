//! The least that a server of small files does: wait, receive, send. No parsing, no files, no
//! timers: every request is answered with the same ready-made bytes. What a server loses against
//! it is its own doing; what it loses with it is the kernel's.
//!
//! `floor PORT BYTES` listens on loopback, with Reno where the host's default is BBR.

use std::error::Error;
use std::io::{ErrorKind, IoSlice, Read};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use pagewire_engine::pacing;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{SendAncillaryBuffer, SendFlags};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, bytes] = arguments.as_slice() else {
        return Err("usage: floor PORT BYTES".into());
    };
    let loopback = Ipv4Addr::LOCALHOST;
    let listener = TcpListener::bind((loopback, port.parse()?))?;
    pacing::spare_loopback(&listener, IpAddr::V4(loopback))?;
    let body = vec![b'x'; bytes.parse()?];
    // As long as that of other servers.
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\nlast-modified: Sun, 22 Nov \
         2026 20:00:00 GMT\r\netag: \"fe00-1234567-1000-6a1b2c3d.12345678\"\r\ncontent-length: \
         {}\r\ndate: Sun, 22 Nov 2026 20:00:00 GMT\r\n\r\n",
        body.len()
    );
    serve(&listener, &[IoSlice::new(head.as_bytes()), IoSlice::new(&body)])
}

fn serve(listener: &TcpListener, response: &[IoSlice<'_>]) -> Result<(), Box<dyn Error>> {
    let readiness = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&readiness, listener, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let mut connections: Vec<TcpStream> = Vec::new();
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&readiness, spare_capacity(&mut events), None)?;
        for event in &events {
            match usize::try_from(event.data.u64())? {
                0 => {
                    let (socket, _) = listener.accept()?;
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                    let data = epoll::EventData::new_u64(connections.len() as u64 + 1);
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                    epoll::add(&readiness, &socket, data, flags)?;
                    connections.push(socket);
                }
                number => answer(&readiness, &connections[number - 1], response)?,
            }
        }
    }
}

fn answer(
    readiness: &impl std::os::fd::AsFd,
    mut socket: &TcpStream,
    response: &[IoSlice<'_>],
) -> Result<(), Box<dyn Error>> {
    match socket.read(&mut [0; 4096]) {
        Ok(0) => Ok(epoll::delete(readiness, socket)?),
        Ok(_) => {
            let mut nothing_else = SendAncillaryBuffer::default();
            let flags = SendFlags::NOSIGNAL;
            let sent = rustix::net::sendmsg(socket, response, &mut nothing_else, flags)?;
            let due: usize = response.iter().map(|slice| slice.len()).sum();
            if sent < due { Err("too large for the socket's buffer".into()) } else { Ok(()) }
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
            Ok(epoll::delete(readiness, socket)?)
        }
        Err(error) => Err(error.into()),
    }
}
