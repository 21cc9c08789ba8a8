//! strace on a running server: what it asked of the kernel, call by call, and faults put into it.
//!
//! The trace starts when the server already runs: the measuring it does on start is not in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::server::Lines;
use super::{Server, plain_dir, wait_for};

/// The calls that can move body bytes, and openat2.
const CALLS: &str = "trace=sendfile,splice,vmsplice,read,pread64,readv,preadv,preadv2,write,\
    pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendmmsg,openat,openat2";

/// One system call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: String,
    /// What it returned; -1 for an error.
    pub(crate) returned: i64,
    /// The name of the error, if it is one.
    pub(crate) error: Option<String>,
}

impl Call {
    fn parse(line: &str) -> Option<Call> {
        let (call, result) = line.rsplit_once(" = ")?;
        let (name, arguments) = call.trim_end().strip_suffix(')')?.split_once('(')?;
        let mut words = result.split(' ');
        let returned = words.next()?.parse().unwrap_or(-1);
        let error = (returned < 0).then(|| words.next().unwrap_or("?").to_owned());
        Some(Call { name: name.to_owned(), arguments: arguments.to_owned(), returned, error })
    }

    /// The bytes it moved.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.returned).unwrap_or(0)
    }

    /// Whether it sends on a connection accepted at `address`.
    pub(crate) fn sends_from(&self, address: SocketAddr) -> bool {
        let position = if self.name == "splice" { 2 } else { 0 };
        !self.name.contains("read") && self.argument(position).contains(&format!("[{address}->"))
    }

    /// Whether it takes bytes out of the file `path`. To read one byte only if that is cached is to
    /// ask whether it is.
    pub(crate) fn reads(&self, path: &Path) -> bool {
        let position = usize::from(self.name == "sendfile");
        let asks = self.arguments.ends_with("RWF_NOWAIT") && self.returned <= 1;
        let reads = self.name.contains("read") && !asks;
        let takes = reads || self.name.contains("splice") || position == 1;
        takes && self.argument(position).ends_with(&format!("<{}>", path.display()))
    }

    /// Whether it brings bytes of the file `path` into the page cache and nowhere else.
    pub(crate) fn brings_in(&self, path: &Path) -> bool {
        self.name == "sendfile" && self.argument(0).contains("/dev/null") && self.reads(path)
    }

    fn argument(&self, position: usize) -> &str {
        self.arguments.split(", ").nth(position).unwrap_or("")
    }
}

/// A running strace.
#[derive(Debug)]
pub(crate) struct Trace {
    child: Child,
    home: TempDir,
}

impl Trace {
    /// Attaches to all threads of `server`; `inject` are faults in strace's own words.
    pub(crate) fn attach(server: &Server, inject: &[&str]) -> Trace {
        let home = plain_dir();
        let mut command = Command::new("strace");
        command.args(["-ff", "-yy", "-e", CALLS, "-o"]).arg(home.path().join("calls"));
        for fault in inject {
            command.args(["-e", &format!("inject={fault}")]);
        }
        command.args(["-p", &server.pid().to_string()]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let messages = Lines::collect(child.stderr.take().unwrap());
        let attached = wait_for(|| {
            let attached = messages.all().iter().any(|line| line.contains(" attached"));
            let gone = child.try_wait().unwrap().is_some();
            (attached || gone).then_some(attached)
        });
        let trace = Trace { child, home };
        let said = messages.all();
        assert!(attached.is_some_and(|alive| alive), "strace does not attach: {said:?}");
        trace
    }

    /// Detaches and returns the calls, in order within each thread.
    pub(crate) fn finish(self) -> Vec<Call> {
        self.finish_by_thread().into_values().flatten().collect()
    }

    /// Detaches and returns the calls of each thread, by its number.
    pub(crate) fn finish_by_thread(mut self) -> BTreeMap<u32, Vec<Call>> {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.child.wait().unwrap();
        self.calls_by_thread()
    }

    /// The calls so far, in order within each thread.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls_by_thread().into_values().flatten().collect()
    }

    fn calls_by_thread(&self) -> BTreeMap<u32, Vec<Call>> {
        let files = std::fs::read_dir(self.home.path()).unwrap();
        let calls_in = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap();
            let thread = path.extension()?.to_str()?.parse().ok()?;
            Some((thread, text.lines().filter_map(Call::parse).collect()))
        };
        files.filter_map(|file| calls_in(file.unwrap().path())).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It has ended already after `finish`. A killed strace leaves the server running.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
