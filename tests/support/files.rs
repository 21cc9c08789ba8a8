//! Files to serve and the file systems they lie on.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::statfs;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{is_root, skip};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

const EXT4_MAGIC: u64 = 0xef53;
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// The largest file of the tests and some room, for file systems made here.
const ROOM: u64 = 7 * GIB;

/// A sha256.
pub(crate) type Digest = [u8; 32];

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// `len` bytes without a pattern, the same for the same `seed` (xorshift64).
pub(crate) fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(step).collect();
    bytes.truncate(usize::try_from(len).unwrap());
    bytes
}

/// Makes a file of `len` bytes with noise at both ends and a hole between.
pub(crate) fn sparse(path: &Path, len: u64) {
    let [front, back] = sparse_ends();
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    file.write_all_at(&front, 0).unwrap();
    file.write_all_at(&back, len - back.len() as u64).unwrap();
}

/// The digest of what [`sparse`] makes, known without reading it.
pub(crate) fn sparse_digest(len: u64) -> Digest {
    let [front, back] = sparse_ends();
    let zeros = vec![0; 1 << 20];
    let mut hash = Sha256::new();
    let mut left = len - (front.len() + back.len()) as u64;
    hash.update(&front);
    while left > 0 {
        let step = left.min(MIB);
        hash.update(&zeros[..usize::try_from(step).unwrap()]);
        left -= step;
    }
    hash.update(&back);
    hash.finalize().into()
}

fn sparse_ends() -> [Vec<u8>; 2] {
    [noise(MIB + 7, 1), noise(MIB + 9, 2)]
}

/// An empty directory on whatever file system the build directory is on.
pub(crate) fn plain_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// An empty directory that other users may enter.
pub(crate) fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A kind of file system the tests serve from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Ext4,
    Tmpfs,
}

impl Place {
    pub(crate) const ALL: [Place; 2] = [Place::Ext4, Place::Tmpfs];

    /// An empty directory there, made by mounting when it must be; `None`, loudly, if impossible.
    pub(crate) fn scratch(self) -> Option<Scratch> {
        let (usual, magic) = match self {
            Place::Ext4 => (Path::new(env!("CARGO_TARGET_TMPDIR")), EXT4_MAGIC),
            Place::Tmpfs => (Path::new("/dev/shm"), TMPFS_MAGIC),
        };
        if is_on(usual, magic) {
            return Some(Scratch::plain(tempfile::tempdir_in(usual).unwrap()));
        }
        if is_root() {
            return Some(self.mount());
        }
        skip(&format!("{} is not on {self:?}, and mounting one needs root", usual.display()));
        None
    }

    fn mount(self) -> Scratch {
        let home = plain_dir();
        let root = home.path().join("mounted");
        std::fs::create_dir(&root).unwrap();
        let mut mount = Command::new("mount");
        match self {
            Place::Ext4 => {
                let image = home.path().join("ext4.img");
                File::create(&image).unwrap().set_len(ROOM).unwrap();
                succeed(Command::new("mkfs.ext4").arg("-q").arg(&image));
                mount.args(["-o", "loop"]).arg(image);
            }
            Place::Tmpfs => {
                mount.args(["-t", "tmpfs", "-o", &format!("size={ROOM}"), "pagewire"]);
            }
        }
        succeed(mount.arg(&root));
        Scratch { root, mounted: true, _home: home }
    }
}

/// Whether `dir` is on the file system of `magic` and has room for the largest file.
fn is_on(dir: &Path, magic: u64) -> bool {
    statfs(dir).is_ok_and(|found| {
        let (kind, block) = (found.f_type.cast_unsigned(), found.f_bsize.cast_unsigned());
        kind == magic && found.f_bavail.saturating_mul(block) >= ROOM
    })
}

#[track_caller]
fn succeed(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// A directory on a known file system; emptied, unmounted and removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
    mounted: bool,
    _home: TempDir,
}

impl Scratch {
    fn plain(home: TempDir) -> Scratch {
        Scratch { root: home.path().to_owned(), mounted: false, _home: home }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.mounted {
            // A failure leaves a mount behind, which the removal of its directory will name.
            Command::new("umount").arg(&self.root).status().ok();
        }
    }
}
