//! What a directory is mounted from, by /proc/self/mountinfo. Every command shows it.

use std::fs::{self, File};

use rustix::fs::{AtFlags, StatxFlags, statx};

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its type, such as `ext4` or `fuse.sshfs`.
    pub(crate) file_system: String,
    pub(crate) point: String,
    /// The disk, the server, or a word for none.
    pub(crate) source: String,
    /// Of the mount and of the file system.
    pub(crate) options: Vec<String>,
}

impl Mount {
    /// The mount that an open file lies on, by its number (statx, Linux 5.8): names would lie
    /// where one mount covers another.
    pub(crate) fn of(file: &File) -> Option<Self> {
        let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let number = stat.stx_mnt_id.to_string();
        let line = mounts.lines().find(|line| line.split(' ').next() == Some(&number))?;
        Self::parse(line)
    }

    /// proc_pid_mountinfo(5): the type follows a lone dash, after fields of which some may lack.
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let mut file_system = file_system.split(' ');
        let (kind, source) = (file_system.next()?, file_system.next()?);
        let options = [*mount.get(5)?, file_system.next().unwrap_or_default()];
        Some(Self {
            file_system: kind.to_owned(),
            point: unescaped(mount.get(4)?),
            source: unescaped(source),
            options: options.iter().flat_map(|text| text.split(',')).map(unescaped).collect(),
        })
    }

    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }
}

/// Blanks and backslashes are written as their octal numbers.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, blank)| text.replace(escape, blank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root ro,errors=x";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((&*mount.file_system, &*mount.source), ("ext3", "/dev/root"));
        assert_eq!(mount.point, "/mnt 2");
        assert!(mount.has("noatime") && mount.has("ro") && !mount.has("master:1"));
        assert_eq!(Mount::parse("36 35 98:0 / /"), None);
    }

    #[test]
    fn proc_is_found() {
        if let Ok(file) = File::open("/proc/self/mountinfo") {
            let mount = Mount::of(&file).unwrap();
            assert_eq!((&*mount.file_system, &*mount.point), ("proc", "/proc"));
        }
    }
}
