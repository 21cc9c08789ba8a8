//! The files that are served while measuring, in a directory that is removed in the end.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use rustix::fs::{Advice, fadvise, statfs, statvfs};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::lab::stop::Stop;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Files up to this size have noise in them; larger ones are holes but for their names.
pub(crate) const FILLED_BYTES_MAX: u64 = GIB;
/// What must be left on the file system beside our files.
const SPARE_BYTES: u64 = 64 * MIB;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A file as a client knows it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What to ask a server for.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Its sha256, where bodies are verified.
    pub(crate) digest: Option<[u8; 32]>,
}

/// The directory that the servers serve.
#[derive(Debug)]
pub(crate) struct Files {
    home: TempDir,
    verify: bool,
    made: Mutex<BTreeMap<String, Target>>,
}

impl Files {
    /// An empty directory below `parent` that every user may read.
    pub(crate) fn below(parent: &Path, verify: bool) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("pagewire-lab-").tempdir_in(parent);
        let home = home.with_context(|| {
            let parent = parent.display();
            format!("cannot make a directory in {parent}; choose another one with --dir")
        })?;
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o755))?;
        Ok(Self { home, verify, made: Mutex::default() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn on_disk(&self, target: &Target) -> PathBuf {
        self.home.path().join(target.path.trim_start_matches('/'))
    }

    /// The file of `bytes` bytes that all experiments share; made when it is first asked for.
    pub(crate) fn of(&self, bytes: u64, stop: &Stop) -> anyhow::Result<Target> {
        self.named(&format!("{bytes}.bin"), bytes, stop)
    }

    /// A file of its own name, made when it is first asked for.
    pub(crate) fn named(&self, name: &str, bytes: u64, stop: &Stop) -> anyhow::Result<Target> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = made.get(name) {
            return Ok(target.clone());
        }
        let target = self.make(name, bytes, stop)?;
        made.insert(name.to_owned(), target.clone());
        Ok(target)
    }

    fn make(&self, name: &str, bytes: u64, stop: &Stop) -> anyhow::Result<Target> {
        let filled = if bytes <= FILLED_BYTES_MAX { bytes } else { 0 };
        self.check_room(filled)?;
        let path = self.home.path().join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
        let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
        let mut noise = Noise::new(bytes);
        let mut hash = self.verify.then(Sha256::new);
        let mut left = bytes;
        while left > 0 {
            stop.check()?;
            let block = match filled {
                0 => &[0; BLOCK_BYTES],
                _ => noise.next_block(),
            };
            let block = &block[..usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES)];
            if let Some(hash) = &mut hash {
                hash.update(block);
            } else if filled == 0 {
                break;
            }
            if filled > 0 {
                let written = file.write_all(block);
                written.with_context(|| format!("cannot fill {}", path.display()))?;
            }
            left -= block.len() as u64;
        }
        file.set_len(bytes).with_context(|| format!("cannot size {}", path.display()))?;
        // Written back now, and not by the kernel while something is measured.
        file.sync_data().with_context(|| format!("cannot write back {}", path.display()))?;
        let digest = hash.map(|hash| hash.finalize().into());
        Ok(Target { path: format!("/{name}"), bytes, digest })
    }

    /// An error that names the directory and the bytes when `bytes` more do not fit.
    pub(crate) fn check_room(&self, bytes: u64) -> anyhow::Result<()> {
        let room = statvfs(self.home.path()).context("cannot ask for free space")?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let needed = bytes + SPARE_BYTES;
        let parent = self.home.path().parent().unwrap_or(self.home.path()).display();
        ensure!(
            free >= needed || bytes == 0,
            "no space in {parent}: {needed} bytes are needed and {free} are free; \
             choose another directory with --dir, or smaller files with --size"
        );
        Ok(())
    }

    /// Whether the files lie in memory only: then they are never cold.
    pub(crate) fn are_in_memory(&self) -> anyhow::Result<bool> {
        Ok(statfs(self.home.path())?.f_type.cast_unsigned() == TMPFS_MAGIC)
    }

    /// The device that they lie on, as stat(2) tells it.
    pub(crate) fn device(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(self.home.path())?.dev())
    }

    /// Takes a file's pages out of the page cache.
    pub(crate) fn chill(&self, target: &Target) -> anyhow::Result<()> {
        let file = File::open(self.on_disk(target))?;
        fadvise(&file, 0, None, Advice::DontNeed).context("cannot drop pages")
    }

    /// Brings a file into the page cache.
    pub(crate) fn warm(&self, target: &Target, stop: &Stop) -> anyhow::Result<()> {
        let file = File::open(self.on_disk(target))?;
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        let mut position = 0;
        while position < target.bytes {
            stop.check()?;
            let step = usize::try_from((target.bytes - position).min(64 * MIB))?;
            let read = rustix::fs::sendfile(&nowhere, &file, Some(&mut position), step)?;
            ensure!(read > 0, "{} ends before {} bytes", target.path, target.bytes);
        }
        Ok(())
    }
}

const BLOCK_BYTES: usize = 1 << 20;

/// Bytes without a pattern (xorshift64), the same for the same seed.
struct Noise {
    state: u64,
    block: Box<[u8; BLOCK_BYTES]>,
}

impl Noise {
    fn new(seed: u64) -> Self {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { state, block: Box::new([0; BLOCK_BYTES]) }
    }

    fn next_block(&mut self) -> &[u8; BLOCK_BYTES] {
        for eight in self.block.chunks_exact_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            eight.copy_from_slice(&self.state.to_le_bytes());
        }
        &self.block
    }
}
