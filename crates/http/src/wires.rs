//! Listeners whose connections are wires, for hyper and axum.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use pagewire_engine::{Meter, RouteChoice, Socket, Wire, pacing};
use rustix::net::getsockname;
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// How long accepting pauses when the process or the system is out of descriptors or memory:
/// long enough not to spin, short enough not to be felt when a connection ends.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Makes a wire of an accepted connection, with TCP_NODELAY: without it the last packet of a
/// body waits for the acknowledgement of the one before it, which the peer may delay by 40 ms.
///
/// ```no_run
/// # async fn serve() -> std::io::Result<()> {
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let (stream, _) = listener.accept().await?;
/// let io = hyper_util::rt::TokioIo::new(pagewire_http::wrap(stream));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn wrap(stream: TcpStream) -> Wire<TcpStream> {
    undelayed(&stream);
    Wire::new(stream)
}

fn undelayed(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
}

/// A listener whose connections are [`Wire`]s. With the feature `axum` it is a listener of
/// `axum::serve`:
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # async fn serve(router: axum::Router) -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// axum::serve(pagewire_http::Wires::new(listener), router).await
/// # }
/// ```
#[derive(Debug)]
pub struct Wires<L> {
    listener: L,
    routes: RouteChoice,
    meter: Option<Arc<Meter>>,
}

impl<L: AsFd> Wires<L> {
    /// Wires of what `listener` accepts: a [`TcpListener`] or a [`UnixListener`]. On a loopback
    /// address its connections are not paced, see [`pacing::spare_loopback`]; on any they hold
    /// little unsent, see [`pacing::bound_unsent`].
    pub fn new(listener: L) -> Self {
        let address = getsockname(&listener).ok().and_then(|name| SocketAddr::try_from(name).ok());
        if let Some(address) = address
            && let Err(error) = pacing::spare_loopback(&listener, address.ip())
        {
            tracing::debug!(%address, %error, "connections may be paced");
        }
        if address.is_some()
            && let Err(error) = pacing::bound_unsent(&listener)
        {
            tracing::debug!(%error, "connections may hold much unsent");
        }
        Self { listener, routes: RouteChoice::Auto, meter: None }
    }
}

impl<L> Wires<L> {
    /// Has the wires take the routes of `choice`.
    #[must_use]
    pub fn with_routes(mut self, choice: RouteChoice) -> Self {
        self.routes = choice;
        self
    }

    /// Has everything that the wires move counted by `meter` too.
    #[must_use]
    pub fn counted_by(mut self, meter: Arc<Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// The listener itself.
    pub fn listener(&self) -> &L {
        &self.listener
    }

    fn wire<S: Socket>(&self, socket: S) -> Wire<S> {
        let wire = Wire::with_routes(socket, self.routes);
        match &self.meter {
            Some(meter) => wire.counted_by(Arc::clone(meter)),
            None => wire,
        }
    }
}

impl Wires<TcpListener> {
    /// The next connection, with TCP_NODELAY, and its peer. Errors of accept(2) are logged, and
    /// it tries again.
    pub async fn accept(&mut self) -> (Wire<TcpStream>, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    undelayed(&stream);
                    return (self.wire(stream), peer);
                }
                Err(error) => recovered(error).await,
            }
        }
    }
}

impl Wires<UnixListener> {
    /// The next connection and its peer. Errors of accept(2) are logged, and it tries again.
    pub async fn accept(&mut self) -> (Wire<tokio::net::UnixStream>, tokio::net::unix::SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (self.wire(stream), peer),
                Err(error) => recovered(error).await,
            }
        }
    }
}

/// A peer that went before it was accepted concerns nobody; for what else there is, such as no
/// descriptors left, a pause.
async fn recovered(error: io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "cannot accept");
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}
