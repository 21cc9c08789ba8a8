//! Ctrl-C: SIGINT, SIGTERM and SIGHUP ask the lab to stop soon, clean up, and write what it has.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Tells whether somebody asked the lab to stop, and waits for that.
#[derive(Debug)]
pub(crate) struct Stop {
    /// Readable from the first signal on; nobody reads it empty.
    asked: UnixStream,
}

/// The error of work that was not finished because somebody asked the lab to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Stopped {}

impl Stop {
    /// Catches the signals from now on.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        let (asked, tell) = UnixStream::pair().context("cannot make a pipe for signals")?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let tell = tell.try_clone()?;
            pipe::register(signal, tell).context("cannot catch signals")?;
        }
        Ok(Self { asked })
    }

    /// Waits for `pause`; ends with [`Stopped`] when, or as soon as, the lab is to stop.
    pub(crate) fn pause(&self, pause: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).context("a pause of centuries")?;
            match poll(&mut [PollFd::new(&self.asked, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(Stopped.into()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// An error when the lab is to stop.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.pause(Duration::ZERO)
    }

    /// Asks `condition` every few milliseconds until it answers, or `patience` is over.
    pub(crate) fn wait_for<T>(
        &self,
        patience: Duration,
        mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let until = Instant::now() + patience;
        loop {
            if let Some(found) = condition()? {
                return Ok(Some(found));
            }
            if Instant::now() > until {
                return Ok(None);
            }
            self.pause(Duration::from_millis(5))?;
        }
    }
}
