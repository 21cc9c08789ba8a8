//! Clients that take more than their share, and limits of the host: the others are served, and
//! what was taken comes back.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

use super::support::{
    KIB, LogLine, MIB, Peer, Server, curl, descriptors, digest, need, noise, pagewire, plain_dir,
    skip, wait_until,
};

const LARGE: u64 = 32 * MIB;

struct Fixture {
    dir: tempfile::TempDir,
    content: Vec<u8>,
}

impl Fixture {
    fn new(len: u64) -> Fixture {
        let fixture = Fixture { dir: plain_dir(), content: noise(len, len) };
        fs::write(fixture.dir.path().join("file.bin"), &fixture.content).unwrap();
        fixture
    }

    fn start(&self, arguments: &[&str]) -> Server {
        Server::start(self.dir.path(), arguments)
    }

    /// A client gets the whole file.
    #[track_caller]
    fn assert_served(&self, mut peer: Peer) {
        peer.send(b"GET /file.bin HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let answer = peer.answer();
        assert_eq!(answer.head.status, 200);
        assert_eq!(digest(&answer.body), digest(&self.content));
    }
}

/// A client that has another address of this host than 127.0.0.1.
fn connect_from(last: u8, server: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0);
    bind(&socket, &from).unwrap();
    connect(&socket, &server).unwrap();
    TcpStream::from(socket)
}

fn peer_from(last: u8, server: &Server) -> Peer {
    Peer::over(connect_from(last, server.address()))
}

/// A download that goes on, and holds its connection.
fn busy(server: &Server) -> Peer {
    let mut peer = Peer::with_receive_buffer(server.address(), 16 << 10);
    peer.get("/file.bin");
    assert_eq!(peer.head().status, 200);
    peer.body(64 << 10);
    peer
}

/// What is read of a server that turns a connection away: it may be gone before it was understood.
#[track_caller]
fn assert_turned_away(mut peer: Peer) {
    let answer = peer.rest();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer:?}");
}

fn refused(server: Server, reason: &str) -> u64 {
    let lines = server.banner_at_end();
    let row = lines.iter().find(|line| line.contains("refused") && line.ends_with(reason));
    row.map_or(0, |row| row.split_whitespace().nth(1).unwrap().parse().unwrap())
}

#[test]
fn one_address_does_not_get_all() {
    let fixture = Fixture::new(LARGE);
    let server = fixture.start(&["--max-connections-per-address", "2"]);
    let held = [busy(&server), busy(&server)];
    assert_turned_away(Peer::connect(server.address()));
    fixture.assert_served(peer_from(2, &server));
    drop(held);
    wait_until("places to come back", || {
        let mut peer = Peer::connect(server.address());
        peer.send(b"HEAD /file.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        peer.rest().starts_with(b"HTTP/1.1 200").then_some(())
    });
    assert!(refused(server, "address") >= 1);
}

#[test]
fn who_is_idle_makes_room_and_who_is_busy_does_not() {
    let fixture = Fixture::new(LARGE);
    let limits = ["--max-connections", "2", "--max-connections-per-address", "9"];
    let server = fixture.start(&limits);
    let mut first = Peer::connect(server.address());
    first.send(b"HEAD /file.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(first.head().status, 200);
    // Parked by now.
    first.assert_silent(2_500);
    let (second, third) = (busy(&server), busy(&server));
    assert_eq!(first.rest(), b"", "the one that was idle longest is gone");
    assert_turned_away(Peer::connect(server.address()));
    drop((second, third));
    assert!(refused(server, "connections") >= 1);
}

/// A line of plain text would be no TLS.
#[test]
fn over_tls_nothing_is_said_to_who_is_turned_away() {
    if !need("curl") {
        return;
    }
    let (fixture, state) = (Fixture::new(LARGE), plain_dir());
    let state = state.path().to_str().unwrap();
    let limits = ["--max-connections", "1", "--tls-self-signed", "--state-dir", state];
    let server = fixture.start(&limits);
    let url = format!("https://{}/file.bin", server.address());
    let mut busy = Command::new("curl");
    busy.args(["--silent", "--insecure", "--noproxy", "*", "--limit-rate", "1k", &url]);
    let mut busy = busy.stdout(Stdio::piped()).spawn().unwrap();
    let mut begin = [0; 1024];
    busy.stdout.as_mut().unwrap().read_exact(&mut begin).unwrap();
    let mut peer = Peer::connect(server.address());
    peer.get("/file.bin");
    assert_eq!(peer.rest(), b"");
    busy.kill().unwrap();
    busy.wait().unwrap();
    assert_eq!(refused(server, "connections"), 1);
}

/// So many connections as their own limit would have a server forget everybody else.
const SLOW: usize = 10_000;

#[test]
fn ten_thousand_slow_heads_hold_up_nobody() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let enough = hard.is_none_or(|hard| hard >= 2 * SLOW as u64);
    if !enough {
        return skip("needs 20,000 descriptors (ulimit -Hn)");
    }
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    let fixture = Fixture::new(256 * KIB);
    let server = fixture.start(&[]);
    let before = descriptors(server.pid()).len();
    let half = b"GET /file.bin HTTP/1.1\r\nHost: test\r\nX-Drip: ";
    let mut slow: Vec<TcpStream> = Vec::with_capacity(SLOW);
    for number in 0..SLOW {
        // From four addresses: none may have more than a quarter.
        let from = 10 + u8::try_from(number % 4).unwrap();
        let mut stream = connect_from(from, server.address());
        std::io::Write::write_all(&mut stream, half).unwrap();
        slow.push(stream);
        if number % 1_000 == 0 {
            fixture.assert_served(Peer::connect(server.address()));
        }
    }
    wait_until("all to be accepted", || {
        (descriptors(server.pid()).len() >= before + SLOW).then_some(())
    });
    for stream in &mut slow {
        // One drop each. The first of them may have met their deadline.
        std::io::Write::write_all(stream, b"x").ok();
    }
    for _ in 0..5 {
        fixture.assert_served(Peer::connect(server.address()));
    }
    drop(slow);
    wait_until("descriptors to come back", || {
        (descriptors(server.pid()).len() <= before + 2).then_some(())
    });
    server.finish();
}

#[test]
fn without_descriptors_connections_wait_and_are_served_when_there_are_some() {
    let fixture = Fixture::new(64 * KIB);
    let server = fixture.start(&[]);
    fixture.assert_served(Peer::connect(server.address()));
    let before = descriptors(server.pid()).len();
    let limit = |current: u64| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let rlimit = Rlimit { current: Some(current), maximum };
        prlimit(Some(server.pid()), Resource::Nofile, rlimit).unwrap();
    };
    // None above the highest that it has, and a few.
    limit(before as u64 + 8);
    let half = b"GET /file.bin HTTP/1.1\r\nX: ";
    let mut storm: Vec<Peer> = (0..64).map(|_| Peer::connect(server.address())).collect();
    storm.iter_mut().for_each(|peer| peer.send(half));
    wait_until("descriptors to run out", || {
        (descriptors(server.pid()).len() as u64 >= before as u64 + 6).then_some(())
    });
    drop(storm);
    fixture.assert_served(Peer::connect(server.address()));
    wait_until("descriptors to come back", || {
        (descriptors(server.pid()).len() <= before + 1).then_some(())
    });
    assert!(refused(server, "accept") >= 1);
}

#[test]
fn resets_at_every_stage_leave_nothing_behind() {
    let fixture = Fixture::new(LARGE);
    let server = fixture.start(&[]);
    fixture.assert_served(Peer::connect(server.address()));
    let before = descriptors(server.pid()).len();
    let whole = "GET /file.bin HTTP/1.1\r\nHost: test\r\n\r\n";
    for _ in 0..20 {
        for asked in ["", "G", "GET /file.bin HTTP/1.1\r\nHo", whole] {
            let mut peer = Peer::connect(server.address());
            peer.send(asked.as_bytes());
            peer.reset();
        }
        let mut peer = Peer::connect(server.address());
        peer.get("/file.bin");
        peer.head();
        peer.reset();
        busy(&server).reset();
        let mut peer = Peer::connect(server.address());
        peer.send(b"GET /file.bin HTTP/1.1\r\nHost: test\r\nRange: bytes=0-9\r\n\r\n");
        peer.answer();
        peer.reset();
    }
    wait_until("descriptors to come back", || {
        (descriptors(server.pid()).len() <= before).then_some(())
    });
    fixture.assert_served(Peer::connect(server.address()));
    assert_eq!(server.finish().connections, 142);
}

/// Before and within the handshake, and in the middle of a body by either version.
#[test]
fn resets_at_every_stage_of_tls_leave_nothing_behind() {
    if !need("curl") {
        return;
    }
    let (fixture, state) = (Fixture::new(LARGE), plain_dir());
    let state = state.path().to_str().unwrap();
    let server = fixture.start(&["--tls-self-signed", "--state-dir", state]);
    let url = format!("https://{}/file.bin", server.address());
    let whole = || {
        let got = curl(&["--insecure", "--fail", &url]).stdout;
        assert_eq!(digest(&got), digest(&fixture.content));
    };
    whole();
    let before = descriptors(server.pid()).len();
    // A record that says it is a ClientHello of 512 bytes, and some of it.
    let hello = [&[0x16, 3, 1, 2, 4, 1, 0, 2, 0, 3, 3][..], &[7; 32]].concat();
    for _ in 0..20 {
        for said in [0, 1, 5, hello.len()] {
            let mut peer = Peer::connect(server.address());
            peer.send(&hello[..said]);
            peer.reset();
        }
    }
    for version in ["--http1.1", "--http2"].repeat(4) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--insecure", "--noproxy", "*", "--limit-rate", "1M", version]);
        command.arg(format!("{url}?killed")).stdout(Stdio::piped());
        let mut client = command.spawn().unwrap();
        client.stdout.as_mut().unwrap().read_exact(&mut [0; 1024]).unwrap();
        // With something unread, which makes it a reset.
        client.kill().unwrap();
        client.wait().unwrap();
    }
    wait_until("descriptors to come back", || {
        (descriptors(server.pid()).len() <= before).then_some(())
    });
    whole();
    let is_killed = |line: &LogLine| line.target == "/file.bin?killed";
    let killed: Vec<_> = server.log_lines().into_iter().filter(is_killed).collect();
    assert!(killed.len() == 8 && killed.iter().all(|line| !line.reason().is_empty()));
    let totals = server.finish();
    assert_eq!((totals.responses, totals.aborted), (10, 8));
}

#[test]
fn heads_and_targets_have_their_limits() {
    let fixture = Fixture::new(0);
    let server = fixture.start(&[]);
    let status = |head: String| {
        let mut peer = Peer::connect(server.address());
        peer.send(head.as_bytes());
        let answer = peer.rest();
        String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned).unwrap_or_default()
    };
    let get = |target: &str, fields: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
    };
    let name = |len: usize| format!("/{}", "a".repeat(len));
    assert_eq!(status(get(&name(200), "")), "404");
    assert_eq!(status(get(&name(16_000), "")), "404");
    assert_eq!(status(get(&name(17_000), "")), "414");
    assert_eq!(status(get("/", &format!("X: {}\r\n", "a".repeat(20_000)))), "200");
    assert_eq!(status(get("/", &format!("X: {}\r\n", "a".repeat(60_000)))), "431");
    assert_eq!(status(get("/", &"X: y\r\n".repeat(90))), "200");
    assert_eq!(status(get("/", &"X: y\r\n".repeat(120))), "431");
    assert_eq!(refused(server, "head-size"), 2);
}

#[test]
fn a_body_that_nobody_asked_for_does_not_hide_the_answer() {
    let fixture = Fixture::new(7);
    let server = fixture.start(&[]);
    let body = vec![b'x'; 300_000];
    for (method, status) in [("POST", 405), ("GET", 200)] {
        let mut peer = Peer::connect(server.address());
        let head =
            format!("{method} /file.bin HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
        peer.send(head.as_bytes());
        peer.send(&body);
        assert_eq!(peer.answer().head.status, status, "{method}");
        peer.finish_asking();
        assert_eq!(peer.rest(), b"");
    }
    server.finish();
}

#[test]
fn a_limited_download_is_paced_by_the_kernel_and_sent_from_the_file() {
    if !need("ss") {
        return;
    }
    let fixture = Fixture::new(MIB);
    let server = fixture.start(&["--limit-rate", "500k"]);
    let mut peer = Peer::connect(server.address());
    peer.get("/file.bin");
    assert_eq!(peer.head().status, 200);
    let filter = format!("sport = :{}", server.address().port());
    let mut ss = Command::new("ss");
    let output = ss.args(["-Htin", "state", "established", &filter]).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    // Bits per second: the rate now, and the highest.
    assert!(output.contains("/4000000bps") || output.contains("/4Mbps"), "{output}");
    let body = peer.body(1 << 20);
    assert_eq!(digest(&body), digest(&fixture.content));
    assert_eq!(server.log_line_for("/file.bin").route, "sendfile");
    server.finish();
}

#[test]
fn a_limit_for_all_keeps_downloads_whole_and_on_their_route() {
    let fixture = Fixture::new(MIB);
    for route in ["sendfile", "splice", "mmap-write", "read-write"] {
        let server = fixture.start(&["--limit-rate-total", "8M", "--route", route]);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| fixture.assert_served(Peer::connect(server.address())));
            }
        });
        assert!(server.log_lines().iter().all(|line| line.route == route), "{route}");
        let totals = server.finish();
        assert_eq!((totals.responses, totals.aborted), (3, 0), "{route}");
    }
}

#[test]
fn a_graceful_end_has_its_limit() {
    let fixture = Fixture::new(LARGE);
    let mut server = fixture.start(&["--grace", "1"]);
    let mut stuck = busy(&server);
    server.interrupt();
    let status = server.wait();
    assert!(status.success(), "{status}");
    assert!((stuck.rest().len() as u64) < LARGE);
    assert_eq!(server.printed_totals().aborted, 1);
}

#[test]
fn a_clock_that_jumps_ends_nothing() {
    if !need("faketime") {
        return;
    }
    let mut library = Command::new("faketime");
    library.args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]);
    let library = library.output().unwrap().stdout;
    let library = String::from_utf8(library).unwrap();
    let fixture = Fixture::new(LARGE);
    let clock = fixture.dir.path().join("clock");
    fs::write(&clock, "+0\n").unwrap();
    let mut command = pagewire(&["serve", "--listen", "127.0.0.1:0"]);
    command.arg(fixture.dir.path()).env("LD_PRELOAD", library.trim());
    // The clock that people set, and not the one that deadlines are by.
    command.env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.env("FAKETIME_NO_CACHE", "1");
    let server = Server::spawn(command);
    let mut idle = Peer::connect(server.address());
    let mut running = busy(&server);
    for (number, jump) in ["+4000000", "-40000000", "+0"].iter().enumerate() {
        fs::write(&clock, format!("{jump}\n")).unwrap();
        let target = format!("/file.bin?{number}");
        idle.send(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(idle.head().status, 200);
        server.log_line_for(&target);
        running.body(64 << 10);
    }
    let rest = running.body(usize::try_from(LARGE).unwrap() - 4 * (64 << 10));
    assert!(fixture.content.ends_with(&rest));
    let years: Vec<String> =
        server.raw_log().all().iter().map(|line| line[..4].to_owned()).collect();
    assert!(years[0] > years[1], "the log has the clock's own jumps: {years:?}");
    assert_eq!(server.finish().aborted, 0);
}
