//! Checksums of files (CRC-32, as zip has them): reckoned while a file passes by, kept for
//! whoever asks again, a client that resumes for instance.

use crc32fast::Hasher;
use pagewire_engine::{FileRange, SendError, SourceFile};
use quick_cache::sync::Cache;

use crate::archive::member::Stamp;

/// How many checksums are kept, in some 20 MB.
const KEPT_MAX: usize = 1 << 18;

/// Bytes of one read.
const READ_BYTES: u64 = 256 * 1024;

/// Checksums that are known, by what their files were.
#[derive(Debug)]
pub(crate) struct Checksums(Cache<Stamp, u32>);

impl Checksums {
    pub(crate) fn new() -> Self {
        Self(Cache::new(KEPT_MAX))
    }

    pub(crate) fn known(&self, stamp: &Stamp) -> Option<u32> {
        self.0.get(stamp)
    }

    pub(crate) fn keep(&self, stamp: Stamp, crc: u32) {
        self.0.insert(stamp, crc);
    }
}

/// The checksum of the front of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running {
    hasher: Hasher,
    /// How far it has come, in bytes.
    pub(crate) position: u64,
}

impl Running {
    /// Reads up to `max` bytes more of the file. Returns how many.
    pub(crate) fn go_on(&mut self, source: &SourceFile, max: u64) -> Result<u64, SendError> {
        let left = source.len().saturating_sub(self.position).min(max);
        let range = source.range(self.position, left);
        let mut range: FileRange = range.map_err(std::io::Error::other)?;
        while !range.is_empty() {
            self.hasher.update(&range.read_front(READ_BYTES)?);
        }
        self.position += left;
        Ok(left)
    }

    pub(crate) fn finish(self) -> u32 {
        self.hasher.finalize()
    }
}
