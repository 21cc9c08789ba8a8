//! What strace sees of the running server: which calls carry body bytes, that the meter counts the
//! same, and what happens when the kernel refuses a call.

use std::fs;
use std::path::{Path, PathBuf};

use pagewire_engine::SMALL_RANGE_BYTES_MAX;
use tempfile::TempDir;

use super::support::{
    Call, GIB, KIB, MIB, Outcome, Peer, Server, Trace, curl, digest, heavy, need, noise, plain_dir,
    sparse, wait_until,
};

/// More than any response head takes.
const HEAD_MAX: u64 = 1024;

/// What one download looked like from the kernel.
struct Seen {
    calls: Vec<Call>,
    server: Server,
    file: PathBuf,
}

impl Seen {
    /// Bytes that `name` sent to the client.
    fn sent_by(&self, name: &str) -> u64 {
        self.sends().filter(|call| call.name == name).map(Call::bytes).sum()
    }

    /// Bytes that any other call sent to the client.
    fn sent_by_others_than(&self, name: &str) -> u64 {
        self.sends().filter(|call| call.name != name).map(Call::bytes).sum()
    }

    /// The calls that sent to the client or tried to, in order.
    fn sends(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.sends_from(self.server.address()))
    }

    /// Bytes of the file that `name` took.
    fn taken_by(&self, name: &str) -> u64 {
        let takes = self.calls.iter().filter(|call| call.name == name && call.reads(&self.file));
        takes.map(Call::bytes).sum()
    }

    /// Bytes of the file that came into user memory.
    fn read_into_memory(&self) -> u64 {
        ["read", "pread64", "readv", "preadv", "preadv2"]
            .map(|name| self.taken_by(name))
            .iter()
            .sum()
    }

    /// How often `name` was called for the route. The cold pool's sendfile goes to /dev/null.
    fn count(&self, name: &str) -> u64 {
        let calls = self.calls.iter().filter(|call| call.name == name);
        calls.filter(|call| !call.arguments.contains("/dev/null")).count() as u64
    }
}

/// Serves `dir`, downloads its file `file.bin` by curl under strace, and checks what came.
fn watch_download(dir: &Path, route: &str, len: u64) -> Seen {
    let server = Server::start(dir, &["--route", route, "--threads", "1"]);
    let trace = Trace::attach(&server, &[]);
    let url = server.url("/file.bin");
    let told = curl(&["--output", "/dev/null", "--write-out", "%{size_download}", &url]).stdout;
    assert_eq!(String::from_utf8(told).unwrap(), len.to_string(), "{route}");
    server.log_line_for("/file.bin").assert_complete(len);
    let file = dir.join("file.bin").canonicalize().unwrap();
    Seen { calls: trace.finish(), server, file }
}

fn dir_with_file(content: &[u8]) -> TempDir {
    let dir = plain_dir();
    fs::write(dir.path().join("file.bin"), content).unwrap();
    dir
}

#[test]
fn sendfile_alone_carries_a_large_body() {
    if !need("strace") || !need("curl") {
        return;
    }
    let _turn = heavy();
    let dir = plain_dir();
    let len = 5 * GIB;
    sparse(&dir.path().join("file.bin"), len);
    let seen = watch_download(dir.path(), "auto", len);
    assert_eq!(seen.sent_by("sendfile"), len);
    assert!(seen.sent_by_others_than("sendfile") <= HEAD_MAX);
    assert_eq!(seen.read_into_memory(), 0);
    let line = seen.server.log_line_for("/file.bin");
    assert_eq!((line.route.as_str(), line.user_copied), ("sendfile", 0), "{line:?}");
    assert_eq!(line.calls, seen.count("sendfile"), "{line:?}");
    assert_eq!(seen.server.finish().routes["sendfile"].calls, line.calls);
}

/// The call by which each route sends.
const CARRIERS: [(&str, &str); 4] = [
    ("sendfile", "sendfile"),
    ("splice", "splice"),
    ("mmap-write", "sendmsg"),
    ("read-write", "sendto"),
];

#[test]
fn every_route_moves_the_body_as_its_name_says() {
    if !need("strace") || !need("curl") {
        return;
    }
    let _turn = heavy();
    let len = 48 * MIB + 5;
    let dir = dir_with_file(&noise(len, 1));
    for (route, carrier) in CARRIERS {
        let seen = watch_download(dir.path(), route, len);
        let line = seen.server.log_line_for("/file.bin");
        assert_eq!((line.route.as_str(), line.step_downs), (route, 0), "{line:?}");
        let (sent, others) = (seen.sent_by(carrier), seen.sent_by_others_than(carrier));
        assert!((len..=len + HEAD_MAX).contains(&sent), "{route}: {sent} of {len}");
        assert!(sent + others <= len + HEAD_MAX, "{route}: {others} by other calls");
        assert_eq!(line.user_copied, seen.read_into_memory(), "{route}");
        // What a full socket leaves behind is read once more.
        let copied = if route == "read-write" { len..2 * len } else { 0..1 };
        assert!(copied.contains(&line.user_copied), "{line:?}");
        assert_eq!(seen.taken_by("splice"), if route == "splice" { len } else { 0 }, "{route}");
        assert_eq!(line.calls, calls_for_body(&seen, carrier), "{route}: {line:?}");
    }
}

/// The calls that the meter should have counted for the body: those that took it from the file,
/// unless sendfile did both, and those that sent it. A head from memory leaves by another call.
fn calls_for_body(seen: &Seen, carrier: &str) -> u64 {
    let takes = seen.calls.iter().filter(|call| call.name != "sendfile" && call.reads(&seen.file));
    let sends = seen.sends().filter(|call| call.name == carrier);
    (takes.count() + sends.count()) as u64
}

#[test]
fn a_small_body_leaves_with_its_head_in_one_call() {
    if !need("strace") || !need("curl") {
        return;
    }
    for len in [1, 4 * KIB, SMALL_RANGE_BYTES_MAX] {
        let dir = dir_with_file(&noise(len, 2));
        let seen = watch_download(dir.path(), "auto", len);
        let sends: Vec<&Call> = seen.sends().collect();
        let [call] = sends[..] else { panic!("{len}: {sends:?}") };
        assert_eq!(call.name, "sendmsg", "{call:?}");
        assert!((len + 1..=len + HEAD_MAX).contains(&call.bytes()), "{call:?}");
        assert!(!call.arguments.contains("MSG_MORE"), "{call:?}");
        assert_eq!(seen.server.log_line_for("/file.bin").calls, 1);
    }
}

#[test]
fn the_head_of_a_large_body_says_that_more_follows() {
    if !need("strace") || !need("curl") {
        return;
    }
    let len = 8 * MIB;
    let dir = dir_with_file(&noise(len, 3));
    for route in ["auto", "sendfile"] {
        let seen = watch_download(dir.path(), route, len);
        let first = seen.sends().next().unwrap();
        assert!(first.name.starts_with("send") && first.name != "sendfile", "{first:?}");
        assert!(first.arguments.contains("MSG_MORE"), "{first:?}");
        let heads = seen.sends().filter(|call| call.name == first.name).count();
        assert_eq!(heads, 1, "{route}");
    }
}

#[test]
fn an_aborted_body_is_counted_as_the_kernel_took_it() {
    if !need("strace") {
        return;
    }
    let dir = plain_dir();
    sparse(&dir.path().join("file.bin"), 256 * MIB);
    let server = Server::start(dir.path(), &[]);
    let trace = Trace::attach(&server, &[]);
    let mut peer = Peer::with_receive_buffer(server.address(), 64 << 10);
    peer.get("/file.bin");
    peer.head();
    peer.body(3 << 20);
    peer.reset();
    let line = server.log_line_for("/file.bin");
    let address = server.address();
    let calls = trace.finish();
    let sendfiles = calls.iter().filter(|call| call.name == "sendfile" && call.sends_from(address));
    assert_eq!(line.sent, sendfiles.map(Call::bytes).sum::<u64>(), "{line:?}");
    assert!(!line.reason().is_empty());
}

/// What the kernel says when it has no sendfile for this file or socket.
const REFUSALS: [&str; 3] = ["EINVAL", "ENOSYS", "EOPNOTSUPP"];

#[test]
fn a_refused_route_steps_down() {
    if !need("strace") {
        return;
    }
    let content = noise(8 * MIB + 3, 4);
    let dir = dir_with_file(&content);
    for errno in REFUSALS {
        let server = Server::start(dir.path(), &["--threads", "1"]);
        let trace = Trace::attach(&server, &[&format!("sendfile:error={errno}:when=1")]);
        let mut peer = Peer::connect(server.address());
        peer.get("/file.bin");
        assert_eq!(digest(&peer.answer().body), digest(&content), "{errno}");
        let line = server.log_line_for("/file.bin");
        line.assert_complete(content.len() as u64);
        assert_eq!((line.route.as_str(), line.step_downs), ("splice", 1), "{errno}: {line:?}");
        assert_failures(&trace.finish(), "sendfile", errno);
        let totals = server.finish();
        assert_eq!(totals.step_downs, 1, "{errno}");
        assert_eq!(totals.routes["sendfile"].bytes, 0, "{errno}");
        assert_eq!(totals.routes["splice"].bytes, content.len() as u64, "{errno}");
    }
}

#[test]
fn a_refusal_is_remembered_by_the_connection() {
    if !need("strace") {
        return;
    }
    let content = noise(MIB, 5);
    let dir = dir_with_file(&content);
    let server = Server::start(dir.path(), &["--threads", "1"]);
    let trace = Trace::attach(&server, &["sendfile:error=EINVAL"]);
    let mut peer = Peer::connect(server.address());
    for _ in 0..3 {
        peer.get("/file.bin");
        assert_eq!(digest(&peer.answer().body), digest(&content));
    }
    wait_until("three log lines", || (server.log_lines().len() == 3).then_some(()));
    let step_downs: Vec<u64> = server.log_lines().iter().map(|line| line.step_downs).collect();
    assert_eq!(step_downs, [1, 0, 0]);
    let calls = trace.finish();
    assert_eq!(calls.iter().filter(|call| call.name == "sendfile").count(), 1, "asked once only");
}

#[test]
fn refusals_walk_down_to_the_last_route() {
    if !need("strace") {
        return;
    }
    let content = noise(MIB + 1, 6);
    let dir = dir_with_file(&content);
    let server = Server::start(dir.path(), &["--threads", "1"]);
    let trace = Trace::attach(&server, &["sendfile,splice:error=EINVAL"]);
    let mut peer = Peer::connect(server.address());
    peer.get("/file.bin");
    assert_eq!(digest(&peer.answer().body), digest(&content));
    let line = server.log_line_for("/file.bin");
    assert_eq!((line.route.as_str(), line.step_downs), ("mmap-write", 2), "{line:?}");
    trace.finish();
}

/// A refusal after bytes have moved must neither lose nor double a byte, whatever becomes of it.
#[test]
fn a_late_refusal_keeps_the_bytes_in_order() {
    if !need("strace") {
        return;
    }
    let content = noise(8 * MIB + 3, 7);
    let dir = dir_with_file(&content);
    for errno in REFUSALS {
        let server = Server::start(dir.path(), &["--threads", "1"]);
        let trace = Trace::attach(&server, &[&format!("sendfile:error={errno}:when=3")]);
        let mut peer = Peer::connect(server.address());
        peer.get("/file.bin");
        peer.head();
        peer.finish_asking();
        let got = peer.rest();
        assert!(content.starts_with(&got), "{errno}: {} bytes are not the file's", got.len());
        let line = server.log_line_for("/file.bin");
        let whole = got.len() == content.len();
        assert_eq!(line.outcome == Outcome::Complete, whole, "{errno}: {line:?}");
        assert_eq!((line.route.as_str(), line.step_downs), ("sendfile+splice", 1), "{line:?}");
        assert_failures(&trace.finish(), "sendfile", errno);
    }
}

#[test]
fn interrupted_calls_are_made_again() {
    if !need("strace") {
        return;
    }
    let content = noise(8 * MIB + 3, 8);
    let dir = dir_with_file(&content);
    for (route, call) in [
        ("sendfile", "sendfile"),
        ("splice", "splice"),
        ("mmap-write", "sendmsg"),
        ("read-write", "pread64"),
        ("read-write", "sendto"),
    ] {
        let server = Server::start(dir.path(), &["--threads", "1", "--route", route]);
        let trace = Trace::attach(&server, &[&format!("{call}:error=EINTR:when=2+3")]);
        let mut peer = Peer::connect(server.address());
        peer.get("/file.bin");
        let answer = peer.answer();
        assert_eq!(digest(&answer.body), digest(&content), "{route}");
        let line = server.log_line_for("/file.bin");
        line.assert_complete(content.len() as u64);
        assert_eq!((line.route.as_str(), line.step_downs), (route, 0), "{line:?}");
        assert_failures(&trace.finish(), call, "EINTR");
    }
}

/// A full socket is the everyday case; here the peer reads nothing until strace has seen it.
/// (Injecting EAGAIN instead would leave the server waiting for a socket that was writable all
/// the time.)
#[test]
fn a_full_socket_is_waited_for() {
    if !need("strace") {
        return;
    }
    let content = noise(16 * MIB + 3, 9);
    let dir = dir_with_file(&content);
    for route in ["sendfile", "splice"] {
        let server = Server::start(dir.path(), &["--threads", "1", "--route", route]);
        let trace = Trace::attach(&server, &[]);
        let mut peer = Peer::with_receive_buffer(server.address(), 16 << 10);
        peer.get("/file.bin");
        wait_until("a full socket", || has_failed(&trace.calls(), route, "EAGAIN").then_some(()));
        assert_eq!(digest(&peer.answer().body), digest(&content), "{route}");
        server.log_line_for("/file.bin").assert_complete(content.len() as u64);
        trace.finish();
    }
}

#[track_caller]
fn assert_failures(calls: &[Call], name: &str, errno: &str) {
    assert!(has_failed(calls, name, errno), "{name} never gave {errno}");
}

fn has_failed(calls: &[Call], name: &str, errno: &str) -> bool {
    calls.iter().any(|call| call.name == name && call.error.as_deref() == Some(errno))
}
