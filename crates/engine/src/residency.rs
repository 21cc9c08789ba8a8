//! Is a range of a file in the page cache? The cheapest sure answer first. Reads nothing and
//! waits for nothing; `cold.rs` brings in what is not there.

use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{StatFs, fstatfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::source::FileRange;
use crate::sys::cachestat::cached_pages;

const PAGE_BYTES: u64 = 4096;

/// One page in so many bytes is asked whether it can be read now. What the kernel reads or evicts
/// at once is usually as large. To ask every page costs more than sending it does.
const SAMPLE_BYTES: u64 = 128 * 1024;

/// What is known of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residency {
    /// In the page cache: sending it does not wait for a disk.
    Hot,
    /// Not all of it is in the page cache.
    Cold,
    /// The kernel does not say: to be treated as cold.
    Unknown,
}

/// Where the bytes of a file are when they are not in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// Nowhere else: tmpfs, ramfs, hugetlbfs.
    Memory,
    /// On a disk of this host, whose page cache can be asked.
    Disk,
    /// Under overlayfs, whose own page cache is empty: that of its layers, which are taken for
    /// disks of this host, is asked by way of a mapping.
    Overlay,
    /// Behind a server or a process, which the kernel may ask about the file even when its bytes
    /// are in the page cache: NFS, SMB, Ceph, Lustre, AFS, Coda, 9p, FUSE. Nearly every system
    /// call on such a file may wait for it, for ever if it hangs: open, close, fstat, fstatfs,
    /// mmap, and reading what is in the page cache.
    Remote,
}

impl Storage {
    /// That of the file system that `file` lies on, by fstatfs(2). May wait for its server.
    pub fn of(file: impl AsFd) -> Self {
        fstatfs(file).map_or(Self::Disk, |stat| Self::of_file_system(&stat))
    }

    fn of_file_system(stat: &StatFs) -> Self {
        // The field is 32 bits wide on some architectures and 64 on others; the magic numbers
        // (linux/magic.h) are 32 bits everywhere.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "magic")]
        match stat.f_type as u32 {
            0x0102_1994 | 0x8584_58f6 | 0x9584_58f6 => Self::Memory,
            0x794c_7630 => Self::Overlay,
            // NFS, CIFS, SMB2, SMB, Ceph, Lustre, AFS, kAFS, Coda, 9p, FUSE.
            0x6969 | 0xff53_4d42 | 0xfe53_4d42 | 0x517b | 0x00c3_6400 | 0x0bd0_0bd0
            | 0x5346_414f | 0x6b41_4653 | 0x7375_7245 | 0x0102_1997 | 0x6573_5546 => Self::Remote,
            _ => Self::Disk,
        }
    }
}

/// Which question about residency a file answers; learned at the first refusal.
#[derive(Debug)]
pub(crate) struct Question(AtomicU8);

/// cachestat for every page, then samples for those that are still being read.
const CACHESTAT: u8 = 0;
/// Samples only.
const SAMPLE: u8 = 1;
const NONE: u8 = 2;
/// mincore of the mapping.
const MINCORE: u8 = 3;

impl Question {
    /// The one to begin with on `storage`.
    pub(crate) fn of(storage: Storage) -> Self {
        let first = match storage {
            Storage::Disk => CACHESTAT,
            // cachestat looks at overlayfs's own pages, of which there are none. A mapping is one
            // of the layer's file.
            Storage::Overlay => MINCORE,
            Storage::Memory | Storage::Remote => NONE,
        };
        Self(AtomicU8::new(first))
    }

    /// Asks about `range`. Whoever asks again of the same bytes should remember the answer: it
    /// holds until the kernel needs the memory.
    pub(crate) fn ask(&self, range: &FileRange) -> Residency {
        if self.0.load(Ordering::Relaxed) == MINCORE {
            match range.is_in_memory() {
                Ok(Some(true)) => return Residency::Hot,
                Ok(Some(false)) => return Residency::Cold,
                Ok(None) => return Residency::Unknown,
                Err(_) => self.0.store(NONE, Ordering::Relaxed),
            }
        }
        if self.0.load(Ordering::Relaxed) == CACHESTAT {
            match all_cached(range) {
                // It counts pages that are still being read, too: sampled below.
                Ok(true) => {}
                Ok(false) => return Residency::Cold,
                // mincore(2) has the same permission check.
                Err(_) => self.0.store(SAMPLE, Ordering::Relaxed),
            }
        }
        if self.0.load(Ordering::Relaxed) != NONE {
            match sampled(range) {
                Ok(true) => return Residency::Hot,
                Ok(false) => return Residency::Cold,
                Err(_) => self.0.store(NONE, Ordering::Relaxed),
            }
        }
        Residency::Unknown
    }
}

fn all_cached(range: &FileRange) -> Result<bool, Errno> {
    let pages = range.end().div_ceil(PAGE_BYTES) - range.position() / PAGE_BYTES;
    Ok(cached_pages(range.source(), range.position(), range.len())? >= pages)
}

/// Reads a byte of some pages with RWF_NOWAIT (Linux 4.14): EAGAIN where one is not cached.
/// EOPNOTSUPP on tmpfs, overlayfs, NFS and FUSE.
fn sampled(range: &FileRange) -> Result<bool, Errno> {
    let last = range.end() - 1;
    let step = usize::try_from(SAMPLE_BYTES).unwrap_or(usize::MAX);
    for position in (range.position()..last).step_by(step).chain([last]) {
        let mut byte = [0];
        let mut buffer = [IoSliceMut::new(&mut byte)];
        match preadv2(range.source(), &mut buffer, position, ReadWriteFlags::NOWAIT) {
            // 0 is the end of a file that shrank: sending it will tell, without waiting.
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use rustix::fs::{Advice, fadvise};

    use super::*;
    use crate::source::SourceFile;

    const LEN: u64 = 1024 * 1024;

    /// A file of `len` bytes on the disk under the build, all of it written back.
    pub(crate) fn on_disk(len: u64) -> Option<(tempfile::TempDir, File)> {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.path().join("file"))
            .unwrap();
        file.write_all(&vec![1; usize::try_from(len).unwrap()]).unwrap();
        file.sync_all().unwrap();
        if Storage::of(&file) != Storage::Disk {
            eprintln!("skipped: the build does not lie on a disk");
            return None;
        }
        Some((directory, file))
    }

    /// Drops the pages of `file` until it `is_cold`. The kernel keeps those that it has in its
    /// hands at the moment: in a CPU's batch, for reclaim, for compaction.
    pub(crate) fn drop_pages(file: impl AsFd, is_cold: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            if is_cold() {
                return;
            }
            assert!(Instant::now() < deadline, "its pages stay in the page cache");
            std::thread::yield_now();
        }
    }

    #[test]
    fn dropped_pages_are_cold() {
        let Some((_directory, file)) = on_disk(LEN) else { return };
        // No readahead: only what is asked for comes in.
        fadvise(&file, 0, None, Advice::Random).unwrap();
        let source = SourceFile::new(file.try_clone().unwrap()).unwrap();
        let whole = source.whole();
        let halves = [0, LEN / 2].map(|position| source.range(position, LEN / 2).unwrap());
        for question in [CACHESTAT, SAMPLE] {
            let question = Question(AtomicU8::new(question));
            drop_pages(&file, || halves.iter().all(|half| question.ask(half) == Residency::Cold));
            assert_eq!(question.ask(&whole), Residency::Cold);
            let mut half = vec![0; usize::try_from(LEN / 2).unwrap()];
            rustix::io::pread(&file, &mut half, 0).unwrap();
            assert_eq!(question.ask(&halves[0]), Residency::Hot);
            assert_eq!(question.ask(&whole), Residency::Cold);
            rustix::io::pread(&file, &mut half, LEN / 2).unwrap();
            assert_eq!(question.ask(&whole), Residency::Hot);
        }
    }

    #[test]
    fn memory_is_told_from_disks() {
        let in_memory = crate::proof::scratch_file_in_memory().unwrap();
        assert_eq!(Storage::of(&in_memory), Storage::Memory);
        if Path::new("/proc/self").exists() {
            assert_eq!(Storage::of(File::open("/proc/self/stat").unwrap()), Storage::Disk);
        }
    }

    #[test]
    fn a_file_that_answers_nothing_is_unknown() {
        let mut in_memory = crate::proof::scratch_file_in_memory().unwrap();
        in_memory.write_all(&[1; 4096]).unwrap();
        let source = SourceFile::new(in_memory).unwrap();
        let question = Question(AtomicU8::new(SAMPLE));
        // tmpfs knows no RWF_NOWAIT.
        assert_eq!(question.ask(&source.whole()), Residency::Unknown);
        assert_eq!(question.0.load(Ordering::Relaxed), NONE);
    }
}
