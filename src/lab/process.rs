//! What /proc tells of a process and all its descendants: CPU time and memory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// The unit of times in /proc: USER_HZ is 100 on every architecture that Rust has.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time that the process, its descendants, and those of them that have ended and
/// were waited for have spent.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut ticks = 0;
    for each in family(pid) {
        // One that ended just now is in its parent's account, or was never of weight.
        let Ok(stat) = fs::read_to_string(format!("/proc/{each}/stat")) else { continue };
        ticks += ticks_of(&stat).with_context(|| format!("unexpected /proc/{each}/stat"))?;
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// proc_pid_stat(5): utime, stime, cutime and cstime, fields 14 to 17.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let times = after_name.split(' ').skip(11).take(4);
    times.map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Resident memory (VmRSS) of the process and its descendants, in bytes. Pages that they share
/// count for each of them.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let resident = family(pid).into_iter().filter_map(|each| {
        let status = fs::read_to_string(format!("/proc/{each}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    resident.sum::<u64>() * 1024
}

/// The process and its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(each) = family.get(next).copied() {
        let tasks = fs::read_dir(format!("/proc/{each}/task"));
        let tasks = tasks.into_iter().flatten().filter_map(Result::ok);
        family.extend(tasks.flat_map(|task| children(&task.path())));
        next += 1;
    }
    family
}

fn children(task: &Path) -> Vec<u32> {
    let listed = fs::read_to_string(task.join("children")).unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn times_are_read_behind_a_name_with_brackets() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 0 0 0 0 0 11 22 33 44 20 0 1 0";
        assert_eq!(ticks_of(stat), Some(110));
        assert_eq!(ticks_of("7 (a"), None);
    }

    #[test]
    fn a_family_has_its_grandchildren() {
        let mut shell = Command::new("sh")
            .args(["-c", "cat; true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ours = std::process::id();
        while family(ours).len() < 3 {
            std::thread::yield_now();
        }
        assert!(family(ours).contains(&shell.id()));
        assert!(resident_bytes(ours) > resident_bytes(shell.id()));
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
