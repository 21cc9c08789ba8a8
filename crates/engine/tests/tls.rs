//! TLS connections of the engine against rustls's own client, over loopback: every version and
//! cipher, vectored writes with mapped bodies, tiny buffers, and clients that misbehave.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "what is read and copied is this test's own")]

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream as Plain};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pagewire_engine::tls::{TlsAccepted, TlsChoice, TlsError, TlsWire, accept};
use pagewire_engine::{Meter, Outcome, Route, RouteChoice, SourceFile};
use rustls::crypto::aws_lc_rs::{cipher_suite as suites, default_provider};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A client waits so long at most.
const PATIENCE: Duration = Duration::from_secs(30);

const SUITES: [(SupportedCipherSuite, &SupportedProtocolVersion); 6] = [
    (suites::TLS13_AES_128_GCM_SHA256, &version::TLS13),
    (suites::TLS13_AES_256_GCM_SHA384, &version::TLS13),
    (suites::TLS13_CHACHA20_POLY1305_SHA256, &version::TLS13),
    (suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, &version::TLS12),
    (suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, &version::TLS12),
    (suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, &version::TLS12),
];

fn configs(
    suite: SupportedCipherSuite,
    version: &'static SupportedProtocolVersion,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.enable_secret_extraction = true;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    (Arc::new(server), Arc::new(client))
}

type Client = rustls::StreamOwned<ClientConnection, Plain>;

fn client(config: Arc<ClientConfig>, socket: Plain) -> Client {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    rustls::StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket)
}

/// A connected pair; the server's side sends from as small a buffer as the kernel has, if told.
async fn pair(tiny: bool) -> (TcpStream, Plain) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Plain::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    socket.set_nodelay(true).unwrap();
    if tiny {
        socket2::SockRef::from(&socket).set_send_buffer_size(1).unwrap();
    }
    (socket, peer)
}

async fn accepted(socket: TcpStream, config: Arc<ServerConfig>) -> TlsAccepted<TcpStream> {
    accepted_by(TlsChoice::UserSpace, socket, config).await
}

/// The root package's `tests/tls_vm.rs` runs what loops over these in a guest whose kernel has
/// TLS; where it has none, both are the same.
const CHOICES: [TlsChoice; 2] = [TlsChoice::UserSpace, TlsChoice::Kernel];

async fn accepted_by(
    choice: TlsChoice,
    socket: TcpStream,
    config: Arc<ServerConfig>,
) -> TlsAccepted<TcpStream> {
    accept(socket, config, RouteChoice::Auto, choice).await.unwrap()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..len).map(next).collect()
}

fn file(content: &[u8]) -> (SourceFile, File) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    (SourceFile::new(file.try_clone().unwrap()).unwrap(), file)
}

/// Writes all of it, in as many vectored writes as that takes.
async fn write_all(wire: &mut TlsWire<TcpStream>, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let written = wire.write_vectored(left).await?;
        assert!(written > 0);
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

/// A client that asks, reads to the orderly end, and gives what it read.
fn download(config: Arc<ClientConfig>, socket: Plain) -> JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut client = client(config, socket);
        client.write_all(b"ask")?;
        let mut received = Vec::new();
        client.read_to_end(&mut received)?;
        Ok(received)
    })
}

async fn asked(wire: &mut TlsWire<TcpStream>) {
    let mut request = [0; 3];
    wire.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"ask");
}

/// Of such a download what is read and not mapped: the batches with the head and with the tail.
const READ: u64 = 378_563;

#[tokio::test]
async fn files_arrive_whole_with_every_version_and_cipher() {
    let content = noise(3_000_001);
    let (source, _) = file(&content);
    let body = source.whole().mapped_bytes().unwrap();
    for (suite, version) in SUITES {
        let (server, client) = configs(suite, version);
        for tiny in [false, true] {
            let (socket, peer) = pair(tiny).await;
            let receiver = download(Arc::clone(&client), peer);
            let accepted = accepted(socket, Arc::clone(&server)).await;
            assert_eq!(accepted.cipher_suite, suite.suite());
            assert_eq!(accepted.version, version.version);
            assert_eq!(accepted.alpn.as_deref(), Some(&b"http/1.1"[..]));
            assert_eq!(accepted.server_name.as_deref(), Some("localhost"));
            let meter = Arc::new(Meter::new());
            let mut wire = accepted.wire.counted_by(Arc::clone(&meter));
            asked(&mut wire).await;
            let parts: [&[u8]; 5] = [b"head", &body[7..], b"between", &body[..9], b"tail"];
            write_all(&mut wire, &parts).await.unwrap();
            wire.shutdown().await.unwrap();
            assert!(receiver.join().unwrap().unwrap() == parts.concat(), "{suite:?} {tiny}");
            let meter = meter.snapshot();
            let [mapped, read] = [Route::MmapWrite, Route::ReadWrite].map(|it| meter.route(it));
            assert_eq!((read.bytes, read.user_copied_bytes), (READ, READ));
            assert_eq!((mapped.bytes, mapped.user_copied_bytes), (3_000_003 - READ, 0));
            assert_eq!(meter.plain().bytes, 15);
        }
    }
}

fn tls13() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    configs(SUITES[0].0, SUITES[0].1)
}

#[tokio::test]
async fn a_session_is_resumed() {
    for ((suite, version), choice) in [
        (SUITES[0], CHOICES[0]),
        (SUITES[0], CHOICES[1]),
        (SUITES[3], CHOICES[0]),
        (SUITES[3], CHOICES[1]),
    ] {
        let (server, client) = configs(suite, version);
        for resumed in [false, true] {
            let (socket, peer) = pair(false).await;
            let receiver = download(Arc::clone(&client), peer);
            let accepted = accepted_by(choice, socket, Arc::clone(&server)).await;
            assert_eq!(accepted.resumed, resumed);
            let mut wire = accepted.wire;
            asked(&mut wire).await;
            wire.write_all(b"answer").await.unwrap();
            wire.shutdown().await.unwrap();
            assert_eq!(receiver.join().unwrap().unwrap(), b"answer");
        }
    }
}

#[tokio::test]
async fn a_file_that_shrinks_ends_the_connection_and_the_account() {
    for choice in CHOICES {
        shrinks(choice).await;
    }
}

async fn shrinks(choice: TlsChoice) {
    let (server, client) = tls13();
    let (source, writable) = file(&noise(900_000));
    let body = source.whole().mapped_bytes().unwrap();
    writable.set_len(500_000).unwrap();
    let (socket, peer) = pair(false).await;
    let receiver = download(client, peer);
    let mut wire = accepted_by(choice, socket, server).await.wire;
    let (settled, outcomes) = mpsc::channel();
    let settle = move |outcome: Outcome| settled.send(outcome).unwrap();
    let delivery = wire.ledger().open(900_000, Instant::now(), settle);
    delivery.expect(&body);
    asked(&mut wire).await;
    let error = write_all(&mut wire, &[&body]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("900000 bytes were due, it holds 500000"), "{error}");
    drop((wire, delivery));
    // No close_notify: the client knows that something is missing.
    let cut = receiver.join().unwrap().unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    let outcome = outcomes.recv().unwrap();
    assert_eq!(outcome.report.tally.total().bytes, 500_000);
    assert!(outcome.cut_short.is_some());
}

/// A client that reads nothing: what the socket did not accept is not reported as sent.
#[tokio::test]
async fn what_is_sealed_but_not_sent_is_not_reported() {
    let (server, config) = tls13();
    let (source, _) = file(&noise(30_000_000));
    let body = source.whole().mapped_bytes().unwrap();
    let (socket, peer) = pair(true).await;
    let (keep, gone) = mpsc::channel::<()>();
    let peer = thread::spawn(move || {
        let mut client = client(config, peer);
        client.write_all(b"ask").unwrap();
        client.flush().unwrap();
        assert!(gone.recv().is_err());
    });
    let mut wire = accepted(socket, server).await.wire;
    asked(&mut wire).await;
    let (settled, outcomes) = mpsc::channel();
    let settle = move |outcome: Outcome| settled.send(outcome).unwrap();
    let delivery = wire.ledger().open(30_000_000, Instant::now(), settle);
    delivery.expect(&body);
    let mut taken = 0;
    loop {
        let write = wire.write(&body[taken..]);
        match tokio::time::timeout(Duration::from_millis(300), write).await {
            Ok(written) => taken += written.unwrap(),
            Err(_) => break,
        }
    }
    let other = wire.write(b"another write").await.unwrap_err();
    assert_eq!(other.kind(), io::ErrorKind::InvalidInput);
    drop((wire, delivery, keep));
    peer.join().unwrap();
    let outcome = outcomes.recv().unwrap();
    assert_eq!(outcome.report.tally.total().bytes, taken as u64);
    assert!(taken < 30_000_000 && outcome.cut_short.is_some());
}

#[tokio::test]
async fn a_client_that_closed_its_half_gets_the_rest() {
    for choice in CHOICES {
        closed_its_half(choice).await;
    }
}

async fn closed_its_half(choice: TlsChoice) {
    let (server, config) = tls13();
    let content = noise(1_000_000);
    let (source, _) = file(&content);
    let (socket, peer) = pair(false).await;
    let receiver = thread::spawn(move || {
        let mut client = client(config, peer);
        client.write_all(b"ask").unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        received
    });
    let mut wire = accepted_by(choice, socket, server).await.wire;
    asked(&mut wire).await;
    assert_eq!(wire.read(&mut [0]).await.unwrap(), 0, "close_notify is the end");
    let body = source.whole().mapped_bytes().unwrap();
    write_all(&mut wire, &[&body]).await.unwrap();
    wire.shutdown().await.unwrap();
    assert!(receiver.join().unwrap() == content);
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    for choice in CHOICES {
        ended_without_close_notify(choice).await;
    }
}

async fn ended_without_close_notify(choice: TlsChoice) {
    let (server, config) = tls13();
    let (socket, peer) = pair(false).await;
    let peer = thread::spawn(move || {
        let mut client = client(config, peer);
        client.write_all(b"ask").unwrap();
        client.flush().unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
    let mut wire = accepted_by(choice, socket, server).await.wire;
    asked(&mut wire).await;
    let error = wire.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    wire.shutdown().await.unwrap();
    peer.join().unwrap();
}

#[tokio::test]
async fn keys_change_in_the_middle() {
    let (server, config) = tls13();
    let content = noise(5_000_000);
    let (source, _) = file(&content);
    let (socket, peer) = pair(false).await;
    let receiver = thread::spawn(move || {
        let mut client = client(config, peer);
        client.write_all(b"ask").unwrap();
        let mut received = vec![0; 5_000_000];
        for part in received.chunks_mut(1_000_000) {
            client.read_exact(part).unwrap();
            client.conn.refresh_traffic_keys().unwrap();
            client.write_all(b"ask").unwrap();
        }
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        received
    });
    let mut wire = accepted(socket, server).await.wire;
    let body = source.whole().mapped_bytes().unwrap();
    for part in body.chunks(1_000_000) {
        asked(&mut wire).await;
        write_all(&mut wire, &[part]).await.unwrap();
    }
    asked(&mut wire).await;
    wire.shutdown().await.unwrap();
    assert!(receiver.join().unwrap() == content);
}

/// How often a client asks for new keys within one download.
const NEW_KEYS: usize = 5;

/// Asked for while the socket takes no more, in the middle of a record: all that was sealed until
/// then arrives, what follows is sealed with the new keys. A kernel that changes none (before Linux
/// 6.14) ends the connection with an alert.
#[tokio::test]
async fn keys_change_while_the_socket_is_full() {
    for (suite, version) in &SUITES[..3] {
        for choice in CHOICES {
            keys_change_in_a_full_socket(choice, configs(*suite, version)).await;
        }
    }
}

async fn keys_change_in_a_full_socket(
    choice: TlsChoice,
    (server, config): (Arc<ServerConfig>, Arc<ClientConfig>),
) {
    let content = noise(4_000_001);
    let (source, _) = file(&content);
    let body = source.whole().mapped_bytes().unwrap();
    let (socket, peer) = pair(false).await;
    // Some records, and not more than the client reads in between.
    socket2::SockRef::from(&socket).set_send_buffer_size(1 << 16).unwrap();
    socket2::SockRef::from(&peer).set_recv_buffer_size(1 << 16).unwrap();
    let (full, was_full) = mpsc::channel();
    let client = thread::spawn(move || {
        let mut client = client(config, peer);
        let mut received = Vec::new();
        client.write_all(b"ask").unwrap();
        for _ in 0..NEW_KEYS {
            was_full.recv_timeout(PATIENCE).unwrap();
            while was_full.try_recv().is_ok() {}
            client.conn.refresh_traffic_keys().unwrap();
            client.flush().unwrap();
            // The server wakes up for it, and finds the socket as full as before; or it ends.
            let woken = was_full.recv_timeout(PATIENCE);
            assert_ne!(woken, Err(RecvTimeoutError::Timeout));
            let part = received.len()..received.len() + 500_000;
            received.resize(part.end, 0);
            client.read_exact(&mut received[part])?;
        }
        client.read_to_end(&mut received).map(|_| received)
    });
    let mut wire = accepted_by(choice, socket, server).await.wire;
    asked(&mut wire).await;
    let refused = wire.in_kernel() && !kernel_changes_keys();
    let mut left = &body[..];
    let sent = std::future::poll_fn(|cx| {
        loop {
            // What the client sends is found by reading.
            if let Poll::Ready(read) = pin!(wire.readable()).poll(cx) {
                return Poll::Ready(read);
            }
            let Poll::Ready(written) = Pin::new(&mut wire).poll_write(cx, left) else {
                // Nobody listens who has had all its keys.
                full.send(()).ok();
                return Poll::Pending;
            };
            left = &left[written?..];
            if left.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    });
    let sent = sent.await;
    drop(full);
    println!("{choice}: in the kernel {}, refused {refused}, {sent:?}", wire.in_kernel());
    wire.shutdown().await.unwrap();
    let received = client.join().unwrap();
    if refused {
        let error = received.unwrap_err().to_string();
        assert!(error.contains("InternalError"), "{error}");
    } else {
        sent.unwrap();
        assert!(received.unwrap() == content);
    }
}

/// Since Linux 6.14.
fn kernel_changes_keys() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap());
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

/// What the server sends back, raw, and what its read said.
async fn after(
    choice: TlsChoice,
    (config, client): (Arc<ServerConfig>, Arc<ClientConfig>),
    raw: Vec<u8>,
) -> io::Error {
    let (socket, peer) = pair(false).await;
    let peer = thread::spawn(move || {
        let mut client = self::client(client, peer);
        client.write_all(b"ask").unwrap();
        client.flush().unwrap();
        client.sock.write_all(&raw).unwrap();
        let error = loop {
            match client.read(&mut [0; 100]) {
                Ok(read) => assert_eq!(read, 0, "no data was sent"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("received fatal alert"), "{error}");
    });
    let mut wire = accepted_by(choice, socket, config).await.wire;
    asked(&mut wire).await;
    let error = wire.read(&mut [0]).await.unwrap_err();
    assert!(wire.write(b"more").await.is_err(), "nothing follows the alert");
    wire.shutdown().await.unwrap();
    peer.join().unwrap();
    error
}

#[tokio::test]
async fn garbage_ends_the_connection_with_an_alert() {
    for (suite, version) in [SUITES[0], SUITES[2], SUITES[3], SUITES[5]] {
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            // Longer than a record may be.
            &[23, 3, 3, 255, 255, 0],
            // Nothing that could have a tag.
            &[23, 3, 3, 0, 0],
            &[23, 3, 3, 0, 5, 1, 2, 3, 4, 5],
            // Not sealed with the key.
            &[&[23, 3, 3, 0, 64][..], &[7; 64]].concat(),
            // In the clear.
            &[22, 3, 3, 0, 4, 0, 0, 0, 0],
            &[20, 3, 3, 0, 1, 1],
            &[0; 5],
        ] {
            for choice in CHOICES {
                let error = after(choice, configs(suite, version), garbage.to_owned()).await;
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{garbage:?}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_gets_an_alert() {
    for (text, reason) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "not TLS"),
        (&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], "not TLS"),
        (&[22, 3, 1, 255, 255], "not TLS"),
    ] {
        let (server, _) = tls13();
        let (socket, mut peer) = pair(false).await;
        peer.write_all(text).unwrap();
        let choice = TlsChoice::UserSpace;
        let error = accept(socket, server, RouteChoice::Auto, choice).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        let mut alert = Vec::new();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.read_to_end(&mut alert).unwrap();
        assert_eq!((alert[0], alert[5]), (21, 2), "{alert:?}");
    }
}

#[tokio::test]
async fn a_peer_that_leaves_within_the_handshake_is_told_apart() {
    let (server, _) = tls13();
    let (socket, peer) = pair(false).await;
    drop(peer);
    let error = accept(socket, server, RouteChoice::Auto, TlsChoice::UserSpace).await.unwrap_err();
    assert!(matches!(error, TlsError::Closed), "{error}");
}

#[tokio::test]
async fn a_configuration_without_secrets_is_refused() {
    let (server, _) = tls13();
    let mut server = (*server).clone();
    server.enable_secret_extraction = false;
    let (socket, _peer) = pair(false).await;
    let error = accept(socket, Arc::new(server), RouteChoice::Auto, TlsChoice::Auto).await;
    assert!(matches!(error.unwrap_err(), TlsError::Config(_)));
}

/// A connection that waits for its next request is woken by it.
#[tokio::test]
async fn a_parked_connection_is_readable_when_data_comes() {
    let (server, config) = tls13();
    let (socket, peer) = pair(false).await;
    let (go, went) = mpsc::channel::<()>();
    let peer = thread::spawn(move || {
        let mut client = client(config, peer);
        client.write_all(b"ask").unwrap();
        client.flush().unwrap();
        went.recv().unwrap();
        client.write_all(b"ask").unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
    });
    let mut wire = accepted(socket, server).await.wire;
    wire.readable().await.unwrap();
    asked(&mut wire).await;
    let nothing = tokio::time::timeout(Duration::from_millis(50), wire.readable()).await;
    assert!(nothing.is_err());
    go.send(()).unwrap();
    wire.readable().await.unwrap();
    asked(&mut wire).await;
    wire.readable().await.unwrap();
    assert_eq!(wire.read(&mut [0]).await.unwrap(), 0);
    peer.join().unwrap();
}
