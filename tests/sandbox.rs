//! What the server gives up before it serves. The files it cannot open any more are in `vm.rs`:
//! that needs a kernel with landlock.

use std::fs;

use super::support::{Peer, Server, plain_dir, tasks};

/// A field of each thread's status.
fn each_thread(server: &Server, field: &str) -> Vec<String> {
    let pid = server.pid().as_raw_nonzero();
    let tasks = tasks(server.pid());
    assert!(tasks.len() > 1, "threads other than the first are what is in question");
    let statuses = tasks.iter().map(|task| {
        let path = format!("/proc/{pid}/task/{}/status", task.id);
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    });
    statuses.collect()
}

#[test]
fn no_thread_may_start_programs_or_gain_rights() {
    let dir = plain_dir();
    fs::write(dir.path().join("file"), "content").unwrap();
    for (flags, filter, no_new_rights) in [(&[][..], "2", "1"), (&["--no-sandbox"], "0", "0")] {
        let server = Server::start(dir.path(), flags);
        let mut peer = Peer::connect(server.address());
        peer.get("/file");
        assert_eq!(peer.answer().body, b"content");
        for status in each_thread(&server, "Seccomp:") {
            assert_eq!(status, filter, "{flags:?}");
        }
        for status in each_thread(&server, "NoNewPrivs:") {
            assert_eq!(status, no_new_rights, "{flags:?}");
        }
    }
}
