//! What the tests share: the server as a process, clients, files, traces, patience. No test is
//! here.

mod client;
mod disk;
mod files;
mod log;
mod netns;
mod server;
mod strace;
mod task;

use std::io::{Write, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use client::{
    Answer, Head, Peer, ask, assert_gets, curl, curl_command, curl_digest, request,
};
pub(crate) use disk::{Blkio, Disk, FileSystem, chill};
pub(crate) use files::{
    Digest, GIB, KIB, MIB, Place, digest, noise, open_dir, plain_dir, sparse, sparse_digest,
};
pub(crate) use log::{Cold, LogLine, Outcome, Totals};
pub(crate) use netns::{Netns, veth};
pub(crate) use server::{Lines, Server, pagewire, program};
pub(crate) use strace::{Call, Trace};
pub(crate) use task::{Task, cold_threads, descriptors, event_loop, resident_bytes, tasks};

/// Every route by name, as `--route` takes it.
pub(crate) const ROUTES: [&str; 4] = ["sendfile", "splice", "mmap-write", "read-write"];
/// Everything `--route` takes.
pub(crate) const CHOICES: [&str; 5] = ["auto", "sendfile", "splice", "mmap-write", "read-write"];

/// How long a condition may take to come true before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `condition` until it answers; `None` when `PATIENCE` is over.
pub(crate) fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        // A signal may end the pause early, which does no harm.
        rustix::event::poll(&mut [], Some(&pause)).ok();
    }
}

/// As [`wait_for`], but panics with `what` when `PATIENCE` is over.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_for(condition).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Says on the real stderr, past the test harness, that something is not tested, and why.
/// On a CI machine (`CI` is set) this is a failure.
#[track_caller]
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must not skip: {why}");
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    writeln!(stderr(), "SKIPPED {test}: {why}").unwrap();
}

/// Whether the outside program `name` is there; says loudly which one is missing.
#[track_caller]
pub(crate) fn need(name: &str) -> bool {
    let found = on_the_path(name);
    if !found {
        skip(&format!("the program `{name}` is missing (scripts/test installs it)"));
    }
    found
}

/// Whether the outside program `name` is there, which CI need not have; says loudly if it is not.
pub(crate) fn is_there(name: &str) -> bool {
    let found = on_the_path(name);
    if !found {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        writeln!(
            stderr(),
            "SKIPPED {test}: there is no `{name}`, which is not installed for tests"
        )
        .unwrap();
    }
    found
}

fn on_the_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Whether the tests run with all rights; says loudly what is not tested without them.
#[track_caller]
pub(crate) fn need_root(what: &str) -> bool {
    let root = is_root();
    if !root {
        skip(&format!("needs root: {what}"));
    }
    root
}

/// Whether the tests run with all rights.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Held by tests that move gigabytes, so that they take turns.
pub(crate) fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
