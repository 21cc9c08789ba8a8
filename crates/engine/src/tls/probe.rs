//! Does this kernel seal TLS records (kTLS), rightly, and for less CPU than this process does?
//! Tried once a process, over loopback, with made-up keys and no handshake: what is in question
//! are the records.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

use super::batch::Batch;
use super::kernel::{hand_over, rekeys};
use super::mapped::Mapped;
use super::record::{ALERT, APPLICATION_DATA, Opener, PLAIN_MAX, Sealer, Suite, Traffic};
use crate::residency::Storage;
use crate::routes::Cost;
use crate::sink::Sink;
use crate::source::SourceFile;
use crate::sys::ktls::send_record;
use crate::transfer::PartRef;

/// Sent to compare: neither a whole number of records nor of pages.
const CHECKED_BYTES: usize = 300_001;

/// Sent to measure. Some milliseconds on a current processor.
const MEASURED_BYTES: usize = 2 * 1024 * 1024;

/// Each way is measured so often, in turns; the least counts.
const ROUNDS: usize = 3;

/// What [`probe`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsSupport {
    /// One for each version and cipher.
    pub suites: Vec<SuiteSupport>,
    /// Whether the kernel takes new keys in the middle of a connection (Linux 6.14).
    pub rekeys: bool,
}

/// The kernel's answer for one version and cipher.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SuiteSupport {
    /// Version and cipher, such as `TLS 1.3 AES-128-GCM`.
    pub name: &'static str,
    /// CPU time of each way; or why the kernel does not do it: its own answer to
    /// setsockopt(TCP_ULP) or setsockopt(TLS_TX), or what was wrong with its records.
    pub cost: Result<TlsCost, String>,
    tls13: bool,
    suite: Suite,
}

/// CPU time of the sending thread for the same bytes of a file in memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TlsCost {
    /// Bytes that were sent.
    pub bytes: u64,
    /// Records sealed by the kernel, sent by sendfile.
    pub kernel: Duration,
    /// Records sealed by this process.
    pub user_space: Duration,
}

impl SuiteSupport {
    /// Whether [`TlsChoice::Auto`](super::TlsChoice::Auto) leaves the records to the kernel.
    #[must_use]
    pub fn kernel_is_taken(&self) -> bool {
        self.cost.as_ref().is_ok_and(|cost| cost.kernel < cost.user_space)
    }
}

const ASKED: [(&str, bool, Suite); 6] = [
    ("TLS 1.3 AES-128-GCM", true, Suite::Aes128Gcm),
    ("TLS 1.3 AES-256-GCM", true, Suite::Aes256Gcm),
    ("TLS 1.3 ChaCha20-Poly1305", true, Suite::ChaCha20Poly1305),
    ("TLS 1.2 AES-128-GCM", false, Suite::Aes128Gcm),
    ("TLS 1.2 AES-256-GCM", false, Suite::Aes256Gcm),
    ("TLS 1.2 ChaCha20-Poly1305", false, Suite::ChaCha20Poly1305),
];

static FOUND: OnceLock<TlsSupport> = OnceLock::new();

/// Tries whether the kernel seals TLS records (TCP_ULP "tls" and TLS_TX, Linux 4.13; TLS 1.3,
/// Linux 5.1; ChaCha20, Linux 5.11) as this process does, and what either costs.
///
/// The first call takes some tenths of a second where the kernel does; later ones know. Until it
/// returned, [`TlsChoice::Auto`](super::TlsChoice::Auto) leaves the kernel alone. Call it on a
/// thread that may wait.
pub fn probe() -> &'static TlsSupport {
    FOUND.get_or_init(|| {
        let suites = ASKED.map(|(name, tls13, suite)| {
            let cost = ask(tls13, suite).map_err(|error| error.to_string());
            tracing::debug!(name, ?cost, "kTLS was tried");
            SuiteSupport { name, cost, tls13, suite }
        });
        TlsSupport { suites: suites.into(), rekeys: rekeys() }
    })
}

/// Whether `probe` found that the kernel is to seal with keys like these.
pub(crate) fn prefers_kernel(traffic: &Traffic) -> bool {
    let found = FOUND.get().map_or(&[][..], |found| &found.suites);
    let asked = found.iter().find(|of| (of.tls13, of.suite) == (traffic.tls13, traffic.suite));
    asked.is_some_and(SuiteSupport::kernel_is_taken)
}

fn ask(tls13: bool, suite: Suite) -> io::Result<TlsCost> {
    let traffic = Traffic {
        tls13,
        suite,
        key: Zeroizing::new(vec![0x5a; suite.key_len()]),
        iv: [0xa5; 12],
        sequence: 0,
    };
    check(&traffic)?;
    let source = source(MEASURED_BYTES)?;
    let (mut kernel, mut user_space) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        kernel = kernel.min(measured(&source, |socket, source| {
            hand_over(socket.as_fd(), &traffic)?;
            by_sendfile(socket, source)
        })?);
        user_space = user_space
            .min(measured(&source, |socket, source| by_batches(socket, source, &traffic))?);
    }
    Ok(TlsCost { bytes: source.len(), kernel, user_space })
}

/// A file in memory, its bytes all different from their neighbours a record away.
fn source(len: usize) -> io::Result<SourceFile> {
    let mut file = File::from(memfd_create("pagewire-tls-probe", MemfdFlags::CLOEXEC)?);
    file.write_all(&content(len))?;
    SourceFile::on(Storage::Memory, file)
}

fn content(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    Ok((socket, listener.accept()?.0))
}

/// Has the kernel send a file and an alert, and opens its records here.
fn check(traffic: &Traffic) -> io::Result<()> {
    let (socket, peer) = pair()?;
    hand_over(socket.as_fd(), traffic)?;
    let opener = Opener::new(traffic)?;
    let receiver = thread::spawn(move || opened(peer, opener));
    let sent = by_sendfile(&socket, &source(CHECKED_BYTES)?)
        .and_then(|()| send_record(socket.as_fd(), ALERT, &[1, 0]));
    drop(socket);
    let received = receiver.join().map_err(|_| io::Error::other("the receiver panicked"))?;
    sent?;
    if received? != content(CHECKED_BYTES) {
        return Err(io::Error::other("the kernel's records hold other bytes than were sent"));
    }
    Ok(())
}

/// The plaintext of a connection up to its close_notify.
fn opened(mut peer: TcpStream, mut opener: Opener) -> io::Result<Vec<u8>> {
    let wrong = || io::Error::other("the kernel's records cannot be opened");
    let (mut plain, mut record) = (Vec::new(), Vec::new());
    loop {
        record.resize(super::record::HEAD, 0);
        peer.read_exact(&mut record)?;
        let len = opener.record_len(&record).ok().flatten().ok_or_else(wrong)?;
        let head = record.len();
        record.resize(len, 0);
        peer.read_exact(&mut record[head..])?;
        match opener.open(&mut record).map_err(|_| wrong())? {
            (APPLICATION_DATA, place) => plain.extend_from_slice(&record[place]),
            (ALERT, place) if record[place.clone()] == [1, 0] => return Ok(plain),
            _ => return Err(wrong()),
        }
        if plain.len() > CHECKED_BYTES {
            return Err(wrong());
        }
    }
}

/// CPU time of `send` on this thread. What the peer spends, on its own thread, is left out.
fn measured(
    source: &SourceFile,
    send: impl FnOnce(&TcpStream, &SourceFile) -> io::Result<()>,
) -> io::Result<Duration> {
    let (socket, mut peer) = pair()?;
    let receiver = thread::spawn(move || {
        let mut bin = vec![0; 16 * PLAIN_MAX];
        while peer.read(&mut bin).is_ok_and(|read| read > 0) {}
    });
    let before = cpu_time();
    let sent = send(&socket, source);
    let spent = cpu_time().saturating_sub(before);
    drop(socket);
    receiver.join().map_err(|_| io::Error::other("the receiver panicked"))?;
    sent.map(|()| spent)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn by_sendfile(socket: &TcpStream, source: &SourceFile) -> io::Result<()> {
    let mut position = 0;
    while position < source.len() {
        let left = usize::try_from(source.len() - position).unwrap_or(usize::MAX);
        if rustix::fs::sendfile(socket, source, Some(&mut position), left)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn by_batches(socket: &TcpStream, source: &SourceFile, traffic: &Traffic) -> io::Result<()> {
    let (mut sealer, mut sink) = (Sealer::new(traffic)?, Sink::default());
    let (mut mapped, mut cost) = (Mapped::default(), Cost::default());
    let mut left = source.whole();
    while !left.is_empty() {
        let parts = [PartRef::File(left.clone())];
        let batch = Batch::seal(&mut sealer, &mut sink, &mut mapped, &parts, usize::MAX, &mut cost);
        let mut batch = batch?;
        batch.send(socket.as_fd(), true, &mut cost)?;
        left.advance(batch.plain_bytes() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel either seals as we do, or says that it does not: never wrongly.
    #[test]
    fn the_kernel_seals_as_we_do_or_not_at_all() {
        let found = probe();
        assert_eq!(found.suites.len(), ASKED.len());
        for of in &found.suites {
            match &of.cost {
                Ok(cost) => assert_eq!(cost.bytes, MEASURED_BYTES as u64),
                Err(why) => {
                    assert!(!why.contains("kernel's records"), "{}: {why}", of.name);
                    eprintln!("skipped: {}: {why}", of.name);
                }
            }
        }
    }

    /// The same receiver, with our own records: it would notice a wrong byte.
    #[test]
    fn our_records_are_opened_by_the_receiver() {
        for (name, tls13, suite) in ASKED {
            let key = Zeroizing::new(vec![1; suite.key_len()]);
            let traffic = Traffic { tls13, suite, key, iv: [2; 12], sequence: 7 };
            let (mut socket, peer) = pair().unwrap();
            let opener = Opener::new(&traffic).unwrap();
            let receiver = thread::spawn(move || opened(peer, opener));
            let mut sealer = Sealer::new(&traffic).unwrap();
            let data = sealer.seal_copy(APPLICATION_DATA, b"some bytes").unwrap();
            socket.write_all(&data).unwrap();
            let end = sealer.seal_copy(ALERT, &[1, 0]).unwrap();
            socket.write_all(&end).unwrap();
            assert_eq!(receiver.join().unwrap().unwrap(), b"some bytes", "{name}");
        }
    }
}
