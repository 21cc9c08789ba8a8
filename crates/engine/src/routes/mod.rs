//! The mechanisms, one a file. Each makes one step: from a file range to a socket, as many bytes
//! as both take now. None decides whether it is the right one.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::SendFlags;

pub(crate) mod mmap_write;
pub(crate) mod read_write;
pub(crate) mod sendfile;
pub(crate) mod splice;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The socket accepted so many bytes, at least one.
    Moved(usize),
    /// The socket accepts nothing now.
    WouldBlock,
    /// The kernel does not do this for this file or socket. Nothing moved.
    Refused(Errno),
    /// The file ends before the range does. Nothing moved.
    SourceEnded,
}

/// What a step costs, filled in by the route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) calls: u64,
    pub(crate) user_copied_bytes: u64,
}

/// A socket and whether more bytes follow those of this step at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) socket: BorrowedFd<'a>,
    pub(crate) more: bool,
}

impl Target<'_> {
    /// No SIGPIPE, whatever the program around us did to it; MSG_MORE keeps the kernel from
    /// sending a short packet before the rest arrives.
    fn send_flags(self) -> SendFlags {
        if self.more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL }
    }
}

/// Sorts the errors of a call that moves bytes; those that end the transfer stay errors.
fn refusal_or_error(errno: Errno) -> Result<Step, Errno> {
    match errno {
        Errno::AGAIN => Ok(Step::WouldBlock),
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => Ok(Step::Refused(errno)),
        _ => Err(errno),
    }
}
