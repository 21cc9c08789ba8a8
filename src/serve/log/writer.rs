//! The thread that writes the log: a terminal, pipe or disk that stops taking must not stop the
//! event loop.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use anyhow::Context;

/// Lines that wait for the writer; more are counted and dropped.
const LINES_WAITING_MAX: usize = 8192;

/// The thread that writes lines.
pub(crate) struct LineWriter {
    sender: LineSender,
    thread: JoinHandle<()>,
}

/// Hands lines to the writer, never waits.
#[derive(Clone)]
pub(crate) struct LineSender {
    lines: SyncSender<String>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    lost: AtomicU64,
    /// The file is to be opened anew.
    reopen: AtomicBool,
    /// What waits now is all that is to be written.
    ending: AtomicBool,
}

impl LineSender {
    pub(crate) fn send(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were not written.
    pub(crate) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }

    /// Has the file opened by its name again: logrotate has moved it away.
    pub(crate) fn reopen(&self) {
        self.state.reopen.store(true, Ordering::Relaxed);
        // An empty line wakes the writer. Where there is no room for one it is awake.
        self.lines.try_send(String::new()).ok();
    }
}

impl LineWriter {
    pub(crate) fn start(out: LogOut) -> anyhow::Result<Self> {
        let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
        let state = Arc::new(State::default());
        let sender = LineSender { lines, state: Arc::clone(&state) };
        let write = move || write_all(out, &waiting, &state);
        let thread = thread::Builder::new().name("lines".to_owned()).spawn(write)?;
        Ok(Self { sender, thread })
    }

    pub(crate) fn sender(&self) -> LineSender {
        self.sender.clone()
    }

    /// Waits until all lines are written that were sent by now; says how many were lost.
    pub(crate) fn finish(self) -> u64 {
        let state = Arc::clone(&self.sender.state);
        state.ending.store(true, Ordering::SeqCst);
        // An empty line wakes the writer. That it is gone shows below.
        self.sender.lines.send(String::new()).ok();
        if self.thread.join().is_err() {
            state.lost.fetch_add(1, Ordering::Relaxed);
        }
        state.lost.load(Ordering::Relaxed)
    }
}

/// Where lines go.
pub(crate) struct LogOut(Out);

impl LogOut {
    /// The file at `path`, which is made if need be and appended to, or standard error.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self(Out::StandardError(BufWriter::new(io::stderr()))));
        };
        let opened = append(path);
        let file = opened
            .with_context(|| format!("cannot write the log {} (--log-file)", path.display()))?;
        Ok(Self(Out::File { path: path.to_owned(), file }))
    }
}

enum Out {
    // Not locked while it waits: a panic anywhere wants to print, too.
    StandardError(BufWriter<io::Stderr>),
    File { path: PathBuf, file: BufWriter<File> },
}

impl Out {
    /// What cannot be opened anew stays what it was: a log with a gap would be worse.
    fn reopen(&mut self) {
        if let Self::File { path, file } = self {
            match file.flush().and_then(|()| append(path)) {
                Ok(opened) => *file = opened,
                Err(error) => {
                    let path = path.display();
                    eprintln!("pagewire: the log {path} cannot be opened again: {error}");
                }
            }
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::StandardError(out) => out,
            Self::File { file, .. } => file,
        }
    }
}

fn append(path: &Path) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::new(File::options().append(true).create(true).open(path)?))
}

fn write_all(LogOut(mut out): LogOut, lines: &Receiver<String>, state: &State) {
    while let Ok(line) = lines.recv() {
        let ending = state.ending.load(Ordering::SeqCst);
        if state.reopen.swap(false, Ordering::Relaxed) {
            out.reopen();
        }
        let out = out.writer();
        let written = out.write_all(line.as_bytes()).and_then(|()| {
            // One flush for all that wait already.
            lines.try_iter().try_for_each(|line| out.write_all(line.as_bytes()))?;
            out.flush()
        });
        if written.is_err() {
            state.lost.fetch_add(1, Ordering::Relaxed);
        }
        if ending {
            return;
        }
    }
}
