//! TLS records after the handshake (RFC 8446 section 5, RFC 5246 section 6): sealing and opening
//! one, in place. No sockets here.

use std::ops::Range;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305};
use aws_lc_rs::aead::{LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};
use zeroize::Zeroizing;

use super::TlsError;

/// The most plaintext of one record: 2^14 bytes, in both versions.
pub(crate) const PLAIN_MAX: usize = 1 << 14;

/// The head of a record: type, version, length.
pub(crate) const HEAD: usize = 5;

/// The most that a record may be longer than its plaintext, on the wire: RFC 5246 section 6.2.3
/// allows 2048 bytes, RFC 8446 section 5.2 allows 256.
const EXPANSION_MAX_TLS12: usize = 2048;
const EXPANSION_MAX_TLS13: usize = 256;

/// All three ciphers have tags of so many bytes.
pub(crate) const TAG: usize = 16;

/// The bytes of a TLS 1.2 GCM nonce that stand in the record (RFC 5288 section 3).
const EXPLICIT: usize = 8;

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// Alerts by their numbers (RFC 8446 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Alert {
    CloseNotify = 0,
    UnexpectedMessage = 10,
    BadRecordMac = 20,
    RecordOverflow = 22,
    IllegalParameter = 47,
    DecodeError = 50,
    ProtocolVersion = 70,
    InternalError = 80,
    UserCanceled = 90,
    NoRenegotiation = 100,
}

/// The ciphers that rustls gives keys out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    pub(crate) fn key_len(self) -> usize {
        self.algorithm().key_len()
    }
}

/// Keys of one direction, and the number of the next record that they are for.
pub(crate) struct Traffic {
    pub(crate) tls13: bool,
    pub(crate) suite: Suite,
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) iv: [u8; NONCE_LEN],
    pub(crate) sequence: u64,
}

impl Traffic {
    pub(crate) fn new(
        version: ProtocolVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, TlsError> {
        type Secrets = ConnectionTrafficSecrets;
        let (suite, key, iv) = match &secrets {
            Secrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            Secrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (Suite::ChaCha20Poly1305, key, iv),
            _ => return Err(TlsError::UnknownCipher),
        };
        let tls13 = version == ProtocolVersion::TLSv1_3;
        let key = Zeroizing::new(Vec::from(key.as_ref()));
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(iv.as_ref());
        Ok(Self { tls13, suite, key, iv: nonce, sequence })
    }
}

/// How a record is laid out around its plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Head, plaintext, its content type, tag.
    Tls13,
    /// Head, explicit nonce, plaintext, tag.
    Tls12Gcm,
    /// Head, plaintext, tag (RFC 7905).
    Tls12ChaCha,
}

impl Layout {
    const fn before(self) -> usize {
        match self {
            Self::Tls13 | Self::Tls12ChaCha => HEAD,
            Self::Tls12Gcm => HEAD + EXPLICIT,
        }
    }

    const fn behind(self) -> usize {
        match self {
            Self::Tls13 => 1 + TAG,
            Self::Tls12Gcm | Self::Tls12ChaCha => TAG,
        }
    }
}

/// One direction's key and counter.
struct Cipher {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    layout: Layout,
    sequence: u64,
}

impl Cipher {
    fn new(traffic: &Traffic) -> Result<Self, TlsError> {
        let layout = match (traffic.tls13, traffic.suite) {
            (true, _) => Layout::Tls13,
            (false, Suite::ChaCha20Poly1305) => Layout::Tls12ChaCha,
            (false, Suite::Aes128Gcm | Suite::Aes256Gcm) => Layout::Tls12Gcm,
        };
        let key = UnboundKey::new(traffic.suite.algorithm(), &traffic.key);
        let key = LessSafeKey::new(key.map_err(|_| TlsError::UnknownCipher)?);
        Ok(Self { key, iv: traffic.iv, layout, sequence: traffic.sequence })
    }

    /// The nonce of the next record: the IV with the counter laid over its end (RFC 8446 section
    /// 5.3, RFC 7905 section 2). TLS 1.2 GCM may use any that does not repeat; rustls uses this.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, counter) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counter;
        }
        nonce
    }

    fn additional_data(&self, kind: u8, head: [u8; HEAD], plain: u16) -> ([u8; 13], usize) {
        let mut data = [0; 13];
        if self.layout == Layout::Tls13 {
            data[..HEAD].copy_from_slice(&head);
            return (data, HEAD);
        }
        data[..8].copy_from_slice(&self.sequence.to_be_bytes());
        data[8..11].copy_from_slice(&[kind, 3, 3]);
        data[11..].copy_from_slice(&plain.to_be_bytes());
        (data, 13)
    }
}

/// Seals what is sent.
pub(crate) struct Sealer(Cipher);

impl Sealer {
    pub(crate) fn new(traffic: &Traffic) -> Result<Self, TlsError> {
        Cipher::new(traffic).map(Self)
    }

    /// Bytes of a record before its plaintext.
    pub(crate) fn before(&self) -> usize {
        self.0.layout.before()
    }

    /// Bytes of a record that are not its plaintext.
    pub(crate) fn overhead(&self) -> usize {
        self.0.layout.before() + self.0.layout.behind()
    }

    /// Records sealed with this key.
    pub(crate) fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// Goes back to where `sequence` was asked, so that the next record takes the place of those
    /// made since. None of them may leave.
    pub(crate) fn go_back_to(&mut self, sequence: u64) {
        self.0.sequence = sequence;
    }

    /// Seals `record`, whose plaintext is in its place already, as one of content type `kind`.
    pub(crate) fn seal(&mut self, kind: u8, record: &mut [u8]) -> Result<(), TlsError> {
        let (head, data, len) = self.frame(kind, record)?;
        let mut end = record.len() - self.0.layout.behind();
        if self.0.layout == Layout::Tls13 {
            record[end] = kind;
            end += 1;
        }
        let (front, tag) = record.split_at_mut(end);
        let (nonce, aad) = (Nonce::assume_unique_for_key(self.0.nonce()), Aad::from(&data[..len]));
        let made = self.0.key.seal_in_place_separate_tag(nonce, aad, &mut front[head..]);
        tag.copy_from_slice(made.map_err(|_| TlsError::Seal)?.as_ref());
        self.count()
    }

    /// The same with plaintext that lies elsewhere.
    pub(crate) fn seal_from(
        &mut self,
        kind: u8,
        plain: &[u8],
        record: &mut [u8],
    ) -> Result<(), TlsError> {
        let (head, data, len) = self.frame(kind, record)?;
        let (front, behind) = record.split_at_mut(record.len() - self.0.layout.behind());
        let (nonce, aad) = (Nonce::assume_unique_for_key(self.0.nonce()), Aad::from(&data[..len]));
        let kind: &[u8] = if self.0.layout == Layout::Tls13 { &[kind] } else { &[] };
        let front = &mut front[head..];
        let made = self.0.key.seal_out_of_place_scatter(nonce, aad, plain, front, kind, behind);
        made.map_err(|_| TlsError::Seal)?;
        self.count()
    }

    /// Writes what precedes the plaintext in `record`. Returns its length, and the additional
    /// data with theirs.
    fn frame(&self, kind: u8, record: &mut [u8]) -> Result<(usize, [u8; 13], usize), TlsError> {
        let Cipher { layout, .. } = self.0;
        let (sealed, plain) = (record.len() - HEAD, record.len() - self.overhead());
        let (sealed, plain) = (length(sealed)?, length(plain)?);
        let outer = if layout == Layout::Tls13 { APPLICATION_DATA } else { kind };
        let [high, low] = sealed.to_be_bytes();
        let head = [outer, 3, 3, high, low];
        record[..HEAD].copy_from_slice(&head);
        if layout == Layout::Tls12Gcm {
            record[HEAD..HEAD + EXPLICIT].copy_from_slice(&self.0.nonce()[4..]);
        }
        let (data, len) = self.0.additional_data(kind, head, plain);
        Ok((layout.before(), data, len))
    }

    fn count(&mut self) -> Result<(), TlsError> {
        self.0.sequence = self.0.sequence.checked_add(1).ok_or(TlsError::KeyUsedUp)?;
        Ok(())
    }

    /// Seals `payload` as a record of its own.
    pub(crate) fn seal_copy(&mut self, kind: u8, payload: &[u8]) -> Result<Vec<u8>, TlsError> {
        let mut record = vec![0; payload.len() + self.overhead()];
        record[self.before()..][..payload.len()].copy_from_slice(payload);
        self.seal(kind, &mut record)?;
        Ok(record)
    }
}

fn length(bytes: usize) -> Result<u16, TlsError> {
    u16::try_from(bytes).map_err(|_| TlsError::Seal)
}

/// Opens what comes in.
pub(crate) struct Opener(Cipher);

impl Opener {
    pub(crate) fn new(traffic: &Traffic) -> Result<Self, TlsError> {
        Cipher::new(traffic).map(Self)
    }

    pub(crate) fn is_tls13(&self) -> bool {
        self.0.layout == Layout::Tls13
    }

    /// The length of the record whose head is at the front of `bytes`; `None` where the head is
    /// not all there.
    pub(crate) fn record_len(&self, bytes: &[u8]) -> Result<Option<usize>, Alert> {
        let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        if !(20..=23).contains(&kind) || (self.is_tls13() && kind != APPLICATION_DATA) {
            return Err(Alert::UnexpectedMessage);
        }
        if major != 3 {
            return Err(Alert::ProtocolVersion);
        }
        let len = usize::from(u16::from_be_bytes([high, low]));
        let expansion = if self.is_tls13() { EXPANSION_MAX_TLS13 } else { EXPANSION_MAX_TLS12 };
        if len > PLAIN_MAX + expansion {
            return Err(Alert::RecordOverflow);
        }
        Ok(Some(HEAD + len))
    }

    /// Opens a whole `record` in place: its content type, and where its plaintext lies.
    pub(crate) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), Alert> {
        let layout = self.0.layout;
        let plain = record.len().checked_sub(layout.before() + TAG).ok_or(Alert::BadRecordMac)?;
        let head = *record.first_chunk::<HEAD>().ok_or(Alert::BadRecordMac)?;
        let kind = head[0];
        let mut nonce = self.0.nonce();
        if layout == Layout::Tls12Gcm {
            nonce[4..].copy_from_slice(&record[HEAD..HEAD + EXPLICIT]);
        }
        let plain_len = u16::try_from(plain).map_err(|_| Alert::RecordOverflow)?;
        let (data, data_len) = self.0.additional_data(kind, head, plain_len);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(&data[..data_len]);
        let opened = self.0.key.open_in_place(nonce, aad, &mut record[layout.before()..]);
        let opened = opened.map_err(|_| Alert::BadRecordMac)?;
        self.0.sequence = self.0.sequence.checked_add(1).ok_or(Alert::InternalError)?;
        let mut len = opened.len();
        let mut inner = kind;
        if layout == Layout::Tls13 {
            // The content type and the padding count, too (RFC 8446 section 5.4).
            if len > PLAIN_MAX + 1 {
                return Err(Alert::RecordOverflow);
            }
            // Padding is zeros behind the content type.
            len = opened.iter().rposition(|byte| *byte != 0).ok_or(Alert::UnexpectedMessage)?;
            inner = opened[len];
        }
        if len > PLAIN_MAX {
            return Err(Alert::RecordOverflow);
        }
        Ok((inner, layout.before()..layout.before() + len))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("sequence", &self.0.sequence).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("sequence", &self.0.sequence).finish_non_exhaustive()
    }
}
