//! `pagewire serve`: runs the server of pagewire-http, and tells a person what it does.

mod acme;
mod admin;
mod banner;
mod check;
mod doors;
mod error;
mod log;
mod reload;
mod sandbox;
mod systemd;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context;
use pagewire_engine::Route;
use pagewire_http::raise_descriptor_limit;
use pagewire_http::tls::Challenges;
use pagewire_http::{Config, Listen, Observer, Refusal, Server, Totals};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::config;
use crate::serve::acme::Acme;
use crate::serve::admin::{Admin, AdminListener, Shown, Stats};
use crate::serve::doors::Doors;
use crate::serve::error::with_way_out;
use crate::serve::log::{LineSender, LineWriter, LogOut};
use crate::serve::reload::{Changes, Reload};
use crate::serve::sandbox::Sandbox;
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
    // The scratch file for it could not be made in the sandbox, nor the sandbox be closed around
    // threads that run already.
    let routes = banner::routes_here(&config);
    let records = doors::records_here(&config);
    let sockets = systemd::inherited().context("cannot take over the sockets of LISTEN_FDS")?;
    // A self-signed certificate may have to be written.
    let challenges = Challenges::default();
    let doors = Doors::of(&config, &sockets, &challenges)?;
    let notifier = Notifier::connect();
    let admin = config.flags.admin.as_ref().map(AdminListener::bind).transpose()?;
    let log = || LogOut::open(config.flags.log_file.as_deref());
    let log = (config.flags.log_format() != LogFormat::Off).then(log).transpose()?;
    // How many the control group allows is told by files that the sandbox hides.
    let threads = config.flags.threads.map_or_else(available_parallelism, Ok);
    let threads = threads.context("cannot count the processors: give --threads")?;
    let sandbox = sandbox::close(&config);
    let runtime = runtime(threads).context("cannot start the event loop")?;
    let lines = log.map(LineWriter::start).transpose()?;
    let sender = lines.as_ref().map(LineWriter::sender);
    let begun = Begun {
        sockets,
        doors,
        challenges,
        routes,
        records,
        sandbox,
        notifier,
        admin,
        lines: sender,
    };
    let totals = runtime.block_on(serve(line, config, begun));
    runtime.shutdown_timeout(STUCK_THREADS_GRACE);
    let lost = lines.map_or(0, LineWriter::finish);
    print_totals(&totals?, lost).context("cannot print the totals")
}

fn runtime(threads: NonZeroUsize) -> io::Result<Runtime> {
    match threads.get() {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// What was opened and found out before the sandbox was closed.
struct Begun {
    sockets: Vec<Listen>,
    doors: Doors,
    challenges: Challenges,
    routes: String,
    records: Option<String>,
    sandbox: Sandbox,
    notifier: Notifier,
    admin: Option<AdminListener>,
    lines: Option<LineSender>,
}

async fn serve(line: &[OsString], config: config::Config, begun: Begun) -> anyhow::Result<Totals> {
    let Begun { sockets, doors, challenges, routes, records, sandbox, notifier, admin, lines } =
        begun;
    let notifier = Arc::new(notifier);
    let signals = tokio::sync::Mutex::new(StopSignals::catch().context("cannot catch signals")?);
    let hangup = reload::catch_hangup().context("cannot catch SIGHUP")?;
    let changes = Changes::watch(&config);
    let stats = admin.as_ref().map(|_| Arc::new(Stats::default()));
    let flags = &config.flags;
    let asked = Config {
        listen: doors.listen.clone(),
        routes: flags.route,
        sites: config.mounts.clone(),
        limits: flags.limits.limits(),
        names_agents: flags.log_format().names_agents(),
    };
    let observer = observer(flags.log_format(), lines.clone(), stats.clone());
    let measured = banner::Measured { routes, records, sandbox: sandbox.said };
    let server = Server::bind(asked, observer).await.map_err(with_way_out)?;
    let admin_address = admin.as_ref().map(AdminListener::address);
    banner::print(&config, &measured, &doors, &server.addresses()?, admin_address)
        .context("cannot print the start lines")?;
    let warnings = public_admin(admin.as_ref()).into_iter().chain(doors.bare_passwords(&config));
    warnings.for_each(|warning| eprintln!("pagewire: {warning}"));
    let shown: Shown = Arc::new(Mutex::new(doors.certificates.clone()));
    let _admin_socket = match (admin, stats) {
        (Some(listener), Some(stats)) => {
            let shown = Arc::clone(&shown);
            listener.start(Admin::new(server.monitor(), stats, lines.clone(), shown))?
        }
        _ => None,
    };
    if let (Some(lines), Some(_)) = (lines, &flags.log_file) {
        reopen_when_rotated(lines).context("cannot catch SIGHUP")?;
    }
    let mut acme = Acme::new(challenges, changes.sender());
    acme.want(doors.acme.clone()).context("cannot start the thread that orders certificates")?;
    let grace = flags.limits.grace.map(Duration::from_secs);
    let reload = Reload {
        line: line.into(),
        fixed: config.fixed(),
        config,
        sockets,
        doors,
        certificates: shown,
        acme,
        sandboxed: sandbox.closed,
        reloader: server.reloader(),
        notifier: Arc::clone(&notifier),
        hangup,
        changes,
    };
    let reloading = tokio::spawn(reload.whenever_asked());
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

/// What strangers could read of the admin pages.
fn public_admin(admin: Option<&AdminListener>) -> Option<String> {
    let address = admin.filter(|admin| admin.is_public())?.address();
    Some(format!(
        "whoever reaches {address} sees names of files and addresses of clients; --admin PORT \
         stays on this host"
    ))
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
    let Totals { responses, aborted, connections, moved, refused, .. } = totals;
    let Totals { handshakes, resumed, failed_handshakes, .. } = totals;
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
    if *handshakes > 0 || !failed_handshakes.is_empty() {
        writeln!(out, "  tls         {handshakes} handshakes, {resumed} resumed")?;
    }
    for (reason, count) in failed_handshakes {
        writeln!(out, "  tls failed  {count} {reason}")?;
    }
    if lines_lost > 0 {
        writeln!(out, "  {lines_lost} lines were not printed: standard error was too slow")?;
    }
    out.flush()
}
