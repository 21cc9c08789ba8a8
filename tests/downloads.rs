//! Whole downloads by curl and wget: every route, both file systems, all the awkward sizes, and the
//! heads that go with them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::support::{
    Answer, CHOICES, Digest, GIB, KIB, LogLine, MIB, Peer, Place, ROUTES, Server, curl,
    curl_digest, digest, heavy, need, noise, plain_dir, program, sparse, sparse_digest, wait_until,
};

/// Sizes around a page, around the crossover to sendfile, around 64 KiB, and one of several MiB
/// that no page divides.
const SIZES: [u64; 12] =
    [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 65_535, 65_536, 65_537, 5 * MIB + 1234 + 1];

/// From this size on, a forced route carries the body itself; smaller ones may leave with the head.
const SURELY_LARGE: u64 = 5 * MIB;

#[test]
fn five_gibibytes_on_ext4() {
    five_gibibytes_by_every_route(Place::Ext4);
}

#[test]
fn five_gibibytes_on_tmpfs() {
    five_gibibytes_by_every_route(Place::Tmpfs);
}

fn five_gibibytes_by_every_route(place: Place) {
    if !need("curl") {
        return;
    }
    let _turn = heavy();
    let Some(dir) = place.scratch() else { return };
    let len = 5 * GIB;
    static EXPECTED: OnceLock<Digest> = OnceLock::new();
    let expected = *EXPECTED.get_or_init(|| sparse_digest(len));
    sparse(&dir.join("big.bin"), len);
    for route in ROUTES {
        let server = Server::start(dir.path(), &["--route", route]);
        assert_eq!(curl_digest(&server.url("/big.bin")), (len, expected), "{route} on {place:?}");
        let line = server.log_line_for("/big.bin");
        line.assert_complete(len);
        assert_eq!(line.route, route);
        // What a full socket leaves behind is read once more.
        let copied = if route == "read-write" { len..2 * len } else { 0..1 };
        assert!(copied.contains(&line.user_copied), "{line:?}");
        let moved = server.finish().routes[route];
        assert_eq!((moved.bytes, moved.calls), (len, line.calls), "{route}");
    }
}

#[test]
fn awkward_sizes_by_every_choice() {
    if !need("curl") {
        return;
    }
    for dir in Place::ALL.into_iter().filter_map(Place::scratch) {
        for size in SIZES {
            fs::write(dir.join(&format!("{size}.bin")), noise(size, size)).unwrap();
        }
        for choice in CHOICES {
            let server = Server::start(dir.path(), &["--route", choice]);
            for size in SIZES {
                check_size(&server, choice, size);
            }
            let totals = server.finish();
            assert_eq!((totals.responses, totals.aborted), (SIZES.len() as u64, 0), "{choice}");
            let bytes: u64 = totals.routes.values().map(|moved| moved.bytes).sum();
            assert_eq!(bytes, SIZES.iter().sum::<u64>(), "{choice}");
        }
    }
}

fn check_size(server: &Server, choice: &str, size: u64) {
    let target = format!("/{size}.bin");
    let expected = (size, digest(&noise(size, size)));
    assert_eq!(curl_digest(&server.url(&target)), expected, "{target} by {choice}");
    let line = server.log_line_for(&target);
    line.assert_complete(size);
    assert_eq!((line.status, line.step_downs), (200, 0), "{line:?}");
    if choice != "auto" && size >= SURELY_LARGE {
        assert_eq!(line.route, choice, "{line:?}");
    }
    if choice == "auto" && size >= SURELY_LARGE {
        assert_eq!(line.route, "sendfile", "{line:?}");
    }
}

#[test]
fn wget_agrees_with_curl() {
    if !need("wget") {
        return;
    }
    let dir = plain_dir();
    let content = noise(3 * MIB + 1, 3);
    fs::write(dir.path().join("file.bin"), &content).unwrap();
    let server = Server::start(dir.path(), &[]);
    let got = Command::new("wget")
        .args(["--no-proxy", "-q", "-O", "-", &server.url("/file.bin")])
        .output()
        .unwrap();
    assert!(got.status.success(), "{}", got.status);
    assert_eq!(digest(&got.stdout), digest(&content));
    server.log_line_for("/file.bin").assert_complete(content.len() as u64);
}

#[test]
fn the_head_describes_the_file() {
    let dir = plain_dir();
    let path = dir.path().join("page.html");
    fs::write(&path, "<p>hello</p>").unwrap();
    let november = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    File::options().write(true).open(&path).unwrap().set_modified(november).unwrap();
    let server = Server::start(dir.path(), &[]);
    let answer = get(&server, "/page.html");
    assert_eq!(answer.body, b"<p>hello</p>");
    let header = |name| answer.head.header(name).unwrap_or("(missing)");
    assert_eq!(answer.head.status, 200);
    assert_eq!(header("content-length"), "12");
    assert!(header("content-type").starts_with("text/html"), "{}", answer.head.text);
    assert_eq!(header("last-modified"), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert!(answer.head.header("date").is_some(), "{}", answer.head.text);
    assert_tag(header("etag"), &path);
}

/// A strong tag that starts with device, inode and size in hexadecimal.
fn assert_tag(tag: &str, path: &Path) {
    let facts = path.metadata().unwrap();
    let start = format!("\"{:x}-{:x}-{:x}-", facts.dev(), facts.ino(), facts.size());
    assert!(tag.starts_with(&start) && tag.ends_with('"'), "{tag} does not start with {start}");
}

/// Files stay open for the next request; none the less a change is seen, at once by a client that
/// asks for it.
#[test]
fn a_change_is_seen() {
    let dir = plain_dir();
    let path = dir.path().join("a.txt");
    let server = Server::start(dir.path(), &[]);
    fs::write(&path, "first").unwrap();
    let first = get(&server, "/a.txt");
    assert_eq!(first.body, b"first");
    replace(&path, "the second");
    let second = get_anew(&server, "/a.txt");
    assert_eq!(second.body, b"the second");
    assert_ne!(first.head.header("etag"), second.head.header("etag"));
    File::options().append(true).open(&path).unwrap().write_all(b" grows").unwrap();
    assert_eq!(get_anew(&server, "/a.txt").body, b"the second grows");
    replace(&path, "third");
    wait_until("the third", || (get(&server, "/a.txt").body == b"third").then_some(()));
    fs::remove_file(&path).unwrap();
    assert_eq!(get_anew(&server, "/a.txt").head.status, 404);
    assert_eq!(get(&server, "/a.txt").head.status, 404);
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

/// A request that takes nothing for unchanged.
fn get_anew(server: &Server, target: &str) -> Answer {
    let mut peer = Peer::connect(server.address());
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nCache-Control: no-cache\r\n\r\n");
    peer.send(request.as_bytes());
    peer.answer()
}

#[test]
fn many_files_are_not_all_kept_open() {
    const FILES: usize = 1500;
    let dir = plain_dir();
    for number in 0..FILES {
        fs::write(dir.path().join(number.to_string()), number.to_string()).unwrap();
    }
    let server = Server::start(dir.path(), &["--quiet"]);
    let mut peer = Peer::connect(server.address());
    for number in (0..FILES).chain(0..FILES) {
        peer.get(&format!("/{number}"));
        assert_eq!(peer.answer().body, number.to_string().as_bytes());
    }
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    assert!(open < FILES / 2, "{open} descriptors");
    assert_eq!(server.finish().responses, 2 * FILES as u64);
}

/// Files kept open must not use up the descriptors that new files and connections need.
#[test]
fn few_descriptors_are_enough() {
    const FILES: usize = 200;
    let dir = plain_dir();
    for number in 0..FILES {
        fs::write(dir.path().join(number.to_string()), number.to_string()).unwrap();
    }
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]).arg(program());
    command.arg("serve").arg(dir.path()).args(["--listen", "127.0.0.1:0"]);
    let server = Server::spawn(command);
    for number in 0..FILES {
        let answer = get(&server, &format!("/{number}"));
        assert_eq!((answer.head.status, answer.body), (200, number.to_string().into_bytes()));
    }
}

#[test]
fn content_types_follow_the_name() {
    let dir = plain_dir();
    let cases = [
        ("a.html", "text/html"),
        ("a.css", "text/css"),
        ("a.json", "application/json"),
        ("a.png", "image/png"),
        ("a.mp4", "video/mp4"),
        ("a.bin", "application/octet-stream"),
        ("noname", "application/octet-stream"),
    ];
    let server = Server::start(dir.path(), &[]);
    for (name, kind) in cases {
        fs::write(dir.path().join(name), "x").unwrap();
        let answer = get(&server, &format!("/{name}"));
        let found = answer.head.header("content-type").unwrap_or("(missing)");
        assert!(found.starts_with(kind), "{name}: {found}");
    }
}

#[test]
fn head_tells_the_same_without_a_body() {
    let dir = plain_dir();
    for size in [0, 5, 4 * MIB] {
        fs::write(dir.path().join(size.to_string()), noise(size, 5)).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    for target in ["/0", "/5", "/4194304", "/missing"] {
        let got = get(&server, target);
        let mut peer = Peer::connect(server.address());
        let request = format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        peer.send(request.as_bytes());
        let head = peer.head();
        assert!(peer.rest().is_empty(), "{target}: HEAD has a body");
        for name in ["content-length", "content-type", "last-modified", "etag"] {
            assert_eq!(head.header(name), got.head.header(name), "{target}: {name}");
        }
        assert_eq!(head.status, got.head.status, "{target}");
    }
    let is_head = |line: &LogLine| line.method == "HEAD";
    let heads: Vec<_> = server.log_lines().into_iter().filter(is_head).collect();
    for line in heads {
        line.assert_complete(0);
        assert_eq!((line.route.as_str(), line.calls), ("-", 0), "{line:?}");
    }
}

#[test]
fn curl_understands_head() {
    if !need("curl") {
        return;
    }
    let dir = plain_dir();
    fs::write(dir.path().join("f"), noise(MIB, 6)).unwrap();
    let server = Server::start(dir.path(), &[]);
    let output = curl(&["--head", &server.url("/f")]);
    let text = String::from_utf8(output.stdout).unwrap().to_lowercase();
    assert!(text.starts_with("http/1.1 200") && text.contains("content-length: 1048576"), "{text}");
    server.log_line_for("/f").assert_complete(0);
}

#[test]
fn directories_answer_with_their_index() {
    let dir = plain_dir();
    for sub in ["with", "with space", "without"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    for index in ["index.html", "with/index.html", "with space/index.html"] {
        fs::write(dir.path().join(index), index).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    for (target, body) in [
        ("/", "index.html"),
        ("/with/", "with/index.html"),
        ("/with%20space/", "with space/index.html"),
    ] {
        let answer = get(&server, target);
        assert_eq!((answer.head.status, &*answer.body), (200, body.as_bytes()), "{target}");
        assert!(answer.head.header("content-type").unwrap().starts_with("text/html"), "{target}");
    }
    for (target, place) in [("/with", "/with/"), ("/with%20space", "/with%20space/")] {
        let answer = get(&server, target);
        assert_eq!(answer.head.status, 308, "{target}");
        assert_eq!(answer.head.header("location"), Some(place), "{target}");
    }
    let unlisted = Server::start(dir.path(), &["--no-listing"]);
    assert_eq!(get(&unlisted, "/with/").head.status, 200);
    assert_eq!(get(&unlisted, "/without/").head.status, 404);
}

#[test]
fn errors_have_short_readable_bodies() {
    let dir = plain_dir();
    fs::write(dir.path().join("f"), "f").unwrap();
    let server = Server::start(dir.path(), &[]);
    for (request, status, start) in [
        ("GET /nope", 404, "404 Not Found: "),
        ("GET /%00", 400, "400 Bad Request: "),
        ("POST /f", 405, "405 Method Not Allowed: "),
        ("PUT /f", 405, "405 Method Not Allowed: "),
        ("DELETE /f", 405, "405 Method Not Allowed: "),
        ("BREW /f", 405, "405 Method Not Allowed: "),
    ] {
        let mut peer = Peer::connect(server.address());
        peer.send(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let Answer { head, body } = peer.answer();
        let body = String::from_utf8(body).unwrap();
        assert_eq!(head.status, status, "{request}");
        assert!(body.starts_with(start) && body.ends_with('\n'), "{request}: {body:?}");
        assert_eq!(body.lines().count(), 1, "{request}: {body:?}");
        assert_eq!(head.header("content-type"), Some("text/plain; charset=utf-8"), "{request}");
        assert_eq!(
            head.header("allow"),
            (status == 405).then_some("GET, HEAD, OPTIONS"),
            "{request}"
        );
    }
    let line = server.log_line_for("/nope");
    assert_eq!((line.status, line.route.as_str()), (404, "plain"), "{line:?}");
}

#[test]
fn one_connection_carries_many_files() {
    if !need("curl") {
        return;
    }
    let dir = plain_dir();
    for (name, size) in [("large", 32 * MIB + 1), ("small", 10), ("page", 4 * KIB)] {
        fs::write(dir.path().join(name), noise(size, 8)).unwrap();
    }
    for choice in CHOICES {
        let server = Server::start(dir.path(), &["--route", choice]);
        let targets = ["/large", "/small", "/missing", "/page", "/large"];
        let urls: Vec<String> = targets.iter().map(|target| server.url(target)).collect();
        let mut arguments = vec!["--write-out", "%{stderr}%{num_connects} %{size_download}\n"];
        arguments.extend(urls.iter().map(String::as_str));
        let told = String::from_utf8(curl(&arguments).stderr).unwrap();
        let connects: Vec<&str> = told.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(connects, ["1", "0", "0", "0", "0"], "{choice}: {told}");
        let totals = server.finish();
        assert_eq!((totals.responses, totals.connections, totals.aborted), (5, 1, 0), "{choice}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let dir = plain_dir();
    let sizes = [3, 200_001, 0, MIB, 17, 65_536];
    for size in sizes {
        fs::write(dir.path().join(size.to_string()), noise(size, size)).unwrap();
    }
    for choice in CHOICES {
        let server = Server::start(dir.path(), &["--route", choice]);
        let mut peer = Peer::connect(server.address());
        let asked: String =
            sizes.iter().map(|size| format!("GET /{size} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        peer.send(asked.as_bytes());
        for size in sizes {
            let Answer { head, body } = peer.answer();
            assert_eq!(head.status, 200, "{choice} {size}");
            assert_eq!(digest(&body), digest(&noise(size, size)), "{choice} {size}");
        }
    }
}

#[test]
fn the_fast_lane_says_what_hyper_says() {
    let dir = plain_dir();
    for (name, size) in [("empty", 0), ("page.html", 4 * KIB), ("most", MIB), ("more", MIB + 1)] {
        fs::write(dir.path().join(name), noise(size, size)).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    let mut lane = Peer::connect(server.address());
    let mut hyper = Peer::connect(server.address());
    for (method, name) in ["GET", "HEAD"].into_iter().flat_map(|method| {
        ["empty", "page.html", "most", "more", "page.html"].map(|name| (method, name))
    }) {
        let mut answers =
            [("", &mut lane), ("X-Other: field\r\n", &mut hyper)].map(|(field, peer)| {
                peer.send(
                    format!("{method} /{name} HTTP/1.1\r\nHost: x\r\n{field}\r\n").as_bytes(),
                );
                let head = peer.head();
                let body =
                    if method == "GET" { peer.body(head.content_length()) } else { Vec::new() };
                let mut fields: Vec<String> = head.text.lines().map(str::to_lowercase).collect();
                assert!(fields.iter().any(|field| field.starts_with("date: ")), "{head:?}");
                fields.retain(|field| !field.starts_with("date: "));
                fields.sort();
                (fields, digest(&body))
            });
        let [by_lane, by_hyper] = &mut answers;
        assert_eq!(by_lane, by_hyper, "{method} {name}");
    }
    // A line is written after the last byte was read, and those of two connections in any order.
    let by = |peer: &Peer| {
        let told_by = peer.address().to_string();
        wait_until("a line for each response", || {
            let lines = server.log_lines();
            let told: Vec<_> = lines.into_iter().filter(|line| line.peer == told_by).collect();
            (told.len() == 10).then(|| {
                // How often a large one meets a full socket is the peer's doing.
                let calls = |line: &LogLine| line.calls.min(if line.sent < MIB { 9 } else { 1 });
                let what = |line: LogLine| (calls(&line), line.method, line.target, line.route);
                told.into_iter().map(what).collect::<Vec<_>>()
            })
        })
    };
    assert_eq!(by(&lane), by(&hyper));
}

/// One request on a connection of its own.
fn get(server: &Server, target: &str) -> Answer {
    let mut peer = Peer::connect(server.address());
    peer.get(target);
    peer.answer()
}
