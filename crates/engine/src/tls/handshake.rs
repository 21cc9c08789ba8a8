//! The server's side of a handshake, by rustls: bytes in, bytes out, and at its end the keys.
//! No sockets here.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{Acceptor, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};

use super::TlsError;
use super::record::{HEAD, PLAIN_MAX, TAG};

/// The most bytes that a client may send without coming to an end of its handshake. A handshake
/// message may have 64 KiB; a client that is not asked for a certificate needs some 2 KiB.
const BYTES_MAX: usize = 80 * 1024;

/// Longer records are no TLS (RFC 5246 section 6.2.3).
const RECORD_MAX: usize = PLAIN_MAX + 2048;

pub(crate) struct Handshake {
    connection: UnbufferedServerConnection,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that rustls may see. It opens whatever it sees, data too, and what
    /// follows the handshake is not for it: so it gets one record more at a time.
    visible: usize,
    outgoing: Vec<u8>,
    failure: Option<rustls::Error>,
    /// Reads the first message too, until it is complete: the connection above does not tell the
    /// server name.
    hello: Option<Acceptor>,
    server_name: Option<String>,
}

/// What a handshake needs to go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Bytes from the peer.
    Read,
    /// `Handshake::take_outgoing` sent, then `Handshake::advance` again.
    Write,
    /// Nothing: it is complete.
    Done,
}

/// A complete handshake, as rustls leaves it.
pub(crate) struct Completed {
    pub(crate) connection: UnbufferedServerConnection,
    /// What the client sent behind it.
    pub(crate) rest: Vec<u8>,
    /// That the client asked for.
    pub(crate) server_name: Option<String>,
}

impl Handshake {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        if !config.enable_secret_extraction {
            return Err(TlsError::Config("enable_secret_extraction is off"));
        }
        if config.max_early_data_size > 0 {
            return Err(TlsError::Config("early data (max_early_data_size) is not taken"));
        }
        let connection = UnbufferedServerConnection::new(config)?;
        let (incoming, outgoing) = (Vec::new(), Vec::new());
        Ok(Self {
            connection,
            incoming,
            visible: 0,
            outgoing,
            failure: None,
            hello: Some(Acceptor::default()),
            server_name: None,
        })
    }

    /// Bytes that arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        if let Some(mut hello) = self.hello.take() {
            // What is wrong with it, the connection says.
            let mut left = bytes;
            while !left.is_empty() && hello.read_tls(&mut left).is_ok_and(|read| read > 0) {}
            match hello.accept() {
                Ok(Some(accepted)) => {
                    self.server_name = accepted.client_hello().server_name().map(str::to_owned);
                }
                Ok(None) => self.hello = Some(hello),
                Err(_) => {}
            }
        }
    }

    /// Bytes that are to be sent, also when `advance` failed: then it is an alert.
    pub(crate) fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    pub(crate) fn advance(&mut self) -> Result<Next, TlsError> {
        loop {
            let (failed, encoded) = (self.failure.is_some(), self.outgoing.len());
            if let Some(next) = self.process() {
                return Ok(next);
            }
            // After a failure rustls gives record by record what it had to say before, then the
            // alert. It must not be asked again: it would fail, and alert, once more.
            let said = &self.outgoing[encoded..];
            if failed
                && (said.is_empty() || is_alert(said))
                && let Some(failure) = self.failure.take()
            {
                return Err(failure.into());
            }
            if self.incoming.len() > BYTES_MAX {
                let error = rustls::InvalidMessage::HandshakePayloadTooLarge;
                return Err(TlsError::Handshake(error.into()));
            }
        }
    }

    /// One state of rustls; `None` to look again.
    fn process(&mut self) -> Option<Next> {
        let complete = !self.connection.is_handshaking() || self.failure.is_some();
        // Never fewer than before: rustls remembers where in them the parts of a message lie, and
        // panics when they are gone.
        let visible = &mut self.incoming[..self.visible];
        let UnbufferedStatus { discard, state, .. } = self.connection.process_tls_records(visible);
        let mut blocked = false;
        let mut next = None;
        match state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing),
            _ if self.failure.is_some() => {}
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                next = Some(Next::Write);
            }
            Ok(ConnectionState::WriteTraffic(_)) if complete => next = Some(Next::Done),
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => {
                blocked = true;
            }
            Ok(_) => self.failure = Some(rustls::Error::HandshakeNotComplete),
            Err(error) => self.failure = Some(error),
        }
        self.incoming.drain(..discard);
        self.visible -= discard.min(self.visible);
        // Once it is complete, nothing more is shown: what follows is data.
        if blocked && self.connection.is_handshaking() && !self.show_more() {
            next = Some(Next::Read);
        }
        next
    }

    /// Lets rustls see one record more, if it is there; and what is none, to have it refused.
    fn show_more(&mut self) -> bool {
        let left = &self.incoming[self.visible..];
        let record = left.first_chunk::<HEAD>().map(|&[kind, _, _, high, low]| {
            let len = usize::from(u16::from_be_bytes([high, low]));
            ((20..=23).contains(&kind) && len <= RECORD_MAX).then_some(HEAD + len)
        });
        let more = match record {
            Some(Some(len)) if len <= left.len() => len,
            Some(Some(_)) | None => 0,
            Some(None) => left.len(),
        };
        self.visible += more;
        more > 0
    }

    pub(crate) fn complete(self) -> Completed {
        let Self { connection, incoming: rest, server_name, .. } = self;
        Completed { connection, rest, server_name }
    }
}

/// Whether `record` is an alert. A sealed one of TLS 1.3 is told by its length: two bytes and the
/// content type; no message of a handshake is as short.
fn is_alert(record: &[u8]) -> bool {
    match record {
        [21, ..] => true,
        [23, ..] => record.len() == HEAD + 2 + 1 + TAG,
        _ => false,
    }
}

fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Vec<u8>) {
    let filled = outgoing.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        outgoing.resize(filled + size.required_size, 0);
        let written = data.encode(&mut outgoing[filled..]).unwrap_or(0);
        outgoing.truncate(filled + written);
    }
}
