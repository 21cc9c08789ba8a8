//! Disks that are slow, stuck or hang while cold files are asked for: the event loop never waits
//! for one, and hot clients and other disks do not feel it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::thread::ScopedJoinHandle;

use tempfile::TempDir;

use super::support::{
    Blkio, Disk, FileSystem, KIB, LogLine, MIB, Peer, Server, ask, assert_gets, cold_threads,
    descriptors, digest, event_loop, need, noise, open_dir, plain_dir, program, wait_until,
};

/// Threads of the cold pool that may wait for one device (`crates/engine/src/cold.rs`).
const THREADS_A_DEVICE: usize = 8;
/// What the cold pool brings in at once.
const WINDOW: u64 = 512 * KIB;
/// A receive buffer that makes the server wait early.
const LITTLE: usize = 16 << 10;

/// One thread for all connections.
const ONE_LOOP: [&str; 4] = ["--threads", "1", "--listen", "127.0.0.1:0"];

fn wait_until_the_pool_is_stuck(server: &Server, threads: usize) {
    wait_until("the cold pool to wait for the disk", || {
        let cold = cold_threads(server);
        (cold.iter().filter(|task| task.is_stuck()).count() == threads).then_some(())
    });
}

/// The server has the file open afterwards, and has looked up its name.
fn open(server: &Server, target: &str) {
    let mut peer = Peer::connect(server.address());
    peer.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
    assert_eq!(peer.head().status, 200, "{target}");
}

/// Hot files for clients that must not feel what happens to others.
struct Hot {
    content: Vec<u8>,
}

impl Hot {
    const TARGET: &str = "/hot.bin";

    fn below(root: &Path) -> Hot {
        let hot = Hot { content: noise(24 * KIB + 1, 99) };
        fs::write(root.join("hot.bin"), &hot.content).unwrap();
        hot
    }

    /// A thousand requests are answered, over one connection and over many, while the thread of
    /// all connections never waits for a disk.
    #[track_caller]
    fn is_served(&self, server: &Server) {
        let mut kept = ask(server, Hot::TARGET);
        for round in 0..500 {
            assert!(kept.answer().body == self.content, "round {round}");
            assert_gets(ask(server, Hot::TARGET), &self.content, "a hot client");
            let task = event_loop(server);
            assert!(!task.waits_for_a_page(), "round {round}: {task:?}");
            kept.get(Hot::TARGET);
        }
    }
}

fn logged(server: &Server, target: &str) -> usize {
    let lines = server.log_lines();
    lines.iter().filter(|line| line.method == "GET" && line.target.starts_with(target)).count()
}

fn name(number: u64) -> String {
    format!("{number}.bin")
}

/// A served directory with a disk that can be stuck, a server limited to one event loop, and
/// a hot file elsewhere.
struct Stage {
    server: Server,
    disk: Disk,
    /// Another one, that goes on.
    other: Option<Disk>,
    hot: Hot,
    blkio: Blkio,
    root: TempDir,
    /// That the server has when nobody is connected.
    sockets: usize,
}

/// Twelve cold clients want more than one device's share of the pool.
const COLD_FILES: u64 = 12;
const COLD_LEN: u64 = 3 * WINDOW + 5;

impl Stage {
    fn set(name: &str) -> Option<Stage> {
        Stage::set_for(name, &[])
    }

    /// With a server that the program `runner` starts.
    fn set_for(name: &str, runner: &[&str]) -> Option<Stage> {
        let root = open_dir();
        let blkio = Blkio::new(name)?;
        let disk = FileSystem::Ext4.make_at(&root.path().join("disk"))?;
        let hot = Hot::below(root.path());
        for number in 0..COLD_FILES {
            disk.put_cold(&format!("{number}.bin"), &noise(COLD_LEN, number));
        }
        // The build directory may be closed to others.
        let copy = root.path().join("pagewire");
        fs::copy(program(), &copy).unwrap();
        let mut command = blkio.command();
        command.args(runner).arg(copy).arg("serve").arg(root.path()).args(ONE_LOOP);
        let server = Server::spawn(command);
        let sockets = sockets(&server);
        // Names are looked up before the disk sticks: that a directory is read is not at stake.
        for number in 0..COLD_FILES {
            open(&server, &format!("/disk/{number}.bin"));
        }
        Some(Stage { server, disk, other: None, hot, blkio, root, sockets })
    }

    fn ask_all(&self) -> Vec<Peer> {
        (0..COLD_FILES).map(|number| ask(&self.server, &format!("/disk/{number}.bin"))).collect()
    }
}

#[test]
fn a_stuck_disk_holds_up_no_hot_client() {
    let Some(stage) = Stage::set("stuck") else { return };
    let before = event_loop(&stage.server).read_bytes;
    check_stuck(&stage);
    assert_asked_no_disk(&stage.server, before);
    let read: u64 = cold_threads(&stage.server).iter().map(|task| task.read_bytes).sum();
    assert!(read >= COLD_FILES * COLD_LEN, "the cold pool read {read} bytes");
}

/// The event loop read no file that it serves since it had read `before` bytes. Pages of its own
/// program it may: the host can take those away at any time.
fn assert_asked_no_disk(server: &Server, before: u64) {
    const OWN_CODE_MAX: u64 = 128 << 10;
    let read = event_loop(server).read_bytes - before;
    assert!(read < OWN_CODE_MAX, "the event loop read {read} bytes from a disk");
}

const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// Who may not write the files is not told by cachestat what is cached of them.
#[test]
fn a_stuck_disk_holds_up_no_hot_client_of_an_unprivileged_server() {
    if !need("setpriv") {
        return;
    }
    let Some(stage) = Stage::set_for("nobody", &NOBODY) else { return };
    check_stuck(&stage);
}

fn check_stuck(stage: &Stage) {
    let Stage { server, hot, .. } = stage;
    let stuck = stage.blkio.stick(&stage.disk);
    let peers = stage.ask_all();
    wait_until_the_pool_is_stuck(server, THREADS_A_DEVICE);
    hot.is_served(server);
    assert_eq!(logged(server, "/disk/"), 0, "the disk is stuck");
    drop(stuck);
    for (peer, number) in peers.into_iter().zip(0..) {
        assert_gets(peer, &noise(COLD_LEN, number), "a cold client");
    }
    wait_until("twelve lines", || (logged(server, "/disk/") == 12).then_some(()));
    for line in server.log_lines().iter().filter(|line| line.due == COLD_LEN) {
        assert!(line.cold > 0, "{line:?}");
    }
}

/// Pages that are being read are in the page cache already, and cachestat counts them: the window
/// after the one that is sent, fetched ahead, is not there yet.
#[test]
fn a_disk_that_sticks_between_two_windows_holds_up_no_hot_client() {
    let Some(stage) = Stage::set("between") else { return };
    let Stage { server, disk, hot, .. } = &stage;
    for number in 0..COLD_FILES {
        disk.warm(&name(number), WINDOW);
    }
    let stuck = stage.blkio.stick(disk);
    let peers = stage.ask_all();
    wait_until_the_pool_is_stuck(server, THREADS_A_DEVICE);
    hot.is_served(server);
    drop(stuck);
    for (peer, number) in peers.into_iter().zip(0..) {
        assert_gets(peer, &noise(COLD_LEN, number), "a cold client");
    }
}

/// As above: here another client has the window brought in.
#[test]
fn two_clients_of_one_stuck_file_hold_up_no_hot_client() {
    let Some(stage) = Stage::set("two") else { return };
    let Stage { server, disk, hot, .. } = &stage;
    let stuck = stage.blkio.stick(disk);
    let peers = [(); 2].map(|()| {
        let peer = ask(server, "/disk/0.bin");
        wait_until_the_pool_is_stuck(server, 1);
        peer
    });
    hot.is_served(server);
    drop(stuck);
    for peer in peers {
        assert_gets(peer, &noise(COLD_LEN, 0), "a cold client");
    }
}

/// Looked at again and again while windows come in one after the other.
#[test]
fn the_event_loop_never_waits_for_a_slow_disk() {
    const BYTES_A_SECOND: u64 = 16 * MIB;
    let Some(stage) = Stage::set("slow") else { return };
    let Stage { server, disk, .. } = &stage;
    let before = event_loop(server).read_bytes;
    let slow = stage.blkio.slow_down(disk, BYTES_A_SECOND);
    let (mut looks, mut stuck, mut waiting) = (0, 0, 0);
    std::thread::scope(|scope| {
        let download = |(peer, number): (Peer, u64)| {
            scope.spawn(move || assert_gets(peer, &noise(COLD_LEN, number), "a cold client"))
        };
        let clients: Vec<_> = stage.ask_all().into_iter().zip(0..).map(download).collect();
        while !clients.iter().all(ScopedJoinHandle::is_finished) {
            let task = event_loop(server);
            waiting += usize::from(task.waits_for_a_page());
            stuck += cold_threads(server).iter().filter(|task| task.is_stuck()).count();
            looks += 1;
        }
    });
    // A page of its own program it may wait for, which is over at the next look.
    assert!(waiting * 20 < looks, "seen waiting for a page in {waiting} of {looks} looks");
    assert!(stuck > 0, "the disk was not slow enough to be seen waiting for in {looks} looks");
    assert_asked_no_disk(server, before);
    drop(slow);
}

#[test]
fn a_stuck_disk_holds_up_no_other_disk() {
    let Some(mut stage) = Stage::set("other") else { return };
    stage.other = FileSystem::Ext4.make_at(&stage.root.path().join("other"));
    let content = noise(COLD_LEN, 7);
    stage.other.as_ref().unwrap().put_cold("file.bin", &content);
    let stuck = stage.blkio.stick(&stage.disk);
    let peers = stage.ask_all();
    wait_until_the_pool_is_stuck(&stage.server, THREADS_A_DEVICE);
    assert_gets(ask(&stage.server, "/other/file.bin"), &content, "a cold client of another disk");
    assert!(stage.server.log_line_for("/other/file.bin").cold > 0);
    assert_eq!(logged(&stage.server, "/disk/"), 0, "the disk is stuck");
    drop(stuck);
    for (peer, number) in peers.into_iter().zip(0..) {
        assert_gets(peer, &noise(COLD_LEN, number), "a cold client");
    }
}

#[test]
fn clients_that_leave_while_cold() {
    let Some(stage) = Stage::set("leave") else { return };
    let Stage { server, hot, .. } = &stage;
    let stuck = stage.blkio.stick(&stage.disk);
    let peers = stage.ask_all();
    wait_until_the_pool_is_stuck(server, THREADS_A_DEVICE);
    for (peer, number) in peers.into_iter().zip(0..) {
        if number % 2 == 0 { peer.reset() } else { drop(peer) }
    }
    hot.is_served(server);
    // That a connection was reset was noticed only when the window was there.
    let left = usize::try_from(COLD_FILES).unwrap() / 2;
    let closed = || (sockets(server) == stage.sockets + left).then_some(());
    wait_until("the connections that were reset to be closed", closed);
    wait_until("their lines", || (logged(server, "/disk/") == left).then_some(()));
    drop(stuck);
    let closed = || (sockets(server) == stage.sockets).then_some(());
    wait_until("all connections to be closed", closed);
    wait_until("twelve lines", || (logged(server, "/disk/") == 12).then_some(()));
    for line in server.log_lines().iter().filter(|line| line.method == "GET") {
        assert!(line.target == Hot::TARGET || !line.reason().is_empty(), "{line:?}");
    }
    // A thread of the pool ends when it had nothing to do for a while.
    wait_until("the cold pool to be idle", || cold_threads(server).is_empty().then_some(()));
    assert_gets(ask(server, "/disk/0.bin"), &noise(COLD_LEN, 0), "a later client");
}

/// How many sockets the server has open, by however many descriptors.
fn sockets(server: &Server) -> usize {
    let open: HashSet<_> = descriptors(server.pid()).into_iter().collect();
    open.iter().filter(|path| path.to_string_lossy().starts_with("socket:")).count()
}

/// Before, within, at the end of and behind the window that is being brought in.
const CUTS: [u64; 5] = [0, WINDOW / 2 + 123, WINDOW, WINDOW + 123, 2 * WINDOW + 4];

#[test]
fn a_file_that_shrinks_while_cold() {
    let Some(stage) = Stage::set("shrink") else { return };
    let Stage { server, disk, .. } = &stage;
    let stuck = stage.blkio.stick(disk);
    let peers = stage.ask_all();
    wait_until_the_pool_is_stuck(server, THREADS_A_DEVICE);
    std::thread::scope(|scope| {
        for (path, cut) in (0..).map(|number| disk.join(&name(number))).zip(CUTS) {
            let file = File::options().write(true).open(&path).unwrap();
            // It is shorter at once, and then waits for the pages that are being read.
            scope.spawn(move || file.set_len(cut).unwrap());
            let is_cut = || (fs::metadata(&path).unwrap().len() == cut).then_some(());
            wait_until("the file to be cut", is_cut);
        }
        drop(stuck);
    });
    for (peer, number) in peers.into_iter().zip(0..) {
        let content = noise(COLD_LEN, number);
        match CUTS.get(usize::try_from(number).unwrap()) {
            Some(cut) => assert_cut_short(server, peer, number, &content, *cut),
            None => assert_gets(peer, &content, "a file that is whole"),
        }
    }
}

#[track_caller]
fn assert_cut_short(server: &Server, mut peer: Peer, number: u64, content: &[u8], cut: u64) {
    peer.head();
    let got = peer.rest();
    assert!(content.starts_with(&got) && got.len() as u64 <= cut, "{cut}: {} came", got.len());
    let line = wait_until("a log line", || {
        let ours = |line: &LogLine| line.method == "GET" && line.target.ends_with(&target(number));
        server.log_lines().into_iter().find(ours)
    });
    for size in [content.len() as u64, cut] {
        assert!(line.reason().contains(&size.to_string()), "no {size} in {line:?}");
    }
    assert_eq!(line.sent, got.len() as u64, "{line:?}");
}

fn target(number: u64) -> String {
    format!("/disk/{number}.bin")
}

#[test]
fn a_hung_file_system_holds_up_no_hot_client() {
    const CLIENTS: u64 = 10;
    let root = plain_dir();
    let Some(fuse) = FileSystem::Fuse.make_at(&root.path().join("fuse")) else { return };
    let Some(other) = FileSystem::Ext4.make_at(&root.path().join("other")) else { return };
    let hot = Hot::below(root.path());
    let content = noise(16 * MIB, 8);
    for number in 0..CLIENTS {
        fuse.put_cold(&name(number), &content);
    }
    let cold = noise(COLD_LEN, 9);
    other.put_cold("file.bin", &cold);
    let server = Server::start(root.path(), &["--threads", "1"]);
    let mut peers: Vec<Peer> = (0..CLIENTS)
        .map(|number| {
            let mut peer = Peer::with_receive_buffer(server.address(), LITTLE);
            peer.get(&format!("/fuse/{}", name(number)));
            peer.head();
            peer
        })
        .collect();
    let hung = fuse.hang();
    // They read on until what came before is used up.
    let received = std::thread::scope(|scope| {
        let readers: Vec<_> =
            peers.drain(..).map(|mut peer| scope.spawn(move || peer.body(16 << 20))).collect();
        wait_until_the_pool_is_stuck(&server, THREADS_A_DEVICE);
        hot.is_served(&server);
        assert_gets(ask(&server, "/other/file.bin"), &cold, "a cold client of another disk");
        assert_eq!(logged(&server, "/fuse/"), 0);
        drop(hung);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    for body in received {
        assert_eq!(digest(&body), digest(&content));
    }
}

/// A request that wants to know how things are at this moment.
fn ask_anew(server: &Server, method: &str, target: &str) -> Peer {
    let mut peer = Peer::connect(server.address());
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: test\r\nCache-Control: no-cache\r\n\r\n");
    peer.send(head.as_bytes());
    peer
}

/// Opening a file whose name the kernel knows asked the FUSE process, and so did fstatfs, and
/// fstat before a small file, and sendfile of pages that were brought in and then dropped: all
/// of it on the event loop.
#[test]
fn a_hung_file_system_that_was_in_use_holds_up_no_hot_client() {
    let root = plain_dir();
    let Some(fuse) = FileSystem::Fuse.make_at(&root.path().join("fuse")) else { return };
    let hot = Hot::below(root.path());
    let (small, large) = (noise(4 * KIB, 5), noise(6 * MIB + 1, 6));
    let contents = [("small", &small), ("large", &large)];
    for name in ["small", "large", "large2", "unopened"] {
        fuse.put_cold(name, if name == "small" { &small } else { &large });
    }
    let server = Server::start(root.path(), &["--threads", "1"]);
    for (name, content) in contents {
        assert_gets(ask(&server, &format!("/fuse/{name}")), content, "before");
    }
    let mut slow = Peer::with_receive_buffer(server.address(), LITTLE);
    slow.get("/fuse/large2");
    slow.head();
    for name in ["large", "large2", "unopened"] {
        // The name is known, the pages are gone.
        fuse.drop_pages(name);
    }

    let hung = fuse.hang();
    let mut peers: Vec<_> = contents
        .iter()
        .flat_map(|(name, content)| {
            let target = format!("/fuse/{name}");
            // The second is answered from the file that is open.
            [(ask_anew(&server, "GET", &target), *content), (ask(&server, &target), *content)]
        })
        .collect();
    peers.push((ask(&server, "/fuse/unopened"), &large));
    let others = ["/fuse", "/fuse/", "/fuse/none", "/fuse/small/"];
    let others = others.map(|target| ask_anew(&server, "HEAD", target));
    let rest = std::thread::scope(|scope| {
        let reader = scope.spawn(|| slow.body(large.len()));
        hot.is_served(&server);
        assert!(!reader.is_finished(), "its pages are gone");
        drop(hung);
        reader.join().unwrap()
    });
    assert_eq!(digest(&rest), digest(&large));
    for (peer, content) in peers {
        assert_gets(peer, content, "after");
    }
    for (mut peer, status) in others.into_iter().zip([308, 200, 404, 404]) {
        assert_eq!(peer.head().status, status);
    }
}
