//! Another configuration while the server runs: by SIGHUP and by a change of the file, without a
//! byte lost, and never a wrong one.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::support::{MIB, Peer, Server, noise, pagewire, plain_dir, wait_until};

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

#[test]
fn what_needs_a_restart_is_said() {
    let stage = Stage::new(A);
    stage.replace(&format!("{A}threads = 1\n"));
    let said = stage.said(1);
    assert_eq!(said, "pagewire: reloaded: 'threads' stays as it was until a restart");
    stage.hang_up();
    assert_eq!(stage.said(2), "pagewire: reloaded: nothing changed");
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
