//! The server: listeners, connections, what is told of each response, the graceful end.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pagewire_engine::{Ledger, Meter, Outcome, RouteChoice, Tally, Wire, pacing};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::body::FileBody;
use crate::error::StartError;
use crate::service::FileService;

/// How long accepting pauses when the process or the system is out of descriptors or memory:
/// long enough not to spin, short enough not to be felt when a connection ends.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What a server is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory whose files are served.
    pub directory: PathBuf,
    /// The addresses to listen on. Port 0 takes any that is free.
    pub listen: Vec<SocketAddr>,
    /// The routes that bodies may take.
    pub routes: RouteChoice,
    /// Whether directories without an index.html are listed; else they answer 404.
    pub listing: bool,
    /// Whether names that start with a dot are listed and served. `/.well-known/` (RFC 8615)
    /// is served anyway.
    pub hidden: bool,
}

/// One request and what became of its response.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// When the request's head was complete.
    pub at: SystemTime,
    /// Who asked.
    pub peer: SocketAddr,
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
    listeners: Vec<TcpListener>,
    site: Arc<Site>,
}

/// What every connection shares.
struct Site {
    files: FileService,
    routes: RouteChoice,
    meter: Arc<Meter>,
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
        let Config { directory, listen, routes, listing, hidden } = config;
        let files = FileService::open(&directory, listing, hidden)
            .map_err(|source| StartError::Root { path: directory, source })?;
        let mut listeners = Vec::with_capacity(listen.len());
        for address in listen {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|source| StartError::Listen { address, source })?;
            if let Err(error) = pacing::spare_loopback(&listener, address.ip()) {
                tracing::debug!(%address, %error, "connections are paced as the host chose");
            }
            if let Err(error) = pacing::bound_unsent(&listener) {
                tracing::debug!(%address, %error, "what connections hold unsent is not bounded");
            }
            listeners.push(listener);
        }
        let site = Site {
            files,
            routes,
            meter: Arc::new(Meter::new()),
            connections: AtomicU64::new(0),
            responses: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            observer,
        };
        Ok(Self { listeners, site: Arc::new(site) })
    }

    /// The addresses that it listens on, with the ports that the kernel chose.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until `stop` is ready, then accepts nothing more and lets running responses
    /// finish; idle connections are closed at once. When `cut` is ready, running ones are too.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        cut: impl Future<Output = ()>,
    ) -> Totals {
        let (phase, _) = watch::channel(Phase::Serving);
        let mut listening = JoinSet::new();
        for listener in self.listeners {
            listening.spawn(listen(listener, Arc::clone(&self.site), phase.subscribe()));
        }
        stop.await;
        phase.send_replace(Phase::Stopping);
        tokio::select! {
            () = cut => {
                phase.send_replace(Phase::Cut);
                while listening.join_next().await.is_some() {}
            }
            () = async { while listening.join_next().await.is_some() {} } => {}
        }
        self.site.totals()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// How far the server has come; only ever forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Stopping,
    Cut,
}

async fn reached(phase: &mut watch::Receiver<Phase>, goal: Phase) {
    if phase.wait_for(|phase| *phase >= goal).await.is_err() {
        // The server itself was dropped: its tasks go with it.
        std::future::pending().await
    }
}

/// Accepts from one listener, and owns its connections to the end.
async fn listen(listener: TcpListener, site: Arc<Site>, mut phase: watch::Receiver<Phase>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = reached(&mut phase, Phase::Stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                site.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connection(stream, peer, Arc::clone(&site), phase.clone()));
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

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    site: Arc<Site>,
    mut phase: watch::Receiver<Phase>,
) {
    // Without it the last packet of a body waits for the acknowledgement of the one before it,
    // which the peer may delay by 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY was refused");
    }
    let wire = Wire::with_routes(stream, site.routes).counted_by(Arc::clone(&site.meter));
    let ledger = wire.ledger();
    let under_way = Arc::new(AtomicU64::new(0));
    let answer = service_fn(|request| {
        let (site, ledger) = (Arc::clone(&site), ledger.clone());
        let response = UnderWay::begin(&under_way);
        async move { Ok::<_, Infallible>(site.answer(request, peer, &ledger, response).await) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        // A client may say that it sends nothing more and still wait for its download.
        .half_close(true)
        .serve_connection(TokioIo::new(wire), answer);
    let mut http = pin!(http);
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = reached(&mut phase, Phase::Stopping) => {
            if under_way.load(Ordering::Relaxed) == 0 {
                // Silent, or half a request: hyper would wait for its head until the deadline.
                return;
            }
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "the connection ended early");
    }
}

/// A response that is not yet settled, counted for its connection.
struct UnderWay(Arc<AtomicU64>);

impl UnderWay {
    fn begin(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Site {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        ledger: &Ledger,
        under_way: UnderWay,
    ) -> Response<FileBody> {
        let (at, started) = (SystemTime::now(), Instant::now());
        let response = self.files.answer(&request, started).await;
        let due = response.body().bytes_left();
        let status = response.status();
        let (head, _) = request.into_parts();
        let delivery = ledger.open(due, started, move |body| {
            let (method, target) = (head.method, head.uri);
            self.settled(&Exchange { at, peer, method, target, status, body });
            drop(under_way);
        });
        response.map(|body| body.announced_to(delivery))
    }

    fn settled(&self, exchange: &Exchange) {
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
