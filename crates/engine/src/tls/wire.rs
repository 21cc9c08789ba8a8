//! A TLS connection over a wire: accepted, read, written, closed. Waits for the socket; what is
//! sent when is decided in `inbound.rs` and `outbound.rs`.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake::{Completed, Handshake, Next};
use super::inbound::{End, Event, Inbound};
use super::outbound::{Outbound, Secrets};
use super::record::{Alert, Traffic};
use super::{TlsChoice, TlsError, kernel, probe};
use crate::delivery::Ledger;
use crate::error::SendError;
use crate::meter::{Meter, Tally};
use crate::patience::Patience;
use crate::route::RouteChoice;
use crate::socket::Socket;
use crate::source::Payload;
use crate::sys::ktls::set_tls_tx_zerocopy_ro;
use crate::throttle::Throttle;
use crate::transfer::PartRef;
use crate::wire::{Stepper, Wire};

/// As much is read from a socket at once: a full record fits.
const SCRATCH_BYTES: usize = 18 * 1024;

thread_local! {
    /// What is read from sockets passes through here: a connection that waits holds no memory
    /// for what may come.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection whose handshake is complete.
#[derive(Debug)]
#[non_exhaustive]
pub struct TlsAccepted<S> {
    /// The connection.
    pub wire: TlsWire<S>,
    /// The protocol chosen by ALPN (RFC 7301), if the client offered any.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked for (SNI, RFC 6066 section 3).
    pub server_name: Option<String>,
    /// TLS 1.2 or 1.3.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub cipher_suite: CipherSuite,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// Shakes hands with the client at the other end of `socket`.
///
/// `config` must have `enable_secret_extraction` on and no early data. There is no deadline in
/// here. Dropping the future ends the connection. When this fails because of what the client
/// sent, the client was sent the alert for it, as far as the socket took it at once.
///
/// # Errors
///
/// See [`TlsError`].
pub async fn accept<S: Socket>(
    socket: S,
    config: Arc<ServerConfig>,
    routes: RouteChoice,
    choice: TlsChoice,
) -> Result<TlsAccepted<S>, TlsError> {
    let mut wire = Wire::with_routes(socket, routes);
    let mut handshake = Handshake::new(config)?;
    loop {
        let next = match handshake.advance() {
            Ok(next) => next,
            Err(error) => {
                let last = handshake.take_outgoing();
                send_all(&mut wire, &last).await?;
                return Err(error);
            }
        };
        let outgoing = handshake.take_outgoing();
        send_all(&mut wire, &outgoing).await?;
        match next {
            Next::Write => {}
            Next::Done => break,
            Next::Read => {
                let read = std::future::poll_fn(|cx| {
                    poll_scratch(&mut wire, cx, |bytes| handshake.push(bytes))
                });
                if read.await? == 0 {
                    return Err(TlsError::Closed);
                }
            }
        }
    }
    let Completed { connection, rest, server_name } = handshake.complete();
    let suite = connection.negotiated_cipher_suite().ok_or(TlsError::UnknownCipher)?;
    let version = connection.protocol_version().ok_or(TlsError::UnknownCipher)?;
    let alpn = connection.alpn_protocol().map(Vec::from);
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let (extracted, secrets) = connection.dangerous_into_kernel_connection()?;
    let tx = Traffic::new(version, extracted.tx)?;
    let rx = Traffic::new(version, extracted.rx)?;
    let limit = confidentiality_limit(suite);
    let outbound = match hand_over(&wire, &tx, choice) {
        true => Outbound::in_kernel(&tx, limit),
        false => Outbound::in_user_space(&tx, limit)?,
    };
    let inbound = Inbound::new(&rx, rest)?;
    let session = Session { inbound, outbound, secrets, alerted: false };
    let wire = TlsWire { wire, unread: Bytes::new(), session: Box::new(session) };
    Ok(TlsAccepted { wire, alpn, server_name, version, cipher_suite: suite.suite(), resumed })
}

/// Whether the kernel has taken the keys for what is sent.
fn hand_over<S: Socket>(wire: &Wire<S>, traffic: &Traffic, choice: TlsChoice) -> bool {
    let wanted = match choice {
        TlsChoice::Auto => probe::prefers_kernel(traffic),
        TlsChoice::Kernel | TlsChoice::KernelImmutable => true,
        TlsChoice::UserSpace => false,
    };
    if !wanted {
        return false;
    }
    let socket = wire.socket().as_fd();
    if let Err(error) = kernel::hand_over(socket, traffic) {
        tracing::debug!(%error, "no kTLS: stepping down");
        return false;
    }
    if choice == TlsChoice::KernelImmutable
        && let Err(error) = set_tls_tx_zerocopy_ro(socket)
    {
        tracing::debug!(%error, "no TLS_TX_ZEROCOPY_RO: files are copied before they are sealed");
    }
    true
}

fn confidentiality_limit(suite: SupportedCipherSuite) -> u64 {
    match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    }
}

async fn send_all<S: Socket>(wire: &mut Wire<S>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = std::future::poll_fn(|cx| Pin::new(&mut *wire).poll_write(cx, bytes)).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Reads from the socket what is there and hands it to `take`; ready with how much, 0 at the end.
fn poll_scratch<S: Socket>(
    wire: &mut Wire<S>,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(SCRATCH_BYTES, 0);
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(wire).poll_read(cx, &mut buf))?;
        take(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    })
}

/// A TLS connection that sends files: the server's side, after the handshake.
///
/// As with a [`Wire`], slices that are [mapped bytes](crate::FileRange::mapped_bytes) are
/// recognised by their address. Where the kernel seals the records they leave by the same routes;
/// else they are sealed from a mapping of their own, on the route mmap-write, or from where they
/// were read to, on the route read-write (docs/tls.md).
///
/// A write is reported when its records were accepted by the socket. A write that has to wait
/// may have sealed its bytes already: it has to be repeated with the same bytes at the front, as
/// hyper does and tokio's `write_all`; else it fails with `InvalidInput`.
///
/// Between requests it holds no buffers.
pub struct TlsWire<S> {
    wire: Wire<S>,
    /// Plaintext to be read again.
    unread: Bytes,
    session: Box<Session>,
}

struct Session {
    inbound: Inbound,
    outbound: Outbound,
    secrets: Secrets,
    /// The last alert was queued: nothing follows it.
    alerted: bool,
}

impl<S: Socket> TlsWire<S> {
    /// Has everything that this wire moves counted by `meter` too.
    #[must_use]
    pub fn counted_by(mut self, meter: Arc<Meter>) -> Self {
        self.wire = self.wire.counted_by(meter);
        self
    }

    /// See [`Wire::throttled_by`].
    #[must_use]
    pub fn throttled_by(mut self, throttle: Arc<Throttle>) -> Self {
        self.wire = self.wire.throttled_by(throttle);
        self
    }

    /// See [`Wire::with_patience`].
    #[must_use]
    pub fn with_patience(mut self, patience: Arc<Patience>) -> Self {
        self.wire = self.wire.with_patience(patience);
        self
    }

    /// The account of what is written through this wire; see [`Wire::ledger`].
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.wire.ledger()
    }

    /// Has `bytes`, plaintext that was read already, read once more, before what is to come.
    #[must_use]
    pub fn with_unread(mut self, bytes: Bytes) -> Self {
        self.unread = match self.unread.is_empty() {
            true => bytes,
            false => [bytes, self.unread].concat().into(),
        };
        self
    }

    /// See [`Wire::send_counting`].
    ///
    /// # Errors
    ///
    /// Those of [`Wire::send`], and those of TLS.
    pub async fn send_counting(
        &mut self,
        payload: Payload,
        tally: &mut Tally,
    ) -> Result<(), SendError> {
        let Self { wire, session, .. } = self;
        wire.send_by(payload, tally, |wire, cx, parts, tally| {
            session.refuse(parts)?;
            let gated = session.outbound.wants_gate();
            wire.poll_step_by(cx, parts, gated, &mut session.stepper(), Some(tally))
        })
        .await
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        self.wire.socket()
    }

    /// Whether the kernel seals what is sent.
    pub fn in_kernel(&self) -> bool {
        self.session.outbound.is_in_kernel()
    }

    /// Waits until a read finds something: data, the end or an error. Holds no memory meanwhile.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of the socket. What a read would fail with is left to the read.
    pub async fn readable(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            if !self.unread.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.poll_event(cx).map_ok(drop)
        })
        .await
    }

    /// Ready with `Event::Plaintext` or `Event::End`.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        loop {
            let Self { wire, session, .. } = self;
            match session.inbound.advance() {
                Event::Starved => {
                    let read = poll_scratch(wire, cx, |bytes| session.inbound.push(bytes));
                    if read.is_pending() {
                        // The peer may wait for the answer to what it sent.
                        self.try_flush();
                    }
                    if ready!(read)? == 0 {
                        self.session.inbound.finish(End::Truncated);
                    }
                }
                Event::KeyUpdate { wants_ours } => session.key_update(wants_ours)?,
                Event::Renegotiation => session.outbound.alert(Alert::NoRenegotiation)?,
                event @ (Event::Plaintext | Event::End) => {
                    session.answer_end()?;
                    self.try_flush();
                    return Poll::Ready(Ok(event));
                }
            }
        }
    }

    /// Sends what of alerts and key updates the socket takes at once; the rest goes with the
    /// next write. Not what a write waits with: its bytes would be sent and not be reported, and
    /// a peer that has them all may end the response before they are.
    fn try_flush(&mut self) {
        let outbound = &mut self.session.outbound;
        if outbound.wants_gate()
            && !outbound.is_flushed()
            && let Err(error) = self.wire.try_write(|socket| outbound.flush(socket))
        {
            tracing::debug!(%error, "control records wait");
        }
    }
}

impl Session {
    /// RFC 8446 section 4.6.3.
    fn key_update(&mut self, wants_ours: bool) -> Result<(), TlsError> {
        let traffic = Traffic::new(ProtocolVersion::TLSv1_3, self.secrets.update_rx_secret()?)?;
        self.inbound.rekey(&traffic)?;
        if !wants_ours || self.outbound.is_renewed() {
            return Ok(());
        }
        if self.outbound.can_rekey() {
            return self.outbound.rekey(&mut self.secrets);
        }
        // No application data may follow without new keys, and this kernel takes none.
        let why = "the peer asked for new keys, which this kernel (before 6.14) does not take";
        self.inbound.finish(End::Failed(why, Alert::InternalError));
        Ok(())
    }

    /// Queues the alert for what the peer did wrong.
    fn answer_end(&mut self) -> Result<(), TlsError> {
        if let Some(End::Failed(_, alert)) = self.inbound.end()
            && !self.alerted
        {
            self.alerted = true;
            return self.outbound.alert(*alert);
        }
        Ok(())
    }

    /// Fails when `parts` must not be sent.
    fn refuse(&self, parts: &[PartRef<'_>]) -> io::Result<()> {
        let refusal = match self.inbound.end() {
            Some(end @ (End::Failed(..) | End::Alert(_))) => end.error(),
            Some(End::Closed | End::Truncated) | None => {
                self.alerted.then(|| io::Error::from(io::ErrorKind::BrokenPipe))
            }
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if !self.outbound.goes_on_with(parts) {
            let text = "a write to a TLS connection that had to wait was not repeated";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    fn stepper(&mut self) -> impl Stepper {
        let Self { outbound, secrets, .. } = self;
        |sink, socket, parts, room, progress| {
            outbound.step(secrets, sink, socket, parts, room, progress)
        }
    }
}

impl<S: Socket> AsyncRead for TlsWire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tls = self.get_mut();
        if !tls.unread.is_empty() {
            let again = tls.unread.len().min(buf.remaining());
            buf.put_slice(&tls.unread.split_to(again));
            return Poll::Ready(Ok(()));
        }
        let event = ready!(tls.poll_event(cx))?;
        let inbound = &mut tls.session.inbound;
        if event == Event::Plaintext {
            buf.put_slice(inbound.take(buf.remaining()));
            inbound.shrink();
        }
        let end = inbound.end().filter(|_| event == Event::End);
        Poll::Ready(end.and_then(End::error).map_or(Ok(()), Err))
    }
}

impl<S: Socket> AsyncWrite for TlsWire<S> {
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
        let Self { wire, session, .. } = self.get_mut();
        let parts = wire.recognised(bufs);
        session.refuse(&parts)?;
        let gated = session.outbound.wants_gate();
        wire.poll_write_parts(cx, &parts, gated, &mut session.stepper())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, session, .. } = self.get_mut();
        if !session.outbound.is_flushed() {
            ready!(wire.poll_writable(cx, |socket| session.outbound.flush(socket)))?;
        }
        Pin::new(wire).poll_flush(cx)
    }

    /// Sends close_notify, then FIN. What the peer still sends can be read.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.session.alerted {
            self.session.alerted = true;
            self.session.outbound.alert(Alert::CloseNotify)?;
        }
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsWire<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsWire")
            .field("wire", &self.wire)
            .field("inbound", &self.session.inbound)
            .field("outbound", &self.session.outbound)
            .finish_non_exhaustive()
    }
}
