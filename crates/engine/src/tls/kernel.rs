//! Handing the keys for what is sent to the kernel (kTLS, Documentation/networking/tls.rst), and
//! control records there. What is received stays in user space: see docs/tls.md.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::LazyLock;

use rustix::io::Errno;
use zeroize::Zeroizing;

use super::record::{PLAIN_MAX, Suite, Traffic};
use crate::sys::ktls::{send_record, set_tls_tx};
use crate::sys::sockopt::set_tls_layer;

/// The cipher numbers of linux/tls.h.
const AES_GCM_128: u16 = 51;
const AES_GCM_256: u16 = 52;
const CHACHA20_POLY1305: u16 = 54;

/// Puts the kernel's TLS layer on `socket` and gives it the keys for what is sent.
///
/// When it refuses, the socket is as it was: with the layer but without keys, it sends what it
/// is given.
pub(crate) fn hand_over(socket: BorrowedFd<'_>, traffic: &Traffic) -> io::Result<()> {
    set_tls_layer(socket)?;
    set_tls_tx(socket, &crypto_info(traffic))
}

/// `struct tls12_crypto_info_*` of linux/tls.h: version, cipher, IV, key, salt, record number.
fn crypto_info(traffic: &Traffic) -> Zeroizing<Vec<u8>> {
    let (cipher, salt) = match traffic.suite {
        Suite::Aes128Gcm => (AES_GCM_128, 4),
        Suite::Aes256Gcm => (AES_GCM_256, 4),
        Suite::ChaCha20Poly1305 => (CHACHA20_POLY1305, 0),
    };
    let version: u16 = if traffic.tls13 { 0x0304 } else { 0x0303 };
    let mut iv = traffic.iv;
    let (salt, iv) = iv.split_at_mut(salt);
    if !traffic.tls13 && !salt.is_empty() {
        // The kernel counts the explicit nonce of TLS 1.2 up from here, where rustls lays its
        // counter over it: from the same start the two would meet, and a nonce that is used twice
        // gives the key away. Half of all nonces apart they do not. The peer reads it from the
        // record (RFC 5288 section 3).
        iv[0] ^= 0x80;
    }
    let head = [version.to_ne_bytes(), cipher.to_ne_bytes()].concat();
    let sequence = traffic.sequence.to_be_bytes();
    Zeroizing::new([&head, &*iv, &traffic.key, salt, &sequence].concat())
}

/// Whether this kernel takes new keys in the middle of a connection (Linux 6.14). Asked once, of
/// a connection to ourselves.
static REKEYS: LazyLock<bool> = LazyLock::new(|| {
    let asked = (|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        let key = Zeroizing::new(vec![1; Suite::Aes128Gcm.key_len()]);
        let (suite, iv) = (Suite::Aes128Gcm, [2; 12]);
        let traffic = Traffic { tls13: true, suite, key, iv, sequence: 0 };
        hand_over(socket.as_fd(), &traffic)?;
        set_tls_tx(&socket, &crypto_info(&traffic))
    })();
    asked.inspect_err(|error| tracing::debug!(%error, "kTLS keys cannot be changed")).is_ok()
});

/// Whether this kernel takes new keys in the middle of a connection.
pub(crate) fn rekeys() -> bool {
    *REKEYS
}

/// What is to be done, in this order, before more data is sent.
pub(crate) enum Control {
    Record(u8, SmallPayload),
    Keys(Traffic),
}

/// An alert or a key update.
pub(crate) type SmallPayload = smallvec::SmallVec<[u8; 8]>;

/// The outgoing half of a connection whose records the kernel seals.
#[derive(Default)]
pub(crate) struct KernelOutbound {
    control: VecDeque<Control>,
    /// At most so many records were sealed with this key.
    pub(crate) records: u64,
}

impl KernelOutbound {
    pub(crate) fn queue(&mut self, control: Control) {
        self.control.push_back(control);
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.control.is_empty()
    }

    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some(control) = self.control.front() {
            match control {
                Control::Record(kind, payload) => {
                    match send_record(socket.as_fd(), *kind, payload) {
                        Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => continue,
                        sent => sent?,
                    }
                    self.records += 1;
                }
                Control::Keys(traffic) => {
                    set_tls_tx(socket, &crypto_info(traffic))?;
                    self.records = 0;
                }
            }
            self.control.pop_front();
        }
        Ok(())
    }

    /// A step moved so many bytes. The kernel does not tell of records: at least half of each is
    /// taken to be full, and one to be cut at either end of the step.
    pub(crate) fn count(&mut self, bytes: u64) {
        self.records += bytes / (PLAIN_MAX as u64 / 2) + 2;
    }
}
