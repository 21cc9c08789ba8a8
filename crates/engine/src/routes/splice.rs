//! splice(2), Linux 2.6.17: from the file into a pipe and from the pipe into the socket. Pages
//! are passed by reference on both legs.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, splice};

use super::{Cost, Step, Target, refusal_or_error};
use crate::error::Fault;
use crate::source::{FileRange, SourceFile};

/// Asked for with F_SETPIPE_SZ: half of what an ordinary user may have (`fs.pipe-max-size`). The
/// kernel may grant less (`fs.pipe-user-pages-soft`); steps are then smaller.
const PIPE_BYTES: usize = 512 * 1024;

/// A pipe, and which bytes of which file lie in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: Option<Held>,
}

/// Bytes that left the file but have not reached the socket.
#[derive(Debug)]
struct Held {
    source: SourceFile,
    position: u64,
    bytes: usize,
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        if let Err(errno) = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES) {
            tracing::debug!(%errno, "the pipe keeps its default size");
        }
        Ok(Self { read, write, held: None })
    }

    /// A pipe with as much of `range` as it takes, and at least one byte of it. Waits for the
    /// disk, or the server behind the file. What it holds reaches a socket without another
    /// question to either: the pipe has the pages themselves.
    ///
    /// `None` where the file does not splice.
    pub(crate) fn filled(range: &FileRange) -> Result<Option<Self>, Fault> {
        let mut pipe = Self::new()?;
        let (mut bytes, mut cost) = (0, Cost::default());
        while let Some(left) = range.starting_at(range.position() + bytes as u64) {
            let max = usize::try_from(left.len()).unwrap_or(usize::MAX);
            match fill(&pipe, &left, max, SpliceFlags::NONBLOCK, &mut cost)? {
                Step::Moved(moved) => bytes += moved,
                // It is full.
                Step::WouldBlock => break,
                Step::SourceEnded if bytes > 0 => break,
                Step::SourceEnded => {
                    let found = rustix::fs::fstat(range.source())?.st_size;
                    let found = u64::try_from(found).unwrap_or(0);
                    return Err(Fault::Shrank { expected: range.end(), found });
                }
                Step::Refused(errno) if bytes == 0 => {
                    tracing::debug!(%errno, "the file does not splice");
                    return Ok(None);
                }
                Step::Refused(_) => break,
            }
        }
        let (source, position) = (range.source().clone(), range.position());
        pipe.held = Some(Held { source, position, bytes });
        Ok(Some(pipe))
    }

    /// Takes as many bytes of `range` out of the pipe as fit into `buffers`: none when it holds
    /// none of it.
    #[cfg(feature = "tls")]
    pub(crate) fn read_held(
        &mut self,
        range: &FileRange,
        buffers: &mut [std::io::IoSliceMut<'_>],
    ) -> Result<usize, Errno> {
        let Some(held) = self.held_of(range) else { return Ok(0) };
        let read = retry_on_intr(|| rustix::io::readv(&self.read, buffers))?;
        self.held = (read < held).then(|| Held {
            source: range.source().clone(),
            position: range.position() + read as u64,
            bytes: held - read,
        });
        Ok(read)
    }

    /// How many bytes from the front of `range` the pipe holds.
    pub(crate) fn held_of(&self, range: &FileRange) -> Option<usize> {
        self.held
            .as_ref()
            .filter(|held| held.position == range.position() && held.source.is(range.source()))
            .map(|held| held.bytes)
    }
}

/// Fills the pipe with at most `max` bytes from the front of `range`, unless it holds some
/// already, and empties it into the socket as far as that takes them.
pub(crate) fn step(
    pipe: &mut Option<Pipe>,
    target: Target<'_>,
    range: &FileRange,
    max: usize,
    cost: &mut Cost,
) -> Result<Step, Errno> {
    // A pipe with bytes of another range belongs to a payload that was abandoned: its bytes
    // must not reach the socket any more.
    let fresh = pipe.take().filter(|pipe| pipe.held.is_none() || pipe.held_of(range).is_some());
    let pipe = pipe.insert(fresh.map_or_else(Pipe::new, Ok)?);

    let held = match pipe.held_of(range) {
        Some(bytes) => bytes,
        None => match fill(pipe, range, max, SpliceFlags::empty(), cost)? {
            Step::Moved(bytes) => bytes,
            other @ (Step::WouldBlock | Step::Refused(_) | Step::SourceEnded) => return Ok(other),
        },
    };
    let drained = drain(pipe, target, held, cost)?;
    let moved = if let Step::Moved(bytes) = drained { bytes } else { 0 };
    pipe.held = (moved < held).then(|| Held {
        source: range.source().clone(),
        position: range.position() + moved as u64,
        bytes: held - moved,
    });
    Ok(drained)
}

fn fill(
    pipe: &Pipe,
    range: &FileRange,
    max: usize,
    flags: SpliceFlags,
    cost: &mut Cost,
) -> Result<Step, Errno> {
    let filled = retry_on_intr(|| {
        cost.calls += 1;
        let mut position = range.position();
        splice(range.source(), Some(&mut position), &pipe.write, None, max, flags)
    });
    match filled {
        Ok(0) => Ok(Step::SourceEnded),
        Ok(bytes) => Ok(Step::Moved(bytes)),
        Err(errno) => refusal_or_error(errno),
    }
}

fn drain(pipe: &Pipe, target: Target<'_>, held: usize, cost: &mut Cost) -> Result<Step, Errno> {
    let flags = if target.more { SpliceFlags::MORE } else { SpliceFlags::empty() };
    let drained = retry_on_intr(|| {
        cost.calls += 1;
        splice(&pipe.read, None, target.socket, None, held, flags)
    });
    match drained {
        Ok(bytes) => Ok(Step::Moved(bytes)),
        Err(errno) => refusal_or_error(errno),
    }
}
