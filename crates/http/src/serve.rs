//! The server: listeners, what is told of each response, the graceful end.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use pagewire_engine::{Ledger, Meter, Outcome, RouteChoice, Tally};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::body::FileBody;
use crate::connection::{Answer, UnderWay, connection};
use crate::cors::CorsOrigin;
use crate::error::StartError;
use crate::listen::{Accepted, Listen, ListenAddress, Listener, PeerAddress};
use crate::reload::{Doors, Order, Reloader};
use crate::rules::{CacheRule, HeaderRule};
use crate::sites::{Mount, Sites};

/// How long accepting pauses when the process or the system is out of descriptors or memory:
/// long enough not to spin, short enough not to be felt when a connection ends.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What a server is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// The routes that bodies may take.
    pub routes: RouteChoice,
    /// What is served there.
    pub sites: Vec<Mount>,
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
    /// The version of HTTP that was spoken.
    pub version: Version,
    /// The request's method.
    pub method: Method,
    /// The request's target.
    pub target: Uri,
    /// The response's status.
    pub status: StatusCode,
    /// The response's body: bytes due and sent, by which route, and why it ended early.
    pub body: Outcome,
}

/// Called after each response, on a thread of the event loop: it must not block.
pub type Observer = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// What a server did in all.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Totals {
    /// Connections accepted.
    pub connections: u64,
    /// Responses ended, those cut short included.
    pub responses: u64,
    /// Responses cut short.
    pub aborted: u64,
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
    connections: AtomicU64,
    responses: AtomicU64,
    aborted: AtomicU64,
    observer: Observer,
}

impl Server {
    /// Opens the directory and the listeners.
    ///
    /// # Errors
    ///
    /// [`StartError`], which names the directory or the address.
    pub async fn bind(config: Config, observer: Observer) -> Result<Self, StartError> {
        let Config { listen, routes, sites } = config;
        let sites = ArcSwap::from_pointee(Sites::open(&sites)?);
        let addresses: Vec<_> = listen.iter().map(|listen| listen.address.clone()).collect();
        let bind =
            |listen: Listen| Listener::bind(&listen, &addresses).map(|bound| (listen, bound));
        let listeners = listen.into_iter().map(bind).collect::<Result<_, _>>()?;
        let shared = Shared {
            sites,
            routes,
            meter: Arc::new(Meter::new()),
            connections: AtomicU64::new(0),
            responses: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
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
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, phase) = (Arc::clone(&shared), phase.clone());
                match stream {
                    Accepted::Tcp(stream) => {
                        connections.spawn(connection(stream, peer, shared, phase))
                    }
                    Accepted::Unix(stream) => {
                        connections.spawn(connection(stream, peer, shared, phase))
                    }
                };
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
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

impl Shared {
    /// The answer to `request`, in which `under_way` goes as long as its response is unsettled.
    pub(crate) fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: PeerAddress,
        ledger: &Ledger,
        under_way: UnderWay,
    ) -> Answer {
        let (at, started) = (SystemTime::now(), Instant::now());
        let asked = Asked { at, started, peer, ledger: ledger.clone(), under_way };
        let sites = self.sites.load();
        if let Some(response) = sites.answer_now(&request, started) {
            return Answer::Now(Some(asked.announced(self, request, response)));
        }
        let (shared, sites) = (Arc::clone(self), Guard::into_inner(sites));
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

    fn totals(&self) -> Totals {
        Totals {
            connections: self.connections.load(Ordering::Relaxed),
            responses: self.responses.load(Ordering::Relaxed),
            aborted: self.aborted.load(Ordering::Relaxed),
            moved: self.meter.snapshot(),
        }
    }
}

/// A request as it is known before there is a response.
struct Asked {
    at: SystemTime,
    started: Instant,
    peer: PeerAddress,
    ledger: Ledger,
    under_way: UnderWay,
}

impl Asked {
    /// The response, whose delivery will be told of.
    fn announced(
        self,
        shared: &Arc<Shared>,
        request: Request<Incoming>,
        response: Response<FileBody>,
    ) -> Response<FileBody> {
        let Self { at, started, peer, ledger, under_way } = self;
        let due = response.body().bytes_left();
        let status = response.status();
        let (head, _) = request.into_parts();
        let (version, method, target) = (head.version, head.method, head.uri);
        let shared = Arc::clone(shared);
        let delivery = ledger.open(due, started, move |body| {
            shared.settled(&Exchange { at, peer, version, method, target, status, body });
            drop(under_way);
        });
        response.map(|body| body.announced_to(delivery))
    }
}
