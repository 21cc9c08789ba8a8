//! Sending on sockets of the standard library: the calling thread waits. Non-blocking sockets
//! are waited for with poll(2).

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use crate::error::{SendError, TransferError};
use crate::meter::{Report, Tally};
use crate::route::RouteChoice;
use crate::sink::Sink;
use crate::source::{Payload, SourceFile};
use crate::transfer::{Progress, parts_of, step};

/// Sends `count` bytes of `file` from `position` on to `socket`: the counterpart of Java's
/// `FileChannel.transferTo`, except that it sends all of them.
///
/// The file's own offset is neither used nor moved. Runs on Linux 5.10 and newer.
///
/// # Errors
///
/// Any error says how many bytes the socket had accepted before it. Nothing is sent when the
/// range does not lie within the file.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{fs::File, net::TcpStream};
///
/// let file = File::open("movie.mp4")?;
/// let socket = TcpStream::connect("127.0.0.1:9000")?;
/// let len = file.metadata()?.len();
/// let report = pagewire_engine::blocking::transfer_to(&file, 0, len, &socket)?;
/// println!("{} bytes in {:?}", report.tally.total().bytes, report.elapsed);
/// # Ok(())
/// # }
/// ```
pub fn transfer_to(
    file: &File,
    position: u64,
    count: u64,
    socket: impl AsFd,
) -> Result<Report, TransferError> {
    let unmoved = |source| TransferError { moved: 0, source };
    let source = file.try_clone().and_then(SourceFile::new).map_err(|e| unmoved(e.into()))?;
    let range = source.range(position, count).map_err(|_| {
        let expected = position.saturating_add(count);
        unmoved(SendError::FileShrank { expected, found: source.len() })
    })?;
    send(Payload::new().file(range), socket, RouteChoice::Auto)
}

/// Sends all of `payload` to `socket` by the routes of `choice`.
///
/// # Errors
///
/// Those of [`Wire::send`](crate::Wire::send), with the bytes that had moved by then.
pub fn send(
    mut payload: Payload,
    socket: impl AsFd,
    choice: RouteChoice,
) -> Result<Report, TransferError> {
    let started = Instant::now();
    let mut sink = Sink::new(choice);
    let mut tally = Tally::default();
    while !payload.is_empty() {
        let mut progress = Progress::default();
        let stepped =
            step(&mut sink, socket.as_fd(), &parts_of(&payload), usize::MAX, &mut progress);
        progress.count_into(&mut tally);
        payload.advance(progress.bytes());
        let waited = match stepped {
            Err(error) if progress.bytes() == 0 => Err(error),
            _ if progress.blocked && !payload.is_empty() => wait_until_writable(&socket),
            Err(_) | Ok(()) => Ok(()),
        };
        waited.map_err(|source| TransferError { moved: tally.total().bytes, source })?;
    }
    Ok(Report { tally, elapsed: started.elapsed() })
}

fn wait_until_writable(socket: &impl AsFd) -> Result<(), SendError> {
    retry_on_intr(|| poll(&mut [PollFd::new(socket, PollFlags::OUT)], None))?;
    Ok(())
}
