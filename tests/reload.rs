//! Another configuration while the server runs: by SIGHUP and by a change of the file, without a
//! byte lost, and never a wrong one.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::https::make_certificate;
use super::support::{
    MIB, Peer, Server, curl, need, noise, pagewire, plain_dir, request, skip, wait_until,
};

/// Folders `a` and `b`, whose files say which they are, and a configuration file.
struct Stage {
    dir: TempDir,
    server: Server,
}

impl Stage {
    fn new(config: &str) -> Stage {
        let dir = plain_dir();
        for folder in ["a", "b"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("name"), folder).unwrap();
        }
        let file = dir.path().join("pagewire.toml");
        fs::write(&file, config).unwrap();
        let mut command = pagewire(&["serve", "--config"]);
        let server = Server::spawn({
            command.arg(&file);
            command
        });
        Stage { dir, server }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("pagewire.toml")
    }

    /// Puts another file in place of the configuration, as editors do.
    fn replace(&self, config: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, config).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn hang_up(&self) {
        kill_process(self.server.pid(), Signal::HUP).unwrap();
    }

    /// The last line about a reload, once there are `count`.
    fn said(&self, count: usize) -> String {
        let log = self.server.raw_log();
        wait_until("a line about the reload", || {
            let lines = log.all().into_iter();
            let said: Vec<_> = lines.filter(|line| line.contains("reloaded")).collect();
            said.get(count - 1).cloned()
        })
    }

    /// The line about a reload that says `what`: of two files that change, each may lead to one.
    fn says(&self, what: &str) {
        let log = self.server.raw_log();
        wait_until(what, || {
            let is_it = |line: &String| line.contains(" reloaded: ") && line.contains(what);
            log.all().iter().any(is_it).then_some(())
        });
    }

    fn name(&self) -> Vec<u8> {
        let mut peer = Peer::connect(self.server.address());
        peer.get("/name");
        peer.answer().body
    }
}

const A: &str = "listen = '127.0.0.1:0'\nroot = 'a'\n";
const B: &str = "listen = '127.0.0.1:0'\nroot = 'b'\n";

#[test]
fn a_hangup_swaps_sites_and_no_download_is_cut() {
    let stage = Stage::new(A);
    let content = noise(24 * MIB, 7);
    fs::write(stage.dir.path().join("a/big"), &content).unwrap();
    let mut slow = Peer::with_receive_buffer(stage.server.address(), 4096);
    slow.get("/big");
    assert_eq!(slow.head().status, 200);
    let mut kept = Peer::connect(stage.server.address());
    kept.get("/name");
    assert_eq!(kept.answer().body, b"a");

    stage.replace(B);
    stage.hang_up();
    assert_eq!(stage.said(1), "pagewire: reloaded: site changed: /");
    kept.get("/name");
    assert_eq!(kept.answer().body, b"b", "requests on old connections see it, too");
    assert_eq!(stage.name(), b"b");
    assert_eq!(slow.body(content.len()), content);
}

#[test]
fn another_content_of_the_file_is_seen_by_itself() {
    let stage = Stage::new(A);
    stage.replace(B);
    assert_eq!(stage.said(1), "pagewire: reloaded: site changed: /");
    assert_eq!(stage.name(), b"b");
    fs::write(stage.file(), format!("{A}[[site]]\npath='/x'\nroot='b'\n")).unwrap();
    assert_eq!(stage.said(2), "pagewire: reloaded: site changed: /; site added: /x");
    assert_eq!(stage.name(), b"a");
}

#[test]
fn a_wrong_file_changes_nothing() {
    let stage = Stage::new(A);
    let folder = format!("{}/", stage.dir.path().display());
    let mut count = 0;
    for (config, expected) in [
        ("root = 'b'\nquite = true\n", "pagewire.toml:2:1: unknown key 'quite'; did you mean"),
        ("root = \n", "pagewire.toml:1:"),
        ("root = 'c'\n", "cannot serve c: No such file or directory"),
        ("listen = '192.0.2.1:1'\nroot = 'b'\n", "cannot listen on 192.0.2.1:1: "),
    ] {
        stage.replace(config);
        count += 1;
        let said = stage.said(count).replace(&folder, "");
        let front = "pagewire: not reloaded, all stays as it was: ";
        assert!(said.starts_with(&format!("{front}{expected}")), "{said}");
        assert_eq!(stage.name(), b"a");
    }
}

#[test]
fn listeners_come_and_go() {
    let stage = Stage::new("listen = ['127.0.0.1:0', '[::1]:0']\nroot = 'a'\n");
    let old = stage.server.addresses()[0];
    let mut kept = Peer::connect(old);
    kept.get("/name");
    kept.answer();
    stage.replace("listen = ['[::1]:0', '127.0.0.2:0']\nroot = 'a'\n");
    let said = stage.said(1);
    let (_, opened) = said.split_once("listening on 127.0.0.2:").unwrap();
    let (port, closed) = opened.split_once("; ").unwrap();
    assert_eq!(closed, format!("no longer listening on {old}"));
    let mut peer = Peer::connect(format!("127.0.0.2:{port}").parse().unwrap());
    peer.get("/name");
    assert_eq!(peer.answer().body, b"a");
    let mut peer = Peer::connect(stage.server.addresses()[1]);
    peer.get("/name");
    assert_eq!(peer.answer().body, b"a");
    assert!(std::net::TcpStream::connect(old).is_err());
    assert_eq!(kept.rest(), b"", "its idle connections are closed");
}

/// Each key that a running server keeps, until it has its old value again.
#[test]
fn what_needs_a_restart_is_said() {
    let stage = Stage::new(A);
    let fixed = [
        "admin = '0'",
        "grace = 7",
        "limit-rate = '1M'",
        "limit-rate-total = '1M'",
        "log = 'json'",
        "log-file = 'log'",
        "max-connections = 7",
        "max-connections-per-address = 7",
        "no-sandbox = true",
        "quiet = true",
        "route = 'splice'",
        "threads = 1",
        "trace = 'debug'",
    ];
    let kept = |line: &str| {
        let (key, _) = line.split_once(" = ").unwrap();
        format!("'{key}' stays as it was until a restart")
    };
    stage.replace(&format!("{A}{}\n", fixed.join("\n")));
    let all = fixed.map(kept).join("; ");
    assert_eq!(stage.said(1), format!("pagewire: reloaded: {all}"));
    stage.hang_up();
    assert_eq!(stage.said(2), format!("pagewire: reloaded: {all}"));
    stage.replace(&format!("{A}{}\n", fixed[0]));
    assert_eq!(stage.said(3), format!("pagewire: reloaded: {}", kept(fixed[0])));
    stage.replace(A);
    assert_eq!(stage.said(4), "pagewire: reloaded: nothing changed");
    assert_eq!(stage.name(), b"a");
}

/// The same address, plain and over TLS and back, by certificates that are watched from then on.
#[test]
fn an_address_changes_between_plain_and_tls() {
    if !need("openssl") || !need("curl") {
        return;
    }
    let stage = Stage::new(A);
    let port = stage.server.address().port();
    let mut old = Peer::connect(stage.server.address());
    old.get("/name");
    assert_eq!(old.answer().body, b"a");
    let in_stage = |file: &str| stage.dir.path().join(file);
    let certify = |name: &str| {
        make_certificate(stage.dir.path(), "new", &format!("DNS:{name}"));
        for kind in ["key", "pem"] {
            let new = in_stage(&format!("new.{kind}"));
            fs::rename(new, in_stage(&format!("site.{kind}"))).unwrap();
        }
    };
    let secure = |name: &str| {
        let authority = in_stage("site.pem");
        let place = format!("{name}:{port}:127.0.0.1");
        let url = format!("https://{name}:{port}/name");
        let authority = authority.to_str().unwrap();
        let found = curl(&["--cacert", authority, "--resolve", &place, "--fail", &url]);
        assert_eq!(found.stdout, b"a");
    };
    certify("first.example");
    stage.replace(&format!("{A}tls-cert = 'site.pem'\ntls-key = 'site.key'\n"));
    stage.says("127.0.0.1:0 has HTTPS for new connections; certificate for first.example");
    secure("first.example");
    old.get("/name");
    assert_eq!(old.answer().body, b"a", "old connections go on as they began");

    certify("second.example");
    stage.says("reloaded: certificate for second.example");
    secure("second.example");

    stage.replace(A);
    stage.says("reloaded: 127.0.0.1:0 has plain HTTP for new connections");
    assert_eq!(stage.name(), b"a");
}

/// Elsewhere than what was allowed at start it could not be read.
#[test]
fn a_certificate_outside_of_the_sandbox_is_refused_with_the_reason() {
    let stage = Stage::new(A);
    if !stage.server.banner().iter().any(|line| line.contains("(landlock)")) {
        return skip("this kernel has no landlock");
    }
    let elsewhere = plain_dir();
    let pem = elsewhere.path().join("site.pem");
    fs::write(&pem, "").unwrap();
    let pem = pem.display();
    stage.replace(&format!("{A}tls-cert = '{pem}'\ntls-key = '{pem}'\n"));
    let said = stage.said(1);
    assert!(said.contains("not reloaded") && said.contains("the sandbox was closed"), "{said}");
    assert_eq!(stage.name(), b"a");
}

/// The digest of a large file is not made again.
#[test]
fn digests_outlive_a_reload() {
    let stage = Stage::new(A);
    fs::write(stage.dir.path().join("a/big"), noise(4 * MIB, 3)).unwrap();
    let asked = ["Want-Repr-Digest: sha-256=1"];
    let made = request(&stage.server, "HEAD /big", &asked).head;
    let digest = made.header("repr-digest").unwrap();
    stage.replace(&format!("{A}[[site]]\npath='/x'\nroot='a'\n"));
    stage.said(1);
    // Of what is not known yet a GET of so much says nothing.
    for target in ["GET /big", "GET /x/big"] {
        let answer = request(&stage.server, target, &asked);
        assert_eq!(answer.head.header("repr-digest"), Some(digest), "{target}");
    }
}

/// Without a file there is nothing to read; that is no reason to end. Another directory of the same
/// name lies outside of the sandbox.
#[test]
fn a_hangup_without_a_file_opens_the_directory_again() {
    let dir = plain_dir();
    let root = dir.path().join("root");
    let fill = |root: &Path, text: &str| {
        fs::create_dir(root).unwrap();
        fs::write(root.join("name"), text).unwrap();
    };
    fill(&root, "first");
    let server = Server::start(&root, &["--no-sandbox"]);
    fs::rename(&root, dir.path().join("old")).unwrap();
    fill(&root, "second");
    kill_process(server.pid(), Signal::HUP).unwrap();
    let log = server.raw_log();
    let said =
        wait_until("the reload", || log.all().into_iter().find(|line| line.contains("reloaded")));
    assert_eq!(said, "pagewire: reloaded: nothing changed");
    let mut peer = Peer::connect(server.address());
    peer.get("/name");
    assert_eq!(peer.answer().body, b"second");
}
