//! `pagewire serve`: runs the server of pagewire-http, and tells a person what it does.

mod admin;
mod banner;
mod check;
mod log;
mod reload;
mod systemd;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pagewire_engine::Route;
use pagewire_http::raise_descriptor_limit;
use pagewire_http::{Config, ListenAddress, Observer, Refusal, Server, StartError, Totals};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config;
use crate::flags::ServeFlags;
use crate::serve::admin::{Admin, AdminListener, Stats};
use crate::serve::log::{LineSender, LineWriter, LogPlace};
use crate::serve::reload::Reload;
use crate::serve::systemd::Notifier;
use crate::trace;

pub(crate) use admin::AdminAddress;
pub(crate) use log::LogFormat;

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
    if let Some(filter) = &config.flags.trace {
        trace::start(filter)?;
    }
    if let Err(error) = raise_descriptor_limit() {
        eprintln!("pagewire: the limit of open descriptors stays as it is: {error}");
    }
    let runtime = runtime(&config.flags).context("cannot start the event loop")?;
    let place = config.flags.log_file.clone().map_or(LogPlace::StandardError, LogPlace::File);
    let lines = match config.flags.log_format() {
        LogFormat::Off => None,
        _ => Some(LineWriter::start(place)?),
    };
    let totals = runtime.block_on(serve(line, config, lines.as_ref().map(LineWriter::sender)));
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
    lines: Option<LineSender>,
) -> anyhow::Result<Totals> {
    let notifier = Arc::new(Notifier::connect());
    let signals = Mutex::new(StopSignals::catch().context("cannot catch signals")?);
    let flags = &config.flags;
    let admin = flags.admin.as_ref().map(AdminListener::bind).transpose()?;
    let stats = admin.as_ref().map(|_| Arc::new(Stats::default()));
    let asked = Config {
        listen: flags.listeners(),
        routes: flags.route,
        sites: config.mounts.clone(),
        limits: flags.limits.limits(),
        names_agents: flags.log_format().names_agents(),
    };
    let observer = observer(flags.log_format(), lines.clone(), stats.clone());
    let server = Server::bind(asked, observer).await.map_err(with_way_out)?;
    banner::print(&config, &server.addresses()?, admin.as_ref().map(AdminListener::address))
        .context("cannot print the start lines")?;
    warn_of_open_doors(&config, admin.as_ref());
    if let (Some(listener), Some(stats)) = (admin, stats) {
        listener.start(Admin::new(server.monitor(), stats, lines.clone()))?;
    }
    if let (Some(lines), Some(_)) = (lines, &flags.log_file) {
        reopen_when_rotated(lines).context("cannot catch SIGHUP")?;
    }
    let grace = flags.limits.grace.map(Duration::from_secs);
    let reload = Reload::new(line, config, server.reloader(), Arc::clone(&notifier));
    let reloading = tokio::spawn(reload.context("cannot catch SIGHUP")?.forever());
    notifier.ready();
    let stop = async {
        signals.lock().await.next().await;
        reloading.abort();
        notifier.stopping();
    };
    let cut = async {
        let mut signals = signals.lock().await;
        match grace {
            None => signals.next().await,
            // Either ends it.
            Some(grace) => drop(timeout(grace, signals.next()).await),
        }
    };
    Ok(server.run(stop, cut).await)
}

/// What is done with each response: nothing that is not asked for.
fn observer(format: LogFormat, lines: Option<LineSender>, stats: Option<Arc<Stats>>) -> Observer {
    if lines.is_none() && stats.is_none() {
        return Arc::new(|_| ());
    }
    Arc::new(move |exchange| {
        if let Some(stats) = &stats {
            stats.count(exchange);
        }
        if let Some(lines) = &lines
            && let Some(line) = format.line(exchange)
        {
            lines.send(line);
        }
    })
}

/// Has the log's file opened anew at SIGHUP.
fn reopen_when_rotated(lines: LineSender) -> io::Result<()> {
    let mut rotated = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while rotated.recv().await.is_some() {
            lines.reopen();
        }
    });
    Ok(())
}

/// Says what strangers could read.
fn warn_of_open_doors(config: &config::Config, admin: Option<&AdminListener>) {
    if let Some(admin) = admin.filter(|admin| admin.is_public()) {
        let address = admin.address();
        eprintln!(
            "pagewire: whoever reaches {address} sees names of files and addresses of clients; \
             --admin PORT stays on this host"
        );
    }
    let is_open = |address: &ListenAddress| matches!(address, ListenAddress::Tcp(address) if !address.ip().is_loopback());
    let plain = config.flags.listen.iter().find(|address| is_open(address));
    let asks = config.mounts.iter().any(|mount| mount.site.passwords.is_some());
    if let (true, Some(address)) = (asks, plain) {
        eprintln!(
            "pagewire: passwords can be read on their way to {address}, which has no TLS; listen \
             on a loopback address behind a proxy that has it"
        );
    }
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

/// Adds what to do about an error at start.
fn with_way_out(error: StartError) -> anyhow::Error {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, AlreadyExists};
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let kind = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref())
        .map(io::Error::kind);
    let way_out = match (&error, kind) {
        (StartError::Root { .. }, Some(NotFound)) => "name a directory that exists",
        (StartError::Root { .. }, Some(NotADirectory)) => "name the directory that it lies in",
        (StartError::Root { .. }, Some(PermissionDenied)) => "this user may not read it",
        (StartError::Page { .. }, _) => "name a file that lies below the directory",
        (StartError::Listen { .. }, Some(AddrInUse)) => {
            "another program listens there: choose another port with --listen; port 0 takes any"
        }
        (StartError::Listen { .. }, Some(AddrNotAvailable)) => {
            "no interface of this host has that address"
        }
        (StartError::Listen { address: ListenAddress::Unix { .. }, .. }, Some(kind)) => {
            match kind {
                AlreadyExists | AddrInUse => "name another path, or end who listens there",
                NotFound => "make the directory that it is to lie in",
                PermissionDenied => "this user may not write there",
                _ => return error.into(),
            }
        }
        (StartError::Listen { .. }, Some(PermissionDenied)) => {
            "ports below 1024 need privilege: choose a higher one with --listen"
        }
        _ => return error.into(),
    };
    anyhow!("{:#}; {way_out}", anyhow::Error::from(error))
}

fn print_totals(totals: &Totals, lines_lost: u64) -> io::Result<()> {
    let Totals { responses, aborted, connections, moved, refused, .. } = totals;
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
    for reason in Refusal::ALL.into_iter().filter(|reason| refused.by(*reason) > 0) {
        writeln!(out, "  refused     {} by {}", refused.by(reason), reason.name())?;
    }
    if lines_lost > 0 {
        writeln!(out, "  {lines_lost} lines were not printed: standard error was too slow")?;
    }
    out.flush()
}
