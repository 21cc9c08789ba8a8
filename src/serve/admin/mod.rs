//! `--admin`: metrics, health and the live page, on a listener, a thread and an event loop of
//! their own, so that they answer when the server is busy or full.

mod history;
mod hottest;
mod listen;
mod live;
mod metrics;
mod page;
mod process;
mod stats;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use pagewire_http::tls::CertificateFacts;
use pagewire_http::{Monitor, Totals, Transfer};

use self::history::History;
use self::hottest::Heat;
use self::process::Process;
use self::stats::{CLASSES, Times};
use crate::serve::log::LineSender;

pub(crate) use listen::{AdminAddress, AdminListener};
pub(crate) use stats::Stats;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Transfers on the live page at most; it says how many there are.
const TRANSFERS_MAX: usize = 200;

/// Files on the live page at most.
const HOTTEST_MAX: usize = 15;

/// The hottest files cool down so often.
const COOL_EVERY: u64 = 60;

/// The certificates that clients are shown: another list after a reload.
pub(crate) type Shown = Arc<Mutex<Vec<CertificateFacts>>>;

/// What the pages are made of.
pub(crate) struct Admin {
    pub(crate) monitor: Monitor,
    pub(crate) stats: Arc<Stats>,
    pub(crate) log: Option<LineSender>,
    /// What clients are shown now.
    certificates: Shown,
    started: Instant,
    started_at: SystemTime,
    history: Mutex<History>,
}

/// All that pages show, at one moment.
pub(crate) struct Snapshot {
    totals: Totals,
    stopping: bool,
    uptime: Duration,
    /// In seconds since 1970.
    started_at: f64,
    classes: [u64; CLASSES.len()],
    first_byte: Times,
    whole: Times,
    seconds: Vec<(&'static str, Vec<u64>)>,
    transfers_now: usize,
    transfers: Vec<Transfer>,
    hottest: Vec<(String, Heat)>,
    process: Process,
    log_lines_lost: u64,
    certificates: Vec<CertificateFacts>,
}

impl Admin {
    pub(crate) fn new(
        monitor: Monitor,
        stats: Arc<Stats>,
        log: Option<LineSender>,
        certificates: Shown,
    ) -> Self {
        let (started, started_at) = (Instant::now(), SystemTime::now());
        Self { monitor, stats, log, certificates, started, started_at, history: Mutex::default() }
    }

    /// Called each second.
    fn second(&self, number: u64) {
        let moved = self.monitor.totals().moved;
        self.history.lock().unwrap_or_else(PoisonError::into_inner).second(&moved);
        if number.is_multiple_of(COOL_EVERY) {
            self.stats.hottest().cool();
        }
    }

    fn snapshot(&self) -> Snapshot {
        let since_epoch = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Snapshot {
            totals: self.monitor.totals(),
            stopping: self.monitor.is_stopping(),
            uptime: self.started.elapsed(),
            started_at: since_epoch.as_secs_f64(),
            classes: self.stats.classes(),
            first_byte: self.stats.first_byte.snapshot(),
            whole: self.stats.whole.snapshot(),
            seconds: self.history.lock().unwrap_or_else(PoisonError::into_inner).by_way(),
            transfers_now: self.monitor.transfers_now(),
            transfers: self.monitor.transfers(TRANSFERS_MAX),
            hottest: self.stats.hottest().top(HOTTEST_MAX),
            process: Process::now(),
            certificates: self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            log_lines_lost: self.log.as_ref().map_or(0, LineSender::lost),
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal =
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/" => {
                let mut page = typed("text/html; charset=utf-8", page::PAGE.as_str().into());
                if let Ok(policy) = HeaderValue::from_str(&page::POLICY) {
                    page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                }
                page
            }
            "/live.json" => typed("application/json", live::render(&self.snapshot())),
            "/metrics" => typed(metrics::MEDIA_TYPE, metrics::render(&self.snapshot())),
            "/healthz" if self.monitor.is_stopping() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
            }
            "/healthz" => text(StatusCode::OK, "serving\n"),
            _ => text(StatusCode::NOT_FOUND, "here are /, /live.json, /metrics and /healthz\n"),
        }
    }
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let mut response = typed("text/plain; charset=utf-8", line.to_owned());
    *response.status_mut() = status;
    response
}

fn typed(media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let fixed: [(HeaderName, &str); 3] = [
        (CONTENT_TYPE, media_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
