//! One connection, from its first byte to its end. Between requests it is parked: hyper, with its
//! buffers, is taken down, and what stays is the socket.

use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pagewire_engine::{Ledger, SendError, Socket, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::body::FileBody;
use crate::fast_lane::{Lane, Left, fast_lane};
use crate::http2;
use crate::listen::PeerAddress;
use crate::refusals::Refusal;
use crate::serve::{Phase, Shared, reached};
use crate::slots::Slot;
use crate::tls::TlsSession;

/// How long a connection is quiet before it is parked. Taking hyper down and up again costs some
/// microseconds: not worth it between the requests of one page.
pub(crate) const PARKED_AFTER: Duration = Duration::from_secs(1);

/// How long a connection may be parked between two requests. nginx waits as long.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(75);

/// How long the head of a request may take, from its first byte or the connection's begin.
const HEAD_MAX: Duration = Duration::from_secs(30);

/// The most bytes of a head: beyond, hyper answers 431. nginx reads as many. Its lines are 100 at
/// most, hyper's own limit.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What of a request's body is taken at most when the connection is to end, and for how long, so
/// that the response arrives: with something unread it would end in a reset.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;
const UNREAD_MAX: Duration = Duration::from_secs(2);

/// Serves one connection to its end.
pub(crate) async fn connection<S: Stream>(
    socket: S,
    client: Client,
    _slot: Slot,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) {
    let peer = client.peer;
    if let Err(error) = socket.set_undelayed() {
        tracing::debug!(%peer, %error, "TCP_NODELAY was refused");
    }
    let mut parked = Parked { socket, unread: Bytes::new() };
    let http2 = tokio::select! {
        heard = timeout(HEAD_MAX, parked.begins_http2()) => match heard {
            Ok(Ok(http2)) => http2,
            _ => return,
        },
        () = reached(&mut phase, Phase::Stopping) => return,
        () = shared.slots.wanted() => return,
    };
    if http2 {
        return Box::pin(http2::talk(parked, client, &shared, &mut phase)).await;
    }
    let mut patience = HEAD_MAX;
    loop {
        if parked.unread.is_empty() {
            tokio::select! {
                ready = timeout(patience, parked.socket.readable()) => {
                    if !matches!(ready, Ok(Ok(()))) {
                        return;
                    }
                }
                () = reached(&mut phase, Phase::Stopping) => return,
                () = shared.slots.wanted() => return,
            }
        }
        // Boxed: this task is to be small while it is parked.
        match Box::pin(talk(parked, client, &shared, &mut phase)).await {
            Some(again) => parked = again,
            None => return,
        }
        patience = IDLE_MAX;
    }
}

/// Who is at the other end, and what all requests of the connection have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) peer: PeerAddress,
    pub(crate) tls: Option<TlsSession>,
    /// Requests are answered with where the same is to be had by HTTPS.
    pub(crate) is_sent_on: bool,
}

/// What connections are made of: it waits as small as it can, and is talked over as a wire.
pub(crate) trait Stream: AsyncRead + Sized + Send + Sync + Unpin + 'static {
    type Wire: Lane + AsyncWrite;

    /// Has the last packet of a body not wait for the acknowledgement of the one before it, which
    /// the peer may delay by 40 ms.
    fn set_undelayed(&self) -> io::Result<()>;

    /// Ready when there is something to read, an end or an error.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Whether HTTP/2 was agreed on; none where its first bytes tell.
    fn speaks_http2(&self) -> Option<bool>;

    /// Its wire, which reads `unread` first, and the account of that.
    fn wire(self, unread: Bytes, shared: &Shared) -> (Self::Wire, Ledger);

    /// Has `bytes` read once more, before what is to come.
    fn with_unread(wire: Self::Wire, bytes: Bytes) -> Self::Wire;

    /// The stream without its wire. What was not yet sent will not be.
    fn unwired(wire: Self::Wire) -> Self;
}

impl Stream for TcpStream {
    type Wire = Wire<Self>;

    fn set_undelayed(&self) -> io::Result<()> {
        self.set_nodelay(true)
    }

    fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        Self::readable(self)
    }

    fn speaks_http2(&self) -> Option<bool> {
        None
    }

    fn wire(self, unread: Bytes, shared: &Shared) -> (Self::Wire, Ledger) {
        wire_of(self, unread, shared)
    }

    fn with_unread(wire: Self::Wire, bytes: Bytes) -> Self::Wire {
        wire.with_unread(bytes)
    }

    fn unwired(wire: Self::Wire) -> Self {
        wire.into_socket()
    }
}

impl Stream for UnixStream {
    type Wire = Wire<Self>;

    fn set_undelayed(&self) -> io::Result<()> {
        Ok(())
    }

    fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        Self::readable(self)
    }

    fn speaks_http2(&self) -> Option<bool> {
        None
    }

    fn wire(self, unread: Bytes, shared: &Shared) -> (Self::Wire, Ledger) {
        wire_of(self, unread, shared)
    }

    fn with_unread(wire: Self::Wire, bytes: Bytes) -> Self::Wire {
        wire.with_unread(bytes)
    }

    fn unwired(wire: Self::Wire) -> Self {
        wire.into_socket()
    }
}

fn wire_of<S: Socket>(socket: S, unread: Bytes, shared: &Shared) -> (Wire<S>, Ledger) {
    let wire = Wire::with_routes(socket, shared.routes).counted_by(Arc::clone(&shared.meter));
    let wire = wire.with_unread(unread).with_patience(Arc::clone(&shared.slots.patience));
    let wire = match &shared.throttle {
        Some(throttle) => wire.throttled_by(Arc::clone(throttle)),
        None => wire,
    };
    let ledger = wire.ledger();
    (wire, ledger)
}

/// A connection between two requests.
pub(crate) struct Parked<S> {
    pub(crate) socket: S,
    /// What was read and not yet understood: the front of a request's head.
    pub(crate) unread: Bytes,
}

/// What a connection of HTTP/2 begins with (RFC 9113 3.4). Without TLS nothing else tells it from
/// one of HTTP/1.1, of which no request begins so.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// As much as is read at first: most requests are shorter, and are read once.
const FIRST_BYTES_MAX: usize = 512;

impl<S: Stream> Parked<S> {
    /// Whether it begins with HTTP/2. Waits until that is known.
    async fn begins_http2(&mut self) -> io::Result<bool> {
        if let Some(known) = self.socket.speaks_http2() {
            return Ok(known);
        }
        loop {
            let heard = &self.unread[..self.unread.len().min(HTTP2_PREFACE.len())];
            if !HTTP2_PREFACE.starts_with(heard) {
                return Ok(false);
            }
            if heard.len() == HTTP2_PREFACE.len() {
                return Ok(true);
            }
            let Self { socket, unread } = self;
            *unread = std::future::poll_fn(|cx| {
                let mut memory = [0; FIRST_BYTES_MAX];
                let mut buffer = ReadBuf::new(&mut memory);
                ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
                }
                Poll::Ready(Ok([&unread[..], buffer.filled()].concat().into()))
            })
            .await?;
        }
    }
}

fn builder() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        // A client may say that it sends nothing more and still wait for its download.
        .half_close(true);
    http
}

/// Answers requests until the connection ends, or is quiet and can be parked.
async fn talk<S: Stream>(
    parked: Parked<S>,
    client: Client,
    shared: &Arc<Shared>,
    phase: &mut watch::Receiver<Phase>,
) -> Option<Parked<S>> {
    let peer = client.peer;
    let (wire, ledger, unread) = match without_hyper(parked, client, shared, phase).await {
        ControlFlow::Continue(rest) => rest,
        ControlFlow::Break(ended) => return ended,
    };
    // A head that has begun is waited for by hyper, which knows since when.
    let mut may_park = unread.is_empty();
    let wire = S::with_unread(wire, unread);
    let under_way = Arc::new(AtomicU64::new(0));
    let begun = AtomicU64::new(0);
    let unread_body = AtomicBool::new(false);
    let answer = service_fn(|request| {
        begun.fetch_add(1, Ordering::Relaxed);
        let has_body = !hyper::body::Body::is_end_stream(hyper::Request::body(&request));
        unread_body.fetch_or(has_body, Ordering::Relaxed);
        Shared::answer(shared, request, client, &ledger, UnderWay::begin(&under_way))
    });
    let mut http = builder().serve_connection(TokioIo::new(wire), answer);
    let mut stopping = false;
    let mut parking = false;
    let mut seen = 0;
    let mut quiet = pin!(sleep(PARKED_AFTER));
    let ended = loop {
        tokio::select! {
            biased;
            ended = std::future::poll_fn(|cx| http.poll_without_shutdown(cx)) => break ended,
            () = reached(phase, Phase::Stopping), if !stopping => {
                if under_way.load(Ordering::Relaxed) == 0 {
                    // Silent, or half a request: hyper would wait for its head until the deadline.
                    return None;
                }
                stopping = true;
                Pin::new(&mut http).graceful_shutdown();
            }
            () = quiet.as_mut(), if !parking => {
                let begun = begun.load(Ordering::Relaxed);
                may_park |= begun > 0;
                if may_park && begun == seen && under_way.load(Ordering::Relaxed) == 0 {
                    parking = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
                seen = begun;
                quiet.as_mut().reset(Instant::now() + PARKED_AFTER);
            }
        }
    };
    let parts = http.into_parts();
    let wire = parts.io.into_inner();
    match ended {
        Ok(()) if parking && !stopping => {
            // A copy, because the view of no bytes keeps hyper's whole buffer.
            let unread = Bytes::copy_from_slice(&parts.read_buf);
            Some(Parked { socket: S::unwired(wire), unread })
        }
        Ok(()) => {
            close(wire, peer, shared, unread_body.load(Ordering::Relaxed)).await;
            None
        }
        Err(error) => {
            tracing::debug!(%peer, %error, "the connection ended early");
            if let Some(reason) = given_up(&error) {
                shared.refusals.count(reason);
            }
            None
        }
    }
}

/// Answers what the fast lane can; goes on with the wire and what of the next request was read.
async fn without_hyper<S: Stream>(
    Parked { socket, unread }: Parked<S>,
    client: Client,
    shared: &Arc<Shared>,
    phase: &mut watch::Receiver<Phase>,
) -> ControlFlow<Option<Parked<S>>, (S::Wire, Ledger, Bytes)> {
    if client.is_sent_on {
        let (wire, ledger) = socket.wire(Bytes::new(), shared);
        return ControlFlow::Continue((wire, ledger, unread));
    }
    let (mut wire, ledger) = socket.wire(unread, shared);
    match fast_lane(&mut wire, client, shared, phase).await {
        Left::ForHyper(bytes) => ControlFlow::Continue((wire, ledger, bytes)),
        Left::Quiet => {
            ControlFlow::Break(Some(Parked { socket: S::unwired(wire), unread: Bytes::new() }))
        }
        Left::Ended => {
            close(wire, client.peer, shared, false).await;
            ControlFlow::Break(None)
        }
        Left::Broken => ControlFlow::Break(None),
    }
}

/// `has_unread` says that the peer may be sending something that nobody has read.
async fn close(
    mut wire: impl AsyncRead + AsyncWrite + Unpin,
    peer: PeerAddress,
    shared: &Shared,
    has_unread: bool,
) {
    let mut wire = Pin::new(&mut wire);
    if let Err(error) = std::future::poll_fn(|cx| wire.as_mut().poll_shutdown(cx)).await {
        tracing::debug!(%peer, %error, "the connection was gone before it was closed");
        if let Some(reason) = too_slow(&error) {
            shared.refusals.count(reason);
        }
    } else if has_unread {
        drop(timeout(UNREAD_MAX, take_unread(wire)).await);
    }
}

/// Reads what the peer still sends, to its end or the limit.
async fn take_unread<R: AsyncRead>(mut from: Pin<&mut R>) {
    let mut place = vec![0; 16 * 1024];
    let mut taken = 0;
    while taken < UNREAD_BYTES_MAX {
        let mut buffer = ReadBuf::new(&mut place);
        let read = std::future::poll_fn(|cx| from.as_mut().poll_read(cx, &mut buffer)).await;
        match (read, buffer.filled().len()) {
            (Ok(()), bytes @ 1..) => taken += bytes,
            (Ok(()) | Err(_), _) => return,
        }
    }
}

/// Why this server gave up on a peer, if it did.
pub(crate) fn given_up(error: &hyper::Error) -> Option<Refusal> {
    if error.is_timeout() {
        return Some(Refusal::HeadTime);
    }
    if error.is_parse_too_large() {
        return Some(Refusal::HeadSize);
    }
    too_slow(error)
}

/// The same of a peer that takes nothing.
fn too_slow(error: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
    let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match io.and_then(|error| error.downcast_ref()) {
        Some(SendError::TooSlow { .. }) => Some(Refusal::TooSlow),
        _ => too_slow(error.source()?),
    }
}

/// A response that is not yet settled, counted for its connection.
pub(crate) struct UnderWay(Arc<AtomicU64>);

impl UnderWay {
    pub(crate) fn begin(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response that is there, or will be: most files are open already, and a future of that is
/// neither boxed nor moved about.
pub(crate) enum Answer {
    Now(Option<Response<FileBody>>),
    Later(Pin<Box<dyn Future<Output = Response<FileBody>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<FileBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(response) => {
                Poll::Ready(Ok(response.take().expect("an answer is asked for once")))
            }
            Self::Later(response) => response.as_mut().poll(cx).map(Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use pagewire_engine::RouteChoice;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::serve::{Config, Server, SiteConfig};
    use crate::sites::Mount;

    /// A server of one file.
    async fn server(directory: &tempfile::TempDir) -> Server {
        std::fs::write(directory.path().join("file"), "content").unwrap();
        let routes = RouteChoice::Auto;
        let sites = vec![Mount::everywhere(SiteConfig::new(directory.path()))];
        let limits = crate::limits::Limits::default();
        let config = Config { listen: Vec::new(), routes, sites, limits, names_agents: false };
        Server::bind(config, Arc::new(|_| ())).await.unwrap()
    }

    /// A client, its connection, and its address.
    async fn connected() -> (TcpStream, TcpStream, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        (client, socket, peer)
    }

    /// A connection on its way to be parked, and its client, which got the answer to `asked`.
    async fn quiet_after(asked: &[u8]) -> (TcpStream, Option<Parked<TcpStream>>) {
        let directory = tempfile::tempdir().unwrap();
        let server = server(&directory).await;
        let (mut client, socket, peer) = connected().await;
        client.write_all(asked).await.unwrap();
        let (_serving, mut phase) = watch::channel(Phase::Serving);
        let mut begun = Parked { socket, unread: Bytes::new() };
        assert!(!begun.begins_http2().await.unwrap());
        let parked = talk(begun, client_at(peer), server.shared(), &mut phase).await;
        (client, parked)
    }

    fn client_at(peer: std::net::SocketAddr) -> Client {
        Client { peer: PeerAddress::Tcp(peer), tls: None, is_sent_on: false }
    }

    const REQUEST: &[u8] = b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n";

    #[tokio::test]
    async fn a_quiet_connection_is_parked_and_its_answer_was_sent() {
        let (mut client, parked) = quiet_after(REQUEST).await;
        assert!(parked.unwrap().unread.is_empty());
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"\r\n\r\ncontent"), "{}", answer.escape_ascii());
    }

    #[tokio::test]
    async fn half_a_head_is_kept() {
        let (_client, parked) = quiet_after(&[REQUEST, b"GET /fi"].concat()).await;
        assert_eq!(parked.unwrap().unread, &b"GET /fi"[..]);
    }

    #[tokio::test]
    async fn what_the_client_ended_is_not_parked() {
        let last = b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let (_client, parked) = quiet_after(last).await;
        assert!(parked.is_none());
    }

    /// So many requests at once that the task has to let others run: heads of as many bytes as
    /// are read at a time. The clock stands still.
    #[tokio::test(start_paused = true)]
    async fn a_burst_that_is_followed_by_silence_is_parked_too() {
        let directory = tempfile::tempdir().unwrap();
        let server = server(&directory).await;
        let shared = Arc::clone(server.shared());
        let (mut client, socket) = UnixStream::pair().unwrap();
        let head = |len: usize| {
            let (begin, end) = ("HEAD /file HTTP/1.1\r\nHost: x\r\nAccept: ", "\r\n\r\n");
            begin.to_owned() + &"x".repeat(len - begin.len() - end.len()) + end
        };
        client.write_all(head(FIRST_BYTES_MAX).as_bytes()).await.unwrap();
        client.write_all(head(2048).repeat(70).as_bytes()).await.unwrap();
        let slot = shared.slots.take(None).unwrap();
        let (_serving, phase) = watch::channel(Phase::Serving);
        let peer = Client { peer: PeerAddress::Unix { uid: None }, tls: None, is_sent_on: false };
        let serving = connection(socket, peer, slot, Arc::clone(&shared), phase);
        timeout(2 * IDLE_MAX, serving).await.expect("it ends when it was idle for so long");
    }

    /// The clock stands still but for the pauses: a client that sends a byte now and then gets no
    /// more time for it, and one that says nothing gets as much.
    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_deadline_however_it_trickles() {
        const PAUSE: Duration = Duration::from_secs(7);
        for (begin, counted) in [("", 0), ("GET /file HTTP/1.1\r\nX-Drip: ", 1), ("PRI", 0)] {
            let directory = tempfile::tempdir().unwrap();
            let server = server(&directory).await;
            let shared = Arc::clone(server.shared());
            let (mut client, socket, peer) = connected().await;
            client.write_all(begin.as_bytes()).await.unwrap();
            let slot = shared.slots.take(None).unwrap();
            let (_serving, phase) = watch::channel(Phase::Serving);
            let serving = connection(socket, client_at(peer), slot, Arc::clone(&shared), phase);
            let mut serving = pin!(serving);
            let mut drops = 0;
            while timeout(PAUSE, serving.as_mut()).await.is_err() {
                drops += 1;
                assert!(drops < 10, "it never ends");
                let drop = match begin {
                    "" => &[],
                    // Of the preface of HTTP/2 what fits.
                    "PRI" => &HTTP2_PREFACE[drops + 2..drops + 3],
                    _ => &b"x"[..],
                };
                client.write_all(drop).await.unwrap();
            }
            assert_eq!(drops, 4, "{begin:?}: drops within {HEAD_MAX:?}");
            assert_eq!(shared.refusals.snapshot().by(Refusal::HeadTime), counted, "{begin:?}");
        }
    }
}
