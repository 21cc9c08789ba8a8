//! What a peer sends after the handshake: records are opened, application data is handed on, and
//! what else there is told to the caller. Memory is taken only for bytes that did arrive.

use std::io;
use std::ops::Range;

use super::TlsError;
use super::record::{ALERT, APPLICATION_DATA, Alert, HANDSHAKE, Opener, Traffic};

/// Records in a row that carry no application data. rustls allows as many.
const IDLE_RECORDS_MAX: u32 = 32;

/// HandshakeType key_update (RFC 8446 section 4.6.3).
const KEY_UPDATE: u8 = 24;

/// The incoming half of a connection.
#[derive(Debug)]
pub(crate) struct Inbound {
    opener: Opener,
    /// Bytes as they arrived; those from `plain` are opened already. No memory when empty.
    bytes: Vec<u8>,
    /// Plaintext in `bytes` that nobody took yet.
    plain: Range<usize>,
    /// Where in `bytes` the record after it starts.
    next: usize,
    idle_records: u32,
    /// The front of a handshake message that more records continue.
    message: Vec<u8>,
    renegotiations: u32,
    end: Option<End>,
}

/// Why no more will be read.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// close_notify.
    Closed,
    /// The socket ended before that: what was sent may have been cut (RFC 8446 section 6.1).
    Truncated,
    Failed(&'static str, Alert),
    /// The peer said so.
    Alert(u8),
}

/// What the caller has to do about a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// There is plaintext to take.
    Plaintext,
    /// More bytes are needed.
    Starved,
    /// The peer's keys change after this record: `Inbound::rekey`.
    KeyUpdate {
        /// And it wants ours to, before the next application data.
        wants_ours: bool,
    },
    /// A TLS 1.2 client wants to negotiate anew.
    Renegotiation,
    /// Nothing more comes; `Inbound::end` says why.
    End,
}

impl Inbound {
    /// `bytes` is what of the peer's records was read with its handshake; `plain` what of its
    /// application data was opened already.
    pub(crate) fn new(traffic: &Traffic, bytes: Vec<u8>) -> Result<Self, TlsError> {
        Ok(Self {
            opener: Opener::new(traffic)?,
            bytes,
            plain: 0..0,
            next: 0,
            idle_records: 0,
            message: Vec::new(),
            renegotiations: 0,
            end: None,
        })
    }

    /// Bytes that arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.next);
        (self.next, self.plain) = (0, 0..0);
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// No more is read from this peer.
    pub(crate) fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// The plaintext of the last record, as much of it as `max` bytes.
    pub(crate) fn take(&mut self, max: usize) -> &[u8] {
        let taken = self.plain.start..self.plain.end.min(self.plain.start + max);
        self.plain.start = taken.end;
        &self.bytes[taken]
    }

    /// Gives memory back when nothing is in it.
    pub(crate) fn shrink(&mut self) {
        if self.plain.is_empty() && self.next == self.bytes.len() {
            self.bytes = Vec::new();
            self.next = 0;
            self.plain = 0..0;
        }
    }

    /// The peer's records after this are sealed with other keys.
    pub(crate) fn rekey(&mut self, traffic: &Traffic) -> Result<(), TlsError> {
        self.opener = Opener::new(traffic)?;
        Ok(())
    }

    /// Opens records until there is something to tell.
    pub(crate) fn advance(&mut self) -> Event {
        loop {
            if !self.plain.is_empty() {
                return Event::Plaintext;
            }
            if self.end.is_some() {
                return Event::End;
            }
            match self.open_next() {
                Ok(Some(Event::Starved)) => {
                    self.shrink();
                    return Event::Starved;
                }
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err((why, alert)) => self.finish(End::Failed(why, alert)),
            }
        }
    }

    fn open_next(&mut self) -> Result<Option<Event>, (&'static str, Alert)> {
        let left = &mut self.bytes[self.next..];
        let len = self.opener.record_len(left).map_err(|alert| ("a bad record head", alert))?;
        let Some(record) = len.and_then(|len| left.get_mut(..len)) else {
            return Ok(Some(Event::Starved));
        };
        let len = record.len();
        let (kind, place) = self.opener.open(record).map_err(|alert| ("a bad record", alert))?;
        let place = self.next + place.start..self.next + place.end;
        self.next += len;
        if kind == APPLICATION_DATA && !place.is_empty() {
            if !self.message.is_empty() {
                return Err(("data within a handshake message", Alert::UnexpectedMessage));
            }
            self.idle_records = 0;
            self.plain = place;
            return Ok(None);
        }
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS_MAX {
            return Err(("too many records without data", Alert::UnexpectedMessage));
        }
        match kind {
            APPLICATION_DATA => Ok(None),
            ALERT => self.alert(place).map(|()| None),
            HANDSHAKE if self.opener.is_tls13() => self.handshake(place),
            HANDSHAKE => {
                self.renegotiations += 1;
                if self.renegotiations > 1 {
                    return Err(("renegotiation, again", Alert::UnexpectedMessage));
                }
                Ok(Some(Event::Renegotiation))
            }
            _ => Err(("an unexpected kind of record", Alert::UnexpectedMessage)),
        }
    }

    /// RFC 8446 section 6: an alert is one record.
    fn alert(&mut self, place: Range<usize>) -> Result<(), (&'static str, Alert)> {
        let &[level, alert] = &self.bytes[place] else {
            return Err(("a malformed alert", Alert::DecodeError));
        };
        let warning = level == 1;
        if alert == Alert::CloseNotify as u8 {
            self.end = Some(End::Closed);
        } else if alert == Alert::UserCanceled as u8 || (warning && !self.opener.is_tls13()) {
            // Followed by close_notify, or of no consequence.
        } else {
            self.end = Some(End::Alert(alert));
        }
        Ok(())
    }

    /// All that a TLS 1.3 client may send after its handshake is KeyUpdate, unless it was asked
    /// for a certificate, which this server does not do.
    fn handshake(&mut self, place: Range<usize>) -> Result<Option<Event>, (&'static str, Alert)> {
        if place.is_empty() {
            return Err(("an empty handshake record", Alert::UnexpectedMessage));
        }
        let bytes = &self.bytes[place];
        if self.message.len() + bytes.len() > 5 {
            return Err(("a handshake message that is no key update", Alert::UnexpectedMessage));
        }
        self.message.extend_from_slice(bytes);
        match *self.message {
            [KEY_UPDATE, 0, 0, 1, wants_ours @ (0 | 1)] => {
                self.message = Vec::new();
                Ok(Some(Event::KeyUpdate { wants_ours: wants_ours == 1 }))
            }
            [KEY_UPDATE, 0, 0, 1, _] => Err(("a malformed key update", Alert::IllegalParameter)),
            [KEY_UPDATE] | [KEY_UPDATE, 0] | [KEY_UPDATE, 0, 0] | [KEY_UPDATE, 0, 0, 1] => Ok(None),
            _ => Err(("a handshake message that is no key update", Alert::UnexpectedMessage)),
        }
    }
}

impl End {
    /// What a reader gets: `None` for the orderly end.
    pub(crate) fn error(&self) -> Option<io::Error> {
        match self {
            Self::Closed => None,
            Self::Truncated => {
                let text = "the peer closed the connection without a TLS close_notify";
                Some(io::Error::new(io::ErrorKind::UnexpectedEof, text))
            }
            Self::Failed(why, _) => Some(io::Error::new(io::ErrorKind::InvalidData, *why)),
            Self::Alert(alert) => {
                let text = format!("the peer ended the connection by TLS alert {alert}");
                Some(io::Error::new(io::ErrorKind::ConnectionAborted, text))
            }
        }
    }
}
