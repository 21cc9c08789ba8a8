//! Folders downloaded as archives: what tar and unzip make of them, ranges and resumed
//! downloads, the calls that carry them, and files that change meanwhile.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use super::support::{
    Answer, Call, Digest, MIB, Outcome, Peer, Server, Trace, ask, curl, digest, is_root, need,
    noise, open_dir, plain_dir, program,
};

const FORMATS: [&str; 2] = ["tar", "zip"];

/// What can be told of a tree: by path, what lies there.
type Tree = BTreeMap<PathBuf, Seen>;

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Directory { mode: u32 },
    File { mode: u32, modified: i64, content: Digest },
    Link(PathBuf),
}

fn tree_below(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let mode = stat.mode() & 0o777;
            let seen = if stat.is_dir() {
                left.push(path.clone());
                Seen::Directory { mode }
            } else if stat.is_symlink() {
                Seen::Link(path.read_link().unwrap())
            } else {
                let content = digest(&bytes_of(&path));
                Seen::File { mode, modified: stat.mtime(), content }
            };
            tree.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
        }
    }
    tree
}

#[expect(clippy::disallowed_methods, reason = "the test made it, and knows its size")]
fn bytes_of(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn put(path: &Path, content: &[u8], mode: u32, seconds: u64) {
    fs::write(path, content).unwrap();
    let file = File::open(path).unwrap();
    let modified = UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A tree with whatever is hard to pack, below `root/top`, and a secret beside the root.
fn make_tree(root: &Path) {
    let top = root.join("top");
    fs::create_dir_all(top.join("sub/empty")).unwrap();
    fs::create_dir_all(top.join(".git")).unwrap();
    fs::write(root.parent().unwrap().join("secret"), "secret").unwrap();
    fs::write(top.join(".git/config"), "hidden").unwrap();
    put(&top.join("empty"), b"", 0o644, 1);
    put(&top.join("one"), b"1", 0o600, 1_000_000_001);
    put(&top.join("block"), &noise(512, 1), 0o755, 1_795_384_058);
    put(&top.join("sub/large"), &noise(9 * MIB + 77, 2), 0o444, 1_795_384_059);
    for name in [&b"bad \xff\xfe"[..], "caf\u{e9} \u{5d0}".as_bytes(), b"new\nline", b"-rf"] {
        put(&top.join("sub").join(OsStr::from_bytes(name)), name, 0o640, 1_500_000_000);
    }
    let long = top.join("long".repeat(30)).join("name".repeat(60));
    fs::create_dir(long.parent().unwrap()).unwrap();
    put(&long, b"long", 0o644, 1_600_000_000);
    symlink("../one", top.join("sub/link")).unwrap();
    symlink("/etc/passwd", top.join("absolute")).unwrap();
    symlink("../../secret", top.join("outside")).unwrap();
    symlink("nowhere", top.join("broken")).unwrap();
}

/// What of the tree is to be packed.
fn packed_tree(root: &Path) -> Tree {
    let mut tree = tree_below(root);
    let left_out =
        [".git", "absolute", "outside", "broken"].map(|name| Path::new("top").join(name));
    tree.retain(|path, _| left_out.iter().all(|left_out| !path.starts_with(left_out)));
    tree
}

fn unpack(format: &str, archive: &Path, into: &Path) {
    let mut command = match format {
        "tar" => Command::new("tar"),
        _ => Command::new("unzip"),
    };
    match format {
        "tar" => command.arg("-xpf").arg(archive).arg("-C").arg(into),
        _ => command.args(["-q", "-^"]).arg(archive).arg("-d").arg(into),
    };
    let output = command.env("LC_ALL", "C.UTF-8").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {said}", output.status);
}

fn get_with(server: &Server, target: &str, headers: &str) -> Answer {
    let mut peer = Peer::connect(server.address());
    peer.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").as_bytes());
    peer.answer()
}

#[test]
fn what_is_unpacked_is_what_was_packed() {
    if !need("curl") || !need("unzip") {
        return;
    }
    for format in FORMATS {
        let dir = plain_dir();
        let root = dir.path().join("root");
        make_tree(&root);
        if format == "zip" {
            // unzip 6.0 garbles such names, those that Info-ZIP's own zip packed, too.
            fs::remove_file(root.join("top/sub").join(OsStr::from_bytes(b"bad \xff\xfe"))).unwrap();
        }
        let server = Server::start(&root, &[]);
        let archive = dir.path().join("archive");
        let url = server.url(&format!("/top/?{format}"));
        curl(&["--fail", "--output", archive.to_str().unwrap(), &url]);
        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        unpack(format, &archive, &into);
        let (unpacked, packed) = (tree_below(&into), packed_tree(&root));
        for (path, seen) in &packed {
            assert_eq!(unpacked.get(path), Some(seen), "{format}: {}", path.display());
        }
        assert_eq!(unpacked.len(), packed.len(), "{format}: {unpacked:?}");
        let line = server.log_line_for(&format!("/top/?{format}"));
        line.assert_complete(fs::metadata(&archive).unwrap().len());
        // A checksum takes reading; nothing else of either format does.
        let read = if format == "tar" { 0 } else { 9 * MIB };
        assert!((read..read + 4096).contains(&line.user_copied), "{line:?}");
        assert_eq!(server.finish().routes["read-write"].user_copied, line.user_copied);
    }
}

#[test]
fn any_range_is_that_of_the_whole() {
    let dir = plain_dir();
    let root = dir.path().join("root");
    make_tree(&root);
    fs::remove_file(root.join("top/sub/large")).unwrap();
    for (at, format) in FORMATS.into_iter().enumerate() {
        let server = Server::start(&root, &[]);
        let target = format!("/top/?{format}");
        let Answer { head, body: whole } = ask(&server, &target).answer();
        let header = |name: &str| head.header(name).unwrap().to_owned();
        assert_eq!((head.status, &*header("accept-ranges")), (200, "bytes"));
        assert!(header("content-disposition").contains(&format!("\"top.{format}\"")));
        let len = whole.len();
        // A prime, so that ranges begin in every part of a header.
        for first in (0..len).step_by(193) {
            let last = (first + 700).min(len - 1);
            let part = get_with(&server, &target, &format!("Range: bytes={first}-{last}\r\n"));
            assert_eq!(part.head.status, 206, "{first}");
            let range = format!("bytes {first}-{last}/{len}");
            assert_eq!(part.head.header("content-range"), Some(&*range));
            assert!(part.body == whole[first..=last], "{format} {first}-{last}");
        }
        let tag = header("etag");
        let rest = |condition: &str| {
            get_with(&server, &target, &format!("Range: bytes=100-\r\nIf-Range: {condition}\r\n"))
        };
        assert_eq!((rest(&tag).head.status, rest("\"other\"").head.status), (206, 200));
        let unchanged = get_with(&server, &target, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((unchanged.head.status, unchanged.body.len()), (304, 0));
        let beyond = get_with(&server, &target, &format!("Range: bytes={len}-\r\n"));
        assert_eq!(beyond.head.header("content-range"), Some(&*format!("bytes */{len}")));
        let mut peer = Peer::connect(server.address());
        let close = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        peer.send(format!("HEAD {target} {close}").as_bytes());
        let told = peer.head();
        assert_eq!((told.content_length(), told.header("etag")), (len, Some(&*tag)));
        assert_eq!(peer.rest(), b"");
        // Another time of change is another archive.
        put(&root.join("top/one"), b"1", 0o600, 1_000_000_002 + at as u64);
        assert_eq!(rest(&tag).head.status, 200);
    }
}

#[test]
fn curl_resumes_in_the_middle() {
    if !need("curl") {
        return;
    }
    for format in FORMATS {
        let dir = plain_dir();
        let root = dir.path().join("root");
        make_tree(&root);
        let target = format!("/top/?{format}");
        let whole = ask(&Server::start(&root, &[]), &target).answer().body;
        // The middle lies in the large file, whose checksum another process has to reckon anew.
        let server = Server::start(&root, &[]);
        let archive = dir.path().join("archive");
        fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
        curl(&["--fail", "-C", "-", "-o", archive.to_str().unwrap(), &server.url(&target)]);
        assert_eq!(digest(&bytes_of(&archive)), digest(&whole), "{format}");
        assert_eq!(server.log_line_for(&target).status, 206);
    }
}

#[test]
fn a_thousand_files_need_few_descriptors() {
    let dir = plain_dir();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    for number in 0..1000 {
        fs::write(files.join(number.to_string()), number.to_string()).unwrap();
    }
    for format in FORMATS {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]).arg(program());
        command.arg("serve").arg(dir.path()).args(["--listen", "127.0.0.1:0"]);
        let server = Server::spawn(command);
        let target = format!("/files/?{format}");
        let Answer { head, body } = ask(&server, &target).answer();
        assert_eq!(head.status, 200);
        server.log_line_for(&target).assert_complete(body.len() as u64);
    }
}

#[test]
fn sendfile_carries_the_files_of_an_archive() {
    if !need("strace") || !need("curl") {
        return;
    }
    let dir = plain_dir();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    for name in ["a", "b"] {
        fs::write(folder.join(name), noise(20 * MIB, 3)).unwrap();
    }
    let server = Server::start(dir.path(), &["--threads", "1"]);
    let trace = Trace::attach(&server, &[]);
    curl(&["--output", "/dev/null", &server.url("/folder/?tar")]);
    let line = server.log_line_for("/folder/?tar");
    let calls = trace.finish();
    let sent = |name: &str| {
        let sends = calls.iter().filter(|call| call.sends_from(server.address()));
        sends.filter(|call| call.name == name).map(Call::bytes).sum::<u64>()
    };
    assert_eq!(sent("sendfile"), 40 * MIB, "{line:?}");
    assert_eq!((line.route.as_str(), line.user_copied), ("sendfile", 0), "{line:?}");
    for name in ["a", "b"] {
        let file = folder.join(name).canonicalize().unwrap();
        let mut reads = calls.iter().filter(|call| call.name.contains("read"));
        assert!(!reads.any(|call| call.reads(&file)), "{name} was read into memory");
    }
}

#[test]
fn a_file_that_changes_ends_the_download_with_an_error() {
    /// What the log says, and what is done to the file.
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 3] = [
        ("changed", |path| fs::write(path, noise(MIB + 1, 9)).unwrap()),
        ("changed", |path| put(path, &noise(MIB, 8), 0o644, 1)),
        ("gone", |path| fs::remove_file(path).unwrap()),
    ];
    for format in FORMATS {
        for (reason, change) in changes {
            let dir = plain_dir();
            let folder = dir.path().join("folder");
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("a"), noise(24 * MIB, 4)).unwrap();
            // More than are opened ahead.
            (0..100).for_each(|n| fs::write(folder.join(format!("b{n}")), "b").unwrap());
            fs::write(folder.join("z"), noise(MIB, 5)).unwrap();
            let server = Server::start(dir.path(), &[]);
            let target = format!("/folder/?{format}");
            let mut peer = Peer::connect(server.address());
            peer.get(&target);
            let head = peer.head();
            change(&folder.join("z"));
            let got = peer.rest();
            assert!(got.len() < head.content_length() - 1000, "{format}: it looks whole");
            let line = server.log_line_for(&target);
            let Outcome::Aborted(why) = &line.outcome else { panic!("{line:?}") };
            assert!(why.contains("folder/z") && why.contains(reason), "{why}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_named_instead_of_left_out() {
    if !is_root() || !need("setpriv") {
        return;
    }
    let dir = open_dir();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("folder/open"), "open").unwrap();
    put(&dir.path().join("folder/closed"), b"closed", 0o600, 1);
    let copy = dir.path().join("pagewire");
    fs::copy(program(), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
    command.arg("serve").arg(dir.path()).args(["--listen", "127.0.0.1:0"]);
    let server = Server::spawn(command);
    for format in FORMATS {
        let answer = ask(&server, &format!("/folder/?{format}")).answer();
        let said = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.head.status, 403, "{said}");
        assert!(said.contains("'closed' is not readable"), "{said}");
    }
}

#[test]
fn archives_go_with_the_listing() {
    let dir = plain_dir();
    fs::create_dir(dir.path().join(".hidden")).unwrap();
    fs::write(dir.path().join("index.html"), "index").unwrap();
    let server = Server::start(dir.path(), &[]);
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    // The index is kept open from here on, and is not what is asked for next.
    assert_eq!(ask(&server, "/").answer().body, b"index");
    let Answer { head, body } = ask(&server, "/?tar").answer();
    // A directory with an index can be packed, too: its header, the file's, one block, the end.
    assert_eq!((head.status, body.len()), (200, 512 + 512 + 512 + 1024));
    assert!(body.starts_with(name.as_bytes()));
    for target in ["/none/?tar", "/.hidden/?tar", "/index.html/?zip"] {
        assert_eq!(ask(&server, target).answer().head.status, 404, "{target}");
    }
    assert_eq!(ask(&server, "/index.html?tar").answer().body, b"index");
    let closed = Server::start(dir.path(), &["--no-listing"]);
    assert_eq!(ask(&closed, "/?tar").answer().body, b"index");
}
