//! pread(2) into a buffer and send(2) from it: two copies, and works for every file and socket.
//! The only route that copies into this process's memory.

use std::cell::RefCell;

use rustix::io::{Errno, retry_on_intr};

use super::{Cost, Step, Target, refusal_or_error};
use crate::source::FileRange;

/// Large enough that the two calls do not show, small enough that what pread copied is still in
/// the processor's cache when send copies it. From 128 to 512 KiB the cost is the same within the
/// spread, 34 to 36 cs/GB; below it rises to 40 (`bench/runs/2026-11-22-2core-linux6.18/buffers`).
const BUFFER_BYTES: usize = 256 * 1024;

thread_local! {
    /// One buffer a thread, not one a socket: a step leaves nothing in it. Bytes that the socket
    /// did not accept are read again, which is cheaper than to keep a buffer for every slow peer.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads at most `max` bytes from the front of `range` and sends them.
pub(crate) fn step(
    target: Target<'_>,
    range: &FileRange,
    max: usize,
    cost: &mut Cost,
) -> Result<Step, Errno> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, 0);
        let wanted = &mut buffer[..max.min(BUFFER_BYTES)];
        let read = retry_on_intr(|| {
            cost.calls += 1;
            rustix::io::pread(range.source(), &mut *wanted, range.position())
        })?;
        cost.user_copied_bytes += read as u64;
        if read == 0 {
            return Ok(Step::SourceEnded);
        }
        let target = Target { more: target.more || (read as u64) < range.len(), ..target };
        let sent = retry_on_intr(|| {
            cost.calls += 1;
            rustix::net::send(target.socket, &wanted[..read], target.send_flags())
        });
        match sent {
            Ok(bytes) => Ok(Step::Moved(bytes)),
            Err(errno) => refusal_or_error(errno),
        }
    })
}
