//! The fast lane: most requests are a plain GET of a small file that is open already, and the
//! answer is a head that is written already and the file. Such requests are answered here, by one
//! `Wire::send`; the first that is anything else goes to hyper, with the connection, until that is
//! parked again.
//!
//! The lane decides nothing: the head is what `respond.rs` says to a request without headers, and
//! only those headers may be there that do not matter to it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use httparse::{EMPTY_HEADER, Status};
use pagewire_engine::tls::TlsWire;
use pagewire_engine::{Outcome, Payload, SendError, Socket, Tally, Wire};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;
use tokio::task::coop::has_budget_remaining;
use tokio::time::sleep;

use crate::connection::{Client, PARKED_AFTER};
use crate::files::OpenFile;
use crate::respond::http_date;
use crate::serve::{Agent, Exchange, Phase, Shared, reached};
use crate::sites::is_host;

/// The longest head that is looked at here. Those of browsers with a few cookies are longer, and
/// go to hyper.
const HEAD_BYTES_MAX: usize = 2048;

/// More header fields than this are left to hyper.
const FIELDS_MAX: usize = 24;

/// The longest file that is sent here: of longer ones a request costs next to nothing.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Header fields that do not change the answer to a GET of a file.
const WITHOUT_MEANING: [&str; 12] = [
    "accept",
    "accept-language",
    "dnt",
    "priority",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "upgrade-insecure-requests",
];

/// How the lane ended for a connection.
pub(crate) enum Left {
    /// The peer is silent.
    Quiet,
    /// These bytes, which were read, are for hyper.
    ForHyper(Bytes),
    /// The peer or this server is done with it.
    Ended,
    /// It broke, and so did the response that was under way.
    Broken,
}

/// A request that asks for nothing but a file.
struct Plain<'a> {
    method: Method,
    host: &'a str,
    path: &'a str,
    /// The client takes content codings.
    codings: bool,
    /// What it says of itself.
    user_agent: Option<&'a [u8]>,
    referer: Option<&'a [u8]>,
}

impl Plain<'_> {
    fn agent(&self) -> Box<Agent> {
        let value = |said: Option<&[u8]>| HeaderValue::from_bytes(said?).ok();
        Box::new(Agent { user_agent: value(self.user_agent), referer: value(self.referer) })
    }
}

/// What came in.
enum Read {
    /// A plain request, and its file.
    Kept(Asked, Arc<OpenFile>),
    /// A plain request for something that is to be looked at first.
    Unknown(Asked, Bytes),
    Other(Bytes),
    End,
}

/// What the lane goes on with.
enum Next {
    Read(Read),
    /// So long after the last one.
    Tick,
    Stop,
}

/// A plain request, as it is told of.
struct Asked {
    at: SystemTime,
    started: Instant,
    method: Method,
    target: Uri,
    agent: Option<Box<Agent>>,
}

/// What the lane sends through: a wire, over TLS or not.
pub(crate) trait Lane: AsyncRead + Send + Unpin {
    /// Sends all of `payload`, adding to `tally` step by step.
    fn send(
        &mut self,
        payload: Payload,
        tally: &mut Tally,
    ) -> impl Future<Output = Result<(), SendError>> + Send;
}

impl<S: Socket + Send + Sync> Lane for Wire<S> {
    fn send(
        &mut self,
        payload: Payload,
        tally: &mut Tally,
    ) -> impl Future<Output = Result<(), SendError>> + Send {
        self.send_counting(payload, tally)
    }
}

impl<S: Socket + Send + Sync> Lane for TlsWire<S> {
    fn send(
        &mut self,
        payload: Payload,
        tally: &mut Tally,
    ) -> impl Future<Output = Result<(), SendError>> + Send {
        self.send_counting(payload, tally)
    }
}

/// Answers what it can of what comes in through `wire`.
pub(crate) async fn fast_lane<L: Lane>(
    wire: &mut L,
    client: Client,
    shared: &Shared,
    phase: &mut watch::Receiver<Phase>,
) -> Left {
    let changes = phase.clone();
    let unchanged = || changes.has_changed().is_ok_and(|changed| !changed);
    let mut stopping = pin!(reached(phase, Phase::Stopping));
    let mut ticks = pin!(sleep(PARKED_AFTER));
    let (mut answered, mut seen) = (0_u64, 0);
    // Whom both wake.
    let mut woken: Option<Waker> = None;
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(read) = poll_read(cx, wire, shared) {
                return Poll::Ready(Next::Read(read));
            }
            // To ask them anew after each request costs more than to see that nothing has come.
            let known = woken.as_ref().is_some_and(|woken| woken.will_wake(cx.waker()));
            if known && !ticks.is_elapsed() && unchanged() {
                return Poll::Pending;
            }
            // When this task has had its turn, neither takes down whom to wake.
            woken = has_budget_remaining().then(|| cx.waker().clone());
            if stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Stop);
            }
            ticks.as_mut().poll(cx).map(|()| Next::Tick)
        });
        let read = match next.await {
            Next::Read(read) => read,
            Next::Stop => return Left::Ended,
            Next::Tick if answered == seen => return Left::Quiet,
            Next::Tick => {
                (seen, woken) = (answered, None);
                ticks.as_mut().reset(tokio::time::Instant::now() + PARKED_AFTER);
                continue;
            }
        };
        let (asked, file) = match read {
            Read::Kept(asked, file) => (asked, file),
            Read::Unknown(asked, bytes) => match Box::pin(look(&bytes, &asked, shared)).await {
                Some(file) => (asked, file),
                None => return Left::ForHyper(bytes),
            },
            Read::Other(bytes) => return Left::ForHyper(bytes),
            Read::End => return Left::Ended,
        };
        let mut sent = pin!(send(wire, client, shared, asked, &file));
        let went_well = loop {
            tokio::select! {
                biased;
                went_well = sent.as_mut() => break went_well,
                // Whoever waits for a peer is to look at it now and then.
                () = ticks.as_mut() => {
                    woken = None;
                    ticks.as_mut().reset(tokio::time::Instant::now() + PARKED_AFTER);
                }
            }
        };
        if !went_well {
            return Left::Broken;
        }
        answered += 1;
        // Whose next request is always there already is told here.
        if !unchanged() && *changes.borrow() >= Phase::Stopping {
            return Left::Ended;
        }
    }
}

fn poll_read<L: Lane>(cx: &mut Context<'_>, wire: &mut L, shared: &Shared) -> Poll<Read> {
    let mut buffer = [const { MaybeUninit::uninit() }; HEAD_BYTES_MAX];
    let mut buffer = ReadBuf::uninit(&mut buffer);
    let read = ready!(Pin::new(wire).poll_read(cx, &mut buffer));
    let bytes = buffer.filled();
    if read.is_err() || bytes.is_empty() {
        return Poll::Ready(Read::End);
    }
    let kept = Bytes::copy_from_slice;
    let Some(plain) = plain(bytes) else { return Poll::Ready(Read::Other(kept(bytes))) };
    let (at, started) = (SystemTime::now(), Instant::now());
    let sites = shared.sites.load();
    let service = sites.service_at(plain.host, plain.path).ok();
    let found = service.and_then(|it| it.plain_now(plain.path, plain.codings, started));
    let target = match &found {
        Some(file) => file.spelled(plain.path),
        None => Uri::try_from(plain.path),
    };
    let Ok(target) = target else { return Poll::Ready(Read::Other(kept(bytes))) };
    let agent = shared.names_agents.then(|| plain.agent());
    let asked = Asked { at, started, method: plain.method, target, agent };
    Poll::Ready(match found {
        Some(file) if is_small(&file) => Read::Kept(asked, file),
        Some(_) => Read::Other(kept(bytes)),
        None => Read::Unknown(asked, kept(bytes)),
    })
}

/// The file that answers the plain request in `bytes`, after a look at its name.
async fn look(bytes: &[u8], asked: &Asked, shared: &Shared) -> Option<Arc<OpenFile>> {
    let plain = plain(bytes)?;
    let sites = shared.sites.load_full();
    let service = sites.service_at(plain.host, plain.path).ok()?;
    let file = service.plain(plain.path, plain.codings, asked.started).await?;
    is_small(&file).then_some(file)
}

fn is_small(file: &OpenFile) -> bool {
    file.plain.source.len() <= FILE_BYTES_MAX
}

/// The request that `bytes` are, if they are one, all of it and no more, and nothing in it
/// changes the answer.
fn plain(bytes: &[u8]) -> Option<Plain<'_>> {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes).ok()?;
    let (Status::Complete(len), Some(1)) = (parsed, request.version) else {
        return None;
    };
    let method = match request.method? {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        _ => return None,
    };
    let path = request.path.filter(|path| path.starts_with('/') && !path.contains(['?', '#']))?;
    let (mut host, mut codings) = (None, false);
    let (mut user_agent, mut referer) = (None, None);
    for field in &*request.headers {
        let is = |name: &&str| field.name.eq_ignore_ascii_case(name);
        if is(&"host") {
            let named = str::from_utf8(field.value).ok().filter(|named| is_host(named))?;
            if host.replace(named).is_some() {
                return None;
            }
        } else if is(&"accept-encoding") {
            codings = true;
        } else if is(&"connection") {
            if !field.value.eq_ignore_ascii_case(b"keep-alive") {
                return None;
            }
        } else if is(&"user-agent") {
            user_agent = Some(field.value);
        } else if is(&"referer") {
            referer = Some(field.value);
        } else if !WITHOUT_MEANING.iter().any(is) {
            return None;
        }
    }
    let host = host.filter(|_| len == bytes.len())?;
    Some(Plain { method, host, path, codings, user_agent, referer })
}

/// Sends the answer; says whether the connection can go on.
async fn send<L: Lane>(
    wire: &mut L,
    Client { peer, tls, .. }: Client,
    shared: &Shared,
    Asked { at, started, method, target, agent }: Asked,
    file: &OpenFile,
) -> bool {
    let mut payload = Payload::new().bytes(head(file, at));
    let mut due = 0;
    if method == Method::GET {
        due = file.plain.source.len();
        payload = payload.file(file.plain.source.whole());
    }
    let body = Outcome::on_wire(due, started, Tally::default(), None);
    let (version, status) = (Version::HTTP_11, StatusCode::OK);
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let exchange =
        Exchange { at, peer, tls, version, method, target, status, user: None, agent, body };
    let mut account = Account { shared, started, exchange, tally: Tally::default(), failure: None };
    let sent = wire.send(payload, &mut account.tally).await;
    account.failure = sent.as_ref().err().map(ToString::to_string);
    sent.is_ok()
}

/// Tells of an exchange when it is over, or dropped with its connection.
struct Account<'a> {
    shared: &'a Shared,
    started: Instant,
    exchange: Exchange,
    tally: Tally,
    failure: Option<String>,
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let Self { shared, started, exchange, tally, failure } = self;
        let due = exchange.body.due;
        exchange.body = Outcome::on_wire(due, *started, tally.of_files(), failure.take());
        shared.settled(exchange);
    }
}

/// The head of the response that sends all of `file`, at `now`.
fn head(file: &OpenFile, now: SystemTime) -> Bytes {
    let written = file.written_head(|| None).unwrap_or_default();
    // A vector that is full becomes `Bytes` as it is.
    DATE.with_borrow_mut(|date| [written, date.at(now).as_bytes(), b"\r\n"].concat()).into()
}

thread_local! {
    /// Making the text costs more than the rest of a head, and it is the same for a second.
    static DATE: RefCell<Date> = const { RefCell::new(Date { second: None, line: String::new() }) };
}

/// The line of a Date field (RFC 9110, section 6.6.1), kept while it is true; empty when the
/// clock says what HTTP's dates cannot.
struct Date {
    second: Option<u64>,
    line: String,
}

impl Date {
    fn at(&mut self, now: SystemTime) -> &str {
        let second = now.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        if self.second != second {
            let date = second.and_then(http_date);
            self.line = date.map_or_else(String::new, |date| format!("date: {date}\r\n"));
            self.second = second;
        }
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "GET /file HTTP/1.1\r\nHost: x\r\n";

    fn is_plain(request: &str) -> bool {
        plain(request.as_bytes()).is_some()
    }

    #[test]
    fn fields_that_mean_nothing_to_a_file_are_plain() {
        for fields in [
            "",
            "User-Agent: curl/8\r\nACCEPT: */*\r\n",
            "Connection: Keep-Alive\r\nAccept-Encoding: gzip, br\r\n",
            "Sec-Fetch-Mode: navigate\r\nReferer: http://x/\r\n",
        ] {
            assert!(is_plain(&format!("{FIRST}{fields}\r\n")), "{fields}");
            assert!(is_plain(&format!("HEAD{}{fields}\r\n", &FIRST[3..])), "{fields}");
        }
    }

    #[test]
    fn whatever_changes_the_answer_is_for_hyper() {
        for fields in [
            "Range: bytes=0-1\r\n",
            "If-None-Match: \"a\"\r\n",
            "If-Range: \"a\"\r\n",
            "Cache-Control: no-cache\r\n",
            "Connection: close\r\n",
            "Connection: keep-alive, upgrade\r\n",
            "Content-Length: 1\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
            "Authorization: Basic eDp5\r\n",
            "Origin: http://y\r\n",
            "Want-Repr-Digest: sha-256=1\r\n",
            "Host: y\r\n",
            "X-Anything: else\r\n",
        ] {
            assert!(!is_plain(&format!("{FIRST}{fields}\r\n")), "{fields}");
        }
    }

    #[test]
    fn only_one_whole_request_is_plain() {
        for request in [
            "GET /file HTTP/1.1\r\n\r\n",
            "GET /file HTTP/1.1\r\nHost: x y\r\n\r\n",
            "GET /file HTTP/1.0\r\nHost: x\r\n\r\n",
            "POST /file HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /file?zip HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /file#part HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET http://x/file HTTP/1.1\r\nHost: x\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /fi le HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /file HTTP/1.1\r\nHost: x\r\n",
            "GET /file HTTP/1.1\r\nHost: x\r\n\r\nG",
            "\x16\x03\x01",
            "",
        ] {
            assert!(!is_plain(request), "{request}");
        }
    }

    #[test]
    fn a_date_is_made_once_a_second() {
        let mut date = Date { second: None, line: String::new() };
        let then = UNIX_EPOCH + std::time::Duration::from_millis(784_111_777_100);
        assert_eq!(date.at(then), "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        let next = then + std::time::Duration::from_millis(950);
        assert_eq!(date.at(next), "date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
        assert_eq!(date.at(UNIX_EPOCH - std::time::Duration::from_secs(5)), "");
    }
}
