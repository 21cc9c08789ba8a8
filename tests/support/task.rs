//! What /proc tells of a running process: its threads, descriptors and memory.

use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::Server;

/// One thread, as it was when asked about.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: u32,
    name: String,
    /// As in proc_pid_stat(5): R runs, S sleeps, D waits for a disk or another thing that no
    /// signal ends.
    state: char,
    /// Where in the kernel it waits.
    waits_in: String,
    /// Bytes that it asked disks for.
    pub(crate) read_bytes: u64,
}

impl Task {
    /// `None` for a thread that has ended.
    fn read(dir: &Path) -> Option<Task> {
        let text = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        let stat = text("stat")?;
        let (before, after) = stat.rsplit_once(") ")?;
        let (id, name) = before.split_once(" (")?;
        let io = text("io")?;
        let read_bytes = io.lines().find_map(|line| line.strip_prefix("read_bytes: "))?;
        Some(Task {
            id: id.parse().ok()?,
            name: name.to_owned(),
            state: after.chars().next()?,
            waits_in: text("wchan")?,
            read_bytes: read_bytes.parse().ok()?,
        })
    }

    /// Whether it belongs to the cold pool.
    pub(crate) fn is_cold(&self) -> bool {
        self.name == "cold"
    }

    /// Whether it waits for something that no signal ends: of a cold thread, that is a disk.
    pub(crate) fn is_stuck(&self) -> bool {
        self.state == 'D'
    }

    /// Whether it waits for a page to be read. (Any thread may be stuck for a moment on a lock
    /// of the address space that they share.)
    pub(crate) fn waits_for_a_page(&self) -> bool {
        let places = ["folio", "fuse", "io_schedule", "bit_wait"];
        self.is_stuck() && places.iter().any(|place| self.waits_in.contains(place))
    }
}

/// The threads of a process.
pub(crate) fn tasks(pid: Pid) -> Vec<Task> {
    let dirs = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    dirs.filter_map(|dir| Task::read(&dir.ok()?.path())).collect()
}

/// The thread of all connections of a server with `--threads 1`: its first.
pub(crate) fn event_loop(server: &Server) -> Task {
    let first = server.pid().as_raw_nonzero().get().cast_unsigned();
    tasks(server.pid()).into_iter().find(|task| task.id == first).unwrap()
}

/// The threads of the cold pool.
pub(crate) fn cold_threads(server: &Server) -> Vec<Task> {
    tasks(server.pid()).into_iter().filter(Task::is_cold).collect()
}

/// What the descriptors of a process lead to.
pub(crate) fn descriptors(pid: Pid) -> Vec<PathBuf> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok()).collect()
}

/// Its memory that is in RAM.
pub(crate) fn resident_bytes(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
