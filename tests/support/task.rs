//! What /proc tells of a running process: its threads, descriptors and memory.

use std::path::Path;

use rustix::process::Pid;

use super::Server;

/// One thread, as it was when asked about.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: u32,
    name: String,
}

impl Task {
    /// `None` for a thread that has ended.
    fn read(dir: &Path) -> Option<Task> {
        let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
        let (before, _) = stat.rsplit_once(") ")?;
        let (id, name) = before.split_once(" (")?;
        Some(Task { id: id.parse().ok()?, name: name.to_owned() })
    }

    /// Whether it belongs to the cold pool.
    pub(crate) fn is_cold(&self) -> bool {
        self.name == "cold"
    }
}

/// The threads of a process.
pub(crate) fn tasks(pid: Pid) -> Vec<Task> {
    let dirs = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    dirs.filter_map(|dir| Task::read(&dir.ok()?.path())).collect()
}

/// The threads of the cold pool.
pub(crate) fn cold_threads(server: &Server) -> Vec<Task> {
    tasks(server.pid()).into_iter().filter(Task::is_cold).collect()
}

/// Its memory that is in RAM.
pub(crate) fn resident_bytes(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
