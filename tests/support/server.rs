//! `pagewire serve` as a child process: started on a free port, read line by line, stopped by
//! signal.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use super::{LogLine, PATIENCE, Totals, wait_for, wait_until};

/// A command that runs the program under test.
pub(crate) fn pagewire(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments);
    command
}

/// Where the program under test is.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pagewire"))
}

/// The lines a child has written so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    /// Nothing more will come.
    ended: bool,
}

impl Lines {
    pub(crate) fn collect(source: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                sink.0.lock().unwrap().lines.push(line);
            }
            sink.0.lock().unwrap().ended = true;
        });
        lines
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().lines.clone()
    }

    /// Waits for the last line of a child that has ended: it may still be in the pipe.
    fn end(&self) -> Option<()> {
        wait_for(|| self.0.lock().unwrap().ended.then_some(()))
    }
}

/// A running server. It is killed when dropped; a panic in it fails the test.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    out: Lines,
    log: Lines,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Serves `dir` on a free port, unless `arguments` name the addresses to listen on.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Server {
        let mut command = pagewire(&["serve"]);
        command.arg(dir).args(arguments);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Server::spawn(command)
    }

    /// As `start`, with a command made elsewhere.
    pub(crate) fn spawn(mut command: Command) -> Server {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Shown when the test fails: which of its servers it was.
        eprintln!("{command:?}");
        let mut child = command.spawn().unwrap();
        let out = Lines::collect(child.stdout.take().unwrap());
        let log = Lines::collect(child.stderr.take().unwrap());
        let mut server = Server { child, out, log, addresses: Vec::new() };
        server.addresses = server.read_addresses();
        server
    }

    fn read_addresses(&mut self) -> Vec<SocketAddr> {
        let banner = wait_for(|| {
            let lines = self.out.all();
            let gone = self.child.try_wait().unwrap().is_some();
            (gone || lines.iter().any(|line| line.starts_with("route: "))).then_some(lines)
        });
        let addresses: Vec<SocketAddr> = banner
            .iter()
            .flatten()
            .filter_map(|line| {
                let address = line.strip_prefix("  http")?.trim_start_matches('s');
                address.strip_prefix("://")?.strip_suffix('/')?.parse().ok()
            })
            .collect();
        assert!(!addresses.is_empty(), "the server did not start: {self:?}");
        addresses
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address())
    }

    /// What the server said on stdout so far.
    pub(crate) fn banner(&self) -> Vec<String> {
        self.out.all()
    }

    /// What it said on stdout when it has ended, after Ctrl-C.
    #[track_caller]
    pub(crate) fn banner_at_end(mut self) -> Vec<String> {
        self.interrupt();
        self.totals();
        self.out.all()
    }

    /// All lines of stderr, also those still to come.
    pub(crate) fn raw_log(&self) -> Lines {
        self.log.clone()
    }

    /// The responses logged so far.
    pub(crate) fn log_lines(&self) -> Vec<LogLine> {
        self.log.all().iter().filter_map(|line| LogLine::parse(line)).collect()
    }

    /// The first response logged for `target`, waited for.
    #[track_caller]
    pub(crate) fn log_line_for(&self, target: &str) -> LogLine {
        wait_for(|| self.log_lines().into_iter().find(|line| line.target == target))
            .unwrap_or_else(|| panic!("no log line for {target} in {PATIENCE:?}: {self:?}"))
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        kill_process(self.pid(), Signal::INT).unwrap();
    }

    /// Waits for the process to end by itself, and for all that it wrote.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let ended = wait_for(|| self.child.try_wait().unwrap());
        ended
            .filter(|_| self.out.end().and(self.log.end()).is_some())
            .unwrap_or_else(|| panic!("the server did not end in {PATIENCE:?}: {self:?}"))
    }

    /// Waits for a graceful end and reads the totals.
    #[track_caller]
    pub(crate) fn totals(&mut self) -> Totals {
        let status = self.wait();
        assert!(status.success(), "{status}: {self:?}");
        self.printed_totals()
    }

    /// The totals of a server that has ended, however it ended.
    #[track_caller]
    pub(crate) fn printed_totals(&self) -> Totals {
        wait_until("totals on stdout", || Totals::parse(&self.out.all()))
    }

    /// Ctrl-C, then the totals.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Totals {
        self.interrupt();
        self.totals()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
        self.log.end();
        let panicked = self.log.all().into_iter().find(|line| line.contains("panicked at"));
        if let (Some(line), false) = (panicked, std::thread::panicking()) {
            panic!("the server panicked: {line}");
        }
    }
}
