//! sendmsg(2) from a mapping of the file: one copy, into the socket. Bytes from plain memory
//! leave by the same call, so this is also how heads are sent.

use std::io::IoSlice;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendAncillaryBuffer;

use super::{Cost, Target};

/// One sendmsg call with all of `slices`, of which the socket accepts at least one byte.
///
/// EAGAIN means that the socket accepts nothing now, EFAULT that a mapped file ends before its
/// slice does: the caller knows which file.
pub(crate) fn step(
    target: Target<'_>,
    slices: &[IoSlice<'_>],
    cost: &mut Cost,
) -> Result<usize, Errno> {
    retry_on_intr(|| {
        cost.calls += 1;
        let mut nothing = SendAncillaryBuffer::default();
        rustix::net::sendmsg(target.socket, slices, &mut nothing, target.send_flags())
    })
}
