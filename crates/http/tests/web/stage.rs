//! What every test here stands on: a directory of files, servers on loopback, a client that reads
//! one reply, and the outcomes that bodies reported.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use pagewire_engine::Outcome;
use pagewire_http::{ServeDir, Wires};
use tokio::net::{TcpListener, TcpStream};

/// For whatever a test waits for: far longer than it takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const LARGE: usize = 3_000_001;

/// Bytes of which no two runs of 251 are alike at another place of a page.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// A directory with a small file, a large one, an index and precompressed forms.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("small.txt", Vec::from("a small file")),
            ("large.bin", content(LARGE)),
            ("empty", Vec::new()),
            ("index.html", Vec::from("root index")),
            ("sub/index.html", Vec::from("sub index")),
            ("sub/page.html", Vec::from("page")),
            ("bare/file", Vec::from("no index here")),
            ("pre.txt", Vec::from("plain")),
            ("pre.txt.gz", Vec::from("as gzip")),
            ("pre.txt.br", Vec::from("as brotli")),
            ("pre.txt.zst", Vec::from("as zstd")),
            ("pre.txt.zz", Vec::from("as deflate")),
            ("alone.txt.gz", Vec::from("alone as gzip")),
        ] {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Self(tree)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub(crate) fn serve(&self) -> (ServeDir, Outcomes) {
        let (sender, outcomes) = mpsc::channel();
        let serve = ServeDir::new(self.path()).on_end(move |_, outcome| {
            drop(sender.send(outcome));
        });
        (serve, Outcomes(outcomes))
    }
}

/// What became of the bodies of a server, in the order in which they ended.
pub(crate) struct Outcomes(mpsc::Receiver<Outcome>);

impl Outcomes {
    pub(crate) async fn next(self) -> Outcome {
        let next = tokio::task::spawn_blocking(move || self.0.recv_timeout(DEADLINE));
        next.await.unwrap().expect("an outcome before the deadline")
    }
}

/// axum on wires.
pub(crate) async fn on_wires(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(Wires::new(listener), router).await });
    address
}

/// axum on its own listener, as anybody has it.
pub(crate) async fn on_tcp(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    address
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// What came of the body, and the error that ended it.
    pub(crate) body: Result<Bytes, hyper::Error>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn request(target: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
    let mut request = Request::get(target).header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Empty::new()).unwrap()
}

/// The head of the reply and its body, still to be read, over HTTP/1.1.
pub(crate) async fn ask(
    address: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

/// The whole reply, over HTTP/1.1.
pub(crate) async fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Reply {
    fetch(address, request(target, headers)).await
}

pub(crate) async fn fetch(address: SocketAddr, request: Request<Empty<Bytes>>) -> Reply {
    let fetched = tokio::time::timeout(DEADLINE, async {
        let (head, body) = ask(address, request).await.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes());
        Reply { status: head.status, headers: head.headers, body }
    });
    fetched.await.expect("a reply before the deadline")
}
