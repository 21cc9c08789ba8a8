//! `pagewire serve`: runs the server of pagewire-http, and tells a person what it does.

mod banner;
mod check;
mod error;
mod lines;
mod reload;
mod sandbox;
mod systemd;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context;
use pagewire_engine::Route;
use pagewire_http::raise_descriptor_limit;
use pagewire_http::{Config, Observer, Server, Totals};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

use crate::config;
use crate::flags::ServeFlags;
use crate::serve::error::with_way_out;
use crate::serve::lines::LineWriter;
use crate::serve::reload::Reload;
use crate::serve::sandbox::Sandbox;
use crate::serve::systemd::Notifier;

/// How long the end waits for file look-ups that hang on a dead disk.
const STUCK_THREADS_GRACE: Duration = Duration::from_secs(1);

pub(crate) fn run(line: &[OsString]) -> anyhow::Result<()> {
    let config = config::Config::load(line)?;
    if config.file_flags.show_config {
        let mut out = io::stdout().lock();
        return write!(out, "{}", config.to_toml()).context("cannot print the configuration");
    }
    if config.file_flags.check {
        return check::run(&config);
    }
    if let Err(error) = raise_descriptor_limit() {
        eprintln!("pagewire: the limit of open descriptors stays as it is: {error}");
    }
    // The scratch file for it could not be made in the sandbox, nor the sandbox be closed around
    // threads that run already.
    let routes = banner::routes_here(&config);
    let notifier = Notifier::connect();
    let sandbox = sandbox::close(&config);
    let runtime = runtime(&config.flags).context("cannot start the event loop")?;
    let lines = if config.flags.quiet { None } else { Some(LineWriter::start()?) };
    let totals = runtime.block_on(serve(line, config, routes, sandbox, notifier, lines.as_ref()));
    runtime.shutdown_timeout(STUCK_THREADS_GRACE);
    let lost = lines.map_or(0, LineWriter::finish);
    print_totals(&totals?, lost).context("cannot print the totals")
}

fn runtime(flags: &ServeFlags) -> io::Result<Runtime> {
    let threads = match flags.threads {
        Some(threads) => threads,
        None => available_parallelism()?,
    };
    match threads.get() {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

async fn serve(
    line: &[OsString],
    config: config::Config,
    routes: String,
    sandbox: Sandbox,
    notifier: Notifier,
    lines: Option<&LineWriter>,
) -> anyhow::Result<Totals> {
    let notifier = Arc::new(notifier);
    let signals = Mutex::new(StopSignals::catch().context("cannot catch signals")?);
    let hangup = reload::catch_hangup().context("cannot catch SIGHUP")?;
    let watch = reload::watch(&config);
    let observer: Observer = match lines.map(LineWriter::sender) {
        None => Arc::new(|_| ()),
        Some(sender) => Arc::new(move |exchange| sender.send(lines::line(exchange))),
    };
    let sockets = systemd::inherited().context("cannot take over the sockets of LISTEN_FDS")?;
    let asked = Config {
        listen: config.listen(&sockets),
        routes: config.flags.route,
        sites: config.mounts.clone(),
    };
    let measured = banner::Measured { routes, sandbox: sandbox.said };
    let server = Server::bind(asked, observer).await.map_err(with_way_out)?;
    banner::print(&config, &measured, &server.addresses()?)
        .context("cannot print the start lines")?;
    let reload = Reload {
        line: line.into(),
        config,
        sockets,
        sandboxed: sandbox.closed,
        reloader: server.reloader(),
        notifier: Arc::clone(&notifier),
        hangup,
        watch,
    };
    let reloading = tokio::spawn(reload.whenever_asked());
    notifier.ready();
    let stop = async {
        signals.lock().await.next().await;
        reloading.abort();
        notifier.stopping();
    };
    let cut = async { signals.lock().await.next().await };
    Ok(server.run(stop, cut).await)
}

/// SIGINT and SIGTERM: the first asks for a graceful end, the second for one at once.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn catch() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn print_totals(totals: &Totals, lines_lost: u64) -> io::Result<()> {
    let Totals { responses, aborted, connections, moved, .. } = totals;
    let mut out = io::stdout().lock();
    writeln!(out, "totals: {responses} responses, {aborted} aborted, {connections} connections")?;
    for route in Route::ALL {
        let count = moved.route(route);
        writeln!(
            out,
            "  {route:<10}  {} bytes, {} calls, {} bytes user-copied",
            count.bytes, count.calls, count.user_copied_bytes
        )?;
    }
    writeln!(out, "  step-downs  {}", moved.step_downs())?;
    let cold = moved.cold();
    writeln!(out, "  cold        {} bytes brought in, {} waits", cold.bytes, cold.waits)?;
    if lines_lost > 0 {
        writeln!(out, "  {lines_lost} lines were not printed: standard error was too slow")?;
    }
    out.flush()
}
