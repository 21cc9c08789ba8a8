//! The access log in its formats: one line a response, whatever a client says, with what was
//! really sent; and its file, which logrotate may move away.

use std::fs;
use std::path::Path;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::support::{MIB, Peer, Server, curl, need, noise, plain_dir, wait_until};

/// Everything that a terminal or a reader of lines could take for more than text, among what the
/// fields of a request may hold.
const SAID: &[u8] = b"x\" 200 0 \"\\ \t\xc2\x9b2J\xe2\x80\xae\xff";

/// Targets that mean well, and such that do not; not all of them are let through by hyper.
const TARGETS: [&[u8]; 6] =
    [b"/file.txt", b"/a\"b", b"/back\\slash", b"/\x7f", b"/\xc2\x9b31m", b"/%1b[2J%0a"];

fn lines_of(path: &Path) -> Vec<String> {
    // All of it is UTF-8, or this is empty. It may not be there yet.
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_terminator('\n').map(str::to_owned).collect()
}

#[track_caller]
fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
    wait_until("lines in the log", || Some(lines_of(path)).filter(|lines| lines.len() >= count))
}

/// Takes a line of the combined format apart at its blanks and quotes, as programs do.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    for c in line.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '[' | ']' if !quoted => bracketed = c == '[',
            ' ' if !quoted && !bracketed => {
                fields.push(String::new());
                continue;
            }
            _ => {}
        }
        fields.last_mut().unwrap().push(c);
    }
    fields
}

#[test]
fn nobody_forges_lines_or_speaks_to_the_terminal() {
    let dir = plain_dir();
    fs::write(dir.path().join("file.txt"), "content").unwrap();
    for format in ["text", "json", "common", "combined"] {
        let logs = plain_dir();
        let log = logs.path().join("log");
        let arguments = ["--log", format, "--log-file", log.to_str().unwrap()];
        let server = Server::start(dir.path(), &arguments);
        let mut answered = 0;
        for target in TARGETS {
            let mut peer = Peer::connect(server.address());
            let head = [b"GET ", target, b" HTTP/1.1\r\nHost: test\r\nUser-Agent: ", SAID];
            peer.send(&head.concat());
            peer.send(&[b"\r\nReferer: ", SAID, b"\r\nConnection: close\r\n\r\n"].concat());
            // What hyper does not understand it answers by itself.
            answered += usize::from(!peer.rest().starts_with(b"HTTP/1.1 400"));
        }
        assert!(answered >= 2, "{format}: {answered}");
        server.finish();
        let lines = lines_of(&log);
        assert_eq!(lines.len(), answered, "{format}: {lines:?}");
        for line in &lines {
            let harmful = |c: char| c.is_control() || !c.is_ascii() && format != "json";
            let harmful = |c: char| harmful(c) || ('\u{2028}'..='\u{202e}').contains(&c);
            assert!(!line.contains(harmful), "{format}: {line:?}");
            match format {
                "json" => drop(serde_json::from_str::<Value>(line).unwrap()),
                "common" => assert_eq!(fields(line).len(), 7, "{line}"),
                "combined" => assert_eq!(fields(line).len(), 9, "{line}"),
                _ => {}
            }
        }
    }
}

#[test]
fn formats_say_what_others_say() {
    let dir = plain_dir();
    fs::write(dir.path().join("file.txt"), "content").unwrap();
    for format in ["combined", "common", "json"] {
        let server = Server::start(dir.path(), &["--log", format]);
        let mut peer = Peer::connect(server.address());
        peer.send(b"GET /file.txt?q HTTP/1.1\r\nHost: x\r\nUser-Agent: a\"b\r\n\r\n");
        assert_eq!(peer.answer().body, b"content");
        let log = server.raw_log();
        let line = wait_until("a line", || log.all().first().cloned());
        if format == "json" {
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["target"], "/file.txt?q");
            assert_eq!(line["user_agent"], "a\"b");
            assert_eq!((&line["sent"], &line["complete"]), (&7.into(), &true.into()));
            assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
            continue;
        }
        let fields = fields(&line);
        assert_eq!(fields[0], "127.0.0.1", "{line}");
        assert!(fields[3].starts_with('[') && fields[3].ends_with("+0000]"), "{line}");
        assert_eq!(fields[4], "\"GET /file.txt?q HTTP/1.1\"");
        assert_eq!((&*fields[5], &*fields[6]), ("200", "7"));
        let said = &fields[7..];
        match format {
            "common" => assert_eq!(said, [""; 0]),
            _ => assert_eq!(said, ["\"-\"", "\"a\\\"b\""]),
        }
    }
}

#[test]
fn json_tells_what_became_of_a_download() {
    let dir = plain_dir();
    let len = 32 * MIB;
    fs::write(dir.path().join("file.bin"), noise(len, 1)).unwrap();
    let server = Server::start(dir.path(), &["--log", "json"]);
    let mut peer = Peer::with_receive_buffer(server.address(), 16 << 10);
    peer.get("/file.bin");
    peer.head();
    peer.body(1 << 20);
    peer.reset();
    let log = server.raw_log();
    let line = wait_until("a line", || log.all().first().cloned());
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["complete"], &line["due"]), (&false.into(), &len.into()), "{line}");
    let sent = line["sent"].as_u64().unwrap();
    assert!((1 << 20..len).contains(&sent), "{line}");
    assert!(line["aborted"].as_str().is_some_and(|why| !why.is_empty()), "{line}");
    assert_eq!(line["route"], "sendfile");
    let seconds = |name: &str| line[name].as_f64().unwrap();
    assert!(seconds("first_byte_seconds") <= seconds("seconds"), "{line}");
}

#[test]
fn what_was_spoken_is_told() {
    if !need("curl") {
        return;
    }
    let (dir, state) = (plain_dir(), plain_dir());
    fs::write(dir.path().join("file.txt"), "content").unwrap();
    let tls = ["--tls-self-signed", "--state-dir", state.path().to_str().unwrap()];
    let cipher = |line: &str| line.contains("_WITH_AES_") || line.contains("_AES_256_GCM_SHA384");
    for format in ["text", "json"] {
        for (tls, asked, version, tls_version) in [
            (&[][..], "--http1.1", "HTTP/1.1", None),
            (&[], "--http1.0", "HTTP/1.0", None),
            (&tls, "--http1.1", "HTTP/1.1", Some("TLSv1.3")),
            (&tls, "--http2", "HTTP/2.0", Some("TLSv1.3")),
        ] {
            let server = Server::start(dir.path(), &[&["--log", format], tls].concat());
            let scheme = if tls.is_empty() { "http" } else { "https" };
            curl(&["--insecure", asked, &format!("{scheme}://{}/file.txt", server.address())]);
            let log = server.raw_log();
            let line = wait_until("a line", || log.all().first().cloned());
            assert_eq!(cipher(&line), tls_version.is_some(), "{line}");
            if format == "json" {
                let line: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(line["version"], version);
                assert_eq!(line["tls_version"].as_str(), tls_version, "{line}");
                assert_eq!(line["tls_cipher"].is_string(), tls_version.is_some(), "{line}");
                continue;
            }
            let said = line.contains(&format!(" version={version} "));
            assert_eq!(said, version != "HTTP/1.1", "{line}");
            assert_eq!(line.contains(" tls=TLSv1.3,"), tls_version.is_some(), "{line}");
        }
    }
}

#[test]
fn a_file_that_was_moved_away_is_made_anew_at_sighup() {
    let dir = plain_dir();
    fs::write(dir.path().join("file.txt"), "content").unwrap();
    let logs = plain_dir();
    let (log, old) = (logs.path().join("log"), logs.path().join("log.1"));
    fs::write(&log, "before\n").unwrap();
    let server = Server::start(dir.path(), &["--log-file", log.to_str().unwrap()]);
    let get = |target: &str| {
        let mut peer = Peer::connect(server.address());
        peer.get(target);
        assert_eq!(peer.answer().head.status, 200);
    };
    get("/file.txt?first");
    let lines = wait_for_lines(&log, 2);
    assert_eq!(lines[0], "before");
    fs::rename(&log, &old).unwrap();
    kill_process(server.pid(), Signal::HUP).unwrap();
    wait_until("a new file", || log.exists().then_some(()));
    get("/file.txt?second");
    let lines = wait_for_lines(&log, 1);
    assert!(lines.len() == 1 && lines[0].contains("?second"), "{lines:?}");
    assert_eq!(lines_of(&old).len(), 2);
    assert!(!server.raw_log().all().iter().any(|line| line.contains("GET")));
}

#[test]
fn off_is_silent_and_a_log_that_cannot_be_written_is_named() {
    let dir = plain_dir();
    fs::write(dir.path().join("file.txt"), "content").unwrap();
    let server = Server::start(dir.path(), &["--log", "off"]);
    let mut peer = Peer::connect(server.address());
    peer.get("/file.txt");
    assert_eq!(peer.answer().body, b"content");
    let log = server.raw_log();
    server.finish();
    assert_eq!(log.all(), [""; 0]);
    let nowhere = dir.path().join("missing/log");
    let arguments =
        ["serve", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0", "--log-file"];
    let mut command = super::support::pagewire(&arguments);
    let output = command.arg(&nowhere).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains(nowhere.to_str().unwrap()), "{message}");
}
