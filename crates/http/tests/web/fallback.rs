//! Connections that are no wires: the bytes are right, they are read in bounded chunks, and the
//! report says so.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::{Command, Stdio};

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pagewire_engine::Route;
use tokio::net::TcpStream;

use crate::stage::{LARGE, Tree, ask, content, get, on_tcp, on_wires, request};

#[tokio::test]
async fn another_listener_gets_copies() {
    let tree = Tree::new();
    let (serve, outcomes) = tree.serve();
    let address = on_tcp(Router::new().fallback_service(serve)).await;
    assert!(get(address, "/large.bin", &[]).await.body.unwrap() == content(LARGE));
    let outcome = outcomes.next().await;
    assert!(!outcome.on_wire && outcome.cut_short.is_none(), "{outcome:?}");
    let copied = outcome.report.tally.route(Route::ReadWrite);
    assert_eq!((copied.bytes, copied.user_copied_bytes), (LARGE as u64, LARGE as u64));
}

#[tokio::test]
async fn http2_gets_copies_even_on_a_wire() {
    let tree = Tree::new();
    let (serve, outcomes) = tree.serve();
    let address = on_wires(Router::new().fallback_service(serve)).await;
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let executor = TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(executor, io).await.unwrap();
    tokio::spawn(connection);
    let target = format!("http://{address}/large.bin");
    let response = sender.send_request(request(&target, &[])).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert!(response.into_body().collect().await.unwrap().to_bytes() == content(LARGE));
    let outcome = outcomes.next().await;
    assert!(!outcome.on_wire && outcome.cut_short.is_none(), "{outcome:?}");
    assert_eq!(outcome.report.tally.total().user_copied_bytes, LARGE as u64);
}

/// A file that is cut while it is read: user space must not meet the hole, which would be SIGBUS.
async fn cut_while_read(version: &str) {
    let tree = Tree::new();
    let path = tree.path().join("huge");
    let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
    file.set_len(1 << 30).unwrap();
    let (serve, outcomes) = tree.serve();
    let address = on_tcp(Router::new().fallback_service(serve)).await;
    let curl = Command::new("curl")
        .args(["-sS", version, &format!("http://{address}/huge")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut curl) = curl else {
        return eprintln!("skipped: curl is missing");
    };
    let mut front = [0; 1000];
    let mut output = curl.stdout.take().unwrap();
    let rest = tokio::task::spawn_blocking(move || {
        output.read_exact(&mut front).unwrap();
        file.set_len(1 << 20).unwrap();
        let mut rest = std::io::sink();
        #[expect(clippy::disallowed_methods, reason = "what is left, into nothing")]
        let rest = std::io::copy(&mut output, &mut rest).unwrap();
        (rest + 1000, curl.wait_with_output().unwrap())
    });
    let (received, ended) = rest.await.unwrap();
    assert!(received < 1 << 30);
    assert!(!ended.status.success(), "curl must see that it is not whole");
    let outcome = outcomes.next().await;
    let why = outcome.cut_short.unwrap();
    assert!(why.contains("the file shrank") && why.contains("1048576"), "{why}");
}

#[tokio::test]
async fn a_file_that_shrinks_is_a_clean_error() {
    cut_while_read("--http1.1").await;
}

#[tokio::test]
async fn a_file_that_shrinks_is_a_clean_error_over_http2() {
    cut_while_read("--http2-prior-knowledge").await;
}

#[tokio::test]
async fn a_file_that_shrinks_before_its_end_on_a_wire() {
    let tree = Tree::new();
    let path = tree.path().join("huge");
    let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
    file.set_len(1 << 30).unwrap();
    let (serve, outcomes) = tree.serve();
    let address = on_wires(Router::new().fallback_service(serve)).await;
    let response = ask(address, request("/huge", &[])).await;
    file.set_len(1 << 20).unwrap();
    assert!(response.into_body().collect().await.is_err());
    let outcome = outcomes.next().await;
    assert!(outcome.cut_short.unwrap().contains("the file shrank"));
}
