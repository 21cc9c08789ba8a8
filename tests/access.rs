//! Who may see what: passwords, and where symbolic links may lead.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use rustix::process::{Signal, kill_process};

use super::support::{Head, Peer, Server, curl, need, pagewire, plain_dir, wait_until};

/// A line of the file of passwords, made by the program.
fn line(name: &str, password: &str) -> String {
    let mut command = pagewire(&["password", name]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

struct Fixture {
    dir: tempfile::TempDir,
    server: Server,
}

impl Fixture {
    fn new(arguments: &[&str]) -> Fixture {
        let dir = plain_dir();
        fs::create_dir(dir.path().join("site")).unwrap();
        fs::write(dir.path().join("site/file.txt"), "content").unwrap();
        let passwords = dir.path().join("passwords");
        fs::write(&passwords, format!("# people\n{}", line("ann", "s:e cret"))).unwrap();
        let arguments = [&["--auth", passwords.to_str().unwrap()], arguments].concat();
        let server = Server::start(&dir.path().join("site"), &arguments);
        Fixture { dir, server }
    }

    fn ask(&self, fields: &str) -> Head {
        let mut peer = Peer::connect(self.server.address());
        let request = format!("GET /file.txt HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        peer.send(request.as_bytes());
        peer.answer().head
    }
}

/// `ann:s:e cret`, and with a wrong password.
const RIGHT: &str = "Authorization: Basic YW5uOnM6ZSBjcmV0\r\n";
const WRONG: &str = "Authorization: Basic YW5uOndyb25n\r\n";

#[test]
fn a_name_and_a_password_are_asked_for() {
    let fixture = Fixture::new(&["--log", "json"]);
    for fields in ["", WRONG, "Authorization: Basic !\r\n", "Authorization: Bearer x\r\n"] {
        let head = fixture.ask(fields);
        assert_eq!(head.status, 401, "{fields}");
        let challenge = head.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm=") && challenge.contains("UTF-8"));
    }
    // As often as a player asks for ranges: only the first is checked.
    for _ in 0..100 {
        assert_eq!(fixture.ask(RIGHT).status, 200);
    }
    if need("curl") {
        let url = fixture.server.url("/file.txt");
        assert_eq!(curl(&["-f", "-u", "ann:s:e cret", &url]).stdout, b"content");
    }
    let log = fixture.server.raw_log();
    fixture.server.finish();
    let named = log.all().iter().filter(|line| line.contains("\"user\":\"ann\"")).count();
    assert_eq!(named, 101);
    assert!(log.all().iter().all(|line| !line.contains("cret")));
    drop(fixture.dir);
}

#[test]
fn other_passwords_count_from_a_reload_on() {
    let fixture = Fixture::new(&[]);
    assert_eq!(fixture.ask(RIGHT).status, 200);
    fs::write(fixture.dir.path().join("passwords"), line("ann", "another")).unwrap();
    kill_process(fixture.server.pid(), Signal::HUP).unwrap();
    let log = fixture.server.raw_log();
    let said = wait_until("the reload", || {
        log.all().into_iter().find(|line| line.starts_with("pagewire: reloaded"))
    });
    assert_eq!(said, "pagewire: reloaded: site changed: /");
    assert_eq!(fixture.ask(RIGHT).status, 401, "what was remembered is not");
}

#[test]
fn guessing_ends_soon() {
    let fixture = Fixture::new(&[]);
    assert_eq!(fixture.ask(RIGHT).status, 200);
    let statuses: Vec<u16> = (0..12).map(|_| fixture.ask(WRONG).status).collect();
    assert_eq!((statuses[0], statuses[11]), (401, 429), "{statuses:?}");
    assert!(fixture.ask(WRONG).header("retry-after").is_some());
    // Who logged in before is not kept out.
    assert_eq!(fixture.ask(RIGHT).status, 200);
}

#[test]
fn passwords_without_tls_are_warned_of_and_others_are_not() {
    if !need("curl") {
        return;
    }
    let state = plain_dir();
    let tls = ["--tls-self-signed", "--state-dir", state.path().to_str().unwrap()];
    for (address, tls, warned) in
        [("0.0.0.0:0", &[][..], true), ("0.0.0.0:0", &tls, false), ("127.0.0.1:0", &[], false)]
    {
        let fixture = Fixture::new(&[&["--listen", address], tls].concat());
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let url = format!("{scheme}://{}/file.txt", fixture.server.address());
        curl(&["--insecure", &url]);
        fixture.server.log_line_for("/file.txt");
        let said = fixture.server.raw_log().all();
        let found = said.iter().any(|line| line.contains("passwords can be read on their way"));
        assert_eq!(found, warned, "{address} {tls:?}: {said:?}");
    }
}

#[test]
fn a_bad_file_of_passwords_is_named_with_its_line() {
    let dir = plain_dir();
    let passwords = dir.path().join("passwords");
    fs::write(&passwords, "# people\nann:$apr1$Zkcx$0x\n").unwrap();
    for (path, named) in [("passwords", "line 2"), ("missing", "No such file")] {
        let path = dir.path().join(path);
        let root = dir.path().to_str().unwrap();
        let mut command = pagewire(&["serve", root, "--listen", "127.0.0.1:0", "--auth"]);
        let output = command.arg(&path).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{message}");
        assert!(message.contains(named) && message.contains("--auth"), "{message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn symbolic_links_lead_inside_or_nowhere() {
    let dir = plain_dir();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(dir.path().join("outside"), "outside").unwrap();
    fs::write(root.join("sub/file"), "content").unwrap();
    symlink("sub/file", root.join("inner")).unwrap();
    symlink("sub", root.join("folder")).unwrap();
    symlink("../outside", root.join("outer")).unwrap();
    let statuses = |arguments: &[&str]| {
        let server = Server::start(&root, arguments);
        let status = |target: &str| {
            let mut peer = Peer::connect(server.address());
            peer.get(target);
            peer.answer().head.status
        };
        ["/sub/file", "/inner", "/folder/file", "/folder/", "/outer"].map(status)
    };
    assert_eq!(statuses(&[]), [200, 200, 200, 200, 404]);
    assert_eq!(statuses(&["--symlinks", "inside"]), [200, 200, 200, 200, 404]);
    assert_eq!(statuses(&["--symlinks", "none"]), [200, 404, 404, 404, 404]);
}
