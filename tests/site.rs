//! What `pagewire serve` is told of a site: which form of a file it sends, and with which fields.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::support::{Answer, MIB, Peer, Server, curl, digest, need, noise, plain_dir};

/// The answer to one request with these further fields.
fn answer(server: &Server, request: &str, fields: &[&str]) -> Answer {
    let mut peer = Peer::connect(server.address());
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    peer.send(format!("{request} HTTP/1.1\r\nHost: test\r\n{fields}\r\n").as_bytes());
    let head = peer.head();
    let has_body = !request.starts_with("HEAD ") && !matches!(head.status, 204 | 304);
    let body = if has_body { peer.body(head.content_length()) } else { Vec::new() };
    Answer { head, body }
}

#[test]
fn precompressed_forms_are_sent_to_those_who_take_them() {
    let dir = plain_dir();
    let write = |name: &str| fs::write(dir.path().join(name), name).unwrap();
    ["app.js", "app.js.gz", "app.js.br", "app.js.zst", "lone.js", "index.html", "index.html.gz"]
        .into_iter()
        .for_each(write);
    let server = Server::start(dir.path(), &[]);
    for (target, accept, body, coding) in [
        ("/app.js", "gzip, deflate, br, zstd", "app.js.zst", Some("zstd")),
        ("/app.js", "gzip, deflate, br", "app.js.br", Some("br")),
        ("/app.js", "gzip;q=1.0, br;q=0.2", "app.js.gz", Some("gzip")),
        ("/app.js", "br;q=0, *", "app.js.zst", Some("zstd")),
        ("/app.js", "identity", "app.js", None),
        ("/app.js", "gzip;q=0", "app.js", None),
        ("/", "gzip", "index.html.gz", Some("gzip")),
        ("/", "br", "index.html", None),
        ("/lone.js", "gzip", "lone.js", None),
        ("/app.js.gz", "gzip", "app.js.gz", None),
    ] {
        for _ in ["opened", "kept"] {
            let Answer { head, body: got } =
                answer(&server, &format!("GET {target}"), &[&format!("Accept-Encoding: {accept}")]);
            assert_eq!((head.status, got.as_slice()), (200, body.as_bytes()), "{target} {accept}");
            assert_eq!(head.header("content-encoding"), coding, "{target} {accept}");
            assert_eq!(head.header("vary"), Some("Accept-Encoding"), "{target} {accept}");
            let media_type = head.header("content-type").unwrap();
            match target {
                "/" => assert_eq!(media_type, "text/html; charset=utf-8"),
                "/app.js.gz" => assert_eq!(media_type, "application/gzip"),
                _ => assert_eq!(media_type, "text/javascript; charset=utf-8"),
            }
        }
    }
    let plain = Server::start(dir.path(), &["--no-precompressed"]);
    let Answer { head, body } = answer(&plain, "GET /app.js", &["Accept-Encoding: gzip"]);
    assert_eq!((body.as_slice(), head.header("vary")), (&b"app.js"[..], None));
}

#[test]
fn each_form_has_its_own_tag_and_its_own_ranges() {
    let dir = plain_dir();
    fs::write(dir.path().join("a.txt"), "the plain text").unwrap();
    fs::write(dir.path().join("a.txt.gz"), "0123456789").unwrap();
    let server = Server::start(dir.path(), &[]);
    let tag = |fields: &[&str]| {
        let head = answer(&server, "HEAD /a.txt", fields).head;
        head.header("etag").unwrap().to_owned()
    };
    let gzip = "Accept-Encoding: gzip";
    let (plain, packed) = (tag(&[]), tag(&[gzip]));
    assert_ne!(plain, packed);
    let got = answer(&server, "GET /a.txt", &[gzip, "Range: bytes=-3"]);
    assert_eq!((got.head.status, got.body.as_slice()), (206, &b"789"[..]));
    assert_eq!(got.head.header("content-range"), Some("bytes 7-9/10"));
    assert_eq!(got.head.header("content-encoding"), Some("gzip"));
    for (fields, status) in [
        ([gzip, &format!("If-None-Match: {packed}")], 304),
        ([gzip, &format!("If-None-Match: {plain}")], 200),
        (["Accept-Encoding: br", &format!("If-None-Match: {plain}")], 304),
        ([gzip, &format!("If-Match: {plain}")], 412),
    ] {
        let head = answer(&server, "GET /a.txt", &fields).head;
        assert_eq!(head.status, status, "{fields:?}");
        if status == 304 {
            assert_eq!(head.header("vary"), Some("Accept-Encoding"), "{fields:?}");
        }
    }
}

#[test]
fn what_is_older_than_its_file_is_not_sent_in_its_place() {
    let dir = plain_dir();
    let gz = dir.path().join("a.txt.gz");
    fs::write(&gz, "old").unwrap();
    let day_ago = SystemTime::now() - Duration::from_secs(86_400);
    fs::File::open(&gz).unwrap().set_modified(day_ago).unwrap();
    fs::write(dir.path().join("a.txt"), "new").unwrap();
    let server = Server::start(dir.path(), &[]);
    let fields = ["Accept-Encoding: gzip", "Cache-Control: no-cache"];
    assert_eq!(answer(&server, "GET /a.txt", &fields).body, b"new");
    fs::write(&gz, "packed").unwrap();
    assert_eq!(answer(&server, "GET /a.txt", &fields).body, b"packed");
}

#[test]
fn curl_unpacks_what_gzip_packed_and_sendfile_sent() {
    if !need("curl") || !need("gzip") {
        return;
    }
    let dir = plain_dir();
    let content = noise(2 * MIB, 9);
    let path = dir.path().join("large.bin");
    fs::write(&path, &content).unwrap();
    assert!(Command::new("gzip").arg("--keep").arg(&path).status().unwrap().success());
    let server = Server::start(dir.path(), &[]);
    let got = curl(&["--compressed", &server.url("/large.bin")]);
    assert_eq!(digest(&got.stdout), digest(&content));
    let line = server.log_line_for("/large.bin");
    line.assert_complete(len_of(&dir.path().join("large.bin.gz")));
    assert_eq!((line.route.as_str(), line.user_copied), ("sendfile", 0), "{line:?}");
}

fn len_of(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}
