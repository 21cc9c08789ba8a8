//! Files that are not in the page cache: the cold pool brings them in, on every file system, for
//! many clients at once, and a broken disk is an error to its own clients alone. Disks that give
//! nothing for a while are in `stuck.rs`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::support::{
    CHOICES, Call, Cold, Disk, FileSystem, KIB, MIB, Peer, ROUTES, Server, Task, Trace, ask,
    assert_gets, chill, cold_threads, curl_digest, digest, need, need_root, noise, open_dir,
    plain_dir, program, resident_bytes, skip, tasks,
};

/// Threads of the cold pool (`crates/engine/src/cold.rs`).
const THREADS_MAX: usize = 16;
/// What the cold pool brings in at once.
const WINDOW: u64 = 512 * KIB;
/// A receive buffer that makes the server wait early.
const LITTLE: usize = 16 << 10;

#[test]
fn the_cold_pool_reads_and_the_event_loop_sends() {
    if !need("strace") || !need("curl") {
        return;
    }
    let dir = plain_dir();
    let content = noise(5 * MIB + 7, 1);
    let len = content.len() as u64;
    for route in ROUTES {
        // Some pages of a file that was sent before may not go: the kernel lets packets that were
        // read already lie for a while (7 of 64 KiB were seen to stay for 20 s).
        let target = format!("/{route}.bin");
        fs::write(dir.path().join(&target[1..]), &content).unwrap();
        let path = dir.path().join(&target[1..]).canonicalize().unwrap();
        let server = Server::start(dir.path(), &["--route", route, "--threads", "1"]);
        if let Err(kept) = chill(&path) {
            return skip(&format!("{kept} bytes stay in the page cache: on which file system?"));
        }
        let trace = Trace::attach(&server, &[]);
        assert_eq!(curl_digest(&server.url(&target)), (len, digest(&content)), "{route}");
        let line = server.log_line_for(&target);
        line.assert_complete(len);
        let threads = tasks(server.pid());
        let calls = trace.finish_by_thread();
        let brought_in = |task: &&Task| calls.get(&task.id).map_or(0, |calls| bytes(calls, &path));
        let (cold, others): (Vec<&Task>, Vec<&Task>) = threads.iter().partition(|t| t.is_cold());
        // A window that was read in time was not waited for.
        assert!((1..=len).contains(&line.cold), "{line:?}");
        assert_eq!(cold.iter().map(brought_in).sum::<u64>(), len, "{route}");
        assert_eq!(others.iter().map(brought_in).sum::<u64>(), 0, "{route}");
        for task in cold {
            let sends = |call: &Call| call.sends_from(server.address());
            assert!(!calls[&task.id].iter().any(sends), "{route}: {task:?}");
        }
        let totals = server.finish();
        assert_eq!(totals.cold.bytes, line.cold, "{route}");
        assert!(totals.cold.waits >= totals.cold.bytes.div_ceil(WINDOW), "{route}: {totals:?}");
    }
}

/// Bytes of `path` that these calls brought into the page cache.
fn bytes(calls: &[Call], path: &Path) -> u64 {
    calls.iter().filter(|call| call.brings_in(path)).map(Call::bytes).sum()
}

#[test]
fn a_hot_file_passes_the_cold_pool() {
    let dir = plain_dir();
    let content = noise(5 * MIB + 7, 2);
    fs::write(dir.path().join("file.bin"), &content).unwrap();
    let server = Server::start(dir.path(), &[]);
    for _ in 0..3 {
        assert_gets(ask(&server, "/file.bin"), &content, "hot");
    }
    assert_eq!(cold_threads(&server).len(), 0);
    assert_eq!(server.finish().cold, Cold::default());
}

#[test]
fn cold_files_of_every_file_system() {
    for kind in FileSystem::ALL {
        let Some(disk) = kind.make() else { continue };
        check_file_system(kind, &disk);
    }
}

fn check_file_system(kind: FileSystem, disk: &Disk) {
    for (choice, len) in CHOICES.into_iter().zip([9 * MIB + 1, 700 * KIB, MIB, 3 * MIB, 65_537]) {
        let content = noise(len, len);
        disk.put_cold("file.bin", &content);
        let server = Server::start(disk.path(), &["--route", choice]);
        let context = format!("{kind:?} {choice}");
        assert_gets(ask(&server, "/file.bin"), &content, &context);
        let line = server.log_line_for("/file.bin");
        line.assert_complete(len);
        assert_eq!(line.cold > 0, kind != FileSystem::Tmpfs, "{context}: {line:?}");
        assert_gets(ask(&server, "/file.bin?again"), &content, &context);
        let again = server.log_line_for("/file.bin?again").cold;
        let totals = server.finish();
        assert_eq!(totals.cold.bytes, line.cold + again, "{context}: {totals:?}");
    }
}

/// The kernel tells nobody but a file's owner and writers, with cachestat, what is cached of it.
#[test]
fn cold_files_of_others() {
    const NOBODY: u32 = 65_534;
    if !need_root("becoming another user") {
        return;
    }
    let Some(disk) = FileSystem::Ext4.make() else { return };
    // The build directory may be closed to others.
    let home = open_dir();
    let copy = home.path().join("pagewire");
    fs::copy(program(), &copy).unwrap();
    for choice in CHOICES {
        let content = noise(5 * MIB + 7, 3);
        disk.put_cold("file.bin", &content);
        let mut command = Command::new(&copy);
        command.uid(NOBODY).gid(NOBODY).arg("serve").arg(disk.path());
        command.args(["--listen", "127.0.0.1:0", "--route", choice]);
        let server = Server::spawn(command);
        assert_gets(ask(&server, "/file.bin"), &content, choice);
        let cold = server.log_line_for("/file.bin").cold;
        assert!((WINDOW..=content.len() as u64).contains(&cold), "{choice}: {cold}");
        assert_gets(ask(&server, "/file.bin?again"), &content, choice);
        assert_eq!(server.log_line_for("/file.bin?again").cold, 0, "{choice}: it is hot");
    }
}

/// overlayfs answers neither cachestat nor RWF_NOWAIT: its files went by the cold pool for ever,
/// window by window.
#[test]
fn a_hot_file_of_an_overlay_passes_the_cold_pool() {
    let Some(disk) = FileSystem::Overlay.make() else { return };
    let content = noise(9 * MIB + 1, 8);
    disk.put_cold("file.bin", &content);
    for (choice, cold_at_first) in CHOICES.into_iter().zip([true, false, false, false, false]) {
        let server = Server::start(disk.path(), &["--route", choice]);
        for target in ["/file.bin?1", "/file.bin?2"] {
            assert_gets(ask(&server, target), &content, choice);
        }
        assert_eq!(server.log_line_for("/file.bin?1").cold > 0, cold_at_first, "{choice}");
        assert_eq!(server.log_line_for("/file.bin?2").cold, 0, "{choice}");
    }
    // One page that is missing is seen.
    disk.chill("file.bin");
    disk.warm("file.bin", 5 * MIB + 4 * KIB);
    let server = Server::start(disk.path(), &[]);
    assert_gets(ask(&server, "/file.bin"), &content, "half of it");
    let cold = server.log_line_for("/file.bin").cold;
    assert!((1..=4 * MIB + 1).contains(&cold), "{cold} of {}", content.len());
}

/// To who may not write a file, mincore says that all of it is in memory, whatever is.
#[test]
fn an_overlay_file_of_others_is_not_taken_for_hot() {
    if !need("setpriv") {
        return;
    }
    let Some(disk) = FileSystem::Overlay.make() else { return };
    let home = open_dir();
    let copy = home.path().join("pagewire");
    fs::copy(program(), &copy).unwrap();
    let content = noise(3 * MIB + 7, 9);
    disk.put_cold("file.bin", &content);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
    command.arg("serve").arg(disk.path()).args(["--listen", "127.0.0.1:0"]);
    let server = Server::spawn(command);
    for target in ["/file.bin?1", "/file.bin?2"] {
        assert_gets(ask(&server, target), &content, target);
        let line = server.log_line_for(target);
        assert_eq!(line.cold, content.len() as u64, "{line:?}");
    }
}

fn name(number: u64) -> String {
    format!("{number}.bin")
}

#[test]
fn a_disk_that_breaks_while_cold() {
    const LEN: u64 = 200 * MIB;
    for kind in [FileSystem::Ext4, FileSystem::Xfs] {
        let root = plain_dir();
        let Some(disk) = kind.make_at(&root.path().join("disk")) else { continue };
        // It cannot but lie across the middle of the disk.
        let broken = noise(LEN, 4);
        disk.put_cold("broken.bin", &broken);
        disk.make_read_only();
        disk.break_off(disk.len() / 2);
        let cold = noise(3 * MIB, 5);
        for choice in CHOICES {
            let server = Server::start(root.path(), &["--route", choice, "--threads", "1"]);
            let whole = root.path().join("cold.bin");
            fs::write(&whole, &cold).unwrap();
            // Where the build directory is in memory, it is hot.
            chill(&whole).ok();
            let mut peer = ask(&server, "/disk/broken.bin");
            assert_eq!(peer.head().content_length() as u64, LEN);
            let got = peer.rest();
            assert!((got.len() as u64) < LEN, "{choice}: {} bytes came", got.len());
            let line = server.log_line_for("/disk/broken.bin");
            assert!(line.reason().starts_with("Input/output error"), "{choice}: {line:?}");
            assert_eq!(line.sent, got.len() as u64, "{line:?}");
            assert!(broken.starts_with(&got), "{choice}: not the file's");
            assert_gets(ask(&server, "/cold.bin"), &cold, choice);
            assert_eq!(server.finish().aborted, 1, "{choice}");
        }
    }
}

#[test]
fn more_cold_clients_than_threads() {
    const CLIENTS: u64 = 40;
    const LEN: u64 = 3 * WINDOW + 5;
    let Some(disk) = FileSystem::Ext4.make() else { return };
    for threads in ["1", "2"] {
        for number in 0..CLIENTS {
            disk.put_cold(&name(number), &noise(LEN, number));
        }
        let server = Server::start(disk.path(), &["--threads", threads]);
        let ask_for = |number| ask(&server, &format!("/{}", name(number)));
        let peers: Vec<Peer> = (0..CLIENTS).map(ask_for).collect();
        for (peer, number) in peers.into_iter().zip(0..) {
            assert_gets(peer, &noise(LEN, number), "one of many");
        }
        let cold = cold_threads(&server).len();
        assert!((1..=THREADS_MAX).contains(&cold), "{cold} threads");
        for number in 0..CLIENTS {
            let line = server.log_line_for(&format!("/{}", name(number)));
            line.assert_complete(LEN);
            assert!(line.cold > 0, "{line:?}");
        }
    }
}

#[test]
fn a_thousand_slow_readers_of_one_cold_file_at_different_places() {
    const READERS: usize = 1000;
    const APART: usize = 32 << 10;
    const LEN: usize = 1 << 20;
    const PIECE: usize = 64 << 10;
    // What a socket and its connection may cost the server, pages of the file not counted.
    const MEMORY_MAX: u64 = READERS as u64 * 64 * KIB;
    let Some(disk) = FileSystem::Ext4.make() else { return };
    raise_descriptor_limit();
    let content = noise((READERS * APART + LEN) as u64, 6);
    disk.put_cold("file.bin", &content);
    let server = Server::start(disk.path(), &["--threads", "1"]);
    let before = resident_bytes(server.pid());
    let ask_for_range = |index: usize| {
        let mut peer = Peer::with_receive_buffer(server.address(), LITTLE);
        let (first, last) = (index * APART, index * APART + LEN - 1);
        let range = format!("Range: bytes={first}-{last}");
        peer.send(format!("GET /file.bin HTTP/1.1\r\nHost: test\r\n{range}\r\n\r\n").as_bytes());
        (peer, &content[first..=last])
    };
    let mut readers: Vec<(Peer, &[u8])> = (0..READERS).map(ask_for_range).collect();
    for (peer, _) in &mut readers {
        assert_eq!(peer.head().status, 206);
    }
    let mut grown = 0;
    for start in (0..LEN).step_by(PIECE) {
        if start == LEN / 2 {
            // What lies behind them is cold once more.
            disk.drop_pages("file.bin");
        }
        for (index, (peer, expected)) in readers.iter_mut().enumerate() {
            assert!(peer.body(PIECE) == expected[start..start + PIECE], "{index} at {start}");
        }
        grown = grown.max(resident_bytes(server.pid()).saturating_sub(before));
    }
    eprintln!("{READERS} slow readers: the server grew by {} KiB", grown >> 10);
    assert!(grown < MEMORY_MAX, "the server grew by {grown} bytes");
    drop(readers);
    let totals = server.finish();
    assert_eq!((totals.responses, totals.aborted), (READERS as u64, 0));
    // Few wait: what one reader waits for, those that overlap it find there.
    assert!(totals.cold.waits > 0, "{totals:?}");
}

fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}
