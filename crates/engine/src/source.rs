//! Where bytes come from: open files, ranges of them, and queues of parts. Sends nothing.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Once, OnceLock, Weak};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use crate::closing::{self, Closing};
use crate::error::{RangeError, SendError};
use crate::registry::{self, Owner};
use crate::residency::{Question, Residency, Storage};
use crate::sys::mapping::Mapping;
use crate::sys::mincore::in_memory;

/// What a file was when it was opened: enough to tell it from any other, and from itself changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Identity {
    /// The device of its file system (`st_dev`).
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
    /// Its length in bytes.
    pub len: u64,
    /// When it was last modified.
    pub modified: Modified,
}

/// A file's modification time, since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Modified {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds on top of them.
    pub nanoseconds: u32,
}

/// An open regular file to send from. Cloning shares the descriptor and the mapping.
///
/// Its length is that of the moment it was opened. Bytes appended later are not sent; a file
/// that shrinks while it is sent is an error of the transfer, with both lengths.
#[derive(Clone)]
pub struct SourceFile {
    shared: Arc<Shared>,
}

struct Shared {
    /// Taken only when this is dropped.
    file: Option<File>,
    identity: Identity,
    /// Made at the first use. The refusal is kept, so that it is asked for once.
    mapping: OnceLock<Result<Mapping, Errno>>,
    storage: Storage,
    asked_only: Once,
    question: Question,
    /// For each block of the file, until when all of it is taken to be in the page cache, in
    /// milliseconds of `uptime`. Made at the first use.
    hot_until: OnceLock<Box<[AtomicU64]>>,
}

/// Residency is asked, and remembered for all who send from the file, by blocks of so many bytes.
pub(crate) const BLOCK_BYTES: u64 = 4 * 1024 * 1024;

/// Blocks that are remembered, of 1 TiB: sparse files may be longer than memory can describe. What
/// lies behind them is asked about by each client for itself.
const BLOCKS_MAX: u64 = 1 << 18;

/// How long a block that was seen to be in the page cache, all of it, is taken to be there still.
/// What was used a second ago is the last thing that the kernel evicts.
const HOT_TRUSTED_MS: u64 = 1000;

/// Milliseconds since the first call.
fn uptime_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl SourceFile {
    /// Takes an open file, with one fstatfs(2) and one fstat(2). These may wait where the file
    /// lies behind a server or a process ([`Storage::Remote`]): then make it where opening it may
    /// wait, too.
    ///
    /// # Errors
    ///
    /// Those of fstat, and `InvalidInput` for anything but a regular file.
    pub fn new(file: File) -> io::Result<Self> {
        let storage = Storage::of(&file);
        Self::on(storage, file)
    }

    /// The same for a file of which it is known that it lies on `storage`: one fstat(2).
    ///
    /// # Errors
    ///
    /// Those of [`SourceFile::new`].
    pub fn on(storage: Storage, file: File) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let identity = Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Modified {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
        };
        let shared = Shared {
            file: Some(file),
            identity,
            mapping: OnceLock::new(),
            storage,
            asked_only: Once::new(),
            question: Question::of(storage),
            hot_until: OnceLock::new(),
        };
        let source = Self { shared: Arc::new(shared) };
        // NFS asks its server at mmap(2): here one may wait, and who sends may not.
        if storage == Storage::Remote
            && let Err(errno) = source.mapping()
        {
            tracing::debug!(%errno, "the file cannot be mapped");
        }
        Ok(source)
    }

    /// What the file was when it was opened.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// Its length in bytes when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.shared.identity.len
    }

    /// Whether it was empty when it was opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it.
    #[must_use]
    pub fn whole(&self) -> FileRange {
        FileRange { source: self.clone(), position: 0, len: self.len() }
    }

    /// `len` bytes from `position` on.
    ///
    /// # Errors
    ///
    /// When the range does not lie within the file.
    pub fn range(&self, position: u64, len: u64) -> Result<FileRange, RangeError> {
        match position.checked_add(len) {
            Some(end) if end <= self.len() => Ok(FileRange { source: self.clone(), position, len }),
            _ => Err(RangeError { position, len, file_len: self.len() }),
        }
    }

    /// The file's length at this moment, by fstat(2).
    pub(crate) fn len_now(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(self)?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Where its bytes are when they are not in the page cache.
    #[must_use]
    pub fn storage(&self) -> Storage {
        self.shared.storage
    }

    pub(crate) fn residency(&self, range: &FileRange) -> Residency {
        self.shared.question.ask(range)
    }

    /// Up to where the bytes from `position` on were seen to be in the page cache a moment ago:
    /// the end of their block.
    pub(crate) fn known_hot(&self, position: u64) -> Option<u64> {
        let index = usize::try_from(position / BLOCK_BYTES).ok()?;
        let until = self.shared.hot_until.get()?.get(index)?.load(Ordering::Relaxed);
        (until > uptime_ms()).then(|| self.block_end(position))
    }

    /// `range` was just seen to be in the page cache.
    pub(crate) fn found_hot(&self, range: &FileRange) {
        let count = self.len().div_ceil(BLOCK_BYTES).min(BLOCKS_MAX);
        let blocks = || (0..count).map(|_| AtomicU64::new(0)).collect();
        let hot_until = self.shared.hot_until.get_or_init(blocks);
        let mut begin = range.position().next_multiple_of(BLOCK_BYTES);
        while begin < range.end() && self.block_end(begin) <= range.end() {
            let block = usize::try_from(begin / BLOCK_BYTES).ok().and_then(|i| hot_until.get(i));
            if let Some(until) = block {
                until.store(uptime_ms() + HOT_TRUSTED_MS, Ordering::Relaxed);
            }
            begin += BLOCK_BYTES;
        }
    }

    /// Where the block that `position` lies in ends.
    pub(crate) fn block_end(&self, position: u64) -> u64 {
        self.len().min((position / BLOCK_BYTES + 1) * BLOCK_BYTES)
    }

    /// Keeps the kernel from reading ahead by itself (POSIX_FADV_RANDOM), which it does in
    /// whoever sends: the cold pool asks for what is needed, also when many read one file at
    /// different places, which looks random to the kernel anyway.
    pub(crate) fn read_only_when_asked(&self) {
        self.shared.asked_only.call_once(|| {
            if let Err(errno) = fadvise(self, 0, None, Advice::Random) {
                tracing::debug!(%errno, "the kernel reads ahead as it likes");
            }
        });
    }

    /// Where its shared state lies: no two files that are open have the same.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn mapping(&self) -> Result<&Mapping, Errno> {
        let made = self.shared.mapping.get_or_init(|| {
            let len = usize::try_from(self.len()).map_err(|_| Errno::OVERFLOW)?;
            let mapping = Mapping::of(self.shared.file(), len)
                .map_err(|refusal| Errno::from_io_error(&refusal).unwrap_or(Errno::NODEV))?;
            let owner = Owner::File(WeakSource(Arc::downgrade(&self.shared)));
            registry::insert(mapping.as_slice(), owner);
            Ok(mapping)
        });
        made.as_ref().map_err(|refusal| *refusal)
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.file().as_fd()
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapped = matches!(self.shared.mapping.get(), Some(Ok(_)));
        f.debug_struct("SourceFile")
            .field("identity", &self.shared.identity)
            .field("mapped", &mapped)
            .finish_non_exhaustive()
    }
}

/// A [`SourceFile`] that may be gone.
#[derive(Clone)]
pub(crate) struct WeakSource(Weak<Shared>);

impl WeakSource {
    pub(crate) fn upgrade(&self) -> Option<SourceFile> {
        self.0.upgrade().map(|shared| SourceFile { shared })
    }
}

impl Shared {
    fn file(&self) -> &File {
        self.file.as_ref().expect("only drop takes it")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mapping = self.mapping.take().and_then(Result::ok);
        if let Some(mapping) = &mapping {
            registry::remove(mapping.address());
        }
        if self.storage == Storage::Remote
            && let Some(file) = self.file.take()
        {
            closing::close(Closing { device: self.identity.device, file, mapping });
        }
    }
}

/// A run of bytes of a [`SourceFile`].
#[derive(Clone, Debug)]
pub struct FileRange {
    source: SourceFile,
    position: u64,
    len: u64,
}

impl FileRange {
    /// The file that it is of.
    #[must_use]
    pub fn source(&self) -> &SourceFile {
        &self.source
    }

    /// Where it starts in the file, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn end(&self) -> u64 {
        self.position + self.len
    }

    /// Its first `len` bytes, or all of it.
    pub(crate) fn front(&self, len: u64) -> Self {
        Self { len: self.len.min(len), ..self.clone() }
    }

    /// What is left of it from `position` of the file on, if anything is.
    pub(crate) fn starting_at(&self, position: u64) -> Option<Self> {
        let left = self.end().checked_sub(position).filter(|left| *left > 0)?;
        Some(Self { position, len: left.min(self.len), ..self.clone() })
    }

    pub(crate) fn advance(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.len, "advanced past the end of a range");
        self.position += bytes;
        self.len -= bytes;
    }

    /// The range as [`Bytes`] that *are* a read-only mapping of the file: nothing is read or
    /// copied to make them, and a `Wire` that is asked to write them, or any slice of them,
    /// recognises them by their address and sends the file instead.
    ///
    /// # What reading them means
    ///
    /// They are meant to be handed on, not read. Code that reads them sees the file as it is at
    /// that moment, not as it was when this was called; may wait for the disk; and is killed by
    /// SIGBUS if the file was cut shorter meanwhile. Hand them only to writers that end in a
    /// `Wire`, or be sure that nobody shortens the file.
    ///
    /// # Errors
    ///
    /// Those of mmap(2): ENODEV where the file system cannot map, ENOMEM where the number of
    /// mappings (`vm.max_map_count`) is used up.
    pub fn mapped_bytes(&self) -> io::Result<Bytes> {
        if self.is_empty() {
            return Ok(Bytes::new());
        }
        self.mapped_slice()?;
        Ok(Bytes::from_owner(MappedRange(self.clone())))
    }

    /// Removes up to `max` bytes from the front of the range and reads them into memory: for
    /// writers that do not end in a `Wire`, and for files that cannot be mapped. May wait for
    /// the disk. Tell [`Delivery::expect_copied`](crate::Delivery::expect_copied) of them.
    ///
    /// # Errors
    ///
    /// Those of pread(2), and [`SendError::FileShrank`] where the file ends before the range.
    pub fn read_front(&mut self, max: u64) -> Result<Bytes, SendError> {
        let wanted = usize::try_from(self.len.min(max)).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::zeroed(wanted);
        let read = retry_on_intr(|| rustix::io::pread(&self.source, &mut *bytes, self.position))?;
        if read == 0 && wanted > 0 {
            let found = self.source.len_now()?;
            return Err(SendError::FileShrank { expected: self.end(), found });
        }
        bytes.truncate(read);
        self.advance(read as u64);
        Ok(bytes.freeze())
    }

    /// The same without waiting: only bytes that are in the page cache are read, by preadv2(2)
    /// with RWF_NOWAIT. `None` where nobody can tell without waiting: the first of them is not
    /// there, or the file system does not know that flag (NFS, FUSE). Files that are in memory
    /// anyway (tmpfs) are read as they are.
    ///
    /// # Errors
    ///
    /// Those of preadv2(2).
    pub fn read_front_now(&mut self, max: u64) -> Result<Option<Bytes>, SendError> {
        match self.source.storage() {
            Storage::Memory => return self.read_front(max).map(Some),
            Storage::Remote => return Ok(None),
            Storage::Disk | Storage::Overlay => {}
        }
        let wanted = usize::try_from(self.len.min(max)).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::zeroed(wanted);
        let read = retry_on_intr(|| {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            let flags = ReadWriteFlags::NOWAIT;
            rustix::io::preadv2(&self.source, &mut buffers, self.position, flags)
        });
        match read {
            // 0: the file's end, or the mistake of Linux 5.9 and 5.10 about it. The read that
            // may wait knows.
            Ok(0) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Ok(read) => {
                bytes.truncate(read);
                self.advance(read as u64);
                Ok(Some(bytes.freeze()))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Where the range lies in memory, if its file is mapped already.
    pub(crate) fn mapped_address(&self) -> Option<usize> {
        let mapping = self.source.shared.mapping.get()?.as_ref().ok()?;
        Some(mapping.address() + usize::try_from(self.position).ok()?)
    }

    /// Whether the mapping has all of it in memory; see `sys/mincore.rs`.
    pub(crate) fn is_in_memory(&self) -> Result<Option<bool>, Errno> {
        let bounds = usize::try_from(self.position).ok().zip(usize::try_from(self.len).ok());
        let (position, len) = bounds.ok_or(Errno::OVERFLOW)?;
        in_memory(self.source.mapping()?, position, len)
    }

    /// The mapped memory of the range, for system calls.
    pub(crate) fn mapped_slice(&self) -> Result<&[u8], Errno> {
        let mapping = self.source.mapping()?.as_slice();
        let bounds = usize::try_from(self.position).ok().zip(usize::try_from(self.end()).ok());
        bounds.and_then(|(start, end)| mapping.get(start..end)).ok_or(Errno::OVERFLOW)
    }
}

/// Owner of the memory behind [`FileRange::mapped_bytes`].
struct MappedRange(FileRange);

impl AsRef<[u8]> for MappedRange {
    fn as_ref(&self) -> &[u8] {
        self.0.mapped_slice().expect("the mapping was made before this owner")
    }
}

/// One run of bytes of a [`Payload`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Part {
    /// Bytes from memory.
    Bytes(Bytes),
    /// Bytes of a file.
    File(FileRange),
}

impl Part {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(range) => range.len(),
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes and file ranges to be sent in order, as one.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let file = std::fs::File::open("Cargo.toml")?;
/// use pagewire_engine::{Payload, SourceFile};
///
/// let file = SourceFile::new(file)?;
/// let payload = Payload::new().bytes("head").file(file.whole()).bytes("tail");
/// assert_eq!(payload.len(), 4 + file.len() + 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Payload {
    parts: VecDeque<Part>,
}

impl Payload {
    /// An empty payload.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes from memory.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.push(Part::Bytes(bytes.into()));
        self
    }

    /// Appends bytes of a file.
    #[must_use]
    pub fn file(mut self, range: FileRange) -> Self {
        self.push(Part::File(range));
        self
    }

    /// Appends a part.
    pub fn push(&mut self, part: Part) {
        if !part.is_empty() {
            self.parts.push_back(part);
        }
    }

    /// Removes the part at the front, for whoever sends payloads by other means than a `Wire`.
    pub fn pop_front(&mut self) -> Option<Part> {
        self.parts.pop_front()
    }

    /// Puts a part back, or another one before those that there are.
    pub fn push_front(&mut self, part: Part) {
        if !part.is_empty() {
            self.parts.push_front(part);
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.parts.iter().map(Part::len).sum()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    /// Removes `bytes` from the front.
    pub(crate) fn advance(&mut self, mut bytes: u64) {
        while bytes > 0 {
            let front = self.parts.front_mut().expect("advanced by no more than is left");
            let taken = bytes.min(front.len());
            match front {
                Part::Bytes(run) => {
                    bytes::Buf::advance(run, usize::try_from(taken).unwrap_or(run.len()));
                }
                Part::File(range) => range.advance(taken),
            }
            if front.is_empty() {
                self.parts.pop_front();
            }
            bytes -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn source(content: &[u8]) -> SourceFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        SourceFile::new(file).unwrap()
    }

    #[test]
    fn ranges_outside_the_file_are_refused() {
        let source = source(&[7; 10]);
        assert!(source.range(10, 0).is_ok());
        for (position, len) in [(0, 11), (11, 0), (u64::MAX, 1), (1, u64::MAX)] {
            let refusal = source.range(position, len).unwrap_err();
            assert_eq!(refusal, RangeError { position, len, file_len: 10 });
        }
    }

    #[test]
    fn a_range_is_read_from_the_front() {
        let mut range = source(b"0123456789").range(2, 5).unwrap();
        assert_eq!(range.read_front(3).unwrap(), "234");
        assert_eq!(range.read_front(3).unwrap(), "56");
        assert!(range.is_empty() && range.read_front(3).unwrap().is_empty());
    }

    #[test]
    fn an_empty_file_has_empty_bytes() {
        assert!(source(b"").whole().mapped_bytes().unwrap().is_empty());
    }

    #[test]
    fn only_regular_files_are_sources() {
        let directory = File::open(".").unwrap();
        let refusal = SourceFile::new(directory).unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_payload_advances_across_parts() {
        let file = source(&[7; 10]);
        let mut payload = Payload::new().bytes("head").file(file.whole()).bytes("").bytes("tail");
        assert_eq!(payload.len(), 18);
        payload.advance(5);
        assert_eq!(payload.len(), 13);
        assert!(matches!(payload.parts().next(), Some(Part::File(range)) if range.position() == 1));
        payload.advance(13);
        assert!(payload.is_empty());
    }
}
