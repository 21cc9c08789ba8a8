//! Tests of both halves of a connection with rustls's client at the other end, in this process:
//! keys that are used up, and parts that are cut in every way.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use rustls::{SupportedProtocolVersion, version};

use super::batch::Batch;
use super::handshake::{Handshake, Next};
use super::inbound::{Event, Inbound};
use super::kernel::{KernelOutbound, hand_over, rekeys};
use super::outbound::{KERNEL_STEP_BYTES_MAX, Outbound, Secrets};
use super::record::{PLAIN_MAX, Sealer, Suite, Traffic};
use crate::error::SendError;
use crate::residency::Storage;
use crate::route::Route;
use crate::sink::Sink;
use crate::source::SourceFile;
use crate::transfer::{PartRef, Progress};

/// A server of this version, and who trusts it.
fn server(version: &'static SupportedProtocolVersion) -> (ServerConfig, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (server, roots)
}

/// The server's side after a handshake, and the client.
fn shaken(version: &'static SupportedProtocolVersion) -> (Traffic, Secrets, ClientConnection) {
    let (server, roots) = server(version);
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    // Sent together with the end of its handshake: none of it is for rustls.
    client.writer().write_all(b"data").unwrap();
    let mut handshake = Handshake::new(Arc::new(server)).unwrap();
    loop {
        let next = handshake.advance().unwrap();
        let outgoing = handshake.take_outgoing();
        let mut left = &outgoing[..];
        while !left.is_empty() {
            client.read_tls(&mut left).unwrap();
            client.process_new_packets().unwrap();
        }
        match next {
            Next::Done => break,
            Next::Write => {}
            Next::Read => {
                let mut said = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut said).unwrap();
                }
                handshake.push(&said);
            }
        }
    }
    let completed = handshake.complete();
    let behind = 5 + 4 + 1 + 16;
    let expected = if version.version == rustls::ProtocolVersion::TLSv1_3 { behind } else { 0 };
    assert_eq!(completed.rest.len(), expected);
    let (extracted, secrets) = completed.connection.dangerous_into_kernel_connection().unwrap();
    (Traffic::new(version.version, extracted.tx).unwrap(), secrets, client)
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (socket, listener.accept().unwrap().0)
}

/// Sends `content` in steps, each a batch of 16 records, to a client that reads all.
fn sent(
    outbound: &mut Outbound,
    secrets: &mut Secrets,
    client: ClientConnection,
    content: &[u8],
) -> (Result<(), SendError>, Vec<u8>) {
    sent_between(sockets(), outbound, secrets, client, content)
}

fn sent_between(
    (socket, mut peer): (TcpStream, TcpStream),
    outbound: &mut Outbound,
    secrets: &mut Secrets,
    mut client: ClientConnection,
    content: &[u8],
) -> (Result<(), SendError>, Vec<u8>) {
    let receiver = thread::spawn(move || {
        let mut received = Vec::new();
        while client.read_tls(&mut peer).unwrap() > 0 {
            client.process_new_packets().unwrap();
            let mut piece = [0; PLAIN_MAX];
            // WouldBlock: that is all that there is now.
            while let Ok(read @ 1..) = client.reader().read(&mut piece) {
                received.extend_from_slice(&piece[..read]);
            }
        }
        received
    });
    let (mut sink, mut left) = (Sink::default(), content);
    let result = loop {
        if left.is_empty() {
            break Ok(());
        }
        let mut progress = Progress::default();
        let parts = [PartRef::Bytes(left)];
        let step =
            outbound.step(secrets, &mut sink, socket.as_fd(), &parts, usize::MAX, &mut progress);
        if let Err(error) = step {
            break Err(error);
        }
        left = &left[usize::try_from(progress.bytes()).unwrap()..];
    };
    drop(socket);
    (result, receiver.join().unwrap())
}

/// A message that is too long for rustls, in parts: it has no alert for that, and panicked when it
/// was asked once more without the parts.
#[test]
fn a_handshake_message_that_is_too_long_fails() {
    for (first, expected) in
        [(&[1, 0xff, 0xff, 0xff][..], "not TLS"), (&[1, 0, 0xff, 0xff], "not TLS")]
    {
        let mut handshake = Handshake::new(Arc::new(server(&version::TLS13).0)).unwrap();
        let record = |payload: &[u8]| {
            [&[22, 3, 1], &u16::try_from(payload.len()).unwrap().to_be_bytes()[..], payload]
                .concat()
        };
        handshake.push(&record(first));
        let error = loop {
            match handshake.advance() {
                Ok(_) => handshake.push(&record(&[0; 16_000])),
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), expected, "{error}");
    }
}

/// So many records are sealed with one key, less 1024 (`outbound::LIMIT_MARGIN`).
const RECORDS_MAX: u64 = 1024 + 40;

fn content() -> Vec<u8> {
    // 112 records, in 7 steps.
    (0..=250).cycle().take(112 * PLAIN_MAX).collect()
}

#[test]
fn keys_of_tls13_change_before_they_are_used_up() {
    let (traffic, mut secrets, client) = shaken(&version::TLS13);
    let before = traffic.sequence;
    let mut outbound = Outbound::in_user_space(&traffic, RECORDS_MAX).unwrap();
    let (result, received) = sent(&mut outbound, &mut secrets, client, &content());
    result.unwrap();
    assert!(received == content(), "the client has followed every change");
    // 48 records and the update by the first key, as many by the second, 16 by the third.
    assert!(before < 8, "{before}");
    assert!(format!("{outbound:?}").contains("records: 16,"), "{outbound:?}");
}

/// The same, by a kernel that changes keys (Linux 6.14; `tests/tls_vm.rs` has one): it is not
/// asked how many records it made, so they are changed more often, before each step but the first.
#[test]
fn keys_in_the_kernel_change_before_they_are_used_up() {
    let (traffic, mut secrets, client) = shaken(&version::TLS13);
    let (socket, peer) = sockets();
    if let Err(error) = hand_over(socket.as_fd(), &traffic) {
        eprintln!("skipped: this kernel seals no TLS records: {error}");
        return;
    }
    let mut outbound = Outbound::in_kernel(&traffic, RECORDS_MAX);
    let content = content();
    let (result, received) =
        sent_between((socket, peer), &mut outbound, &mut secrets, client, &content);
    if rekeys() {
        result.unwrap();
        assert!(received == content, "the client has followed every change");
        // What the last step of the four may have made, and nothing of those before it.
        let last = (content.len() - 3 * KERNEL_STEP_BYTES_MAX) / (PLAIN_MAX / 2) + 2;
        assert!(format!("{outbound:?}").contains(&format!("records: {last},")), "{outbound:?}");
        println!("keys were changed in the kernel");
    } else {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("has sealed as many records as is safe"), "{error}");
        assert!(received == content[..KERNEL_STEP_BYTES_MAX], "{} bytes", received.len());
    }
}

#[test]
fn a_connection_of_tls12_ends_before_its_key_is_used_up() {
    let (traffic, mut secrets, client) = shaken(&version::TLS12);
    let mut outbound = Outbound::in_user_space(&traffic, RECORDS_MAX).unwrap();
    let (result, received) = sent(&mut outbound, &mut secrets, client, &content());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("has sealed as many records as is safe"), "{error}");
    assert!(received == content()[..48 * PLAIN_MAX], "{} bytes", received.len());
}

/// The kernel's records are not seen: never fewer are counted than it may have made.
#[test]
fn records_of_the_kernel_are_counted_generously() {
    let mut kernel = KernelOutbound::default();
    for bytes in [1, PLAIN_MAX as u64, 3 * PLAIN_MAX as u64 + 1, 1 << 20] {
        let before = kernel.records;
        kernel.count(bytes);
        assert!(kernel.records - before > bytes.div_ceil(PLAIN_MAX as u64), "{bytes}");
    }
}

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Bytes and ranges of a file, by turns, at any place, with any room: what a peer opens is
    /// what was to be sent.
    #[test]
    fn what_is_sealed_opens_to_the_same_bytes(
        tls13: bool,
        suite in prop::sample::select(&SUITES[..]),
        lens in prop::collection::vec(prop_oneof![1..70_000_usize, 260_000..400_000_usize], 1..6),
        file_first: bool,
        skip in 0..20_000_u64,
        room in 1..400_000_usize,
    ) {
        let file_bytes: Vec<u8> = (0..=255).flat_map(|byte| [byte; 1_700]).collect();
        let mut file = File::from(memfd_create("sealed", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(&file_bytes).unwrap();
        let source = SourceFile::on(Storage::Memory, file).unwrap();
        let memory: Vec<u8> = (0..=250).cycle().take(400_000).collect();
        let from = usize::try_from(skip).unwrap();
        let is_file = |index: usize| (index % 2 == 1) != file_first;
        let of = |(index, len): (usize, &usize)| match is_file(index) {
            false => PartRef::Bytes(&memory[..*len]),
            true => PartRef::File(source.range(skip, *len as u64).unwrap()),
        };
        let parts: Vec<PartRef<'_>> = lens.iter().enumerate().map(of).collect();
        let whole: Vec<u8> = lens.iter().enumerate().flat_map(|(index, len)| match is_file(index) {
            false => &memory[..*len],
            true => &file_bytes[from..from + len],
        }).copied().collect();
        let key = vec![8; suite.key_len()].into();
        let traffic = Traffic { tls13, suite, key, iv: [1; 12], sequence: 77 };
        let mut sealer = Sealer::new(&traffic).unwrap();
        let (mut sink, mut mapped, mut cost) = Default::default();
        let batch = Batch::seal(&mut sealer, &mut sink, &mut mapped, &parts, room, &mut cost);
        let mut batch = batch.unwrap();
        let (socket, peer) = sockets();
        let receiver = received_from(peer);
        batch.send(socket.as_fd(), false, &mut cost).unwrap();
        drop(socket);
        let opened = opened(&traffic, receiver.join().unwrap());
        prop_assert_eq!(opened.len(), batch.plain_bytes());
        prop_assert_eq!(opened.len(), whole.len().min(room).min(16 * PLAIN_MAX));
        prop_assert!(opened == whole[..opened.len()]);
    }
}

/// What comes from `peer` until it ends.
fn received_from(mut peer: TcpStream) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut bytes, mut piece) = (Vec::new(), [0; PLAIN_MAX]);
        while let read @ 1.. = peer.read(&mut piece).unwrap() {
            bytes.extend_from_slice(&piece[..read]);
        }
        bytes
    })
}

/// The plaintext of `sealed`, all of which opens.
fn opened(traffic: &Traffic, sealed: Vec<u8>) -> Vec<u8> {
    let mut inbound = Inbound::new(traffic, sealed).unwrap();
    let mut opened = Vec::new();
    while inbound.advance() == Event::Plaintext {
        opened.extend_from_slice(inbound.take(usize::MAX));
    }
    assert!(inbound.end().is_none());
    opened
}

/// Of a file that is cut while it is sent, what is left is sent, in records that open; then it is
/// said that it shrank. By whole pages, and within one.
#[test]
fn a_file_that_is_cut_while_it_is_sealed_has_shrunk() {
    for cut in [300_000, 400_001, 524_287] {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 600_000], 0).unwrap();
        let (source, handle) = (SourceFile::new(file.try_clone().unwrap()).unwrap(), file);
        let key = vec![8; Suite::Aes128Gcm.key_len()].into();
        let traffic =
            Traffic { tls13: true, suite: Suite::Aes128Gcm, key, iv: [1; 12], sequence: 0 };
        let mut outbound = Outbound::in_user_space(&traffic, u64::MAX).unwrap();
        let (_, mut secrets, _) = shaken(&version::TLS13);
        let (socket, peer) = sockets();
        let receiver = received_from(peer);
        let mut left = source.whole();
        let mut sink = Sink::default();
        let error = loop {
            let parts = [PartRef::File(left.clone())];
            let mut progress = Progress::default();
            let socket = socket.as_fd();
            match outbound.step(&mut secrets, &mut sink, socket, &parts, usize::MAX, &mut progress)
            {
                Ok(()) => left.advance(progress.bytes()),
                Err(error) => break error,
            }
            let by = progress.moved[0].way;
            let expected =
                if left.position() <= 262_144 { Route::MmapWrite } else { Route::ReadWrite };
            assert_eq!(by, Some(expected), "{}", left.position());
            handle.set_len(cut).unwrap();
        };
        assert!(
            matches!(error, SendError::FileShrank { expected: 600_000, found } if found == cut),
            "{error}"
        );
        drop(socket);
        let opened = opened(&traffic, receiver.join().unwrap());
        assert_eq!(opened, vec![7; usize::try_from(cut).unwrap()]);
    }
}
