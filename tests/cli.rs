//! The command line: what it refuses and how it says so, and what its flags do.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use super::support::{Peer, ROUTES, Server, pagewire, plain_dir};

/// Exit code of a run that could not do its work.
const FAILED: i32 = 1;
/// Exit code of a command line that makes no sense.
const USAGE: i32 = 2;

/// Runs the program, which must end by itself with `code` and name all of `named` on stderr.
#[track_caller]
fn check_refusal(arguments: &[&str], code: i32, named: &[&str]) {
    let output = pagewire(arguments).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for part in named {
        assert!(message.contains(part), "{arguments:?} does not name {part}: {message}");
    }
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    if code == FAILED {
        assert!(message.starts_with("pagewire: "), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    }
}

#[test]
fn usage_errors() {
    for (arguments, named) in [
        (&[][..], "serve"),
        (&["nonsense"], "nonsense"),
        (&["serve", ".", "--nonsense"], "--nonsense"),
        (&["serve", ".", "--route", "teleport"], "teleport"),
        (&["serve", ".", "--listen", "nowhere"], "nowhere"),
        (&["serve", ".", "--listen", "127.0.0.1"], "127.0.0.1"),
        (&["serve", ".", "--listen", "127.0.0.1:70000"], "127.0.0.1:70000"),
        (&["serve", ".", "--threads", "0"], "--threads"),
        (&["serve", ".", "--threads", "many"], "many"),
    ] {
        check_refusal(arguments, USAGE, &[named]);
    }
}

#[test]
fn nothing_to_serve() {
    check_refusal(&["serve"], FAILED, &["serve DIR", "root"]);
}

#[test]
fn a_directory_that_is_none() {
    let dir = plain_dir();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [dir.path().join("missing"), file] {
        let path = path.to_str().unwrap();
        check_refusal(&["serve", path, "--listen", "127.0.0.1:0"], FAILED, &[path]);
    }
}

#[test]
fn an_address_that_cannot_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let dir = plain_dir();
    let path = dir.path().to_str().unwrap();
    // 192.0.2.1 is for documentation and nobody's own.
    for address in [taken.as_str(), "192.0.2.1:0"] {
        check_refusal(&["serve", path, "--listen", address], FAILED, &[address]);
    }
}

#[test]
fn help_names_the_routes() {
    for arguments in [&["--help"][..], &["serve", "--help"]] {
        let output = pagewire(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("serve"), "{text}");
        let serve = arguments.contains(&"serve");
        for word in ROUTES.iter().chain(["--listen", "--threads", "--quiet", "auto"].iter()) {
            assert!(!serve || text.contains(word), "{arguments:?} does not name {word}: {text}");
        }
    }
    let version = pagewire(&["--version"]).output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    assert_eq!(version.trim(), concat!("pagewire ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_banner_says_what_is_served_and_how() {
    let dir = plain_dir();
    let server = Server::start(dir.path(), &["--route", "splice"]);
    let banner = server.banner();
    let [title, url, routes, sandbox, route] = &banner[..] else { panic!("{banner:?}") };
    assert!(sandbox.starts_with("sandbox: ") && sandbox.contains("seccomp"), "{sandbox}");
    let served = format!(" serves {} (", dir.path().display());
    assert!(title.starts_with("pagewire ") && title.contains(&served), "{title}");
    assert_eq!(*url, format!("  {}", server.url("/")));
    assert!(route.starts_with("route: splice"), "{route}");
    for expected in
        ["sendfile by reference", "splice by reference", "mmap-write copied", "read-write copied"]
    {
        assert!(routes.contains(expected), "{expected}: {routes}");
    }
}

#[test]
fn the_file_system_is_named() {
    if !Path::new("/dev/shm").is_dir() {
        return;
    }
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let server = Server::start(dir.path(), &[]);
    assert!(server.banner()[0].ends_with("(tmpfs)"), "{:?}", server.banner());
}

/// Serving needs no right to write: where no scratch file can be made, the routes are measured
/// with one in memory, and the banner says so.
#[test]
fn a_directory_that_takes_no_new_file_is_served() {
    let server = Server::start(Path::new("/proc/self/net"), &[]);
    let routes = &server.banner()[2];
    assert!(routes.contains("with a file in memory: sendfile by reference"), "{routes}");
}

#[test]
fn quiet_prints_no_response_lines() {
    let dir = plain_dir();
    fs::write(dir.path().join("f"), "content").unwrap();
    let server = Server::start(dir.path(), &["--quiet"]);
    for target in ["/f", "/missing"] {
        let mut peer = Peer::connect(server.address());
        peer.get(target);
        peer.answer();
    }
    let log = server.raw_log();
    let totals = server.finish();
    assert_eq!((totals.responses, totals.connections), (2, 2));
    assert!(log.all().is_empty(), "{log:?}");
}

#[test]
fn every_address_is_served() {
    let dir = plain_dir();
    fs::write(dir.path().join("f"), "content").unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
    let server = Server::start(dir.path(), &listen);
    assert_eq!(server.addresses().len(), 3, "{:?}", server.banner());
    for address in server.addresses() {
        let mut peer = Peer::connect(*address);
        peer.get("/f");
        assert_eq!(peer.answer().body, b"content", "{address}");
    }
    assert_eq!(server.finish().connections, 3);
}

#[test]
fn any_number_of_threads_serves() {
    let dir = plain_dir();
    fs::write(dir.path().join("f"), "content").unwrap();
    for threads in ["1", "2", "7"] {
        let server = Server::start(dir.path(), &["--threads", threads]);
        let mut peer = Peer::connect(server.address());
        peer.get("/f");
        assert_eq!(peer.answer().body, b"content", "{threads}");
    }
}

/// What people get to see when something is wrong, word by word: arguments, exit status, the first
/// line. `DIR` stands for the test's own directory, `TAKEN` for an address that is listened on.
const ERRORS: &[(&[&str], i32, &str)] = &[
    (
        &["serve", "DIR/missing"],
        FAILED,
        "pagewire: cannot serve DIR/missing: No such file or directory (os error 2); \
         name a directory that exists",
    ),
    (
        &["serve", "DIR/file"],
        FAILED,
        "pagewire: cannot serve DIR/file: Not a directory (os error 20); \
         name the directory that it lies in",
    ),
    (
        &["serve", "DIR", "--listen", "TAKEN"],
        FAILED,
        "pagewire: cannot listen on TAKEN: Address already in use (os error 98); another \
         program listens there: choose another port with --listen; port 0 takes any",
    ),
    (
        &["serve", "DIR", "--listen", "192.0.2.1:0"],
        FAILED,
        "pagewire: cannot listen on 192.0.2.1:0: Cannot assign requested address (os error \
         99); no interface of this host has that address",
    ),
    (
        &["serve", "DIR", "--listen", "unix:DIR/file"],
        FAILED,
        "pagewire: cannot listen on unix:DIR/file: what is there is no socket; \
         name another path, or end who listens there",
    ),
    (
        &["serve", "DIR", "--mount", "/=DIR"],
        FAILED,
        "pagewire: two directories are served for all hosts at /",
    ),
    (
        &["serve", "DIR", "--config", "DIR/none.toml"],
        FAILED,
        "pagewire: cannot read the configuration file DIR/none.toml: No such file or \
         directory (os error 2)",
    ),
    (
        &["serve", "--config", "DIR/wrong.toml"],
        FAILED,
        "pagewire: DIR/wrong.toml:2:1: unknown key 'limits'",
    ),
    (
        &["serve", "DIR", "--mount", "pub"],
        USAGE,
        "error: invalid value 'pub' for '--mount </PATH=DIR>': it is a path and a directory, \
         such as /pub=/srv/pub",
    ),
    (&["serve", "DIR", "--lissten", "x"], USAGE, "error: unexpected argument '--lissten'"),
];

#[test]
fn errors_say_what_where_and_the_way_out() {
    let dir = plain_dir();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("file"), "x").unwrap();
    fs::write(at("wrong.toml"), "root = 'x'\nlimits = 3\n").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let here = dir.path().display().to_string();
    for (arguments, code, expected) in ERRORS {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|argument| argument.replace("DIR", &here).replace("TAKEN", &taken))
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = pagewire(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let said = said.replace(&here, "DIR").replace(&taken, "TAKEN");
        let first = said.lines().next().unwrap_or_default();
        assert!(first.starts_with(expected), "{arguments:?}: {said}");
        assert_eq!(output.status.code(), Some(*code), "{said}");
    }
}
