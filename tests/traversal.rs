//! Request targets that try to leave the root, and what a directory may hold besides files: never a
//! byte from outside, never a panic, a clear status.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use tempfile::TempDir;

use super::support::{
    Answer, Head, Peer, Server, Trace, is_root, need, pagewire, plain_dir, program, wait_until,
};

const SECRET: &[u8] = b"the secret outside the root";
const INSIDE: &[u8] = b"inside";

/// `outer/secret.txt`, and the root with all its traps beside it.
struct Maze {
    outer: TempDir,
    _socket: UnixListener,
}

impl Maze {
    fn new() -> Maze {
        let outer = plain_dir();
        let at = |name: &str| outer.path().join("root").join(name);
        fs::create_dir_all(at("sub/deep")).unwrap();
        fs::create_dir(outer.path().join("root-sibling")).unwrap();
        for name in ["secret.txt", "root-sibling/secret.txt"] {
            fs::write(outer.path().join(name), SECRET).unwrap();
        }
        for name in ["inside.txt", "sub/inside.txt", "%2e%2e", "back\\slash", "...", "a b"] {
            fs::write(at(name), INSIDE).unwrap();
        }
        fs::write(at("").join(OsStr::from_bytes(b"\xff.bin")), INSIDE).unwrap();
        let secret = outer.path().join("secret.txt");
        for (target, link) in [
            (secret, "absolute"),
            (PathBuf::from("../secret.txt"), "relative"),
            (PathBuf::from("../../secret.txt"), "sub/relative"),
            (PathBuf::from(".."), "up"),
            (outer.path().to_owned(), "out"),
            (PathBuf::from("../root-sibling"), "sibling"),
            (PathBuf::from("/dev/zero"), "zero"),
            (PathBuf::from("/proc/self/root"), "proc"),
            (PathBuf::from("loop"), "loop"),
            (PathBuf::from("missing"), "dangling"),
            (PathBuf::from("sub/inside.txt"), "link"),
            (PathBuf::from("../inside.txt"), "sub/link"),
            (PathBuf::from("sub"), "linked"),
            (at("inside.txt"), "absolute-inside"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let read = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, at("fifo"), FileType::Fifo, read, 0).unwrap();
        if is_root() {
            let zero = makedev(1, 5);
            mknodat(CWD, at("device"), FileType::CharacterDevice, read, zero).unwrap();
        }
        let socket = UnixListener::bind(at("socket")).unwrap();
        Maze { outer, _socket: socket }
    }

    fn root(&self) -> PathBuf {
        self.outer.path().join("root")
    }
}

/// Targets, and the statuses that are right for them.
const CASES: &[(&str, &[u16])] = &[
    // What works.
    ("/inside.txt", &[200]),
    ("/sub/inside.txt", &[200]),
    ("/inside%2Etxt", &[200]),
    ("/%69nside.txt", &[200]),
    ("/a%20b", &[200]),
    ("/...", &[200]),
    ("/%ff.bin", &[200]),
    ("/%FF.bin", &[200]),
    ("/%252e%252e", &[200]),
    ("/inside.txt?../../secret.txt", &[200]),
    ("http://elsewhere.example/inside.txt", &[200]),
    ("/link", &[200]),
    ("/sub/link", &[200]),
    ("/linked/inside.txt", &[200]),
    // Up and out.
    ("/..", &[400]),
    ("/../secret.txt", &[400]),
    ("/../../../../../../../../etc/passwd", &[400]),
    ("/sub/../../secret.txt", &[400]),
    ("/sub/..", &[400]),
    ("/inside.txt/../../secret.txt", &[400]),
    ("/./../secret.txt", &[400]),
    ("/%2e%2e/secret.txt", &[400]),
    ("/%2E%2E/secret.txt", &[400]),
    ("/.%2e/secret.txt", &[400]),
    ("/%2e./secret.txt", &[400]),
    ("/..%2fsecret.txt", &[400]),
    ("/..%2Fsecret.txt", &[400]),
    ("/sub%2f..%2f..%2fsecret.txt", &[400]),
    ("/%2e%2e%2fsecret.txt", &[400]),
    ("/%2fetc%2fpasswd", &[400, 404]),
    ("/%252e%252e/secret.txt", &[404]),
    ("/%252e%252e%252fsecret.txt", &[404]),
    ("/..%252fsecret.txt", &[404]),
    ("/%c0%ae%c0%ae/secret.txt", &[404]),
    ("/..;/secret.txt", &[404]),
    ("/..\\secret.txt", &[400, 404]),
    ("/..%5csecret.txt", &[404]),
    ("/....//secret.txt", &[404]),
    ("/root-sibling/secret.txt", &[404]),
    ("//etc/passwd", &[404]),
    ("///etc/passwd", &[404]),
    ("//../etc/passwd", &[400]),
    ("http://elsewhere.example/../secret.txt", &[400]),
    ("http://elsewhere.example/%2e%2e/secret.txt", &[400]),
    ("http://elsewhere.example//etc/passwd", &[404]),
    ("file:///etc/passwd", &[400, 404]),
    // Links out.
    ("/absolute", &[404]),
    ("/relative", &[404]),
    ("/sub/relative", &[404]),
    ("/up/secret.txt", &[404]),
    ("/up/root/inside.txt", &[404]),
    ("/out/secret.txt", &[404]),
    ("/sibling/secret.txt", &[404]),
    ("/zero", &[404]),
    ("/proc/etc/passwd", &[404]),
    ("/loop", &[404]),
    ("/loop/inside.txt", &[404]),
    ("/dangling", &[404]),
    ("/absolute-inside", &[404]),
    // What is no file.
    ("/fifo", &[403]),
    ("/socket", &[403]),
    ("/missing", &[404]),
    ("/sub/", &[404]),
    ("/inside.txt/", &[404]),
    ("/inside.txt/more", &[404]),
    ("/missing/inside.txt", &[404]),
    // What is no name.
    ("/%00", &[400]),
    ("/inside.txt%00", &[400]),
    ("/inside.txt%00.html", &[400]),
    ("/sub%00/../../secret.txt", &[400]),
    ("/%ff", &[404]),
    ("/%ff%fe%fd", &[404]),
    ("/%", &[400, 404]),
    ("/%2", &[400, 404]),
    ("/%zz", &[400, 404]),
    ("*", &[400, 404]),
    ("", &[400]),
    ("inside.txt", &[400, 404]),
    ("../secret.txt", &[400]),
    ("elsewhere.example:80", &[400, 404]),
];

#[test]
fn nothing_leads_out_of_the_root() {
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &["--hidden", "--no-listing"]);
    check_all(&server);
    if is_root() {
        check(&server, "/device", &[403]);
    }
}

/// Kernels before 5.6 have no openat2.
#[test]
fn nothing_leads_out_without_openat2() {
    if !need("strace") {
        return;
    }
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &["--threads", "1", "--hidden", "--no-listing"]);
    let trace = Trace::attach(&server, &["openat2:error=ENOSYS"]);
    check_all(&server);
    let calls = trace.finish();
    assert!(calls.iter().any(|call| call.name == "openat2"), "openat2 is what is used elsewhere");
    let unharmed = calls.iter().all(|call| call.name != "openat2" || call.returned < 0);
    assert!(unharmed, "a call slipped past the injection");
}

fn check_all(server: &Server) {
    for (target, allowed) in CASES {
        check(server, target, allowed);
    }
    // Longer than NAME_MAX, than PATH_MAX, than any server reads.
    check(server, &format!("/{}", "a".repeat(256)), &[404]);
    check(server, &format!("/sub/{}/inside.txt", "a".repeat(5000)), &[404]);
    check(server, &"/sub/deep".repeat(600), &[404]);
    check(server, &format!("/{}", "a/".repeat(6000)), &[404]);
    check(server, &format!("/{}secret.txt", "../".repeat(5000)), &[400]);
    check(server, &format!("/{}", "a".repeat(100_000)), &[400, 414, 431]);
}

/// Asks for `target` raw, by GET and by HEAD.
#[track_caller]
fn check(server: &Server, target: &str, allowed: &[u16]) {
    check_bytes(server, target.as_bytes(), allowed);
}

#[track_caller]
fn check_bytes(server: &Server, target: &[u8], allowed: &[u16]) {
    let shown: String = String::from_utf8_lossy(target).chars().take(60).collect();
    let (head, body) = ask(server, b"GET", target);
    assert!(allowed.contains(&head.status), "{shown}: {} not in {allowed:?}", head.status);
    let leaked = body.windows(SECRET.len()).any(|part| part == SECRET);
    assert!(!leaked && !body.starts_with(b"root:"), "{shown}: bytes from outside");
    assert_eq!(body == INSIDE, head.status == 200, "{shown}: {body:?}");
    let (again, nothing) = ask(server, b"HEAD", target);
    assert_eq!(again.status, head.status, "HEAD {shown}");
    // hyper answers what it cannot parse without knowing the method.
    assert!(nothing.is_empty() || head.status >= 400, "HEAD {shown}: {nothing:?}");
}

fn ask(server: &Server, method: &[u8], target: &[u8]) -> (Head, Vec<u8>) {
    let mut peer = Peer::connect(server.address());
    let end = b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    peer.send(&[method, b" ", target, end].concat());
    (peer.head(), peer.rest())
}

/// A name checked as a directory and then opened as a link out would be a hole: the two change
/// places all the time.
#[test]
fn a_directory_that_turns_into_a_link_out() {
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &[]);
    check_while_renaming(&maze, &server, ["sub", "out"], "/sub/secret.txt", 2000, &[404]);
}

#[test]
fn a_directory_that_turns_into_a_link_out_without_openat2() {
    if !need("strace") {
        return;
    }
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &[]);
    let trace = Trace::attach(&server, &["openat2:error=ENOSYS"]);
    // A walk that finds a directory where it saw a link gives up, which is no hole.
    let allowed = [404, 500];
    check_while_renaming(&maze, &server, ["sub", "out"], "/sub/secret.txt", 500, &allowed);
    trace.finish();
}

/// Any rename on the host can make openat2 say EAGAIN for a path with `..` in it, as that of a
/// link: then it must be asked again. Here each thread's first call is the unlucky one.
#[test]
fn a_look_up_that_lost_a_race_is_made_again() {
    if !need("strace") {
        return;
    }
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &["--threads", "1"]);
    let trace = Trace::attach(&server, &["openat2:error=EAGAIN:when=1"]);
    let (head, body) = ask(&server, b"GET", b"/sub/link");
    assert_eq!((head.status, &*body), (200, INSIDE));
    trace.finish();
}

/// The same by real renames.
#[test]
fn renames_elsewhere_break_no_link() {
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &[]);
    check_while_renaming(&maze, &server, ["...", "a b"], "/sub/link", 2000, &[200]);
}

/// Asks for `target`, looked up anew each time, while the two `names` in the root change places.
fn check_while_renaming(
    maze: &Maze,
    server: &Server,
    names: [&str; 2],
    target: &str,
    requests: usize,
    allowed: &[u16],
) {
    let [one, other] = names.map(|name| maze.root().join(name));
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nCache-Control: no-cache\r\n\r\n");
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut peer = Peer::connect(server.address());
            for number in 0..requests {
                peer.send(request.as_bytes());
                let Answer { head, body } = peer.answer();
                assert!(allowed.contains(&head.status), "request {number}: {}", head.status);
                assert!(body != SECRET, "bytes from outside");
            }
        });
        while !asker.is_finished() {
            renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
        }
        asker.join().unwrap();
    });
}

/// Files stay open for the next request, but not behind a name that leads elsewhere.
#[test]
fn a_file_that_turns_into_a_link_out() {
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &[]);
    check(&server, "/inside.txt", &[200]);
    fs::rename(maze.root().join("relative"), maze.root().join("inside.txt")).unwrap();
    let refused = || {
        let (head, body) = ask(&server, b"GET", b"/inside.txt");
        assert!(body != SECRET, "bytes from outside");
        (head.status == 404).then_some(())
    };
    wait_until("the link to be refused", refused);
}

#[test]
fn bytes_that_are_no_text() {
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &[]);
    check_bytes(&server, b"/\xff.bin", &[200, 400]);
    check_bytes(&server, b"/\xfe", &[400, 404]);
    for target in [&b"/inside.txt\0"[..], b"/\x01", b"/in\tside", b"/in\x7fside"] {
        check_bytes(&server, target, &[400, 404]);
    }
}

#[test]
fn log_lines_stay_one_line_each() {
    let maze = Maze::new();
    let server = Server::start(&maze.root(), &[]);
    let targets = ["/%0a2026-01-01T00:00:00Z", "/%1b[31m", "/\"quoted\"", "/a%20b"];
    for target in targets {
        ask(&server, b"GET", target.as_bytes());
        assert_eq!(server.log_line_for(target).target, target);
    }
    assert_eq!(server.raw_log().all().len(), targets.len());
}

/// Root reads everything, so the server runs as nobody where the tests run as root.
#[test]
fn an_unreadable_file_is_forbidden() {
    const NOBODY: u32 = 65_534;
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("closed")).unwrap();
    for name in ["open.txt", "unreadable.txt", "closed/index.html"] {
        fs::write(root.join(name), INSIDE).unwrap();
    }
    for name in ["unreadable.txt", "closed"] {
        fs::set_permissions(root.join(name), Permissions::from_mode(0o000)).unwrap();
    }
    let mut command = pagewire(&[]);
    if is_root() {
        // The build directory may be closed to others.
        let copy = home.path().join("pagewire");
        fs::copy(program(), &copy).unwrap();
        command = std::process::Command::new(copy);
        command.uid(NOBODY).gid(NOBODY);
    }
    command.arg("serve").arg(&root).args(["--listen", "127.0.0.1:0"]);
    let server = Server::spawn(command);
    check(&server, "/open.txt", &[200]);
    for target in ["/unreadable.txt", "/closed/", "/closed/index.html", "/closed/missing"] {
        check(&server, target, &[403]);
    }
    if !is_root() {
        fs::set_permissions(root.join("closed"), Permissions::from_mode(0o700)).unwrap();
    }
}
