//! The server: listeners, what is told of each response, the graceful end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use pagewire_engine::{Ledger, Meter, Outcome, RouteChoice, Tally, Throttle, pacing};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::auth::{Passwords, User};
use crate::body::FileBody;
use crate::connection::{Answer, Client, UnderWay, connection};
use crate::cors::CorsOrigin;
use crate::digest::Digests;
use crate::error::{RequestError, StartError};
use crate::limits::Limits;
use crate::listen::{Accepted, Listen, ListenAddress, Listener, PeerAddress, Security};
use crate::monitor::Monitor;
use crate::redirect::to_https;
use crate::refusals::{Refusal, Refusals, Refused};
use crate::reload::{Doors, Order, Reloader};
use crate::respond::refusal;
use crate::rules::{CacheRule, HeaderRule};
use crate::sites::{Mount, Sites};
use crate::slots::{Slot, Slots};
use crate::tls::{TlsSession, secured};
use crate::transfers::{Shown, Transfers};

/// How long accepting pauses when the process or the system is out of descriptors or memory:
/// long enough not to spin, short enough not to be felt when a connection ends.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Targets that are longer answer 414. Of a path the kernel reads 4,096 bytes (PATH_MAX), which
/// are three times as many when each is percent-encoded.
const TARGET_BYTES_MAX: usize = 16 * 1024;

/// What a server is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// The routes that bodies may take.
    pub routes: RouteChoice,
    /// What is served there.
    pub sites: Vec<Mount>,
    /// What clients are granted.
    pub limits: Limits,
    /// Whether an [`Exchange`] has what clients say of themselves. It costs each request a look.
    pub names_agents: bool,
}

/// What is served, and how.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    /// The directory whose files are served.
    pub directory: PathBuf,
    /// Whether directories without an index.html are listed; else they answer 404.
    pub listing: bool,
    /// Whether names that start with a dot are listed and served. `/.well-known/` (RFC 8615)
    /// is served anyway.
    pub hidden: bool,
    /// Whether `name.zst`, `name.br` and `name.gz` are sent in place of `name` to clients that
    /// accept them (RFC 9110, section 12.5.3).
    pub precompressed: bool,
    /// Cache-Control of files; the first rule that matches counts.
    pub cache_control: Vec<CacheRule>,
    /// Further fields of responses; of those for one name the first that matches counts.
    pub headers: Vec<HeaderRule>,
    /// The origins whose pages may read responses (CORS).
    pub cors: Vec<CorsOrigin>,
    /// The page of a single-page application, below the directory: what is sent with 200 to
    /// browsers that go to a path that is not there and whose last name has no dot.
    pub application: Option<PathBuf>,
    /// What is sent with 404 to those who take pages; `404.html`, if that is there, where no
    /// other is named.
    pub not_found: Option<PathBuf>,
    /// Who may see it; `None` for everybody.
    pub passwords: Option<Passwords>,
    /// Whether symbolic links are followed, as far as they stay inside; else they answer 404.
    pub follow_symlinks: bool,
}

impl SiteConfig {
    /// The files below `directory`, as `pagewire serve` has them without further flags.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            listing: true,
            hidden: false,
            precompressed: true,
            cache_control: Vec::new(),
            headers: Vec::new(),
            cors: Vec::new(),
            application: None,
            not_found: None,
            passwords: None,
            follow_symlinks: true,
        }
    }
}

/// One request and what became of its response.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// When the request's head was complete.
    pub at: SystemTime,
    /// Who asked.
    pub peer: PeerAddress,
    /// What was agreed on, where it came over TLS.
    pub tls: Option<TlsSession>,
    /// The version of HTTP that was spoken.
    pub version: Version,
    /// The request's method.
    pub method: Method,
    /// The request's target.
    pub target: Uri,
    /// The response's status.
    pub status: StatusCode,
    /// Who it was, by password.
    pub user: Option<Arc<str>>,
    /// What it said of itself, if that was asked for.
    pub agent: Option<Box<Agent>>,
    /// The response's body: bytes due and sent, by which route, and why it ended early.
    pub body: Outcome,
}

/// What a client says of itself and of where it comes from; nobody has checked it.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// The field User-Agent (RFC 9110, section 10.1.5).
    pub user_agent: Option<HeaderValue>,
    /// The field Referer (RFC 9110, section 10.1.3).
    pub referer: Option<HeaderValue>,
}

impl Agent {
    fn of(headers: &HeaderMap) -> Box<Self> {
        let field = |name| headers.get(name).cloned();
        Box::new(Self { user_agent: field(USER_AGENT), referer: field(REFERER) })
    }
}

/// Called after each response, on a thread of the event loop: it must not block.
pub type Observer = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// What a server did in all.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Totals {
    /// Connections accepted.
    pub connections: u64,
    /// Those that are open.
    pub connections_now: u64,
    /// Those that may be.
    pub connections_max: u64,
    /// Clients that were turned away or given up on.
    pub refused: Refused,
    /// Requests whose responses have not ended.
    pub in_flight: u64,
    /// Responses ended, those cut short included.
    pub responses: u64,
    /// Responses cut short.
    pub aborted: u64,
    /// TLS handshakes that were completed.
    pub handshakes: u64,
    /// Those of them that resumed an earlier session.
    pub resumed: u64,
    /// TLS handshakes that failed, by reason.
    pub failed_handshakes: BTreeMap<&'static str, u64>,
    /// What moved, by route.
    pub moved: Tally,
}

/// A server that listens and has not begun to accept.
pub struct Server {
    /// With what was asked for.
    listeners: Vec<(Listen, Listener)>,
    shared: Arc<Shared>,
    reloader: Reloader,
    orders: mpsc::Receiver<Order>,
}

/// What every connection shares.
pub(crate) struct Shared {
    /// Swapped as a whole when the configuration changes: requests under way keep theirs.
    pub(crate) sites: ArcSwap<Sites>,
    pub(crate) routes: RouteChoice,
    pub(crate) meter: Arc<Meter>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) refusals: Refusals,
    pub(crate) transfers: Transfers,
    rate: Option<NonZeroU64>,
    pub(crate) throttle: Option<Arc<Throttle>>,
    pub(crate) names_agents: bool,
    stopping: AtomicBool,
    connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    responses: AtomicU64,
    aborted: AtomicU64,
    handshakes: AtomicU64,
    resumed: AtomicU64,
    failed_handshakes: Mutex<BTreeMap<&'static str, u64>>,
    https_port: AtomicU16,
    observer: Observer,
}

impl Server {
    /// Opens the directory and the listeners.
    ///
    /// # Errors
    ///
    /// [`StartError`], which names the directory or the address.
    pub async fn bind(config: Config, observer: Observer) -> Result<Self, StartError> {
        let Config { listen, routes, sites, limits, names_agents } = config;
        let sites = ArcSwap::from_pointee(Sites::open(&sites, &Digests::new())?);
        let addresses: Vec<_> = listen.iter().map(|listen| listen.address.clone()).collect();
        let bind =
            |listen: Listen| Listener::bind(&listen, &addresses).map(|bound| (listen, bound));
        let listeners = listen.into_iter().map(bind).collect::<Result<_, _>>()?;
        let shared = Shared {
            sites,
            routes,
            meter: Arc::new(Meter::new()),
            slots: Arc::new(limits.slots()),
            refusals: Refusals::default(),
            transfers: Transfers::default(),
            rate: limits.rate,
            throttle: limits.rate_total.map(|rate| Arc::new(Throttle::new(rate))),
            names_agents,
            stopping: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            responses: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            handshakes: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            failed_handshakes: Mutex::default(),
            https_port: AtomicU16::new(0),
            observer,
        };
        let (reloader, orders) = Reloader::new();
        Ok(Self { listeners, shared: Arc::new(shared), reloader, orders })
    }

    /// What changes its configuration while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// A look into it, also while it runs.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor::of(&self.shared)
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The addresses that it listens on, with the ports that the kernel chose.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn addresses(&self) -> io::Result<Vec<ListenAddress>> {
        self.listeners.iter().map(|(_, listener)| listener.address()).collect()
    }

    /// Serves until `stop` is ready, then accepts nothing more and lets running responses
    /// finish; idle connections are closed at once. When `cut` is ready, running ones are too.
    pub async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        cut: impl Future<Output = ()>,
    ) -> Totals {
        let mut doors = Doors::new(Arc::clone(&self.shared));
        for (asked, listener) in self.listeners {
            doors.open(asked, listener);
        }
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(order) = self.orders.recv() => doors.obey(order).await,
            }
        }
        self.shared.stopping.store(true, Ordering::Relaxed);
        drop(self.orders);
        doors.all_reach(Phase::Stopping);
        let is_cut = tokio::select! {
            () = cut => true,
            () = doors.ended() => false,
        };
        if is_cut {
            doors.all_reach(Phase::Cut);
            doors.ended().await;
        }
        self.shared.totals()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// How far the server has come; only ever forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    Stopping,
    Cut,
}

pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, goal: Phase) {
    if phase.wait_for(|phase| *phase >= goal).await.is_err() {
        // The server itself was dropped: its tasks go with it.
        std::future::pending().await
    }
}

/// Accepts from one listener, and owns its connections to the end.
pub(crate) async fn listen(
    listener: Listener,
    security: Arc<ArcSwap<Security>>,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = reached(&mut phase, Phase::Stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let security = security.load();
                let Some(slot) = shared.admit(&stream, peer, &security) else { continue };
                let (shared, phase) = (Arc::clone(&shared), phase.clone());
                let is_sent_on = matches!(**security, Security::SendOn);
                let client = Client { peer, tls: None, is_sent_on };
                match (stream, &**security) {
                    (Accepted::Tcp(stream), Security::Tls(tls)) => {
                        let serving = secured(stream, client, tls.clone(), slot, shared, phase);
                        spawn(&mut connections, peer, serving);
                    }
                    (Accepted::Unix(stream), Security::Tls(tls)) => {
                        let serving = secured(stream, client, tls.clone(), slot, shared, phase);
                        spawn(&mut connections, peer, serving);
                    }
                    (Accepted::Tcp(stream), _) => {
                        let serving = connection(stream, client, slot, shared, phase);
                        spawn(&mut connections, peer, serving);
                    }
                    (Accepted::Unix(stream), _) => {
                        let serving = connection(stream, client, slot, shared, phase);
                        spawn(&mut connections, peer, serving);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                shared.refusals.count(Refusal::Accept);
                // One that is idle has what is missing.
                shared.slots.ask_for_room();
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = reached(&mut phase, Phase::Cut) => connections.shutdown().await,
        () = async { while connections.join_next().await.is_some() {} } => {}
    }
}

/// In a span, if anybody listens: else it would only make the task larger.
fn spawn(
    connections: &mut JoinSet<()>,
    peer: PeerAddress,
    serving: impl Future<Output = ()> + Send + 'static,
) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        connections.spawn(serving.instrument(tracing::debug_span!("connection", %peer)));
    } else {
        connections.spawn(serving);
    }
}

/// How much there is of a target.
fn target_len(target: &Uri) -> usize {
    target.path_and_query().map_or(0, |target| target.as_str().len())
}

impl Shared {
    /// A place for a connection that was accepted; `None` when it was turned away.
    fn admit(&self, stream: &Accepted, peer: PeerAddress, security: &Security) -> Option<Slot> {
        match self.slots.take(peer.ip()) {
            Ok(slot) => {
                self.connections.fetch_add(1, Ordering::Relaxed);
                if let (Some(rate), Accepted::Tcp(stream)) = (self.rate, stream)
                    && let Err(error) = pacing::limit_rate(stream, rate)
                {
                    tracing::warn!(%peer, %error, "the rate of a connection is not limited");
                }
                Some(slot)
            }
            Err(reason) => {
                tracing::debug!(%peer, reason = reason.name(), "turned away");
                self.refusals.count(reason);
                stream.turn_away(security);
                None
            }
        }
    }

    /// The answer to `request`, in which `under_way` goes as long as its response is unsettled.
    pub(crate) fn answer(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        client: Client,
        ledger: &Ledger,
        under_way: UnderWay,
    ) -> Answer {
        let (at, started) = (SystemTime::now(), Instant::now());
        self.requests.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(method = %request.method(), target = %request.uri(), "request");
        let asked = Asked { at, started, client, ledger: ledger.clone(), under_way };
        if client.is_sent_on
            && let Some(response) = to_https(&request, self.https_port.load(Ordering::Relaxed))
        {
            return Answer::Now(Some(asked.announced(self, request, response)));
        }
        if target_len(request.uri()) > TARGET_BYTES_MAX {
            let error = RequestError::TargetTooLong { max: TARGET_BYTES_MAX };
            let mut response = refusal(&error);
            response.extensions_mut().insert(Refusal::TargetLength);
            return Answer::Now(Some(asked.announced(self, request, response)));
        }
        let sites = self.sites.load();
        if let Some(response) = sites.answer_now(&request, started) {
            return Answer::Now(Some(asked.announced(self, request, response)));
        }
        let (shared, sites) = (Arc::clone(self), Guard::into_inner(sites));
        request.extensions_mut().insert(client.peer);
        Answer::Later(Box::pin(async move {
            let response = sites.answer(&request, started).await;
            asked.announced(&shared, request, response)
        }))
    }

    /// From the next request on.
    pub(crate) fn serve_instead(&self, sites: Sites) {
        self.sites.store(Arc::new(sites));
    }

    pub(crate) fn settled(&self, exchange: &Exchange) {
        self.responses.fetch_add(1, Ordering::Relaxed);
        if exchange.body.cut_short.is_some() {
            self.aborted.fetch_add(1, Ordering::Relaxed);
        }
        (self.observer)(exchange);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn totals(&self) -> Totals {
        // Responses first: they are never more than requests.
        let responses = self.responses.load(Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed);
        Totals {
            connections: self.connections.load(Ordering::Relaxed),
            connections_now: self.slots.taken() as u64,
            connections_max: self.slots.max() as u64,
            refused: self.refusals.snapshot(),
            in_flight: requests.saturating_sub(responses),
            responses,
            aborted: self.aborted.load(Ordering::Relaxed),
            handshakes: self.handshakes.load(Ordering::Relaxed),
            resumed: self.resumed.load(Ordering::Relaxed),
            failed_handshakes: self.failed_handshakes().clone(),
            moved: self.meter.snapshot(),
        }
    }

    pub(crate) fn handshake_done(&self, session: &TlsSession) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        self.resumed.fetch_add(u64::from(session.resumed), Ordering::Relaxed);
    }

    pub(crate) fn handshake_failed(&self, peer: PeerAddress, reason: &'static str) {
        tracing::debug!(%peer, reason, "no TLS handshake");
        *self.failed_handshakes().entry(reason).or_default() += 1;
    }

    fn failed_handshakes(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.failed_handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_https_port(&self, port: u16) {
        self.https_port.store(port, Ordering::Relaxed);
    }
}

/// A request as it is known before there is a response.
struct Asked {
    at: SystemTime,
    started: Instant,
    client: Client,
    ledger: Ledger,
    under_way: UnderWay,
}

impl Asked {
    /// The response, whose delivery will be told of.
    fn announced(
        self,
        shared: &Arc<Shared>,
        request: Request<Incoming>,
        mut response: Response<FileBody>,
    ) -> Response<FileBody> {
        let Self { at, started, client, ledger, under_way } = self;
        let Client { peer, tls, .. } = client;
        let due = response.body().bytes_left();
        let status = response.status();
        let (head, _) = request.into_parts();
        let agent = shared.names_agents.then(|| Agent::of(&head.headers));
        let user = response.extensions_mut().remove::<User>().map(|User(name)| name);
        if let Some(reason) = response.extensions_mut().remove::<Refusal>() {
            shared.refusals.count(reason);
        }
        let (version, method, target) = (head.version, head.method, head.uri);
        let number = shared.transfers.number(due);
        let shown = number.map(|number| (number, target.clone()));
        let server = Arc::clone(shared);
        let delivery = ledger.open(due, started, move |body| {
            if let Some(number) = number {
                server.transfers.ended(number);
            }
            let exchange =
                Exchange { at, peer, tls, version, method, target, status, user, agent, body };
            server.settled(&exchange);
            drop(under_way);
        });
        if let Some((number, target)) = shown {
            let watch = delivery.watch();
            shared.transfers.show(number, Shown { peer, target, due, started, watch });
        }
        response.map(|body| body.announced_to(delivery))
    }
}
