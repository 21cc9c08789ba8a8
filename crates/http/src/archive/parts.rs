//! The bytes of an archive, made as a body asks for them: text around ranges of files that are
//! opened when they are reached. Called by `body.rs`, on a thread that may wait for a disk.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use pagewire_engine::{Part, Payload, SendError, SourceFile};
use tokio::runtime::Handle;

use crate::archive::checksum::{Checksums, Running};
use crate::archive::layout::{Format, Layout, Piece, What};
use crate::archive::member::{Kind, Member, Stamp};
use crate::error::{ArchiveError, RequestError};
use crate::limits::open_files_max;
use crate::resolve::{Root, source_of};

/// The most files of one batch: each is a descriptor that is open until its bytes are sent, and
/// two batches and what hyper holds are open at a time.
const BATCH_FILES_MAX: usize = 32;
/// Text of one batch.
const BATCH_TEXT_BYTES: usize = 64 * 1024;
/// Bytes that are read for checksums in one batch. Of a zip archive it is also the most of a
/// file: what was just read is in the page cache when it is sent.
const BATCH_READ_BYTES: u64 = 8 << 20;

/// An archive that can be sent: its layout, and where its files are.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) layout: Layout,
    pub(crate) root: Root,
    /// The directory that is packed, below the root.
    pub(crate) directory: PathBuf,
    pub(crate) checksums: Arc<Checksums>,
}

impl Drop for Archive {
    /// To free a million names takes long enough to be felt on the event loop, where bodies end.
    fn drop(&mut self) {
        if let Ok(runtime) = Handle::try_current() {
            let members = self.layout.take_members();
            runtime.spawn_blocking(move || drop(members));
        }
    }
}

/// What is left to be sent of an archive.
#[derive(Debug)]
pub(crate) struct ArchiveParts {
    archive: Arc<Archive>,
    position: u64,
    end: u64,
    batch_files: usize,
    /// The file that was reached last.
    open: Option<(usize, SourceFile)>,
    /// The checksum that is being reckoned, and of which member.
    running: Option<(usize, Running)>,
}

/// What is to be sent next.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// May be empty, where much had to be read for a checksum.
    pub(crate) payload: Payload,
    /// Bytes of files that were read into memory for checksums.
    pub(crate) read_aside: u64,
}

impl ArchiveParts {
    /// The `len` bytes of the archive from `position` on.
    pub(crate) fn new(archive: Arc<Archive>, position: u64, len: u64) -> Self {
        let batch_files = (open_files_max() / 4).clamp(1, BATCH_FILES_MAX);
        Self { archive, position, end: position + len, batch_files, open: None, running: None }
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> u64 {
        self.end - self.position
    }

    /// The next bytes of it.
    pub(crate) fn next_batch(&mut self) -> Result<Batch, SendError> {
        let mut batch = Batch::default();
        let (mut files, mut text) = (0, Vec::new());
        while self.position < self.end
            && files < self.batch_files
            && text.len() < BATCH_TEXT_BYTES
            && batch.read_aside < BATCH_READ_BYTES
        {
            let piece = self.archive.layout.piece_at(self.position);
            let Some(Piece { what, skip }) = piece else {
                return Err(SendError::Io(io::ErrorKind::UnexpectedEof.into()));
            };
            let bytes = match what {
                What::Text(bytes) => bytes,
                What::Content(index) => {
                    flush(&mut text, &mut batch.payload);
                    self.push_content(index, skip, &mut batch)?;
                    files += 1;
                    continue;
                }
                What::Descriptor(index) => match self.checksum(index, &mut batch)? {
                    Some(crc) => self.archive.layout.descriptor(index, crc),
                    None => break,
                },
                What::Record(index) => match self.checksum(index, &mut batch)? {
                    Some(crc) => self.archive.layout.record(index, crc),
                    None => break,
                },
            };
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            let rest = bytes.get(skip..).unwrap_or_default();
            let taken = usize::try_from(self.len()).unwrap_or(usize::MAX).min(rest.len());
            text.extend_from_slice(&rest[..taken]);
            self.position += taken as u64;
        }
        flush(&mut text, &mut batch.payload);
        Ok(batch)
    }

    /// Appends bytes of a file from `skip` on.
    fn push_content(
        &mut self,
        index: usize,
        skip: u64,
        batch: &mut Batch,
    ) -> Result<(), SendError> {
        let source = self.open(index)?;
        let mut len = (source.len() - skip).min(self.len());
        if self.archive.layout.format() == Format::Zip && self.known(index).is_none() {
            len = len.min(BATCH_READ_BYTES - batch.read_aside);
            if skip == 0 {
                self.running = Some((index, Running::default()));
            }
            // A client that resumes in the middle of a file has it read from its start later.
            if let Some((member, running)) = &mut self.running
                && (*member, running.position) == (index, skip)
            {
                batch.read_aside += running.go_on(&source, len)?;
            }
        }
        let range = source.range(skip, len).map_err(io::Error::other)?;
        batch.payload.push(Part::File(range));
        self.position += len;
        Ok(())
    }

    /// The checksum of a member, if enough of it was read by now.
    fn checksum(&mut self, index: usize, batch: &mut Batch) -> Result<Option<u32>, SendError> {
        let Kind::File(stamp) = self.member(index).kind else {
            return Ok(Some(0));
        };
        if stamp.len == 0 {
            return Ok(Some(0));
        }
        if let Some(crc) = self.known(index) {
            return Ok(Some(crc));
        }
        let running = self.running.take().filter(|(member, _)| *member == index);
        let mut running = running.map_or_else(Running::default, |(_, running)| running);
        if running.position < stamp.len {
            let source = self.open(index)?;
            batch.read_aside += running.go_on(&source, BATCH_READ_BYTES)?;
        }
        if running.position < stamp.len {
            self.running = Some((index, running));
            return Ok(None);
        }
        let crc = running.finish();
        self.archive.checksums.keep(stamp, crc);
        Ok(Some(crc))
    }

    fn known(&self, index: usize) -> Option<u32> {
        match &self.member(index).kind {
            Kind::File(stamp) => self.archive.checksums.known(stamp),
            Kind::Directory | Kind::Link(_) => None,
        }
    }

    fn member(&self, index: usize) -> &Member {
        &self.archive.layout.members()[index]
    }

    /// The file that is a member, which has to be what it was when the archive was laid out.
    fn open(&mut self, index: usize) -> Result<SourceFile, SendError> {
        if let Some((open, source)) = &self.open
            && *open == index
        {
            return Ok(source.clone());
        }
        let member = self.member(index);
        let below = member.path.split(|byte| *byte == b'/').skip(1);
        let mut path = self.archive.directory.clone();
        below.for_each(|name| path.push(OsStr::from_bytes(name)));
        let opened = self.archive.root.open_path(&path).map_err(RequestError::from);
        let source = opened.and_then(|opened| source_of(opened, None)).map_err(|error| {
            let path = path.clone();
            io::Error::other(ArchiveError::Unreadable { path, source: Box::new(error) })
        })?;
        if member.kind != Kind::File(Stamp::of(&source)) {
            return Err(io::Error::other(ArchiveError::Changed { path }).into());
        }
        self.open = Some((index, source.clone()));
        Ok(source)
    }
}

fn flush(text: &mut Vec<u8>, payload: &mut Payload) {
    payload.push(Part::Bytes(std::mem::take(text).into()));
}
