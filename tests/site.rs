//! What `pagewire serve` is told of a site: which form of a file it sends, and with which fields.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use base64::Engine as _;

use super::support::{
    Answer, MIB, Peer, Server, Trace, curl, digest, need, noise, pagewire, plain_dir, request,
};

/// No further fields.
const NOTHING: &[&str] = &[];

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
            let Answer { head, body: got } = request(
                &server,
                &format!("GET {target}"),
                &[&format!("Accept-Encoding: {accept}")],
            );
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
    let Answer { head, body } = request(&plain, "GET /app.js", &["Accept-Encoding: gzip"]);
    assert_eq!((body.as_slice(), head.header("vary")), (&b"app.js"[..], None));
}

#[test]
fn each_form_has_its_own_tag_and_its_own_ranges() {
    let dir = plain_dir();
    fs::write(dir.path().join("a.txt"), "the plain text").unwrap();
    fs::write(dir.path().join("a.txt.gz"), "0123456789").unwrap();
    let server = Server::start(dir.path(), &[]);
    let tag = |fields: &[&str]| {
        let head = request(&server, "HEAD /a.txt", fields).head;
        head.header("etag").unwrap().to_owned()
    };
    let gzip = "Accept-Encoding: gzip";
    let (plain, packed) = (tag(NOTHING), tag(&[gzip]));
    assert_ne!(plain, packed);
    let got = request(&server, "GET /a.txt", &[gzip, "Range: bytes=-3"]);
    assert_eq!((got.head.status, got.body.as_slice()), (206, &b"789"[..]));
    assert_eq!(got.head.header("content-range"), Some("bytes 7-9/10"));
    assert_eq!(got.head.header("content-encoding"), Some("gzip"));
    for (fields, status) in [
        ([gzip, &format!("If-None-Match: {packed}")], 304),
        ([gzip, &format!("If-None-Match: {plain}")], 200),
        (["Accept-Encoding: br", &format!("If-None-Match: {plain}")], 304),
        ([gzip, &format!("If-Match: {plain}")], 412),
    ] {
        let head = request(&server, "GET /a.txt", &fields).head;
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
    assert_eq!(request(&server, "GET /a.txt", &fields).body, b"new");
    fs::write(&gz, "packed").unwrap();
    assert_eq!(request(&server, "GET /a.txt", &fields).body, b"packed");
}

/// That a file has no precompressed form was found out by a name look-up for each form and each
/// request in the servers that this is meant to replace.
#[test]
fn what_is_not_there_is_not_looked_for_each_time() {
    if !need("strace") {
        return;
    }
    let dir = plain_dir();
    fs::write(dir.path().join("lone.js"), "content").unwrap();
    let server = Server::start(dir.path(), &[]);
    let trace = Trace::attach(&server, &[]);
    let mut peer = Peer::connect(server.address());
    let requests = 400;
    for _ in 0..requests {
        let gzip = "Accept-Encoding: gzip, br, zstd";
        peer.send(format!("GET /lone.js HTTP/1.1\r\nHost: test\r\n{gzip}\r\n\r\n").as_bytes());
        assert_eq!(peer.answer().body, b"content");
    }
    let opened: Vec<_> = trace.finish().into_iter().filter(|call| call.name == "openat2").collect();
    // At least once each; and again once a second, however long this takes.
    assert!((4..requests / 4).contains(&opened.len()), "{opened:?}");
    for suffix in ["", ".zst", ".br", ".gz"] {
        let name = format!("\"lone.js{suffix}\"");
        assert!(opened.iter().any(|call| call.arguments.contains(&name)), "{name}: {opened:?}");
    }
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

#[test]
fn options_says_what_may_be_asked() {
    let dir = plain_dir();
    fs::write(dir.path().join("f"), "f").unwrap();
    let server = Server::start(dir.path(), &[]);
    for target in ["/f", "/none", "/.hidden", "/..", "*"] {
        let head = request(&server, &format!("OPTIONS {target}"), NOTHING).head;
        assert_eq!(head.status, 204, "{target}");
        assert_eq!(head.header("allow"), Some("GET, HEAD, OPTIONS"), "{target}");
        assert_eq!(head.header("content-length"), None, "{target}");
        assert_eq!(head.header("access-control-allow-methods"), None, "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        let head = request(&server, &format!("{method} /f"), NOTHING).head;
        assert_eq!(head.status, 405, "{method}");
        assert_eq!(head.header("allow"), Some("GET, HEAD, OPTIONS"), "{method}");
    }
}

#[test]
fn fields_are_added_by_path() {
    let dir = plain_dir();
    fs::create_dir_all(dir.path().join("assets/deep")).unwrap();
    for name in ["index.html", "assets/app.js", "assets/app.js.gz", "assets/deep/x.wasm", "other"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let server = Server::start(
        dir.path(),
        &[
            "--cache-control",
            "/assets/**=public, max-age=31536000, immutable",
            "--cache-control",
            "*.html=no-cache",
            "--header",
            "Strict-Transport-Security: max-age=63072000",
            "--header",
            "*.wasm=Content-Type: application/x-test",
            "--header",
            "/assets/**=X-Content-Type-Options:",
        ],
    );
    let immutable = Some("public, max-age=31536000, immutable");
    let sniff = Some("nosniff");
    for (target, status, cache, media_type, nosniff) in [
        ("/", 200, Some("no-cache"), "text/html; charset=utf-8", sniff),
        ("/assets/app.js", 200, immutable, "text/javascript; charset=utf-8", None),
        ("/assets/deep/x.wasm", 200, immutable, "application/x-test", None),
        ("/other", 200, None, "application/octet-stream", sniff),
        ("/assets/none.js", 404, None, "text/plain; charset=utf-8", None),
        ("/none.wasm", 404, None, "text/plain; charset=utf-8", sniff),
        // A page of the server's own keeps what it says of itself.
        ("/assets/deep/", 200, Some("no-cache"), "text/html; charset=utf-8", sniff),
        ("/assets", 308, None, "text/plain; charset=utf-8", sniff),
        ("/../", 400, None, "text/plain; charset=utf-8", sniff),
    ] {
        for (method, _) in [("GET", "opened"), ("GET", "kept"), ("HEAD", "kept")] {
            let head = request(&server, &format!("{method} {target}"), NOTHING).head;
            assert_eq!(head.status, status, "{method} {target}");
            let found = (head.header("cache-control"), head.header("content-type"));
            assert_eq!(found, (cache, Some(media_type)), "{method} {target}");
            assert_eq!(head.header("x-content-type-options"), nosniff, "{method} {target}");
            let hsts = head.header("strict-transport-security");
            assert_eq!(hsts, Some("max-age=63072000"), "{method} {target}");
        }
    }
    // Of a part, of what did not change, and of the form that was packed beforehand, too.
    for (field, status) in
        [("Range: bytes=0-1", 206), ("If-None-Match: *", 304), ("Accept-Encoding: gzip", 200)]
    {
        let head = request(&server, "GET /assets/app.js", &[field]).head;
        assert_eq!((head.status, head.header("cache-control")), (status, immutable), "{field}");
        assert!(head.header("strict-transport-security").is_some(), "{field}");
    }
    let refused = request(&server, "GET /assets/app.js", &["If-Match: \"x\""]).head;
    assert_eq!((refused.status, refused.header("cache-control")), (412, None));
    assert!(refused.header("strict-transport-security").is_some());
}

#[test]
fn rules_of_a_file_are_those_of_the_command_line() {
    let (dir, place) = (plain_dir(), plain_dir());
    fs::write(dir.path().join("index.html"), "page").unwrap();
    let settings = format!(
        "root = '{}'\nlisten = '127.0.0.1:0'\nspa = 'index.html'\ncors = ['https://a.example']\n\
         cache-control = ['*.html=no-cache']\nheader = ['X-A: b', '/index.*=X-B: c']\n",
        dir.path().display()
    );
    let path = place.path().join("pagewire.toml");
    fs::write(&path, settings).unwrap();
    let server = Server::spawn(pagewire(&["serve", "--config", path.to_str().unwrap()]));
    let got = request(&server, "GET /users/7", &["Origin: https://a.example"]);
    assert_eq!((got.head.status, got.body.as_slice()), (200, &b"page"[..]));
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("x-a", "b"),
        ("x-b", "c"),
        ("access-control-allow-origin", "https://a.example"),
    ] {
        assert_eq!(got.head.header(name), Some(value), "{}", got.head.text);
    }
}

#[test]
fn rules_that_cannot_be_followed_are_refused_at_start() {
    let dir = plain_dir();
    for (flag, value, says) in [
        ("--header", "Content-Length: 3", "'content-length' is made by the server"),
        ("--header", "X-A", "'X-A' is neither 'NAME: VALUE' nor"),
        ("--cache-control", "no-cache", "'no-cache' is not GLOB=VALUE"),
        ("--cache-control", "/[=x", "'/[' is not a glob"),
        ("--cors", "example.org", "'example.org' is neither '*' nor an origin"),
    ] {
        let arguments = ["serve", dir.path().to_str().unwrap(), flag, value];
        let output = pagewire(&arguments).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(says) && message.contains(flag), "{message}");
    }
}

#[test]
fn pages_of_other_origins_may_read_what_they_were_allowed_to() {
    let dir = plain_dir();
    fs::write(dir.path().join("f"), "content").unwrap();
    let start = |origins: &[&str]| {
        let flags: Vec<_> = origins.iter().flat_map(|origin| ["--cors", origin]).collect();
        Server::start(dir.path(), &flags)
    };
    let mine = "Origin: https://example.org";
    let other = "Origin: https://evil.example";
    let (nobody, anybody) = (start(&[]), start(&["*"]));
    let these = start(&["https://example.org", "http://localhost:3000"]);
    for (server, origin, allowed, vary) in [
        (&nobody, mine, None, "Accept-Encoding"),
        (&anybody, mine, Some("*"), "Accept-Encoding"),
        (&these, mine, Some("https://example.org"), "Accept-Encoding, Origin"),
        (&these, other, None, "Accept-Encoding, Origin"),
        (&these, "X-A: b", None, "Accept-Encoding, Origin"),
    ] {
        let is_open = !std::ptr::eq(server, &nobody);
        for asked in ["GET /f", "GET /f", "HEAD /f", "GET /none"] {
            let head = request(server, asked, &[origin]).head;
            let found = head.header("access-control-allow-origin");
            assert_eq!(found, allowed, "{asked} {origin}");
            if asked != "GET /none" {
                assert_eq!(head.all("vary"), vary, "{asked} {origin}");
            }
            let exposed = head.header("access-control-expose-headers").unwrap_or("");
            assert_eq!(exposed.contains("Content-Range"), is_open, "{asked} {origin}");
        }
        let asked = [
            origin,
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Headers: range, x-mine",
        ];
        let head = request(server, "OPTIONS /f", &asked).head;
        assert_eq!(head.status, 204);
        assert_eq!(head.header("access-control-allow-origin"), allowed, "preflight {origin}");
        if allowed.is_some() {
            assert_eq!(head.header("access-control-allow-headers"), Some("range, x-mine"));
            let methods = head.header("access-control-allow-methods");
            assert_eq!(methods, Some("GET, HEAD, OPTIONS"));
        }
    }
}

#[test]
fn an_application_answers_for_paths_that_are_not_there() {
    let dir = plain_dir();
    fs::create_dir(dir.path().join("data")).unwrap();
    for name in ["index.html", "app.html", "app.js", "data/one.json"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let server = Server::start(dir.path(), &["--spa", "--no-listing"]);
    for (target, field, status, body) in [
        ("/", "X-A: b", 200, "index.html"),
        ("/users/7?tab=1", "X-A: b", 200, "index.html"),
        ("/users/7/", "Accept: text/html", 200, "index.html"),
        ("/data/", "Accept: text/html", 200, "index.html"),
        ("/app.js", "X-A: b", 200, "app.js"),
        ("/gone.js", "X-A: b", 404, "404 Not Found: no such file\n"),
        ("/users/7", "Accept: application/json", 404, "404 Not Found: no such file\n"),
        ("/users/7", "Sec-Fetch-Mode: cors", 404, "404 Not Found: no such file\n"),
    ] {
        let got = request(&server, &format!("GET {target}"), &[field]);
        assert_eq!((got.head.status, got.body.as_slice()), (status, body.as_bytes()), "{target}");
        let head = request(&server, &format!("HEAD {target}"), &[field]).head;
        let lens = (head.status, head.content_length());
        assert_eq!(lens, (status, body.len()), "HEAD {target}");
        let vary = got.head.all("vary");
        let is_there = target == "/" || target == "/app.js";
        assert_eq!(vary.ends_with("Accept, Sec-Fetch-Mode"), !is_there, "{target}: {vary}");
    }
    let page = request(&server, "GET /users/7", NOTHING).head;
    assert_eq!(page.all("vary"), "Accept-Encoding, Accept, Sec-Fetch-Mode");
    let tag = format!("If-None-Match: {}", page.header("etag").unwrap());
    assert_eq!(request(&server, "GET /users/8", &[&tag]).head.status, 304);
    let named = Server::start(dir.path(), &["--spa=app.html"]);
    assert_eq!(request(&named, "GET /users/7", NOTHING).body, b"app.html");
}

#[test]
fn a_page_of_the_sites_own_says_that_there_is_none() {
    let dir = plain_dir();
    fs::write(dir.path().join("404.html"), "<h1>gone</h1>").unwrap();
    fs::write(dir.path().join("other.html"), "<h1>other</h1>").unwrap();
    let by_itself = Server::start(dir.path(), &["--cache-control", "**=max-age=60"]);
    let named = Server::start(dir.path(), &["--not-found", "other.html"]);
    for (server, body) in [(&by_itself, "<h1>gone</h1>"), (&named, "<h1>other</h1>")] {
        // Neither conditions nor ranges are about this page.
        for field in ["X-A: b", "If-None-Match: *", "If-Match: \"x\"", "Range: bytes=0-1"] {
            let got = request(server, "GET /none.txt", &[field]);
            assert_eq!((got.head.status, got.body.as_slice()), (404, body.as_bytes()), "{field}");
            assert_eq!(got.head.header("content-type"), Some("text/html; charset=utf-8"));
            for absent in ["etag", "last-modified", "accept-ranges", "cache-control"] {
                assert_eq!(got.head.header(absent), None, "{absent} with {field}");
            }
        }
        let head = request(server, "HEAD /none.txt", NOTHING).head;
        assert_eq!((head.status, head.content_length()), (404, body.len()));
        let program = request(server, "GET /none.txt", &["Accept: application/json"]);
        assert_eq!(program.body, b"404 Not Found: no such file\n");
        assert_eq!(program.head.all("vary"), "Accept");
    }
    assert_eq!(request(&by_itself, "GET /404.html", NOTHING).head.status, 200);
}

#[test]
fn pages_that_are_not_there_are_refused_at_start() {
    let dir = plain_dir();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for flag in ["--spa", "--spa=sub", "--spa=../index.html", "--not-found=none.html"] {
        let output = pagewire(&["serve", dir.path().to_str().unwrap(), flag]).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{flag}: {message}");
        let page = flag.split_once('=').map_or("index.html", |(_, page)| page);
        assert!(message.contains(&format!("cannot send '{page}' of ")), "{flag}: {message}");
        assert!(message.contains("name a file that lies below the directory"), "{message}");
    }
}

#[test]
fn redirects_stay_here_and_keep_the_query() {
    let dir = plain_dir();
    for sub in ["sub", "evil.example", "a b", "\\\\evil.example"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    for (target, place) in [
        ("/sub?a=b&c=%2F", "/sub/?a=b&c=%2F"),
        ("/sub?", "/sub/?"),
        ("//evil.example", "/evil.example/"),
        ("///evil.example?x", "/evil.example/?x"),
        ("/%2Fevil.example", "/evil.example/"),
        ("/.//evil.example", "/evil.example/"),
        ("/a%20b?q=//evil.example", "/a%20b/?q=//evil.example"),
        ("/%5C%5Cevil.example", "/%5C%5Cevil.example/"),
        ("http://other.example/sub", "/sub/"),
    ] {
        let head = request(&server, &format!("GET {target}"), NOTHING).head;
        assert_eq!((head.status, head.header("location")), (308, Some(place)), "{target}");
    }
}

#[test]
fn digests_are_told_to_those_who_want_them() {
    let dir = plain_dir();
    let large = noise(3 * MIB, 4);
    fs::write(dir.path().join("small"), "hello world").unwrap();
    fs::write(dir.path().join("small.gz"), "packed").unwrap();
    fs::write(dir.path().join("large"), &large).unwrap();
    let server = Server::start(dir.path(), &[]);
    let want = "Want-Repr-Digest: sha-512=9, sha-256=5";
    let hello = "sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:";
    let told = |asked: &str, fields: &[&str]| {
        let head = request(&server, asked, fields).head;
        (head.status, head.header("repr-digest").map(str::to_owned))
    };
    let known = |status| (status, Some(hello.to_owned()));
    // A short file's is there before its first byte.
    assert_eq!(told("GET /small", &[want]), known(200));
    assert_eq!(told("GET /small", &[want, "Range: bytes=3-4"]), known(206));
    assert_eq!(told("GET /small", &[want, "If-None-Match: *"]), (304, None));
    assert_eq!(told("GET /small", NOTHING), (200, None));
    assert_eq!(told("GET /small", &["Want-Repr-Digest: sha-256=0"]), (200, None));
    assert_eq!(told("GET /none", &[want]), (404, None));
    // It is that of what is sent, which may have been packed before.
    let packed = format!("sha-256=:{}:", base64(&digest(b"packed")));
    let gzip = "Accept-Encoding: gzip";
    assert_eq!(told("GET /small", &[want, gzip]), (200, Some(packed)));
    // HEAD waits for that of a larger one, and GET has it then.
    let expected = format!("sha-256=:{}:", base64(&digest(&large)));
    assert_eq!(told("HEAD /large", &[want]), (200, Some(expected.clone())));
    assert_eq!(told("GET /large", &[want]), (200, Some(expected)));
    // Another file has another one, at once.
    fs::write(dir.path().join("new"), "other words").unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("small")).unwrap();
    let other = format!("sha-256=:{}:", base64(&digest(b"other words")));
    assert_eq!(told("GET /small", &[want, "Cache-Control: no-cache"]), (200, Some(other)));
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn len_of(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}
