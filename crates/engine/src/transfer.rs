//! One step of a transfer: which of the parts at the front leave now, by which route, and what
//! moved. Steps down when the kernel refuses. Waits for nothing; `wire.rs` and `blocking.rs` do.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use smallvec::SmallVec;

use crate::error::SendError;
use crate::meter::{Cold, Count, Meter, Tally};
use crate::plan::{Plan, STEP_BYTES_MAX, plan};
use crate::route::Route;
use crate::routes::{Cost, Step, Target, mmap_write, read_write, sendfile, splice};
use crate::sink::Sink;
use crate::source::{FileRange, Part, Payload};

/// The most slices of one sendmsg call. Far below IOV_MAX (1024), and hyper's own limit.
pub(crate) const SLICES_MAX: usize = 64;

/// A part as a step sees it; never empty.
#[derive(Clone, Debug)]
pub(crate) enum PartRef<'a> {
    Bytes(&'a [u8]),
    File(FileRange),
}

/// The parts at the front of what is to be sent.
pub(crate) type Parts<'a> = SmallVec<[PartRef<'a>; 4]>;

/// The parts at the front of `payload`.
pub(crate) fn parts_of(payload: &Payload) -> Parts<'_> {
    let parts = payload.parts().take(SLICES_MAX);
    parts
        .map(|part| match part {
            Part::Bytes(bytes) => PartRef::Bytes(bytes),
            Part::File(range) => PartRef::File(range.clone()),
        })
        .collect()
}

/// What a step did with one part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// Which of the parts.
    pub(crate) part: usize,
    /// The route, or `None` for bytes from memory.
    pub(crate) way: Option<Route>,
    pub(crate) count: Count,
}

/// What came of a step over several parts. Filled in even when the step ends in an error.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// In the order of the parts.
    pub(crate) moved: SmallVec<[Moved; 4]>,
    /// Whether the socket accepts no more now.
    pub(crate) blocked: bool,
    pub(crate) step_downs: u64,
    /// What had to be brought in before this step.
    pub(crate) cold: Cold,
    /// Bytes of files that were read into memory beside what is sent.
    pub(crate) read_aside: u64,
}

impl Progress {
    pub(crate) fn bytes(&self) -> u64 {
        self.moved.iter().map(|moved| moved.count.bytes).sum()
    }

    pub(crate) fn count_into(&self, tally: &mut Tally) {
        self.moved.iter().for_each(|moved| tally.count(moved.way, &moved.count));
        tally.count_step_downs(self.step_downs);
        tally.count_cold(self.cold);
    }

    pub(crate) fn count_into_shared(&self, meter: &Meter) {
        self.moved.iter().for_each(|moved| meter.count(moved.way, &moved.count));
        meter.count_step_downs(self.step_downs);
        meter.count_cold(self.cold);
        if self.read_aside > 0 {
            let count = Count { user_copied_bytes: self.read_aside, ..Count::default() };
            meter.count(Some(Route::ReadWrite), &count);
        }
    }

    pub(crate) fn record(&mut self, part: usize, way: Option<Route>, bytes: u64, cost: Cost) {
        let count = Count {
            bytes,
            steps: u64::from(bytes > 0),
            calls: cost.calls,
            user_copied_bytes: cost.user_copied_bytes,
        };
        self.moved.push(Moved { part, way, count });
    }
}

/// Moves at most `room` bytes from the front of `parts` to the socket: at most one gathering call
/// and, after it, one step of a route for the file range that follows.
///
/// When `progress` says that bytes moved, an error may be ignored: its cause is still there at
/// the next step.
pub(crate) fn step(
    sink: &mut Sink,
    socket: BorrowedFd<'_>,
    parts: &[PartRef<'_>],
    room: usize,
    progress: &mut Progress,
) -> Result<(), SendError> {
    loop {
        let gathered = gather(sink, parts, room.min(STEP_BYTES_MAX), progress)?;
        if !gathered.slices.is_empty() && !gathered.send(sink, socket, parts, progress)? {
            return Ok(());
        }
        let Some((range, plan)) = gathered.next else {
            return Ok(());
        };
        let part = gathered.slices.len();
        let step_bytes = plan.step_bytes.min(room - gathered.bytes);
        let more = step_bytes as u64 != range.len() || part + 1 < parts.len();
        let mut cost = Cost::default();
        let target = Target { socket, more };
        let outcome = take(sink, target, &range, Plan { step_bytes, ..plan }, &mut cost);
        let bytes = if let Ok(Step::Moved(bytes)) = outcome { bytes as u64 } else { 0 };
        progress.record(part, Some(plan.route), bytes, cost);
        match outcome? {
            Step::Moved(_) => sink.sent(&range, bytes, plan.route),
            Step::WouldBlock => progress.blocked = true,
            Step::SourceEnded => return Err(shrank(&range)?),
            Step::Refused(errno) => {
                step_down(sink, &range, plan.route, errno, progress);
                if progress.bytes() == 0 {
                    continue;
                }
            }
        }
        return Ok(());
    }
}

/// Makes one step of the planned route.
fn take(
    sink: &mut Sink,
    target: Target<'_>,
    range: &FileRange,
    plan: Plan,
    cost: &mut Cost,
) -> Result<Step, Errno> {
    match plan.route {
        Route::Sendfile => sendfile::step(target, range, plan.step_bytes, cost),
        Route::Splice => splice::step(&mut sink.pipe, target, range, plan.step_bytes, cost),
        Route::ReadWrite => read_write::step(target, range, plan.step_bytes, cost),
        Route::MmapWrite => unreachable!("such ranges are gathered"),
    }
}

/// The parts at the front that leave by one sendmsg call: bytes from memory, and file ranges
/// whose route is mmap-write.
struct Gathered<'a> {
    /// One for each part gathered.
    slices: SmallVec<[IoSlice<'a>; 4]>,
    /// Bytes of all slices.
    bytes: usize,
    /// Whether the last slice is shorter than its part.
    cut: bool,
    /// The file range after them that takes another route.
    next: Option<(FileRange, Plan)>,
}

fn gather<'a>(
    sink: &mut Sink,
    parts: &'a [PartRef<'_>],
    room: usize,
    progress: &mut Progress,
) -> Result<Gathered<'a>, SendError> {
    let mut gathered = Gathered { slices: SmallVec::new(), bytes: 0, cut: false, next: None };
    for part in parts.iter().take(SLICES_MAX) {
        let slice = match part {
            PartRef::Bytes(bytes) => bytes,
            PartRef::File(range) => match plan_mapped(sink, range, progress)? {
                Ok(slice) => slice,
                Err(plan) => {
                    gathered.next = Some((range.clone(), plan));
                    break;
                }
            },
        };
        let taken = slice.len().min(room - gathered.bytes);
        gathered.cut = taken < slice.len();
        gathered.bytes += taken;
        gathered.slices.push(IoSlice::new(&slice[..taken]));
        if gathered.bytes == room {
            break;
        }
    }
    Ok(gathered)
}

/// The mapping of `range` if it is to leave from it, else the plan that it leaves by.
fn plan_mapped<'a>(
    sink: &mut Sink,
    range: &'a FileRange,
    progress: &mut Progress,
) -> Result<Result<&'a [u8], Plan>, SendError> {
    loop {
        let plan = plan(sink.facts(range)).ok_or(SendError::NoRoute)?;
        if plan.route != Route::MmapWrite {
            return Ok(Err(plan));
        }
        // Past the new end of a file the mapping's last page reads as zeros: without this look
        // they would be sent for bytes of the file.
        if range.source().len_now()? < range.end() {
            return Err(shrank(range)?);
        }
        match range.mapped_slice() {
            Ok(slice) => return Ok(Ok(slice)),
            Err(errno) => step_down(sink, range, plan.route, errno, progress),
        }
    }
}

impl Gathered<'_> {
    /// Whether all of it left.
    fn send(
        &self,
        sink: &mut Sink,
        socket: BorrowedFd<'_>,
        parts: &[PartRef<'_>],
        progress: &mut Progress,
    ) -> Result<bool, SendError> {
        let mut cost = Cost::default();
        let more = self.cut || self.next.is_some() || self.slices.len() < parts.len();
        let outcome = mmap_write::step(Target { socket, more }, &self.slices, &mut cost);
        self.record(sink, parts, outcome.unwrap_or(0), cost, progress);
        match outcome {
            // Less than all may mean a full socket, or a mapping that ended within: the next
            // step tells which. Taking it for the first would wait for a socket that is ready.
            Ok(bytes) => Ok(bytes == self.bytes && !self.cut),
            Err(Errno::AGAIN) => {
                progress.blocked = true;
                Ok(false)
            }
            Err(errno) => Err(self.explain(parts, errno)?),
        }
    }

    /// Credits each part with its share of `bytes`, and the call to the last part that it
    /// reached, so that it is counted once.
    fn record(
        &self,
        sink: &mut Sink,
        parts: &[PartRef<'_>],
        bytes: usize,
        cost: Cost,
        progress: &mut Progress,
    ) {
        let mut left = bytes;
        for (index, (slice, part)) in self.slices.iter().zip(parts).enumerate() {
            let share = left.min(slice.len());
            left -= share;
            let way = match part {
                PartRef::Bytes(_) => None,
                PartRef::File(range) => {
                    sink.sent(range, share as u64, Route::MmapWrite);
                    Some(Route::MmapWrite)
                }
            };
            let last = left == 0 && (share < slice.len() || index + 1 == self.slices.len());
            progress.record(index, way, share as u64, if last { cost } else { Cost::default() });
            if last {
                break;
            }
        }
    }

    /// The error behind EFAULT from a mapping: the file that no longer reaches as far.
    fn explain(&self, parts: &[PartRef<'_>], errno: Errno) -> Result<SendError, SendError> {
        if errno == Errno::FAULT {
            for part in &parts[..self.slices.len()] {
                if let PartRef::File(range) = part
                    && range.source().len_now()? < range.end()
                {
                    return shrank(range);
                }
            }
        }
        Ok(errno.into())
    }
}

fn shrank(range: &FileRange) -> Result<SendError, SendError> {
    Ok(SendError::FileShrank { expected: range.end(), found: range.source().len_now()? })
}

fn step_down(
    sink: &mut Sink,
    range: &FileRange,
    route: Route,
    errno: Errno,
    progress: &mut Progress,
) {
    tracing::debug!(%route, %errno, "refused: stepping down");
    sink.refuse(range, route);
    progress.step_downs += 1;
}
