//! The line after each response, and the thread that writes it: a terminal or pipe that stops
//! reading must not stop the event loop.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use jiff::Timestamp;
use pagewire_engine::{Outcome, Route};
use pagewire_http::Exchange;

/// Lines that wait for the writer; more are counted and dropped.
const LINES_WAITING_MAX: usize = 8192;

/// The line of one exchange: time, peer, method, target, status, bytes sent / due, complete or
/// aborted and why, route, user copies, system calls, seconds, rate.
pub(crate) fn line(exchange: &Exchange) -> String {
    let Exchange { peer, method, target, status, body, .. } = exchange;
    let at = Timestamp::try_from(exchange.at).unwrap_or_default();
    let total = body.report.tally.total();
    let outcome = match &body.cut_short {
        None => "complete".to_owned(),
        Some(reason) => format!("aborted {reason:?}"),
    };
    let step_downs = match body.report.tally.step_downs() {
        0 => String::new(),
        step_downs => format!(" step-downs={step_downs}"),
    };
    let cold = match body.report.tally.cold().bytes {
        0 => String::new(),
        bytes => format!(" cold={bytes}"),
    };
    let seconds = body.report.elapsed.as_secs_f64();
    format!(
        "{at:.3} {peer} {method} {target} {status} {sent}/{due} {outcome} route={route} \
         user-copied={copied} calls={calls}{step_downs}{cold} {seconds:.3}s {rate}\n",
        status = status.as_u16(),
        sent = total.bytes,
        due = body.due,
        route = route(body),
        copied = total.user_copied_bytes,
        calls = total.calls,
        rate = rate(total.bytes, seconds),
    )
}

fn route(body: &Outcome) -> String {
    let tally = &body.report.tally;
    let taken: Vec<_> = tally.routes_taken().map(Route::name).collect();
    match taken.as_slice() {
        [] if tally.plain().bytes > 0 => "plain".to_owned(),
        [] => "-".to_owned(),
        taken => taken.join("+"),
    }
}

fn rate(bytes: u64, seconds: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
    let rate = bytes as f64 / seconds;
    match rate {
        rate if !rate.is_finite() || bytes == 0 => "-".to_owned(),
        rate if rate >= 1e9 => format!("{:.2}GB/s", rate / 1e9),
        rate if rate >= 1e6 => format!("{:.1}MB/s", rate / 1e6),
        rate => format!("{:.1}kB/s", rate / 1e3),
    }
}

/// The thread that writes lines to standard error.
pub(crate) struct LineWriter {
    sender: LineSender,
    thread: JoinHandle<()>,
}

/// Hands lines to the writer, never waits.
#[derive(Clone)]
pub(crate) struct LineSender {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

impl LineSender {
    pub(crate) fn send(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl LineWriter {
    pub(crate) fn start() -> io::Result<Self> {
        let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let sender = LineSender { lines, lost: Arc::clone(&lost) };
        let write = move || write_all(&waiting, &lost);
        let thread = thread::Builder::new().name("lines".to_owned()).spawn(write)?;
        Ok(Self { sender, thread })
    }

    pub(crate) fn sender(&self) -> LineSender {
        self.sender.clone()
    }

    /// Waits until all lines are written; says how many were lost. Every other sender must be
    /// gone by now.
    pub(crate) fn finish(self) -> u64 {
        let lost = Arc::clone(&self.sender.lost);
        drop(self.sender);
        if self.thread.join().is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
        lost.load(Ordering::Relaxed)
    }
}

fn write_all(lines: &Receiver<String>, lost: &AtomicU64) {
    let mut out = BufWriter::new(io::stderr().lock());
    while let Ok(line) = lines.recv() {
        let written = out.write_all(line.as_bytes()).and_then(|()| {
            // One flush for all that wait already.
            lines.try_iter().try_for_each(|line| out.write_all(line.as_bytes()))?;
            out.flush()
        });
        if written.is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
