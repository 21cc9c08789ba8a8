//! Peers that misbehave, files that change under way, and signals: the bytes that arrive are the
//! file's, the log tells the truth, and others are served.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::support::{
    CHOICES, KIB, MIB, Netns, Peer, Server, digest, need, need_root, noise, plain_dir, program,
    wait_until,
};

/// A receive buffer that makes the server wait early.
const LITTLE: usize = 16 << 10;
/// More than all buffers between the two processes hold.
const LARGE: u64 = 32 * MIB;

/// A directory with one file, and what is in it.
struct Fixture {
    dir: TempDir,
    content: Vec<u8>,
}

impl Fixture {
    fn new(len: u64) -> Fixture {
        let fixture = Fixture { dir: plain_dir(), content: noise(len, len) };
        fixture.restore();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("file.bin")
    }

    fn restore(&self) {
        fs::write(self.path(), &self.content).unwrap();
    }

    fn cut(&self, len: u64) {
        File::options().write(true).open(self.path()).unwrap().set_len(len).unwrap();
    }

    fn start(&self, arguments: &[&str]) -> Server {
        Server::start(self.dir.path(), arguments)
    }

    /// The body is exactly the file.
    #[track_caller]
    fn assert_whole(&self, body: &[u8], context: &str) {
        assert_eq!(body.len(), self.content.len(), "{context}");
        assert_eq!(digest(body), digest(&self.content), "{context}");
    }

    /// An undisturbed client gets the whole file.
    #[track_caller]
    fn assert_served(&self, server: &Server) {
        let mut peer = Peer::connect(server.address());
        peer.get("/file.bin?undisturbed");
        self.assert_whole(&peer.answer().body, "an undisturbed client");
    }
}

/// A peer with little room that has asked for the file and read its first MiB.
fn slow_peer(server: &Server) -> (Peer, Vec<u8>) {
    let mut peer = Peer::with_receive_buffer(server.address(), LITTLE);
    peer.get("/file.bin");
    let head = peer.head();
    assert_eq!((head.status, head.content_length() as u64), (200, LARGE));
    let start = peer.body(1 << 20);
    (peer, start)
}

#[test]
fn a_receiver_of_one_byte_at_a_time() {
    let fixture = Fixture::new(48 * KIB + 1);
    for choice in CHOICES {
        let server = fixture.start(&["--route", choice]);
        let mut peer = Peer::with_receive_buffer(server.address(), 1);
        peer.get("/file.bin");
        let len = peer.head().content_length();
        let body: Vec<u8> = (0..len).flat_map(|_| peer.body(1)).collect();
        fixture.assert_whole(&body, choice);
        server.log_line_for("/file.bin").assert_complete(48 * KIB + 1);
    }
}

#[test]
fn the_smallest_receive_buffer() {
    let fixture = Fixture::new(4 * MIB + 1);
    for choice in CHOICES {
        let server = fixture.start(&["--route", choice]);
        let mut peer = Peer::with_receive_buffer(server.address(), 1);
        peer.get("/file.bin");
        fixture.assert_whole(&peer.answer().body, choice);
        server.log_line_for("/file.bin").assert_complete(4 * MIB + 1);
    }
}

#[test]
fn the_smallest_send_buffer() {
    if !need_root("a network namespace with other socket sizes") || !need("ip") {
        return;
    }
    let netns = Netns::new();
    netns.enter(|| fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 4096 4096").unwrap());
    let fixture = Fixture::new(2 * MIB + 1);
    for choice in CHOICES {
        let mut command = netns.command(program().to_str().unwrap());
        command.args(["serve", "--listen", "127.0.0.1:0", "--route", choice]);
        let server = Server::spawn({
            command.arg(fixture.dir.path());
            command
        });
        let mut peer = netns.enter(|| Peer::connect(server.address()));
        peer.get("/file.bin");
        fixture.assert_whole(&peer.answer().body, choice);
        server.log_line_for("/file.bin").assert_complete(2 * MIB + 1);
    }
}

#[test]
fn a_peer_that_resets() {
    let fixture = Fixture::new(LARGE);
    for choice in CHOICES {
        let server = fixture.start(&["--route", choice]);
        let (peer, start) = slow_peer(&server);
        peer.reset();
        let line = server.log_line_for("/file.bin");
        let reason = line.reason();
        assert!(reason.contains("reset") || reason.contains("Broken pipe"), "{choice}: {line:?}");
        assert_eq!(line.due, LARGE, "{choice}");
        assert!((start.len() as u64..LARGE).contains(&line.sent), "{choice}: {line:?}");
        fixture.assert_served(&server);
        let totals = server.finish();
        assert_eq!((totals.responses, totals.aborted), (2, 1), "{choice}");
    }
}

#[test]
fn peers_that_stop_reading_hold_up_nobody() {
    let fixture = Fixture::new(LARGE);
    let server = fixture.start(&["--threads", "1"]);
    let stalled: Vec<Peer> = (0..16).map(|_| slow_peer(&server).0).collect();
    for _ in 0..3 {
        fixture.assert_served(&server);
    }
    let served = || (server.log_lines().len() == 3).then_some(());
    wait_until("three responses logged, and none of the stalled ones", served);
    drop(stalled);
    wait_until("all responses logged", || (server.log_lines().len() == 19).then_some(()));
    let totals = server.finish();
    assert_eq!((totals.responses, totals.aborted, totals.connections), (19, 16, 19));
}

#[test]
fn a_peer_that_leaves_before_the_response() {
    let fixture = Fixture::new(MIB);
    let server = fixture.start(&[]);
    for _ in 0..50 {
        let mut peer = Peer::connect(server.address());
        peer.get("/file.bin?left");
        peer.reset();
    }
    fixture.assert_served(&server);
    for line in server.log_lines() {
        assert!(line.sent <= line.due, "{line:?}");
    }
    assert_eq!(server.finish().connections, 51);
}

const HALVES: [&str; 4] = ["", "G", "GET /file.bin", "GET /file.bin HTTP/1.1\r\nHost: te"];

#[test]
fn half_a_request_holds_up_nobody() {
    let fixture = Fixture::new(MIB);
    let server = fixture.start(&["--threads", "1"]);
    let mut silent = HALVES.map(|_| Peer::connect(server.address()));
    for (peer, half) in silent.iter_mut().zip(HALVES) {
        peer.send(half.as_bytes());
    }
    fixture.assert_served(&server);
    drop(silent);
    let totals = server.finish();
    assert_eq!((totals.responses, totals.connections), (1, 5));
}

/// No response is running: the end must not wait for requests that may never come.
#[test]
fn half_a_request_does_not_hold_up_the_end() {
    let fixture = Fixture::new(0);
    for half in HALVES {
        let mut server = fixture.start(&[]);
        let mut silent = Peer::connect(server.address());
        fixture.assert_served(&server);
        silent.send(half.as_bytes());
        server.interrupt();
        let totals = server.totals();
        assert_eq!((totals.responses, totals.connections), (1, 2), "{half:?}");
    }
}

/// Where the file is cut: at a page, within a page, and behind bytes that have left already.
const CUTS: [u64; 3] = [LARGE / 2, LARGE / 2 + 123, 0];

#[test]
fn a_file_that_shrinks() {
    let fixture = Fixture::new(LARGE);
    for choice in CHOICES {
        let server = fixture.start(&["--route", choice]);
        for cut in CUTS {
            fixture.restore();
            check_shrunk(&fixture, &server, choice, cut);
        }
        fixture.restore();
        fixture.assert_served(&server);
        assert_eq!(server.finish().aborted, CUTS.len() as u64, "{choice}");
    }
}

fn check_shrunk(fixture: &Fixture, server: &Server, choice: &str, cut: u64) {
    let logged = server.log_lines().len();
    let (mut peer, mut got) = slow_peer(server);
    fixture.cut(cut);
    got.extend(peer.rest());
    let context = format!("{choice} cut to {cut}: {} bytes came", got.len());
    assert!((got.len() as u64) < LARGE, "{context}");
    // Pages that have left by reference when the file is emptied stay what they were.
    assert!(fixture.content.starts_with(&got), "{context}: not the file's");
    let line = wait_until("a log line", || server.log_lines().get(logged).cloned());
    let reason = line.reason();
    for size in [LARGE, cut] {
        assert!(reason.contains(&size.to_string()), "{context}: no {size} in {reason:?}");
    }
    assert!(line.sent >= got.len() as u64 && line.due == LARGE, "{context}: {line:?}");
}

/// The file ends in the middle of a call that is copying it, if it is hit well: the call then moves
/// less than it was asked to although the socket has room.
#[test]
fn a_file_that_is_emptied_under_a_fast_reader() {
    const ROUNDS: usize = 16;
    let fixture = Fixture::new(LARGE);
    for choice in CHOICES {
        let server = fixture.start(&["--route", choice]);
        for round in 0..ROUNDS {
            fixture.restore();
            let mut peer = Peer::connect(server.address());
            // Nothing more may come from the peer: it would wake a server that sleeps in error.
            peer.send(b"GET /file.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            peer.head();
            let mut got = peer.body((4 << 20) + round * 12_345);
            fixture.cut(0);
            got.extend(peer.rest());
            assert!(fixture.content.starts_with(&got), "{choice}: not the file's");
        }
        fixture.restore();
        fixture.assert_served(&server);
        assert_eq!(server.finish().responses, ROUNDS as u64 + 1, "{choice}");
    }
}

#[test]
fn a_file_that_is_replaced() {
    check_change(|path, content| {
        let new = path.with_extension("new");
        fs::write(&new, vec![b'n'; content.len() / 2]).unwrap();
        fs::rename(new, path).unwrap();
    });
}

#[test]
fn a_file_that_is_removed() {
    check_change(|path, _| fs::remove_file(path).unwrap());
}

#[test]
fn a_file_that_is_appended_to() {
    check_change(|path, content| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&content[..1 << 20], content.len() as u64).unwrap();
    });
}

/// A change that leaves the old bytes alone: the response is the old file, whole.
fn check_change(change: impl Fn(&Path, &[u8])) {
    let fixture = Fixture::new(LARGE);
    for choice in CHOICES {
        fixture.restore();
        let server = fixture.start(&["--route", choice]);
        let (mut peer, mut got) = slow_peer(&server);
        change(&fixture.path(), &fixture.content);
        peer.finish_asking();
        got.extend(peer.rest());
        fixture.assert_whole(&got, choice);
        server.log_line_for("/file.bin").assert_complete(LARGE);
    }
}

#[test]
fn a_signal_lets_running_responses_finish() {
    for signal in [Signal::INT, Signal::TERM] {
        check_graceful_end(signal);
    }
}

fn check_graceful_end(signal: Signal) {
    let fixture = Fixture::new(LARGE);
    let mut server = fixture.start(&[]);
    let mut idle = Peer::connect(server.address());
    idle.get("/missing");
    assert_eq!(idle.answer().head.status, 404);
    let (mut peer, mut got) = slow_peer(&server);
    kill_process(server.pid(), signal).unwrap();
    assert!(idle.rest().is_empty(), "an idle connection is closed");
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    wait_until("new connections to be refused", || {
        TcpStream::connect(server.address()).is_err_and(refused).then_some(())
    });
    got.extend(peer.rest());
    fixture.assert_whole(&got, "after the signal");
    let totals = server.totals();
    assert_eq!((totals.responses, totals.aborted), (2, 0));
    assert_eq!(totals.routes["sendfile"].bytes, LARGE);
    server.log_line_for("/file.bin").assert_complete(LARGE);
}

#[test]
fn the_second_interrupt_cuts() {
    let fixture = Fixture::new(LARGE);
    let mut server = fixture.start(&[]);
    let (mut peer, got) = slow_peer(&server);
    server.interrupt();
    let address = server.address();
    // The listener is gone once the first interrupt was seen: two at once would count as one.
    wait_until("the listener to go", || TcpListener::bind(address).ok());
    server.interrupt();
    server.wait();
    let rest = peer.rest();
    assert!(fixture.content.starts_with(&[got, rest].concat()));
    let line = server.log_line_for("/file.bin");
    assert!(line.sent < LARGE && !line.reason().is_empty(), "{line:?}");
    let totals = server.printed_totals();
    assert_eq!((totals.responses, totals.aborted), (1, 1));
}

#[test]
fn an_idle_server_ends_at_once() {
    let fixture = Fixture::new(0);
    let totals = fixture.start(&[]).finish();
    assert_eq!((totals.responses, totals.aborted, totals.connections), (0, 0, 0));
    assert!(totals.routes.values().all(|moved| moved.bytes == 0 && moved.calls == 0));
}
