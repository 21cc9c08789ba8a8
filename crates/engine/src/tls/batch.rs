//! Records that leave by one system call: file bytes are sealed from where they are mapped, or
//! read into the places where they are sealed. What the socket did not take stays sealed, and is
//! sent before anything else.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;
use smallvec::SmallVec;

use super::mapped::Mapped;
use super::record::{APPLICATION_DATA, PLAIN_MAX, Sealer};
use crate::error::SendError;
use crate::route::Route;
use crate::routes::Cost;
use crate::sink::Sink;
use crate::source::{FileRange, SourceFile};
use crate::transfer::{PartRef, Progress};

/// Records of one batch. 256 KiB of plaintext, as the read-write route: the bytes are still in
/// the processor's cache when they are sealed, and again when the socket copies them.
const RECORDS_MAX: usize = 16;
const BATCH_BYTES: usize = RECORDS_MAX * PLAIN_MAX;

/// Buffers that a thread keeps for its next batches.
const SPARE_MAX: usize = 2;

thread_local! {
    /// A buffer is taken for a batch and comes back when all of it was sent: an idle connection
    /// has none.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Sealed records, and how far they were sent.
pub(crate) struct Batch {
    buffer: Vec<u8>,
    /// Of `buffer`.
    sealed: usize,
    sent: usize,
    /// Length of each record but the last.
    stride: usize,
    /// Bytes of plaintext in all, and those that the writer above was told of.
    plain: usize,
    reported: usize,
    /// How those of files came.
    route: Route,
    /// What stood at the front when the writer above was last made to wait.
    front: Front,
}

/// Enough of the front of what is to be written to see that a write was repeated. The same bytes
/// may have moved to another address meanwhile, and others may stand behind them.
enum Front {
    File(SourceFile, u64),
    Bytes(SmallVec<[u8; 16]>),
    Nothing,
}

impl Batch {
    /// Seals at most `room` bytes from the front of `parts`: from `mapped` where a file fills all
    /// of the batch, else they are read first.
    pub(crate) fn seal(
        sealer: &mut Sealer,
        sink: &mut Sink,
        mapped: &mut Mapped,
        parts: &[PartRef<'_>],
        room: usize,
        cost: &mut Cost,
    ) -> Result<Self, SendError> {
        if let [PartRef::File(range), ..] = parts
            && room.min(len_of(&parts[0])) >= BATCH_BYTES
            && sink.may_map(range)
            && let Some(batch) = Self::seal_mapped(sealer, sink, mapped, range)?
        {
            return Ok(batch);
        }
        mapped.close();
        Self::seal_read(sealer, sink, parts, room, cost)
    }

    /// The front of `range`, a whole batch. `None` if it cannot be mapped, or not all of it was
    /// there: whoever reads it learns why.
    fn seal_mapped(
        sealer: &mut Sealer,
        sink: &mut Sink,
        mapped: &mut Mapped,
        range: &FileRange,
    ) -> Result<Option<Self>, SendError> {
        let stride = PLAIN_MAX + sealer.overhead();
        let mut buffer = buffer(BATCH_BYTES, stride);
        let sequence = sealer.sequence();
        let made = mapped.read(sink, range, BATCH_BYTES, |plain| {
            let mut records = plain.chunks(PLAIN_MAX).zip(buffer.chunks_mut(stride));
            records
                .try_for_each(|(plain, record)| sealer.seal_from(APPLICATION_DATA, plain, record))
        });
        // In a file's last page, what lies behind its end reads as zeros.
        let end = range.position() + BATCH_BYTES as u64;
        let Some(made) = made.filter(|_| range.source().len_now().is_ok_and(|len| len >= end))
        else {
            sealer.go_back_to(sequence);
            return Ok(None);
        };
        made?;
        let (sealed, plain) = (RECORDS_MAX * stride, BATCH_BYTES);
        let (front, route) = (Front::Nothing, Route::MmapWrite);
        Ok(Some(Self { buffer, sealed, sent: 0, stride, plain, reported: 0, route, front }))
    }

    fn seal_read(
        sealer: &mut Sealer,
        sink: &mut Sink,
        parts: &[PartRef<'_>],
        room: usize,
        cost: &mut Cost,
    ) -> Result<Self, SendError> {
        let wanted = parts.iter().map(len_of).fold(0, usize::saturating_add);
        let wanted = wanted.min(room).min(BATCH_BYTES);
        let stride = PLAIN_MAX + sealer.overhead();
        let mut places = Places { buffer: buffer(wanted, stride), before: sealer.before(), stride };
        let mut plain = 0;
        for part in parts {
            let here = len_of(part).min(wanted - plain);
            if here == 0 {
                break;
            }
            let got = match part {
                PartRef::Bytes(bytes) => places.copy(plain, &bytes[..here]),
                PartRef::File(range) => match places.read(plain, here, range, sink, cost) {
                    Ok(0) if plain == 0 => {
                        let found = range.source().len_now()?;
                        return Err(SendError::FileShrank { expected: range.end(), found });
                    }
                    Ok(got) => got,
                    // What precedes it may go; its error is still there at the next step.
                    Err(_) if plain > 0 => 0,
                    Err(errno) => return Err(errno.into()),
                },
            };
            plain += got;
            if got < here {
                break;
            }
        }
        let mut sealed = 0;
        let mut left = plain;
        while left > 0 {
            let here = left.min(PLAIN_MAX);
            let end = sealed + here + sealer.overhead();
            sealer.seal(APPLICATION_DATA, &mut places.buffer[sealed..end])?;
            (sealed, left) = (end, left - here);
        }
        let (buffer, front, route) = (places.buffer, Front::Nothing, Route::ReadWrite);
        Ok(Self { buffer, sealed, sent: 0, stride, plain, reported: 0, route, front })
    }

    /// Sends what is left, as far as the socket takes it.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        more: bool,
        cost: &mut Cost,
    ) -> Result<(), Errno> {
        let more = if more { SendFlags::MORE } else { SendFlags::empty() };
        while self.sent < self.sealed {
            self.sent += retry_on_intr(|| {
                cost.calls += 1;
                let left = &self.buffer[self.sent..self.sealed];
                rustix::net::send(socket, left, SendFlags::NOSIGNAL | more)
            })?;
        }
        Ok(())
    }

    /// Credits `parts`, of which it was made, with the plaintext of the records that were sent,
    /// and with what that cost.
    pub(crate) fn report(&mut self, parts: &[PartRef<'_>], cost: Cost, progress: &mut Progress) {
        let whole = self.sent / self.stride * PLAIN_MAX;
        let done = if self.sent == self.sealed { self.plain } else { whole };
        let mut left = done.saturating_sub(self.reported);
        let reach = left;
        for (index, part) in parts.iter().enumerate() {
            let share = left.min(len_of(part));
            left -= share;
            let last = left == 0 || index + 1 == parts.len();
            let mut spent = if last { cost } else { Cost::default() };
            let way = matches!(part, PartRef::File(_)).then_some(self.route);
            let copied = way == Some(Route::ReadWrite);
            spent.user_copied_bytes = if copied { share as u64 } else { 0 };
            progress.record(index, way, share as u64, spent);
            if last {
                break;
            }
        }
        let reported = reach - left;
        self.reported += reported;
        self.front = Front::of(parts, reported);
    }

    /// Bytes of plaintext in it.
    pub(crate) fn plain_bytes(&self) -> usize {
        self.plain
    }

    /// Whether all was sent, and the writer above knows.
    pub(crate) fn is_done(&self) -> bool {
        self.is_sent() && self.reported == self.plain
    }

    /// Whether `parts`, of which it was made, go on behind it.
    pub(crate) fn is_short_of(&self, parts: &[PartRef<'_>]) -> bool {
        parts.iter().map(len_of).fold(0, usize::saturating_add) > self.plain - self.reported
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.sealed
    }

    /// Whether `parts` begin with what the batch was made of.
    pub(crate) fn is_of(&self, parts: &[PartRef<'_>]) -> bool {
        match (&self.front, parts.first()) {
            (Front::File(source, position), Some(PartRef::File(range))) => {
                range.source().is(source) && range.position() == *position
            }
            (Front::Bytes(front), Some(PartRef::Bytes(bytes))) => {
                front.iter().zip(*bytes).all(|(was, is)| was == is)
            }
            (Front::Nothing, _) => true,
            (Front::File(..), Some(PartRef::Bytes(_)))
            | (Front::Bytes(_), Some(PartRef::File(_)))
            | (_, None) => false,
        }
    }
}

impl Front {
    /// What stands `skip` bytes behind the begin of `parts`.
    fn of(parts: &[PartRef<'_>], mut skip: usize) -> Self {
        for part in parts {
            match part {
                _ if len_of(part) <= skip => skip -= len_of(part),
                PartRef::Bytes(bytes) => {
                    return Self::Bytes(bytes[skip..].iter().take(16).copied().collect());
                }
                PartRef::File(range) => {
                    return Self::File(range.source().clone(), range.position() + skip as u64);
                }
            }
        }
        Self::Nothing
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // At the end of a thread there is nobody left to keep it for.
        let kept = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX && buffer.len() > 2 * PLAIN_MAX {
                spare.push(buffer);
            }
        });
        if kept.is_err() {
            tracing::trace!("a buffer outlived its thread");
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("sealed", &self.sealed)
            .field("sent", &self.sent)
            .field("plain", &self.plain)
            .field("reported", &self.reported)
            .finish_non_exhaustive()
    }
}

fn len_of(part: &PartRef<'_>) -> usize {
    match part {
        PartRef::Bytes(bytes) => bytes.len(),
        PartRef::File(range) => usize::try_from(range.len()).unwrap_or(usize::MAX),
    }
}

/// Room for `plain` bytes: small where one record does, else one that fits every batch.
fn buffer(plain: usize, stride: usize) -> Vec<u8> {
    if plain <= PLAIN_MAX {
        return vec![0; stride - PLAIN_MAX + plain];
    }
    let mut buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    buffer.resize(buffer.len().max(RECORDS_MAX * stride), 0);
    buffer
}

/// Where plaintext lies in a buffer of records that are not sealed yet.
struct Places {
    buffer: Vec<u8>,
    /// Bytes of a record before its plaintext.
    before: usize,
    stride: usize,
}

impl Places {
    /// The runs of memory for `len` bytes of plaintext from `at` on, in their order.
    fn runs(&mut self, at: usize, len: usize) -> impl Iterator<Item = &mut [u8]> {
        let (before, first, end) = (self.before, at / PLAIN_MAX, at + len);
        let records = self.buffer.chunks_mut(self.stride).enumerate().skip(first);
        records.map_while(move |(index, record)| {
            let begin = index * PLAIN_MAX;
            let (from, to) = (at.max(begin) - begin, end.min(begin + PLAIN_MAX));
            (to > begin + from).then(|| &mut record[before + from..before + to - begin])
        })
    }

    fn copy(&mut self, at: usize, mut bytes: &[u8]) -> usize {
        let len = bytes.len();
        for run in self.runs(at, len) {
            let (here, rest) = bytes.split_at(run.len());
            run.copy_from_slice(here);
            bytes = rest;
        }
        len
    }

    /// One preadv(2), or readv(2) from the pipe that the cold pool filled for this range.
    fn read(
        &mut self,
        at: usize,
        len: usize,
        range: &FileRange,
        sink: &mut Sink,
        cost: &mut Cost,
    ) -> Result<usize, Errno> {
        let runs = self.runs(at, len).map(IoSliceMut::new);
        let mut runs: SmallVec<[IoSliceMut<'_>; RECORDS_MAX]> = runs.collect();
        if sink.wants_piped(range)
            && let Some(pipe) = &mut sink.pipe
        {
            cost.calls += 1;
            return pipe.read_held(range, &mut runs);
        }
        retry_on_intr(|| {
            cost.calls += 1;
            rustix::io::preadv(range.source(), &mut runs, range.position())
        })
    }
}
