//! strace as a counter: which system calls a server makes, by the kernel's own word.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::lab::stop::Stop;

const PATIENCE: Duration = Duration::from_secs(5);
/// Those that carry bytes of files, from the file or to the socket.
const CARRIERS: [&str; 10] = [
    "sendfile", "splice", "read", "pread64", "preadv", "write", "writev", "sendto", "sendmsg",
    "vmsplice",
];

/// A strace that counts the calls of all threads of a process.
#[derive(Debug)]
pub(crate) struct Trace {
    child: Child,
    home: TempDir,
}

/// Calls by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls(BTreeMap<String, u64>);

impl Trace {
    /// Attaches to `pid`; an error tells in strace's words why it may not.
    pub(crate) fn attach(pid: u32, stop: &Stop) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let said = home.path().join("said");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(home.path().join("calls"));
        command.args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&said)?);
        let child = command.spawn().context("cannot run `strace`")?;
        let mut trace = Self { child, home };
        let attached = stop.wait_for(PATIENCE, || {
            let words = fs::read_to_string(&said)?;
            if trace.child.try_wait()?.is_some() {
                bail!("strace cannot count: {}", words.trim());
            }
            Ok(words.contains(" attached").then_some(()))
        })?;
        attached.context("strace does not attach")?;
        Ok(trace)
    }

    /// Detaches, and tells what was called.
    pub(crate) fn finish(mut self) -> anyhow::Result<Calls> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        self.child.wait()?;
        Ok(Calls::parse(&fs::read_to_string(self.home.path().join("calls"))?))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It has ended already after `finish`. A killed strace leaves the server running.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Calls {
    /// The table of `strace -c`: share, seconds, time per call, calls, errors if any, name.
    fn parse(table: &str) -> Self {
        let rows = table.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (share, name) = (words.first()?, words.last()?);
            let is_call = share.parse::<f64>().is_ok() && *name != "total";
            is_call.then(|| Some(((*name).to_owned(), words.get(3)?.parse().ok()?)))?
        });
        Self(rows.collect())
    }

    pub(crate) fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// Those that carry bytes.
    pub(crate) fn carriers(&self) -> u64 {
        CARRIERS.iter().filter_map(|name| self.0.get(*name)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 90.91    0.000010          10      2048         7 sendfile
  9.09    0.000001           1         2           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.000011           5      2050         7 total
";
        let calls = Calls::parse(table);
        assert_eq!((calls.all(), calls.carriers()), (2050, 2048));
        assert_eq!(Calls::parse("strace: Process 7 detached"), Calls::default());
    }
}
