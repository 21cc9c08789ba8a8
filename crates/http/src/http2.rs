//! One connection of HTTP/2 (RFC 9113), from its preface to its end: hyper over a wire, with the
//! bodies of `framed.rs`. Not parked between requests, because its state outlives them; an idle
//! one is told to go.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::connection::{Client, IDLE_MAX, PARKED_AFTER, Parked, Stream, UnderWay, given_up};
use crate::framed::FramedBody;
use crate::serve::{Phase, Shared, reached};

/// Requests under way at once on a connection. RFC 9113 5.1.2 wants no less than 100.
const STREAMS_MAX: u32 = 100;

/// Fields of a request, names and values, with 32 bytes for each: what HTTP/1.1 gets from hyper.
const FIELDS_BYTES_MAX: u32 = 16 * 1024;

/// Streams that a peer may reset before they were taken up, and that may be answered by a reset
/// of ours, before the connection ends: rapid reset (CVE-2023-44487) and its mirror image
/// (CVE-2025-8671) cost more than they bring.
const EARLY_RESETS_MAX: usize = 20;
const OWN_RESETS_MAX: usize = 100;

/// Of request bodies nothing is read, so that what a peer may send of them is small.
const WINDOW_BYTES: u32 = 65_535;

/// What h2 may hold of one response. By reference: it is what `framed.rs` hands out at a time.
const UNSENT_BYTES_MAX: usize = 256 * 1024;

/// How long a peer that was told to go may take to say that it heard.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// Serves HTTP/2 on a connection to its end.
pub(crate) async fn talk<S: Stream>(
    Parked { socket, unread }: Parked<S>,
    client: Client,
    shared: &Arc<Shared>,
    phase: &mut watch::Receiver<Phase>,
) {
    let peer = client.peer;
    let (wire, ledger) = socket.wire(unread, shared);
    let under_way = Arc::new(AtomicU64::new(0));
    let begun = AtomicU64::new(0);
    let answer = service_fn(|request| {
        begun.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay::begin(&under_way);
        let answer = Shared::answer(shared, as_origin(request), client, &ledger, under_way);
        async move { answer.await.map(|response| response.map(FramedBody::from)) }
    });
    let streams = Streams::default();
    let mut http = pin!(builder(&streams).serve_connection(TokioIo::new(wire), answer));
    let mut running = Running::new();
    let mut goodbye = false;
    let mut seen = 0;
    let mut quiet = pin!(sleep(PARKED_AFTER));
    // Ready when it is to make room: only while it is idle, and has been for a moment.
    let mut wanted = pin!(false.then(|| shared.slots.wanted()));
    loop {
        let is_busy =
            || begun.load(Ordering::Relaxed) != seen || under_way.load(Ordering::Relaxed) > 0;
        let event = std::future::poll_fn(|cx| {
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(ended));
            }
            streams.poll(cx, &mut running);
            match wanted.as_mut().as_pin_mut() {
                Some(_) if is_busy() => Poll::Ready(Event::Busy),
                Some(wanted) => wanted.poll(cx).map(|()| Event::Wanted),
                None => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            event = event => match event {
                Event::Ended(ended) => return told(ended, client, shared),
                Event::Busy => {
                    wanted.set(None);
                    quiet.as_mut().reset(Instant::now() + PARKED_AFTER);
                    continue;
                }
                Event::Wanted => break,
            },
            () = reached(phase, Phase::Stopping), if !goodbye => {}
            () = quiet.as_mut() => {
                if is_busy() {
                    seen = begun.load(Ordering::Relaxed);
                    let again = if goodbye { GOODBYE_MAX } else { PARKED_AFTER };
                    quiet.as_mut().reset(Instant::now() + again);
                    continue;
                }
                if goodbye {
                    tracing::debug!(%peer, "the connection was idle, and the peer did not go");
                    return;
                }
                if wanted.is_none() {
                    wanted.set(Some(shared.slots.wanted()));
                    quiet.as_mut().reset(Instant::now() + IDLE_MAX);
                    continue;
                }
            }
        }
        goodbye = true;
        // GOAWAY: what is under way is finished.
        http.as_mut().graceful_shutdown();
        quiet.as_mut().reset(Instant::now() + GOODBYE_MAX);
    }
    // It makes room: GOAWAY is written, and nothing waited for.
    http.as_mut().graceful_shutdown();
    drop(http.as_mut().poll(&mut Context::from_waker(Waker::noop())));
}

/// What happened on a connection.
enum Event {
    Ended(hyper::Result<()>),
    /// It was idle.
    Busy,
    /// Its place is.
    Wanted,
}

fn told(ended: hyper::Result<()>, client: Client, shared: &Shared) {
    if let Err(error) = ended {
        tracing::debug!(peer = %client.peer, %error, "the connection ended early");
        if let Some(reason) = given_up(&error) {
            shared.refusals.count(reason);
        }
    }
}

fn builder(streams: &Streams) -> http2::Builder<Streams> {
    let mut http = http2::Builder::new(streams.clone());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(FIELDS_BYTES_MAX)
        .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
        .max_local_error_reset_streams(OWN_RESETS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(UNSENT_BYTES_MAX);
    http
}

/// The request as HTTP/1.1 would have it (RFC 9113 8.3.1), for which the rest of the house is
/// made: the path as its target, and the authority in Host.
fn as_origin(mut request: Request<Incoming>) -> Request<Incoming> {
    let uri = std::mem::take(request.uri_mut());
    if let Some(Ok(host)) = uri.authority().map(|host| HeaderValue::from_str(host.as_str())) {
        request.headers_mut().insert(HOST, host);
    }
    if let Some(target) = uri.into_parts().path_and_query {
        *request.uri_mut() = Uri::from(target);
    }
    request
}

/// The streams whose responses are under way. hyper would have each be a task; here they belong
/// to the connection, so that they end when it does, and are told of before it is gone.
#[derive(Clone, Default)]
struct Streams {
    /// Those that no poll has seen.
    begun: Arc<Mutex<Vec<BoxedStream>>>,
}

type BoxedStream = Pin<Box<dyn Future<Output = ()> + Send>>;
type Running = FuturesUnordered<BoxedStream>;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

impl Streams {
    fn poll(&self, cx: &mut Context<'_>, running: &mut Running) {
        let begun = std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner));
        running.extend(begun);
        while let Poll::Ready(Some(())) = running.poll_next_unpin(cx) {}
    }
}
