//! File systems made for one test, on loop devices where they need a disk, and ways to make
//! their disks slow, stuck or broken. Guards take everything away again, after a panic too.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::files::open_dir;
use super::{MIB, need, need_root, skip, wait_for, wait_until};

/// XFS wants 300 MiB; the image is sparse.
const DISK_BYTES: u64 = 384 * MIB;

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    /// bindfs over ext4.
    Fuse,
    /// Over ext4.
    Overlay,
    Tmpfs,
    Xfs,
}

impl FileSystem {
    pub(crate) const ALL: [FileSystem; 5] = [
        FileSystem::Ext4,
        FileSystem::Fuse,
        FileSystem::Overlay,
        FileSystem::Tmpfs,
        FileSystem::Xfs,
    ];

    /// A new one in a directory of its own; `None`, loudly, if impossible.
    #[track_caller]
    pub(crate) fn make(self) -> Option<Disk> {
        self.is_possible().then(|| self.mount(open_dir(), None))
    }

    /// As `make`, mounted at the directory `point`, which is made.
    #[track_caller]
    pub(crate) fn make_at(self, point: &Path) -> Option<Disk> {
        self.is_possible().then(|| self.mount(open_dir(), Some(point)))
    }

    #[track_caller]
    fn is_possible(self) -> bool {
        let kernel_has = |name: &str| {
            let known = std::fs::read_to_string("/proc/filesystems").unwrap();
            let found = known.lines().any(|line| line.trim_start_matches("nodev").trim() == name);
            if !found {
                skip(&format!("the kernel has no {name}"));
            }
            found
        };
        need_root("mounting file systems")
            && (self == FileSystem::Tmpfs || need("losetup") && need("mkfs.ext4"))
            && match self {
                FileSystem::Ext4 => kernel_has("ext4"),
                FileSystem::Fuse => need("bindfs") && kernel_has("fuse"),
                FileSystem::Overlay => kernel_has("overlay"),
                FileSystem::Tmpfs => kernel_has("tmpfs"),
                FileSystem::Xfs => need("mkfs.xfs") && kernel_has("xfs"),
            }
    }

    fn mount(self, home: TempDir, point: Option<&Path>) -> Disk {
        let root = point.map_or_else(|| home.path().join("mounted"), Path::to_owned);
        std::fs::create_dir(&root).unwrap();
        let plain = |arguments: &[&str]| Mount::with(Command::new("mount").args(arguments), &root);
        let (mut device, mut base) = (None, None);
        let mount = match self {
            FileSystem::Ext4 | FileSystem::Xfs => {
                let image = home.path().join("image");
                File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
                let make = if self == FileSystem::Ext4 { "mkfs.ext4" } else { "mkfs.xfs" };
                succeed(Command::new(make).arg("-q").arg(&image));
                let node = device.insert(LoopDevice::attach(image)).node.clone();
                plain(&["-o", "noatime", &node])
            }
            FileSystem::Tmpfs => plain(&["-t", "tmpfs", "pagewire"]),
            FileSystem::Overlay => {
                let ext4 = base.insert(Box::new(FileSystem::Ext4.mount(open_dir(), None)));
                let [lower, upper, work] = ["lower", "upper", "work"].map(|name| {
                    let path = ext4.join(name);
                    std::fs::create_dir(&path).unwrap();
                    path.display().to_string()
                });
                let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
                plain(&["-t", "overlay", "-o", &layers, "pagewire"])
            }
            FileSystem::Fuse => {
                let ext4 = base.insert(Box::new(FileSystem::Ext4.mount(open_dir(), None)));
                Mount::of_bindfs(&ext4.root, &root)
            }
        };
        Disk { root, mount, device, base, _home: home }
    }
}

/// A mounted file system; unmounted and removed when dropped.
///
/// Servers of its files must have ended by then: declare them after it.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    // The order of these is the order in which they go.
    mount: Mount,
    device: Option<LoopDevice>,
    base: Option<Box<Disk>>,
    _home: TempDir,
}

impl Disk {
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file that is then on the disk and not in the page cache, as far as the file
    /// system knows a difference.
    pub(crate) fn put_cold(&self, name: &str, content: &[u8]) {
        let path = self.join(name);
        std::fs::write(&path, content).unwrap();
        self.chill(name);
    }

    /// Drops the pages of a file, those below an upper file system included.
    pub(crate) fn chill(&self, name: &str) {
        if self.device.is_none() && self.base.is_none() {
            // Memory: it has no other place for them.
            return;
        }
        assert_eq!(chill(&self.join(name)), Ok(()), "{name} stays in the page cache");
        if let (Some(base), Mount { daemon: Some(_), .. }) = (&self.base, &self.mount) {
            base.chill(name);
        }
    }

    /// Drops what it can of a file: what sockets or mappings hold stays.
    pub(crate) fn drop_pages(&self, name: &str) {
        fadvise(File::open(self.join(name)).unwrap(), 0, None, Advice::DontNeed).unwrap();
    }

    /// Brings in the first `len` bytes of a file, and no more.
    pub(crate) fn warm(&self, name: &str, len: u64) {
        let file = File::open(self.join(name)).unwrap();
        // No readahead.
        fadvise(&file, 0, None, Advice::Random).unwrap();
        file.read_exact_at(&mut vec![0; usize::try_from(len).unwrap()], 0).unwrap();
    }

    /// How large its disk is.
    pub(crate) fn len(&self) -> u64 {
        DISK_BYTES
    }

    /// No write may be under way, nor come later, when its disk is to break.
    pub(crate) fn make_read_only(&self) {
        succeed(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.root));
    }

    /// From `len` on, its disk cannot be read any more.
    pub(crate) fn break_off(&self, len: u64) {
        let image = &self.device.as_ref().unwrap().image;
        File::options().write(true).open(image).unwrap().set_len(len).unwrap();
    }

    /// Lets the process that serves this FUSE file system hang until the guard is dropped.
    #[must_use]
    pub(crate) fn hang(&self) -> Hung {
        let daemon = Pid::from_child(self.mount.daemon.as_ref().unwrap());
        kill_process(daemon, Signal::STOP).unwrap();
        Hung(daemon)
    }
}

/// Goes on when dropped. Declare it after whatever may wait for the file system, so that it
/// goes first.
#[derive(Debug)]
pub(crate) struct Hung(Pid);

impl Drop for Hung {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).unwrap();
    }
}

#[derive(Debug)]
struct Mount {
    point: PathBuf,
    /// The process behind a FUSE file system.
    daemon: Option<Child>,
}

impl Mount {
    fn with(mount: &mut Command, point: &Path) -> Mount {
        succeed(mount.arg(point));
        Mount { point: point.to_owned(), daemon: None }
    }

    fn of_bindfs(from: &Path, point: &Path) -> Mount {
        let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
        let before = device(point);
        // In the foreground, to know the process. The kernel may ask it as rarely as can be.
        let mut command = Command::new("bindfs");
        command.args(["-f", "-o", "allow_other,entry_timeout=3600,attr_timeout=3600"]);
        let daemon = command.arg(from).arg(point).stdin(Stdio::null()).spawn().unwrap();
        let mount = Mount { point: point.to_owned(), daemon: Some(daemon) };
        wait_until("bindfs to mount", || (device(point) != before).then_some(()));
        mount
    }

    fn unmount(&self, lazily: &[&str]) -> Option<()> {
        let mut umount = Command::new("umount");
        let Output { status, .. } = umount.args(lazily).arg(&self.point).output().ok()?;
        status.success().then_some(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A killed server may let go of its files a little late.
        if wait_for(|| self.unmount(&[])).is_none() {
            eprintln!("{} is busy: detached", self.point.display());
            self.unmount(&["--lazy"]);
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.kill().ok();
            daemon.wait().ok();
        }
    }
}

/// An image file as a block device.
#[derive(Debug)]
struct LoopDevice {
    node: String,
    image: PathBuf,
}

impl LoopDevice {
    fn attach(image: PathBuf) -> LoopDevice {
        let output = succeed(Command::new("losetup").args(["--find", "--show"]).arg(&image));
        let node = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        LoopDevice { node, image }
    }

    /// Its major and minor number.
    fn number(&self) -> String {
        let device = std::fs::metadata(&self.node).unwrap().rdev();
        format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detach = || {
            let output = Command::new("losetup").args(["--detach", &self.node]).output().ok()?;
            output.status.success().then_some(())
        };
        if wait_for(detach).is_none() {
            eprintln!("{} is still attached", self.node);
        }
    }
}

/// A cgroup (version 1) whose processes read from disks as slowly as it is told; removed when
/// dropped. Declare it before the server in it.
#[derive(Debug)]
pub(crate) struct Blkio(PathBuf);

impl Blkio {
    /// A new group; `None`, loudly, if impossible.
    #[track_caller]
    pub(crate) fn new(name: &str) -> Option<Blkio> {
        let parent = Path::new("/sys/fs/cgroup/blkio");
        if !need_root("limiting a disk") {
            return None;
        }
        if !parent.join("blkio.throttle.read_bps_device").exists() {
            skip("no cgroup can limit a disk: blkio (cgroup version 1) is not mounted");
            return None;
        }
        let group = parent.join(format!("pagewire-{}-{name}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        Some(Blkio(group))
    }

    /// A command that runs the program and arguments added to it as one of the group.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ >"$0" && exec "$@""#]).arg(self.0.join("cgroup.procs"));
        command
    }

    /// Lets reads of `disk` all but stop, until the guard is dropped.
    #[must_use]
    pub(crate) fn stick(&self, disk: &Disk) -> Slow<'_> {
        self.slow_down(disk, 1)
    }

    /// Limits reads of `disk`, until the guard is dropped.
    #[must_use]
    pub(crate) fn slow_down(&self, disk: &Disk, bytes_a_second: u64) -> Slow<'_> {
        let device = disk.device.as_ref().unwrap().number();
        self.limit(&device, bytes_a_second);
        Slow { group: self, device }
    }

    fn limit(&self, device: &str, bytes_a_second: u64) {
        let file = self.0.join("blkio.throttle.read_bps_device");
        std::fs::write(file, format!("{device} {bytes_a_second}")).unwrap();
    }
}

impl Drop for Blkio {
    fn drop(&mut self) {
        // The last of its processes may be on its way out.
        if wait_for(|| std::fs::remove_dir(&self.0).ok()).is_none() {
            eprintln!("{} stays", self.0.display());
        }
    }
}

/// A disk that gives little or nothing; it goes on when this is dropped. Declare it after the
/// server that reads the disk: what waits for a disk cannot be killed.
#[derive(Debug)]
pub(crate) struct Slow<'a> {
    group: &'a Blkio,
    device: String,
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        self.group.limit(&self.device, 0);
    }
}

/// Drops the pages of a file from the page cache. Fails with how many bytes stay, as on a tmpfs.
pub(crate) fn chill(path: &Path) -> Result<(), u64> {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    // Pages that some CPU still has in a batch of its own are kept at first.
    let drop_them = || {
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        (cached_bytes(path) == 0).then_some(())
    };
    wait_for(drop_them).ok_or_else(|| cached_bytes(path))
}

fn cached_bytes(path: &Path) -> u64 {
    let mut fincore = Command::new("fincore");
    let output = succeed(fincore.args(["--bytes", "--noheadings", "--output", "RES"]).arg(path));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[track_caller]
fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {message}", output.status);
    output
}
