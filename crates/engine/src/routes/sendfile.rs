//! sendfile(2), Linux 2.2; to any kind of file since 2.6.33. The socket gets references to the
//! file's pages in the page cache.

use rustix::io::{Errno, retry_on_intr};

use super::{Cost, Step, Target, refusal_or_error};
use crate::source::FileRange;

/// One sendfile call of at most `max` bytes from the front of `range`.
///
/// A short count does not mean that the socket is full: since Linux 4.3 a signal may cut the
/// call short. Only EAGAIN does. sendfile has no flag for more bytes to follow; within a call
/// the kernel keeps packets full by itself.
pub(crate) fn step(
    target: Target<'_>,
    range: &FileRange,
    max: usize,
    cost: &mut Cost,
) -> Result<Step, Errno> {
    let moved = retry_on_intr(|| {
        cost.calls += 1;
        let mut position = range.position();
        rustix::fs::sendfile(target.socket, range.source(), Some(&mut position), max)
    });
    match moved {
        Ok(0) => Ok(Step::SourceEnded),
        Ok(bytes) => Ok(Step::Moved(bytes)),
        Err(errno) => refusal_or_error(errno),
    }
}
