//! The examples run, and do what they say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::stage::{LARGE, Tree, content};

/// A running example, which ends with the test.
struct Example {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    /// The first line that it printed: its address.
    address: String,
}

impl Example {
    fn start(package: &str, name: &str, argument: &Path) -> Self {
        let mut example = Command::new(built(package, name));
        Self::of(example.arg(argument).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn of(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        lines.read_line(&mut address).unwrap();
        Self { child, lines, address: address.trim().to_owned() }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Option<Vec<u8>> {
        let url = format!("{}{path}", self.address);
        let arguments = [&["-sSf", "-m", "60", &url], arguments].concat();
        let Ok(output) = Command::new("curl").args(arguments).output() else {
            eprintln!("skipped: curl is missing");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(output.stdout)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Both are fine for a child that was waited for already.
        self.child.kill().and_then(|()| self.child.wait().map(drop)).unwrap();
    }
}

/// `cargo test` builds a package's examples beside its tests; those of others, and with
/// `--test web`, cargo is asked for.
fn built(package: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let example = profile.join("examples").join(name);
    if !example.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = ["build", "-q", "--locked", "-p", package, "--example", name];
        assert!(Command::new(cargo).args(build).status().unwrap().success());
    }
    example
}

#[test]
fn axum() {
    let tree = Tree::new();
    std::fs::write(tree.path().join("x.bin"), content(LARGE)).unwrap();
    let mut example = Example::start("pagewire-http", "axum", &tree.path());
    let Some(body) = example.curl("files/small.txt", &[]) else { return };
    assert_eq!(body, b"a small file");
    assert_eq!(example.curl("files/sub", &["-L"]).unwrap(), b"sub index");
    assert!(example.curl("download", &[]).unwrap() == content(LARGE));
    assert_eq!(example.line(), "download: 3000001 bytes due, on a wire: true\n");
    assert!(example.curl("download", &["-r", "5-9"]).unwrap() == content(LARGE)[5..10]);
}

/// strace sees what the report says: after the first chunk, sendfile carries the body.
#[test]
fn axum_under_strace() {
    let tree = Tree::new();
    let log = tree.path().join("strace");
    let calls = "trace=sendfile,sendmsg,sendto,write,writev";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", calls, "-o"]).arg(&log).arg(built("pagewire-http", "axum"));
    let Ok(child) = strace.arg(tree.path()).stdout(Stdio::piped()).spawn() else {
        return eprintln!("skipped: strace is missing");
    };
    let mut example = Example::of(child);
    let Some(body) = example.curl("files/large.bin", &[]) else { return };
    assert!(body == content(LARGE));
    // strace ends, and its log is whole, when the program that it follows does.
    let pid = example.child.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let killed = Command::new("kill").args(children.split_whitespace()).status().unwrap();
    assert!(killed.success());
    example.child.wait().unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    let moved = log.lines().filter(|line| line.contains("sendfile("));
    let moved = moved.filter_map(|line| line.rsplit_once("= ")?.1.parse::<usize>().ok());
    assert_eq!(moved.sum::<usize>(), LARGE - 64 * 1024, "{log}");
}

#[test]
fn hyper() {
    let tree = Tree::new();
    let example = Example::start("pagewire-http", "hyper", &tree.path().join("large.bin"));
    let Some(body) = example.curl("", &[]) else { return };
    assert!(body == content(LARGE));
    assert!(example.curl("", &["-r", "-7"]).unwrap() == content(LARGE)[LARGE - 7..]);
}

#[test]
fn tower() {
    let tree = Tree::new();
    let text = content(100_000).into_iter().map(|byte| byte % 64 + 32).collect::<Vec<_>>();
    std::fs::write(tree.path().join("text.txt"), &text).unwrap();
    std::fs::write(tree.path().join("image.png"), content(LARGE)).unwrap();
    let mut example = Example::start("pagewire-http", "tower", &tree.path());
    let Some(body) = example.curl("text.txt", &["--compressed"]) else { return };
    assert!(body == text);
    assert_eq!(example.line(), "/text.txt: on a wire: false, 100000 of 100000 bytes copied\n");
    assert!(example.curl("image.png", &["--compressed"]).unwrap() == content(LARGE));
    assert_eq!(example.line(), "/image.png: on a wire: true, 65536 of 3000001 bytes copied\n");
}

#[test]
fn length_prefixed() {
    let tree = Tree::new();
    let mut example =
        Example::start("pagewire-engine", "length_prefixed", &tree.path().join("socket"));
    let mut socket = UnixStream::connect(&example.address).unwrap();
    for (name, expected) in [("large.bin", content(LARGE)), ("small.txt", b"a small file".into())] {
        writeln!(socket, "{}", tree.path().join(name).display()).unwrap();
        let mut len = [0; 8];
        socket.read_exact(&mut len).unwrap();
        let mut received = vec![0; usize::try_from(u64::from_be_bytes(len)).unwrap()];
        socket.read_exact(&mut received).unwrap();
        assert!(received == expected, "{name}");
        assert!(example.line().starts_with(&format!("{} bytes by [", expected.len() + 8)));
    }
}

#[test]
fn transfer_to() {
    let tree = Tree::new();
    let path = tree.path().join("large.bin");
    let mut example = Example::start("pagewire-engine", "transfer_to", &path);
    let mut received = vec![0; LARGE];
    let mut socket = TcpStream::connect(&example.address).unwrap();
    socket.read_exact(&mut received).unwrap();
    assert!(received == content(LARGE));
    assert!(example.line().starts_with("3000001 bytes to 127.0.0.1:"));
}
