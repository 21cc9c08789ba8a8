//! HTTP/2 without TLS, by prior knowledge: curl, h2load, and frames made by hand.

use std::fs;

use super::support::{
    MIB, Outcome, Peer, Server, Trace, curl, digest, need, noise, plain_dir, wait_until,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// What a peer may be sent before it says more (RFC 9113 6.9.2).
const FIRST_WINDOW: usize = 65_535;

fn get(server: &Server, target: &str, arguments: &[&str]) -> Vec<u8> {
    let url = server.url(target);
    curl(&[&["--http2-prior-knowledge", "--fail", &url], arguments].concat()).stdout
}

/// One frame; every stream of these tests has an odd number below 256.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[0, 0, len, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// GET by fields of the static table and literals (RFC 7541 6.2.2), all that there is to say.
fn request(stream: u8, target: &str) -> Vec<u8> {
    let literal = |name: &str, value: &str| {
        let len = |text: &str| u8::try_from(text.len()).unwrap();
        let parts = [&[0, len(name)], name.as_bytes(), &[len(value)], value.as_bytes()];
        parts.concat()
    };
    let fields = [&b"\x82\x86"[..], &literal(":path", target), &literal(":authority", "test")];
    frame(HEADERS, 0x5, stream, &fields.concat())
}

/// Reads one frame: its kind, its stream, its payload.
fn next_frame(peer: &mut Peer) -> (u8, u8, Vec<u8>) {
    let head = peer.body(9);
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    (head[3], head[8], peer.body(usize::try_from(len).unwrap()))
}

/// Reads frames until `len` bytes of the body of `stream` are there.
fn body(peer: &mut Peer, stream: u8, len: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < len {
        if let (DATA, of, payload) = next_frame(peer)
            && of == stream
        {
            body.extend(payload);
        }
    }
    body
}

/// A connection of which only streams are told of, with a window that is never in the way.
fn connect(server: &Server) -> Peer {
    let mut peer = Peer::connect(server.address());
    // Cut within the preface: it is waited for.
    peer.send(&PREFACE[..3]);
    peer.assert_silent(100);
    let window = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    peer.send(&[&PREFACE[3..], &frame(SETTINGS, 0, 0, &[]), &window].concat());
    peer
}

#[test]
fn curl_gets_what_the_files_hold() {
    let dir = plain_dir();
    let content = noise(3 * MIB + 17, 1);
    let len = content.len();
    for (name, len) in [("empty", 0), ("tiny", 3), ("small", 300), ("page", 8192), ("big", len)] {
        fs::write(dir.path().join(name), &content[..len]).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    for (name, len) in [("empty", 0), ("tiny", 3), ("small", 300), ("page", 8192), ("big", len)] {
        let target = format!("/{name}");
        assert_eq!(digest(&get(&server, &target, &[])), digest(&content[..len]), "{name}");
        let line = server.log_line_for(&target);
        line.assert_complete(len as u64);
        assert!(line.user_copied <= 300 + len as u64 / 32, "{line:?}");
    }
    assert_eq!(get(&server, "/big?range", &["-r", "5-70000"]), &content[5..=70_000]);
    assert_eq!(get(&server, "/big?end", &["-r", "-5"]), &content[len - 5..]);
    let head = get(&server, "/big?head", &["--head", "-w", "version=%{http_version}"]);
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains(&format!("content-length: {len}")), "{head}");
    assert!(head.ends_with("version=2"), "{head}");
    let page = String::from_utf8(get(&server, "/", &[])).unwrap();
    assert!(page.contains("small"), "{page}");
    let tar = get(&server, "/?tar", &[]);
    assert!(tar.windows(300).any(|run| run == &content[..300]), "{} bytes", tar.len());
    assert!(server.log_lines().iter().all(|line| line.outcome == Outcome::Complete));
}

#[test]
fn large_bodies_leave_from_the_file() {
    if !need("strace") {
        return;
    }
    let dir = plain_dir();
    let content = noise(MIB, 2);
    fs::write(dir.path().join("file"), &content).unwrap();
    let server = Server::start(dir.path(), &[]);
    let trace = Trace::attach(&server, &[]);
    assert_eq!(digest(&get(&server, "/file", &[])), digest(&content));
    let line = server.log_line_for("/file");
    let calls = trace.finish();
    let of = |name: &str| -> u64 {
        let calls = calls.iter().filter(|call| call.name == name);
        calls.filter(|call| call.sends_from(server.address())).map(|call| call.bytes()).sum()
    };
    // But for what HTTP/2's writer copies into the head of each frame.
    assert!(of("sendfile") > MIB - MIB / 32, "{} of {MIB}", of("sendfile"));
    assert!(line.user_copied < MIB / 32, "{line:?}");
}

#[test]
fn many_streams_at_once() {
    if !need("h2load") {
        return;
    }
    let dir = plain_dir();
    fs::write(dir.path().join("small"), noise(300, 3)).unwrap();
    fs::write(dir.path().join("large"), noise(200_000, 4)).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut command = std::process::Command::new("h2load");
    command.args(["--requests=600", "--clients=3", "--max-concurrent-streams=50"]);
    let output = command.args([server.url("/small"), server.url("/large")]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("600 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    let lines = wait_until("all lines", || Some(server.log_lines()).filter(|all| all.len() == 600));
    let sent: u64 = lines.iter().map(|line| line.sent).sum();
    assert_eq!(sent, 300 * 300 + 300 * 200_000);
    assert!(lines.iter().all(|line| line.outcome == Outcome::Complete));
    let totals = server.finish();
    assert_eq!((totals.responses, totals.aborted, totals.connections), (600, 0, 3));
}

#[test]
fn a_stream_that_is_reset_ends_alone() {
    let dir = plain_dir();
    let content = noise(MIB, 5);
    fs::write(dir.path().join("file"), &content).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut peer = connect(&server);
    // The same bytes twice at the same time: only frames tell which is which.
    peer.send(&request(1, "/file?cancelled"));
    assert!(body(&mut peer, 1, FIRST_WINDOW) == content[..FIRST_WINDOW]);
    peer.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    let line = server.log_line_for("/file?cancelled");
    assert_eq!((line.sent, line.reason()), (FIRST_WINDOW as u64, "cancelled by the peer"));
    peer.send(&request(3, "/file?next"));
    let window = frame(WINDOW_UPDATE, 0, 3, &(1_u32 << 30).to_be_bytes());
    peer.send(&window);
    assert_eq!(digest(&body(&mut peer, 3, content.len())), digest(&content));
    server.log_line_for("/file?next").assert_complete(MIB);
    drop(peer);
    let totals = server.finish();
    assert_eq!((totals.responses, totals.aborted, totals.connections), (2, 1, 1));
}

#[test]
fn a_file_that_shrinks_ends_the_connection() {
    let dir = plain_dir();
    let path = dir.path().join("file");
    let content = noise(MIB, 6);
    fs::write(&path, &content).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut peer = connect(&server);
    peer.send(&request(1, "/file"));
    let begun = body(&mut peer, 1, FIRST_WINDOW);
    assert!(begun == content[..FIRST_WINDOW]);
    fs::File::options().write(true).open(&path).unwrap().set_len(70_000).unwrap();
    peer.send(&frame(WINDOW_UPDATE, 0, 1, &(1_u32 << 30).to_be_bytes()));
    let rest = peer.rest();
    let line = server.log_line_for("/file");
    assert!(line.reason().contains("70000"), "{line:?}");
    // Frames of what is there, and no zeros for what is not.
    assert!(rest.len() <= 20_000, "{}", rest.len());
    assert!(!rest.ends_with(&[0; 64]), "zeros for bytes of the file");
}

#[test]
fn a_running_download_outlives_the_stop() {
    let dir = plain_dir();
    let content = noise(MIB, 7);
    fs::write(dir.path().join("file"), &content).unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut peer = connect(&server);
    peer.send(&request(1, "/file"));
    let begun = body(&mut peer, 1, FIRST_WINDOW);
    let idle = connect(&server);
    server.interrupt();
    let window = frame(WINDOW_UPDATE, 0, 1, &(1_u32 << 30).to_be_bytes());
    peer.send(&window);
    let rest = body(&mut peer, 1, content.len() - begun.len());
    assert_eq!(digest(&[begun, rest].concat()), digest(&content));
    drop((peer, idle));
    let totals = server.totals();
    assert_eq!((totals.responses, totals.aborted), (1, 0), "{server:?}");
}

/// As one of HTTP/1.1 does. It is told, so that it can ask again elsewhere.
#[test]
fn who_is_idle_makes_room() {
    let dir = plain_dir();
    fs::write(dir.path().join("small"), "content").unwrap();
    fs::write(dir.path().join("large"), noise(32 * MIB, 1)).unwrap();
    let limits = ["--max-connections", "2", "--max-connections-per-address", "9"];
    let server = Server::start(dir.path(), &limits);
    let mut idle = connect(&server);
    idle.send(&request(1, "/small"));
    assert_eq!(body(&mut idle, 1, 7), b"content");
    let mut busy = Peer::with_receive_buffer(server.address(), 16 << 10);
    busy.get("/large");
    assert_eq!(busy.head().status, 200);
    wait_until("the idle one to make room", || {
        let mut peer = Peer::connect(server.address());
        peer.send(b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        peer.rest().starts_with(b"HTTP/1.1 200").then_some(())
    });
    while next_frame(&mut idle).0 != GOAWAY {}
    idle.rest();
    busy.body(1 << 20);
    drop(busy);
    assert_eq!(server.finish().aborted, 1);
}

/// While a response is under way it is not idle, and afterwards it is as good as new.
#[test]
fn who_is_busy_makes_no_room() {
    let dir = plain_dir();
    let content = noise(2 * MIB, 2);
    fs::write(dir.path().join("file"), &content).unwrap();
    let limits = ["--max-connections", "1"];
    let server = Server::start(dir.path(), &limits);
    let mut peer = connect(&server);
    // Longer than the first window of a stream, which is waited for.
    peer.send(&request(1, "/file"));
    let mut got = body(&mut peer, 1, FIRST_WINDOW);
    peer.assert_silent(2_500);
    let mut other = Peer::connect(server.address());
    other.get("/file");
    assert!(!other.rest().starts_with(b"HTTP/1.1 200"));
    peer.send(&frame(WINDOW_UPDATE, 0, 1, &(1_u32 << 30).to_be_bytes()));
    got.extend(body(&mut peer, 1, content.len() - FIRST_WINDOW));
    assert_eq!(digest(&got), digest(&content));
}
