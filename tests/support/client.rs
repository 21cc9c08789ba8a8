//! Clients: a raw one over std's TcpStream that can misbehave at will, and curl.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use sha2::{Digest as _, Sha256};

use super::{Digest, PATIENCE, Server, digest};

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Head {
    fn parse(text: String) -> Head {
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        Head { status: status.unwrap_or_else(|| panic!("not a status line: {text:?}")), text }
    }

    /// The value of a header, its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The values of all lines of one name, as one list (RFC 9110, section 5.3).
    pub(crate) fn all(&self, name: &str) -> String {
        let lines = self.text.lines().filter_map(|line| line.split_once(": "));
        let named = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn content_length(&self) -> usize {
        self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

/// A raw HTTP client: one connection, no buffer of its own, so it reads no further than asked.
#[derive(Debug)]
pub(crate) struct Peer(TcpStream);

impl Peer {
    pub(crate) fn connect(address: SocketAddr) -> Peer {
        Peer::over(TcpStream::connect(address).unwrap())
    }

    /// A peer whose kernel takes in about `bytes` before the sender has to wait.
    pub(crate) fn with_receive_buffer(address: SocketAddr, bytes: usize) -> Peer {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, bytes).unwrap();
        connect(&socket, &address).unwrap();
        Peer::over(TcpStream::from(socket))
    }

    /// A read that waits too long is a failed test, not a hanging one.
    pub(crate) fn over(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer(stream)
    }

    /// Where it comes from, as the server sees it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn send(&mut self, request: &[u8]) {
        self.0.write_all(request).unwrap();
    }

    pub(crate) fn get(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
    }

    /// Reads a response head, one byte at a time.
    pub(crate) fn head(&mut self) -> Head {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.extend(self.body(1));
        }
        Head::parse(String::from_utf8(text).unwrap())
    }

    /// Reads exactly `len` bytes.
    #[track_caller]
    pub(crate) fn body(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads a response whose length its head states.
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let body = self.body(head.content_length());
        Answer { head, body }
    }

    /// Reads until the server closes or the connection breaks; a server that hangs fails the test.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 1 << 16];
        loop {
            match self.0.read(&mut piece) {
                Ok(0) => return bytes,
                Ok(len) => bytes.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return bytes,
                Err(error) => {
                    panic!("{} bytes, then neither more nor an end: {error}", bytes.len())
                }
            }
        }
    }

    /// Panics if anything comes, or the connection ends, within so many milliseconds.
    #[track_caller]
    pub(crate) fn assert_silent(&mut self, milliseconds: u64) {
        self.0.set_read_timeout(Some(Duration::from_millis(milliseconds))).unwrap();
        let read = self.0.read(&mut [0]);
        let silent = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(silent, "{read:?}");
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// Says that nothing more will be asked.
    pub(crate) fn finish_asking(&self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(&self.0, Some(Duration::ZERO)).unwrap();
    }
}

/// A peer that has asked for `target`.
pub(crate) fn ask(server: &Server, target: &str) -> Peer {
    let mut peer = Peer::connect(server.address());
    peer.get(target);
    peer
}

/// The answer to one request, such as `GET /`, with these further fields, on a connection of its
/// own.
pub(crate) fn request(server: &Server, request: &str, fields: &[impl AsRef<str>]) -> Answer {
    let mut peer = Peer::connect(server.address());
    let fields: String = fields.iter().map(|field| format!("{}\r\n", field.as_ref())).collect();
    peer.send(format!("{request} HTTP/1.1\r\nHost: test\r\n{fields}\r\n").as_bytes());
    let head = peer.head();
    let has_body = !request.starts_with("HEAD ") && !matches!(head.status, 204 | 304);
    let body = if has_body { peer.body(head.content_length()) } else { Vec::new() };
    Answer { head, body }
}

/// Panics unless the body is exactly `content`.
#[track_caller]
pub(crate) fn assert_gets(mut peer: Peer, content: &[u8], context: &str) {
    let answer = peer.answer();
    assert_eq!(answer.head.status, 200, "{context}");
    assert_eq!(answer.body.len(), content.len(), "{context}");
    assert_eq!(digest(&answer.body), digest(content), "{context}");
}

/// Runs curl without progress, bounded in time; any status but 0 fails the test.
#[track_caller]
pub(crate) fn curl(arguments: &[&str]) -> Output {
    let output = curl_command(arguments).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {} {message}", output.status);
    output
}

/// Downloads `url` by curl and returns how many bytes came, and their digest.
#[track_caller]
pub(crate) fn curl_digest(url: &str) -> (u64, Digest) {
    let mut child = curl_command(&["--fail", url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // A pipe of 64 KiB would make two processes switch for each 64 KiB of gigabytes.
    rustix::pipe::fcntl_setpipe_size(&stdout, 1 << 20).ok();
    let (mut hash, mut len) = (Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let got = stdout.read(&mut piece).unwrap();
        if got == 0 {
            break;
        }
        hash.update(&piece[..got]);
        len += got as u64;
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "curl {url}: {status} after {len} bytes");
    (len, hash.finalize().into())
}

pub(crate) fn curl_command(arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "300"]);
    command.args(arguments);
    command
}
