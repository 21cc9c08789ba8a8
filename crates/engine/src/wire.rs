//! A tokio socket that sends payloads, and that recognises slices of mapped files among those it
//! is asked to write. Waits for the socket; `transfer.rs` makes the steps.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, sleep_until};

use crate::delivery::Ledger;
use crate::error::SendError;
use crate::gate::Gate;
use crate::meter::{Meter, Report, Tally};
use crate::patience::{Patience, Taken};
use crate::plan::STEP_BYTES_MAX;
use crate::registry::{Recognised, recognise};
use crate::route::RouteChoice;
use crate::sink::Sink;
use crate::socket::{Socket, Watch};
use crate::source::Payload;
use crate::sys::sockopt;
use crate::throttle::Throttle;
use crate::transfer::{PartRef, Parts, Progress, SLICES_MAX, parts_of, step};

/// Bytes that one socket may move before other tasks of its thread get their turn: one long step.
///
/// Tokio's own budget counts operations, not bytes: 128 steps would be 256 MiB.
const TURN_BYTES_MAX: u64 = STEP_BYTES_MAX as u64;

/// So long after a look at a peer that is waited for the next one is due at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A socket that sends files.
///
/// [`Wire::send`] sends a [`Payload`]. Besides, a wire is an ordinary [`AsyncRead`] and
/// [`AsyncWrite`] with vectored writes, so that programs which know nothing of it, unmodified
/// hyper for one, send files through it: slices that are
/// [mapped bytes](crate::FileRange::mapped_bytes) are recognised by their address and leave by
/// the cheapest route; any other slice leaves as from any socket.
#[derive(Debug)]
pub struct Wire<S> {
    socket: S,
    sink: Sink,
    gate: Gate,
    /// Only while the gate is closed.
    watch: Option<Watch>,
    meter: Option<Arc<Meter>>,
    throttled: Option<Throttled>,
    patience: Option<Arc<Patience>>,
    /// How the peer took what it was sent, while it is waited for.
    taken: Option<Taken>,
    look: Option<Pin<Box<Sleep>>>,
    entry: Entry,
    /// Bytes to be read again before those of the socket.
    unread: Bytes,
    /// Bytes moved since the last time that this wire made its task wait.
    turn_bytes: u64,
    /// A payload is under way, or was abandoned half sent.
    sending: bool,
}

/// What makes one step: `transfer::step`, or that of a layer that changes the bytes on their way.
pub(crate) trait Stepper:
    FnMut(&mut Sink, BorrowedFd<'_>, &[PartRef<'_>], usize, &mut Progress) -> Result<(), SendError>
{
}

impl<F> Stepper for F where
    F: FnMut(
        &mut Sink,
        BorrowedFd<'_>,
        &[PartRef<'_>],
        usize,
        &mut Progress,
    ) -> Result<(), SendError>
{
}

/// This wire's side of its ledger, which is closed with it.
#[derive(Debug, Default)]
struct Entry {
    ledger: Ledger,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.close();
    }
}

impl<S: Socket> Wire<S> {
    /// A wire that takes the cheapest route for each range.
    pub fn new(socket: S) -> Self {
        Self::with_routes(socket, RouteChoice::Auto)
    }

    /// A wire that takes the routes of `choice`.
    pub fn with_routes(socket: S, choice: RouteChoice) -> Self {
        Self {
            socket,
            sink: Sink::new(choice),
            gate: Gate::default(),
            watch: None,
            meter: None,
            throttled: None,
            patience: None,
            taken: None,
            look: None,
            entry: Entry::default(),
            unread: Bytes::new(),
            turn_bytes: 0,
            sending: false,
        }
    }

    /// Has everything that this wire moves counted by `meter` too.
    #[must_use]
    pub fn counted_by(mut self, meter: Arc<Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Has this wire take turns with all others of `throttle`.
    #[must_use]
    pub fn throttled_by(mut self, throttle: Arc<Throttle>) -> Self {
        self.throttled = Some(Throttled { throttle, credit: 0, turn: None });
        self
    }

    /// Has this wire fail with [`SendError::TooSlow`] when its peer takes less than `patience`
    /// asks for. TCP only: what a peer took is what it acknowledged (TCP_INFO, Linux 4.1).
    #[must_use]
    pub fn with_patience(mut self, patience: Arc<Patience>) -> Self {
        self.patience = Some(patience);
        self
    }

    /// The account of what is written through this wire, for whoever hands bytes to a writer
    /// above it.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.entry.ledger.clone()
    }

    /// Has `bytes`, which were read from this socket already, read once more, before what is to
    /// come.
    #[must_use]
    pub fn with_unread(mut self, bytes: Bytes) -> Self {
        self.unread = match self.unread.is_empty() {
            true => bytes,
            false => [bytes, self.unread].concat().into(),
        };
        self
    }

    /// The socket, without the wire: between two requests it is all that has to be kept. What was
    /// written through the wire and is not yet sent will not be.
    pub fn into_socket(self) -> S {
        self.socket
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Sends all of `payload`.
    ///
    /// # Cancellation
    ///
    /// Not cancel safe: a payload that is dropped half sent leaves the peer waiting for its
    /// rest. The wire then refuses everything after it with [`SendError::Abandoned`].
    ///
    /// # Errors
    ///
    /// Those of the socket; [`SendError::FileShrank`] when a file holds less than when it was
    /// opened; [`SendError::NoRoute`] when the kernel refused every route.
    pub async fn send(&mut self, payload: Payload) -> Result<Report, SendError> {
        let started = Instant::now();
        let mut tally = Tally::default();
        self.send_counting(payload, &mut tally).await?;
        Ok(Report { tally, elapsed: started.elapsed() })
    }

    /// The same, adding to `tally` step by step: what had moved is known when it fails or is
    /// dropped, too.
    ///
    /// # Errors
    ///
    /// Those of [`Wire::send`].
    pub async fn send_counting(
        &mut self,
        payload: Payload,
        tally: &mut Tally,
    ) -> Result<(), SendError> {
        self.send_by(payload, tally, Self::poll_step).await
    }

    /// Sends all of `payload` by steps of `poll_step`.
    pub(crate) async fn send_by<F>(
        &mut self,
        mut payload: Payload,
        tally: &mut Tally,
        mut poll_step: F,
    ) -> Result<(), SendError>
    where
        F: FnMut(
            &mut Self,
            &mut Context<'_>,
            &[PartRef<'_>],
            &mut Tally,
        ) -> Poll<Result<u64, SendError>>,
    {
        self.refuse_if_abandoned()?;
        self.sending = true;
        while !payload.is_empty() {
            let parts = parts_of(&payload);
            let moved = std::future::poll_fn(|cx| poll_step(self, cx, &parts, tally)).await?;
            drop(parts);
            payload.advance(moved);
        }
        self.sending = false;
        Ok(())
    }

    fn refuse_if_abandoned(&self) -> Result<(), SendError> {
        if self.sending { Err(SendError::Abandoned) } else { Ok(()) }
    }

    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[PartRef<'_>],
        tally: &mut Tally,
    ) -> Poll<Result<u64, SendError>> {
        self.poll_step_by(cx, parts, true, &mut step, Some(tally))
    }

    /// One step of `step`, as soon as the socket takes bytes and, if it is `gated`, those at the
    /// front are there. Ready with how many bytes moved, only when some did. Adds to `tally` what
    /// the steps cost that moved nothing, too.
    pub(crate) fn poll_step_by(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[PartRef<'_>],
        gated: bool,
        step: &mut impl Stepper,
        tally: Option<&mut Tally>,
    ) -> Poll<Result<u64, SendError>> {
        if self.turn_bytes >= TURN_BYTES_MAX {
            self.turn_bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let moved = ready!(self.poll_unfair_step(cx, parts, gated, step, tally))?;
        self.turn_bytes += moved;
        Poll::Ready(Ok(moved))
    }

    fn poll_unfair_step(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[PartRef<'_>],
        gated: bool,
        step: &mut impl Stepper,
        mut tally: Option<&mut Tally>,
    ) -> Poll<Result<u64, SendError>> {
        let room = match gated.then(|| self.gate.poll(cx, parts, &mut self.sink)) {
            None => usize::MAX,
            Some(Poll::Ready(room)) => room?,
            Some(Poll::Pending) => {
                self.turn_bytes = 0;
                self.taken = None;
                return self.poll_broken(cx).map(|errno| Err(errno.into()));
            }
        };
        self.watch = None;
        loop {
            if self.socket.poll_write_ready(cx)?.is_pending() {
                self.turn_bytes = 0;
                self.poll_patience(cx)?;
                return Poll::Pending;
            }
            let room = match &mut self.throttled {
                None => room,
                Some(throttled) => room.min(ready!(throttled.poll_credit(cx))),
            };
            let mut progress = Progress { cold: self.gate.take_cold(), ..Progress::default() };
            let mut error = None;
            // Saying "would block" here makes tokio forget that the socket is writable, so that
            // the next wait is a real one. That is right after a part of the bytes moved, too.
            let tried = self.socket.try_write(|| {
                let socket = self.socket.as_fd();
                error = step(&mut self.sink, socket, parts, room, &mut progress).err();
                if progress.blocked { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            self.entry.ledger.tick(parts, &mut progress);
            if let Some(meter) = &self.meter {
                progress.count_into_shared(meter);
            }
            if let Some(tally) = &mut tally {
                progress.count_into(tally);
            }
            let moved = progress.bytes();
            if let Some(throttled) = &mut self.throttled {
                throttled.credit = throttled.credit.saturating_sub(moved);
            }
            if moved > 0 {
                return Poll::Ready(Ok(moved));
            }
            if let Some(error) = error {
                return Poll::Ready(Err(error));
            }
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(()) => debug_assert!(false, "a step moves bytes, blocks or fails"),
            }
        }
    }

    /// What is to be written, seen as parts.
    pub(crate) fn recognised<'a>(&self, bufs: &'a [IoSlice<'_>]) -> Parts<'a> {
        let slices = bufs.iter().filter(|slice| !slice.is_empty()).take(SLICES_MAX);
        slices.map(|slice| part_ref(slice, &self.entry.ledger)).collect()
    }

    /// Runs `write` whenever the socket takes bytes, until it no longer says "would block".
    #[cfg(feature = "tls")]
    pub(crate) fn poll_writable(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.socket.poll_write_ready(cx)?.is_pending() {
                self.poll_patience(cx)?;
                return Poll::Pending;
            }
            match self.socket.try_write(|| write(self.socket.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Runs `write` if the socket is known to take bytes; "would block" when it is not.
    #[cfg(feature = "tls")]
    pub(crate) fn try_write(
        &self,
        write: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.socket.try_write(|| write(self.socket.as_fd()))
    }

    /// Looks at how the peer takes what it was sent, and has this wire polled for the next look.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Result<(), SendError> {
        let Some(patience) = &self.patience else { return Ok(()) };
        let now = Instant::now();
        if Taken::is_due(self.taken.as_ref(), now)
            // Refused by other sockets than TCP's: their peers are on this host.
            && let Ok(acknowledged) = sockopt::bytes_acknowledged(&self.socket)
        {
            self.taken = Some(Taken::look(self.taken.take(), now, acknowledged, patience)?);
        }
        let next = || Box::pin(sleep(LOOK_AGAIN));
        while self.look.get_or_insert_with(next).as_mut().poll(cx).is_ready() {
            self.look = None;
        }
        Ok(())
    }

    /// Ready with its error when the peer reset the connection. Whoever waits for a disk asks
    /// nothing of the socket meanwhile, and would learn of it only when the window is there.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Errno> {
        if self.watch.is_none() {
            match self.socket.twin() {
                Ok(twin) => self.watch = Some(Watch::over(twin)),
                // Out of descriptors: then it is noticed late.
                Err(error) => tracing::debug!(%error, "a socket that waits is not watched"),
            }
        }
        let Some(watch) = &mut self.watch else { return Poll::Pending };
        ready!(watch.poll_broken(cx));
        // What is read elsewhere, by hyper for one, is gone from here.
        let errno = socket_error(&self.socket).ok().and_then(Result::err);
        Poll::Ready(errno.unwrap_or(Errno::CONNRESET))
    }

    /// Writes by `step` what of `parts` moves now.
    pub(crate) fn poll_write_parts(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[PartRef<'_>],
        gated: bool,
        step: &mut impl Stepper,
    ) -> Poll<io::Result<usize>> {
        if parts.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.refuse_if_abandoned()?;
        self.entry.ledger.refuse_if_broken()?;
        // What is written is counted by its deliveries.
        let stepped = ready!(self.poll_step_by(cx, parts, gated, step, None));
        Poll::Ready(match stepped.map_err(io::Error::from) {
            Ok(moved) => Ok(usize::try_from(moved).unwrap_or(usize::MAX)),
            Err(error) => {
                self.entry.ledger.failed(&error);
                Err(error)
            }
        })
    }
}

/// A wire's place among those that share a throttle.
#[derive(Debug)]
struct Throttled {
    throttle: Arc<Throttle>,
    /// Bytes that may go at once.
    credit: u64,
    /// Until the next quantum may.
    turn: Option<Pin<Box<Sleep>>>,
}

impl Throttled {
    /// Ready with how many bytes may go at once; at least one.
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.credit == 0 {
            let turn = self.turn.get_or_insert_with(|| {
                let at = self.throttle.reserve(Instant::now());
                Box::pin(sleep_until(at.into()))
            });
            ready!(turn.as_mut().poll(cx));
            self.turn = None;
            self.credit = self.throttle.quantum();
        }
        Poll::Ready(usize::try_from(self.credit).unwrap_or(usize::MAX))
    }
}

/// What is to be written, seen as a part; traced runs learn that they arrived.
fn part_ref<'a>(slice: &'a [u8], ledger: &Ledger) -> PartRef<'a> {
    match recognise(slice) {
        Some(Recognised::File(range)) => PartRef::File(range),
        Some(Recognised::Run(run)) => {
            run.arrived_at(ledger, slice);
            PartRef::Bytes(slice)
        }
        None => PartRef::Bytes(slice),
    }
}

impl<S: Socket> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let parts = wire.recognised(bufs);
        wire.poll_write_parts(cx, &parts, true, &mut step)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl<S: Socket> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.has_remaining() {
            let again = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(again));
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, buf));
        match &read {
            Ok(()) if buf.filled().len() == filled && buf.remaining() > 0 => {
                self.entry.ledger.closed_by_peer();
            }
            Ok(()) => {}
            Err(error) => self.entry.ledger.failed(error),
        }
        Poll::Ready(read)
    }
}

impl<S: Socket> AsFd for Wire<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;
    #[cfg(feature = "tls")]
    use crate::patience::Tolerance;
    use crate::route::Route;
    use crate::source::SourceFile;

    fn source(len: usize) -> (SourceFile, Vec<u8>) {
        let content: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (SourceFile::new(file).unwrap(), content)
    }

    async fn receive(mut peer: UnixStream) -> Vec<u8> {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        received
    }

    fn choices() -> impl Iterator<Item = RouteChoice> {
        Route::ALL.into_iter().map(RouteChoice::Only).chain([RouteChoice::Auto])
    }

    #[tokio::test]
    async fn payloads_arrive_whole_on_every_route() {
        let (file, content) = source(3_000_001);
        for choice in choices() {
            let (socket, peer) = UnixStream::pair().unwrap();
            let receiver = tokio::spawn(receive(peer));
            let mut wire = Wire::with_routes(socket, choice);
            let payload = Payload::new()
                .bytes("head")
                .file(file.range(1, 2_999_999).unwrap())
                .bytes("between")
                .file(file.range(0, 10).unwrap())
                .bytes("tail");
            let report = wire.send(payload).await.unwrap();
            drop(wire);
            let expected = [b"head", &content[1..3_000_000], b"between", &content[..10], b"tail"];
            assert!(receiver.await.unwrap() == expected.concat(), "{choice}");
            assert_eq!(report.tally.total().bytes, 3_000_024, "{choice}");
            assert_eq!(report.tally.plain().bytes, 15, "{choice}");
            let copied = report.tally.total().user_copied_bytes;
            assert_eq!(copied > 0, choice == RouteChoice::Only(Route::ReadWrite), "{choice}");
            if let RouteChoice::Only(route) = choice {
                assert_eq!(report.tally.routes_taken().collect::<Vec<_>>(), [route]);
            }
        }
    }

    /// A socket that is full is asked, too, and so is one that waited for a disk.
    #[tokio::test]
    async fn a_report_has_every_call_that_the_meter_has() {
        let (file, _) = source(3_000_001);
        for choice in choices() {
            let (socket, peer) = UnixStream::pair().unwrap();
            let receiver = tokio::spawn(receive(peer));
            let meter = Arc::new(Meter::new());
            let mut wire = Wire::with_routes(socket, choice).counted_by(Arc::clone(&meter));
            let report = wire.send(Payload::new().bytes("head").file(file.whole())).await.unwrap();
            assert_eq!(report.tally, meter.snapshot(), "{choice}");
            drop(wire);
            receiver.await.unwrap();
        }
    }

    #[tokio::test]
    async fn mapped_slices_are_recognised_between_plain_ones() {
        let (file, content) = source(1_000_000);
        let mapped = file.whole().mapped_bytes().unwrap();
        for choice in choices() {
            let (socket, peer) = UnixStream::pair().unwrap();
            let receiver = tokio::spawn(receive(peer));
            let meter = Arc::new(Meter::new());
            let mut wire = Wire::with_routes(socket, choice).counted_by(Arc::clone(&meter));
            let mut left: &[&[u8]] = &[b"head", &mapped[7..], b"between", &mapped[..9], b"tail"];
            let mut offset = 0;
            while let Some(first) = left.first() {
                let mut slices: Vec<_> = left.iter().map(|slice| IoSlice::new(slice)).collect();
                slices[0] = IoSlice::new(&first[offset..]);
                let mut written = offset + wire.write_vectored(&slices).await.unwrap();
                while let Some(first) = left.first()
                    && written >= first.len()
                {
                    written -= first.len();
                    left = &left[1..];
                }
                offset = written;
            }
            drop(wire);
            let expected = [b"head", &content[7..], b"between", &content[..9], b"tail"].concat();
            assert!(receiver.await.unwrap() == expected, "{choice}");
            let from_files = meter.snapshot().total().bytes - meter.snapshot().plain().bytes;
            assert_eq!(from_files, 1_000_002, "{choice}");
        }
    }

    /// What is not a part of a body, a close_notify for one, waits no longer either. The clock
    /// stands still, so that looks follow at once.
    #[cfg(feature = "tls")]
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let tolerance = Tolerance { stalled_max: Duration::from_millis(1), pace_min: 0 };
        let patience = Arc::new(Patience::new(tolerance, tolerance));
        let mut wire = Wire::new(socket).with_patience(patience);
        let never_enough = |socket: BorrowedFd<'_>| loop {
            rustix::io::write(socket, &[0; 4096])?;
        };
        let error = std::future::poll_fn(|cx| wire.poll_writable(cx, never_enough)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error_with_both_sizes() {
        for choice in choices() {
            let mut writable = tempfile::tempfile().unwrap();
            writable.write_all(&[1; 200_000]).unwrap();
            let file = SourceFile::new(writable.try_clone().unwrap()).unwrap();
            writable.set_len(100_000).unwrap();
            let (socket, peer) = UnixStream::pair().unwrap();
            let receiver = tokio::spawn(receive(peer));
            let mut wire = Wire::with_routes(socket, choice);
            let error = wire.send(Payload::new().bytes("head").file(file.whole())).await;
            assert!(
                matches!(error, Err(SendError::FileShrank { expected: 200_000, found: 100_000 })),
                "{choice}: {error:?}"
            );
            let next = wire.send(Payload::new().bytes("next")).await;
            assert!(matches!(next, Err(SendError::Abandoned)), "{choice}: {next:?}");
            drop(wire);
            let received = receiver.await.unwrap();
            assert!(received.len() <= 100_004, "{choice}");
        }
    }

    #[tokio::test]
    async fn a_file_that_only_read_write_can_send_steps_down() {
        // procfs: a size, but neither splice_read nor mmap.
        let Ok(file) = File::open("/proc/config.gz") else {
            return eprintln!("skipped: this kernel has no /proc/config.gz");
        };
        let file = SourceFile::new(file).unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        let receiver = tokio::spawn(receive(peer));
        let mut wire = Wire::new(socket);
        let report = wire.send(Payload::new().file(file.whole())).await.unwrap();
        assert_eq!(report.tally.step_downs(), 3);
        assert_eq!(report.tally.routes_taken().collect::<Vec<_>>(), [Route::ReadWrite]);
        let again = wire.send(Payload::new().file(file.whole())).await.unwrap();
        assert_eq!(again.tally.step_downs(), 0, "refusals are remembered");
        drop(wire);
        assert_eq!(receiver.await.unwrap().len() as u64, 2 * file.len());
    }

    #[tokio::test]
    async fn no_step_reaches_beyond_its_room() {
        let (file, content) = source(3_000_000);
        for choice in choices() {
            let (socket, mut peer) = UnixStream::pair().unwrap();
            let mut sink = Sink::new(choice);
            let parts = [PartRef::Bytes(b"head"), PartRef::File(file.whole())];
            let mut progress = Progress::default();
            step(&mut sink, socket.as_fd(), &parts, 5_004, &mut progress).unwrap();
            assert!(progress.bytes() <= 5_004, "{choice}: {}", progress.bytes());
            drop(socket);
            let mut received = Vec::new();
            peer.read_to_end(&mut received).await.unwrap();
            assert_eq!(received.len() as u64, progress.bytes(), "{choice}");
            assert!(received[4..] == content[..received.len() - 4], "{choice}");
        }
    }

    #[tokio::test]
    async fn a_delivery_settles_with_what_was_sent() {
        let (file, _) = source(100_000);
        let (socket, peer) = UnixStream::pair().unwrap();
        let receiver = tokio::spawn(receive(peer));
        let mut wire = Wire::new(socket);
        let (settled, outcomes) = std::sync::mpsc::channel();
        let deliver = |ledger: &Ledger, bytes: &bytes::Bytes, due| {
            let settled = settled.clone();
            let settle = move |outcome| settled.send(outcome).unwrap();
            ledger.open(due, Instant::now(), settle).expect(bytes);
        };
        let mapped = file.whole().mapped_bytes().unwrap();
        let ledger = wire.ledger();
        deliver(&ledger, &mapped, 100_000);
        wire.write_all(b"head").await.unwrap();
        wire.write_all(&mapped).await.unwrap();
        let outcome = outcomes.try_recv().unwrap();
        assert_eq!(outcome.cut_short, None);
        assert_eq!(outcome.report.tally.route(Route::Sendfile).bytes, 100_000);

        deliver(&ledger, &mapped, 100_000);
        let sent = wire.write(&mapped[..10_000]).await.unwrap();
        drop(wire);
        let outcome = outcomes.try_recv().unwrap();
        assert_eq!(outcome.report.tally.total().bytes, sent as u64);
        assert_eq!(outcome.cut_short.as_deref(), Some("connection closed by this server"));
        receiver.await.unwrap();
    }

    #[tokio::test]
    async fn a_delivery_learns_that_it_is_on_a_wire() {
        let (file, content) = source(100_000);
        let (socket, peer) = UnixStream::pair().unwrap();
        let receiver = tokio::spawn(receive(peer));
        let mut wire = Wire::new(socket);
        let (settled, outcomes) = std::sync::mpsc::channel();
        let settle = move |outcome| settled.send(outcome).unwrap();
        let delivery = crate::Delivery::open(100_000, Instant::now(), settle);
        let mut rest = file.whole();
        let front = delivery.trace(rest.read_front(1_000).unwrap(), true);
        wire.write_all(b"head").await.unwrap();
        assert!(!delivery.is_on_wire());
        wire.write_all(&front).await.unwrap();
        assert!(delivery.is_on_wire());
        let rest = rest.mapped_bytes().unwrap();
        delivery.expect(&rest);
        drop((delivery, front));
        wire.write_all(&rest).await.unwrap();
        drop(wire);
        assert!(receiver.await.unwrap() == [b"head", &content[..]].concat());
        let outcome: crate::Outcome = outcomes.try_recv().unwrap();
        assert!(outcome.on_wire && outcome.cut_short.is_none());
        assert_eq!(outcome.report.tally.route(Route::ReadWrite).user_copied_bytes, 1_000);
        assert_eq!(outcome.report.tally.route(Route::Sendfile).bytes, 99_000);
    }
}
