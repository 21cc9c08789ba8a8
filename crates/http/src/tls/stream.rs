//! A connection over TLS: the handshake, apart from accepting, then as any other connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pagewire_engine::tls::{TlsAccepted, TlsWire, accept};
use pagewire_engine::{Ledger, Socket};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::connection::{Client, Stream, connection};
use crate::serve::{Phase, Shared, reached};
use crate::slots::Slot;
use crate::tls::challenges::PROTOCOL;
use crate::tls::{Tls, TlsSession};

/// How long a handshake may take, from the connection's begin. A client that is far away and
/// resends a lost packet twice needs some three seconds.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Shakes hands, then serves the connection to its end.
pub(crate) async fn secured<S: Stream + Socket>(
    socket: S,
    client: Client,
    tls: Tls,
    slot: Slot,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) {
    let peer = client.peer;
    if let Err(error) = socket.set_undelayed() {
        tracing::debug!(%peer, %error, "TCP_NODELAY was refused");
    }
    // Boxed: its memory is for this short time only.
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE_MAX, Box::pin(handshake(socket, tls, &shared))) => shaken,
        () = reached(&mut phase, Phase::Stopping) => return,
        () = shared.slots.wanted() => return,
    };
    let (stream, session) = match shaken {
        Ok(Ok(Some(shaken))) => shaken,
        Ok(Ok(None)) => return,
        Ok(Err(reason)) => return shared.handshake_failed(peer, reason),
        Err(_) => return shared.handshake_failed(peer, "too slow"),
    };
    let client = Client { tls: Some(session), ..client };
    connection(stream, client, slot, shared, phase).await;
}

/// `None` for an ACME server, which has seen what it wanted: it only looks at the certificate (RFC
/// 8737 section 3).
async fn handshake<S: Stream + Socket>(
    mut socket: S,
    tls: Tls,
    shared: &Shared,
) -> Result<Option<(TlsStream<S>, TlsSession)>, &'static str> {
    // Whoever says nothing costs no more than the socket.
    socket.readable().await.map_err(|_| "socket")?;
    let accepted = accept(socket, tls.config, shared.routes, tls.choice).await;
    let accepted = accepted.map_err(|error| {
        tracing::debug!(%error, "no TLS");
        error.reason()
    })?;
    if accepted.alpn.as_deref() == Some(PROTOCOL) {
        return Ok(None);
    }
    let TlsAccepted { wire, alpn, version, cipher_suite, resumed, .. } = accepted;
    let session = TlsSession {
        // The two that there are in rustls.
        version: if version == rustls::ProtocolVersion::TLSv1_3 { "TLSv1.3" } else { "TLSv1.2" },
        cipher: cipher_suite.as_str().unwrap_or("?"),
        resumed,
        in_kernel: wire.in_kernel(),
    };
    shared.handshake_done(&session);
    let wire = wire.counted_by(Arc::clone(&shared.meter));
    let wire = wire.with_patience(Arc::clone(&shared.slots.patience));
    let wire = match &shared.throttle {
        Some(throttle) => wire.throttled_by(Arc::clone(throttle)),
        None => wire,
    };
    Ok(Some((TlsStream { wire, http2: alpn.as_deref() == Some(b"h2") }, session)))
}

/// A TLS connection between two requests: its wire, which holds no buffers then.
pub(crate) struct TlsStream<S> {
    wire: TlsWire<S>,
    /// Agreed on by ALPN.
    http2: bool,
}

impl<S: Stream + Socket> Stream for TlsStream<S> {
    type Wire = TlsWire<S>;

    fn set_undelayed(&self) -> io::Result<()> {
        self.wire.socket().set_undelayed()
    }

    fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        self.wire.readable()
    }

    fn speaks_http2(&self) -> Option<bool> {
        Some(self.http2)
    }

    fn wire(self, unread: Bytes, _shared: &Shared) -> (Self::Wire, Ledger) {
        let wire = self.wire.with_unread(unread);
        let ledger = wire.ledger();
        (wire, ledger)
    }

    fn with_unread(wire: Self::Wire, bytes: Bytes) -> Self::Wire {
        wire.with_unread(bytes)
    }

    fn unwired(wire: Self::Wire) -> Self {
        // Only HTTP/1.1 is parked.
        Self { wire, http2: false }
    }
}

impl<S: Socket> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_read(cx, buffer)
    }
}
