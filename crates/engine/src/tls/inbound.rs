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
        let taken = self.plain.start..self.plain.start + self.plain.len().min(max);
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
        if !matches!(level, 1 | 2) {
            return Err(("an alert of no known level", Alert::IllegalParameter));
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::{PLAIN_MAX, Sealer, Suite, Traffic};
    use super::*;

    const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

    fn traffic(tls13: bool, suite: Suite) -> Traffic {
        let key = vec![3; suite.key_len()].into();
        Traffic { tls13, suite, key, iv: [4; 12], sequence: 5 }
    }

    /// A peer's sealer, and who opens.
    fn pair(tls13: bool, suite: Suite) -> (Sealer, Inbound) {
        let traffic = traffic(tls13, suite);
        (Sealer::new(&traffic).unwrap(), Inbound::new(&traffic, Vec::new()).unwrap())
    }

    /// What comes of these records, one after the other, at once.
    fn events(tls13: bool, records: &[(u8, &[u8])]) -> (Vec<Event>, Inbound) {
        let (mut sealer, mut inbound) = pair(tls13, Suite::Aes128Gcm);
        for (kind, payload) in records {
            inbound.push(&sealer.seal_copy(*kind, payload).unwrap());
        }
        let mut events = Vec::new();
        loop {
            let event = inbound.advance();
            let over = matches!(event, Event::Starved | Event::End);
            inbound.take(usize::MAX);
            events.push(event);
            if over {
                return (events, inbound);
            }
        }
    }

    #[track_caller]
    fn assert_fails(tls13: bool, records: &[(u8, &[u8])], expected: Alert) {
        let (events, inbound) = events(tls13, records);
        assert_eq!(events.last(), Some(&Event::End), "{records:?}");
        let end = inbound.end();
        assert!(matches!(end, Some(End::Failed(_, alert)) if *alert == expected), "{end:?}");
    }

    #[test]
    fn a_key_update_may_come_in_pieces() {
        for asked in [0, 1] {
            let message = [KEY_UPDATE, 0, 0, 1, asked];
            let expected = [Event::KeyUpdate { wants_ours: asked == 1 }, Event::Starved];
            for cut in 1..5 {
                let (front, back) = message.split_at(cut);
                let (events, _) = events(true, &[(HANDSHAKE, front), (HANDSHAKE, back)]);
                assert_eq!(events, expected, "cut at {cut}");
            }
            let (events, _) = events(
                true,
                &message.each_ref().map(|byte| (HANDSHAKE, std::slice::from_ref(byte))),
            );
            assert_eq!(events, expected);
        }
    }

    #[test]
    fn other_handshake_messages_end_the_connection() {
        let update = [KEY_UPDATE, 0, 0, 1, 0];
        assert_fails(true, &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 2])], Alert::IllegalParameter);
        for bad in [
            // Longer or shorter than it is, and what a client has no business to send.
            &[KEY_UPDATE, 0, 0, 2, 0][..],
            &[KEY_UPDATE, 0, 0, 0],
            &[KEY_UPDATE, 0, 0, 1, 0, 0],
            &[1, 0, 0, 1, 0],
            &[4],
            // Nothing may follow it in its record: that would be sealed with other keys.
            &[update, update].concat(),
            &[],
        ] {
            assert_fails(true, &[(HANDSHAKE, bad)], Alert::UnexpectedMessage);
        }
        let between = [(HANDSHAKE, &update[..2]), (APPLICATION_DATA, b"data"), (HANDSHAKE, &[])];
        assert_fails(true, &between, Alert::UnexpectedMessage);
    }

    #[test]
    fn the_keys_change_behind_a_key_update() {
        let (mut old, mut inbound) = pair(true, Suite::Aes128Gcm);
        let next = Traffic { iv: [9; 12], sequence: 0, ..traffic(true, Suite::Aes128Gcm) };
        let mut new = Sealer::new(&next).unwrap();
        inbound.push(&old.seal_copy(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0]).unwrap());
        inbound.push(&new.seal_copy(APPLICATION_DATA, b"new").unwrap());
        inbound.push(&old.seal_copy(APPLICATION_DATA, b"old").unwrap());
        assert_eq!(inbound.advance(), Event::KeyUpdate { wants_ours: false });
        inbound.rekey(&next).unwrap();
        assert_eq!(inbound.advance(), Event::Plaintext);
        assert_eq!(inbound.take(9), b"new");
        assert_eq!(inbound.advance(), Event::End);
        assert!(matches!(inbound.end(), Some(End::Failed(_, Alert::BadRecordMac))));
    }

    #[test]
    fn alerts_in_every_form() {
        for tls13 in [true, false] {
            for level in [1, 2] {
                let (_, inbound) = events(tls13, &[(ALERT, &[level, 0]), (APPLICATION_DATA, b"x")]);
                assert!(matches!(inbound.end(), Some(End::Closed)), "nothing follows it");
                let (events, inbound) = events(tls13, &[(ALERT, &[level, 90])]);
                assert!(events == [Event::Starved] && inbound.end().is_none(), "user_canceled");
            }
            let (_, fatal) = events(tls13, &[(ALERT, &[2, 40])]);
            assert!(matches!(fatal.end(), Some(End::Alert(40))));
            // A warning of TLS 1.2 is of no consequence; TLS 1.3 has none but those two.
            let (_, warning) = events(tls13, &[(ALERT, &[1, 112])]);
            assert_eq!(matches!(warning.end(), Some(End::Alert(112))), tls13);
            assert_eq!(warning.end().is_none(), !tls13);
            for malformed in [&[][..], &[2], &[1, 0, 0], &[1, 0, 1, 0]] {
                assert_fails(tls13, &[(ALERT, malformed)], Alert::DecodeError);
            }
            for level in [0, 3, 66, 255] {
                assert_fails(tls13, &[(ALERT, &[level, 10])], Alert::IllegalParameter);
            }
        }
    }

    #[test]
    fn records_without_data_are_few() {
        for tls13 in [true, false] {
            let empty: &[(u8, &[u8])] = &[(APPLICATION_DATA, b"")];
            let data: &[(u8, &[u8])] = &[(APPLICATION_DATA, b"data")];
            let (events, _) =
                events(tls13, &[empty.repeat(32), Vec::from(data), empty.repeat(32)].concat());
            assert_eq!(events, [Event::Plaintext, Event::Starved]);
            assert_fails(tls13, &empty.repeat(33), Alert::UnexpectedMessage);
            assert_fails(tls13, &[(ALERT, &[1, 90][..])].repeat(33), Alert::UnexpectedMessage);
        }
    }

    #[test]
    fn only_one_renegotiation_is_answered() {
        let hello: (u8, &[u8]) = (HANDSHAKE, &[1, 0, 0, 0]);
        let (events, _) = events(false, &[hello]);
        assert_eq!(events, [Event::Renegotiation, Event::Starved]);
        assert_fails(false, &[hello, hello], Alert::UnexpectedMessage);
        // change_cipher_spec, and a kind that is none.
        assert_fails(false, &[(20, &[1])], Alert::UnexpectedMessage);
        assert_fails(true, &[(20, &[1])], Alert::UnexpectedMessage);
        assert_fails(true, &[(99, &[1])], Alert::UnexpectedMessage);
    }

    #[test]
    fn bad_records_end_the_connection() {
        for (tls13, suite) in
            [true, false].into_iter().flat_map(|tls13| SUITES.map(|suite| (tls13, suite)))
        {
            let record =
                |payload: &[u8]| pair(tls13, suite).0.seal_copy(APPLICATION_DATA, payload).unwrap();
            let good = record(b"some data");
            let mut flipped = good.clone();
            *flipped.last_mut().unwrap() ^= 1;
            let mut kind = good.clone();
            kind[0] = ALERT;
            let mut version = good.clone();
            version[1] = 2;
            let limit = u16::try_from(PLAIN_MAX + if tls13 { 256 } else { 2048 }).unwrap();
            let [high, low] = (limit + 1).to_be_bytes();
            for (bytes, alert) in [
                (flipped, Alert::BadRecordMac),
                // The kind is sealed along, or in TLS 1.3 always the same.
                (kind, if tls13 { Alert::UnexpectedMessage } else { Alert::BadRecordMac }),
                (version, Alert::ProtocolVersion),
                (vec![APPLICATION_DATA, 3, 3, 0, 0], Alert::BadRecordMac),
                (vec![APPLICATION_DATA, 3, 3, 0, 3, 1, 2, 3], Alert::BadRecordMac),
                // Refused by its head, before it is there.
                (vec![APPLICATION_DATA, 3, 3, high, low], Alert::RecordOverflow),
                (Vec::from(b"GET / HTTP/1.1"), Alert::UnexpectedMessage),
                (record(&vec![0; PLAIN_MAX + 1]), Alert::RecordOverflow),
                // Sent once more.
                ([&good[..], &good].concat(), Alert::BadRecordMac),
            ] {
                let (_, mut inbound) = pair(tls13, suite);
                inbound.push(&bytes);
                while inbound.advance() == Event::Plaintext {
                    assert_eq!(inbound.take(100), b"some data");
                }
                let end = inbound.end();
                assert!(
                    matches!(end, Some(End::Failed(_, is)) if *is == alert),
                    "{end:?} {alert:?}"
                );
                inbound.push(&good);
                assert_eq!(inbound.advance(), Event::End, "nothing is read after it");
            }
            let (_, mut inbound) = pair(tls13, suite);
            let [high, low] = limit.to_be_bytes();
            inbound.push(&[APPLICATION_DATA, 3, 3, high, low]);
            assert_eq!(inbound.advance(), Event::Starved, "as long as may be");
        }
    }

    /// RFC 8446 section 5.4: zeros behind the content type are no data.
    #[test]
    fn padding_is_taken_off_but_is_not_all_there_is() {
        let (mut sealer, mut inbound) = pair(true, Suite::Aes256Gcm);
        // The content type 0 is such a zero, and stands behind what is sealed.
        inbound.push(
            &sealer.seal_copy(0, &[&b"data"[..], &[APPLICATION_DATA, 0, 0]].concat()).unwrap(),
        );
        assert_eq!(inbound.advance(), Event::Plaintext);
        assert_eq!(inbound.take(99), b"data");
        inbound.push(&sealer.seal_copy(0, &[0; 50]).unwrap());
        assert_eq!(inbound.advance(), Event::End);
        assert!(matches!(inbound.end(), Some(End::Failed(_, Alert::UnexpectedMessage))));
    }

    proptest! {
        /// However records are long, cut on their way, and taken: the same bytes in order. When
        /// all was taken no memory is held.
        #[test]
        fn data_comes_out_as_it_went_in(
            tls13: bool,
            suite in prop::sample::select(&SUITES[..]),
            lens in prop::collection::vec(0..3000_usize, 1..20),
            cuts in prop::collection::vec(1..4000_usize, 1..20),
            max in 1..5000_usize,
        ) {
            let (mut sealer, mut inbound) = pair(tls13, suite);
            let (mut stream, mut plain) = (Vec::new(), Vec::new());
            for (index, len) in lens.iter().enumerate() {
                let data: Vec<u8> = (0..=250).cycle().skip(index * 7).take(*len).collect();
                stream.extend(sealer.seal_copy(APPLICATION_DATA, &data).unwrap());
                plain.extend(data);
            }
            let (mut left, mut opened) = (&stream[..], Vec::new());
            let mut cuts = cuts.iter().cycle();
            while !left.is_empty() {
                let (front, back) = left.split_at(left.len().min(*cuts.next().unwrap()));
                inbound.push(front);
                left = back;
                while inbound.advance() == Event::Plaintext {
                    opened.extend_from_slice(inbound.take(max));
                }
            }
            prop_assert!(opened == plain && inbound.end().is_none());
            prop_assert_eq!(inbound.bytes.capacity(), 0);
        }

        /// Whatever comes, nothing that was not sealed is handed on.
        #[test]
        fn what_was_not_sealed_is_never_data(tls13: bool, bytes: Vec<u8>) {
            let (_, mut inbound) = pair(tls13, Suite::ChaCha20Poly1305);
            inbound.push(&bytes);
            prop_assert!(matches!(inbound.advance(), Event::Starved | Event::End));
        }
    }
}
