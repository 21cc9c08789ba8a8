//! A cgroup whose members read a disk at a limited rate: version 1 (blkio) or 2 (io.max), as the
//! host has it. Needs root; removed when dropped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{major, minor};

/// How long the group may take to be empty once its processes were ended.
const EMPTY_PATIENCE: Duration = Duration::from_secs(3);

/// A cgroup with a limit on one disk.
#[derive(Debug)]
pub(crate) struct DiskLimit {
    group: PathBuf,
    /// The file in which we allowed limits on disks (version 2), to be taken back.
    allowed_in: Option<PathBuf>,
}

impl DiskLimit {
    /// Makes a group of the processes to come that reads `device`, as stat(2) tells it, with at
    /// most `bytes_per_second`.
    pub(crate) fn make(name: &str, device: u64, bytes_per_second: u64) -> anyhow::Result<Self> {
        let disk = whole_disk(device)?;
        let name = format!("pagewire-lab-{}-{name}", std::process::id());
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        if let Some(root) = hierarchy(&mounts, "cgroup", "blkio") {
            let limit = Self::group(root.join(name), None)?;
            let rule = format!("{disk} {bytes_per_second}");
            limit.write("blkio.throttle.read_bps_device", &rule)?;
            return Ok(limit);
        }
        let Some(root) = hierarchy(&mounts, "cgroup2", "") else {
            bail!("no cgroups are mounted");
        };
        let offered = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if !offered.split_ascii_whitespace().any(|controller| controller == "io") {
            bail!("the cgroups here cannot limit disks");
        }
        let allowed_in = root.join("cgroup.subtree_control");
        let is_allowed =
            fs::read_to_string(&allowed_in)?.split_ascii_whitespace().any(|c| c == "io");
        if !is_allowed {
            fs::write(&allowed_in, "+io").context("cannot allow limits on disks")?;
        }
        let limit = Self::group(root.join(name), (!is_allowed).then_some(allowed_in))?;
        limit.write("io.max", &format!("{disk} rbps={bytes_per_second}"))?;
        Ok(limit)
    }

    fn group(group: PathBuf, allowed_in: Option<PathBuf>) -> anyhow::Result<Self> {
        let made = fs::create_dir(&group);
        made.with_context(|| format!("cannot make the cgroup {}", group.display()))?;
        Ok(Self { group, allowed_in })
    }

    /// Puts a process into it.
    pub(crate) fn add(&self, pid: u32) -> anyhow::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let file = self.group.join(file);
        fs::write(&file, text).with_context(|| format!("cannot write {text} to {}", file.display()))
    }
}

impl Drop for DiskLimit {
    fn drop(&mut self) {
        let until = Instant::now() + EMPTY_PATIENCE;
        // Busy until the kernel has taken away the last process that was ended.
        while let Err(error) = fs::remove_dir(&self.group) {
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() > until {
                eprintln!("pagewire: cannot remove {}: {error}", self.group.display());
                break;
            }
            std::thread::yield_now();
        }
        if let Some(Err(error)) = self.allowed_in.as_ref().map(|file| fs::write(file, "-io")) {
            eprintln!("pagewire: limits on disks stay allowed for cgroups: {error}");
        }
    }
}

/// Where a cgroup hierarchy of this kind is mounted, with this among its options.
fn hierarchy(mounts: &str, kind: &str, option: &str) -> Option<PathBuf> {
    let found = mounts.lines().find_map(|line| {
        // proc(5): the fifth field is the mount point; behind a lone dash: type, source, options.
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = file_system.split(' ');
        let is_kind = fields.next() == Some(kind);
        let options = fields.nth(1).unwrap_or_default();
        let has_option = option.is_empty() || options.split(',').any(|each| each == option);
        (is_kind && has_option).then(|| mount.split(' ').nth(4))?
    });
    found.map(|mount_point| PathBuf::from(mount_point.replace("\\040", " ")))
}

/// The whole disk that a device is, or is a partition of, as MAJOR:MINOR.
fn whole_disk(device: u64) -> anyhow::Result<String> {
    let (major, minor) = (major(device), minor(device));
    let known = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
    let Ok(mut known) = fs::canonicalize(&known) else {
        bail!("the files lie on no disk that could be limited (device {major}:{minor})");
    };
    if known.join("partition").exists() {
        known.pop();
    }
    let disk = fs::read_to_string(known.join("dev")).context("cannot find the whole disk")?;
    Ok(disk.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_by_kind_and_option() {
        let mounts = "31 24 0:27 / /cg/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                      32 24 0:28 / /cg/blk\\040io rw - cgroup cgroup rw,blkio\n\
                      33 24 0:29 / /cg/unified rw - cgroup2 cgroup2 rw\n";
        let found = |kind, option| hierarchy(mounts, kind, option);
        assert_eq!(found("cgroup", "blkio"), Some(PathBuf::from("/cg/blk io")));
        assert_eq!(found("cgroup2", ""), Some(PathBuf::from("/cg/unified")));
        assert_eq!(found("cgroup", "memory"), None);
    }

    #[test]
    fn what_is_no_disk_is_said() {
        let error = whole_disk(0).unwrap_err().to_string();
        assert!(error.contains("no disk"), "{error}");
    }
}
