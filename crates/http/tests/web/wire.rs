//! axum on wires: bodies leave from the file, whatever of them is asked for.

use axum::Router;
use axum::routing::get as route;
use http::{HeaderMap, Method};
use pagewire_engine::Route;
use pagewire_http::{Peer, RequestError, SendFile, ServeFile, Wires};
use tokio::net::TcpListener;

use crate::stage::{LARGE, Tree, content, fetch, get, on_wires, request};

/// What is copied to find out that there is a wire.
const FRONT: u64 = 64 * 1024;

#[tokio::test]
async fn a_large_file_leaves_by_sendfile() {
    let tree = Tree::new();
    let (serve, outcomes) = tree.serve();
    let address = on_wires(Router::new().fallback_service(serve)).await;
    let reply = get(address, "/large.bin", &[]).await;
    assert!(reply.body.unwrap() == content(LARGE));
    let outcome = outcomes.next().await;
    assert!(outcome.on_wire && outcome.cut_short.is_none(), "{outcome:?}");
    let tally = outcome.report.tally;
    assert_eq!(tally.route(Route::Sendfile).bytes, LARGE as u64 - FRONT, "{tally:?}");
    assert_eq!(tally.total().user_copied_bytes, FRONT, "{tally:?}");
}

#[tokio::test]
async fn a_small_file_is_told_of_too() {
    let tree = Tree::new();
    let (serve, outcomes) = tree.serve();
    let address = on_wires(Router::new().fallback_service(serve)).await;
    assert_eq!(get(address, "/small.txt", &[]).await.body.unwrap(), "a small file");
    let outcome = outcomes.next().await;
    assert!(outcome.on_wire && outcome.cut_short.is_none(), "{outcome:?}");
    assert_eq!(outcome.report.tally.route(Route::ReadWrite).bytes, 12);
}

#[tokio::test]
async fn a_range_leaves_by_sendfile() {
    let tree = Tree::new();
    let (serve, outcomes) = tree.serve();
    let address = on_wires(Router::new().fallback_service(serve)).await;
    let reply = get(address, "/large.bin", &[("range", "bytes=1000-2000999")]).await;
    assert_eq!(reply.status, 206);
    assert_eq!(reply.header("content-range"), "bytes 1000-2000999/3000001");
    assert!(reply.body.unwrap() == content(LARGE)[1000..2_001_000]);
    let tally = outcomes.next().await.report.tally;
    assert_eq!(tally.route(Route::Sendfile).bytes, 2_000_000 - FRONT, "{tally:?}");
}

#[tokio::test]
async fn several_ranges_are_parts_of_one_body() {
    let tree = Tree::new();
    let (serve, outcomes) = tree.serve();
    let address = on_wires(Router::new().fallback_service(serve)).await;
    let range = "bytes=0-9,100000-299999,-5,9999999-";
    let reply = get(address, "/large.bin", &[("range", range)]).await;
    assert_eq!(reply.status, 206);
    let boundary = reply.header("content-type").strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.unwrap().to_owned();
    let mut expected = Vec::new();
    for (index, (first, last)) in
        [(0, 9), (100_000, 299_999), (LARGE - 5, LARGE - 1)].iter().enumerate()
    {
        let line_end = if index > 0 { "\r\n" } else { "" };
        let head = format!(
            "{line_end}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {first}-{last}/{LARGE}\r\n\r\n"
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&content(LARGE)[*first..=*last]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(reply.body.unwrap() == expected);
    let outcome = outcomes.next().await;
    assert!(outcome.on_wire && outcome.cut_short.is_none(), "{outcome:?}");
    assert!(outcome.report.tally.route(Route::Sendfile).bytes > 0, "{outcome:?}");
}

#[tokio::test]
async fn a_handler_answers_with_a_file() {
    async fn download(
        path: axum::extract::Path<String>,
        method: Method,
        headers: HeaderMap,
    ) -> Result<SendFile, RequestError> {
        Ok(SendFile::open(path.0).await?.for_request(&method, &headers))
    }
    let tree = Tree::new();
    let address = on_wires(Router::new().route("/{*path}", route(download))).await;
    let file = format!("/{}", tree.path().join("small.txt").display());
    let whole = get(address, &file, &[]).await;
    assert_eq!(whole.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let etag = whole.header("etag").to_owned();
    assert_eq!(whole.body.unwrap(), "a small file");
    let part = get(address, &file, &[("range", "bytes=2-6"), ("if-range", &etag)]).await;
    assert_eq!((part.status.as_u16(), part.body.unwrap()), (206, "small".into()));
    let unchanged = get(address, &file, &[("if-none-match", &etag)]).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.unwrap()), (304, "".into()));
    let other = get(address, &file, &[("if-match", "\"other\"")]).await;
    assert_eq!(other.status, 412);
    let past = get(address, &file, &[("range", "bytes=12-")]).await;
    assert_eq!((past.status.as_u16(), past.header("content-range")), (416, "bytes */12"));
    let mut head = request(&file, &[("range", "bytes=0-0")]);
    *head.method_mut() = Method::HEAD;
    let head = fetch(address, head).await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "12"));
    assert_eq!(get(address, "/no/such/file", &[]).await.status, 404);
}

#[tokio::test]
async fn a_peer_that_goes_is_told_of() {
    let tree = Tree::new();
    let path = tree.path().join("huge");
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let (serve, outcomes) = tree.serve();
    let address = on_wires(Router::new().fallback_service(serve)).await;
    drop(crate::stage::ask(address, request("/huge", &[])).await);
    let outcome = outcomes.next().await;
    assert!(outcome.on_wire && outcome.cut_short.is_some(), "{outcome:?}");
    assert!(outcome.report.tally.total().bytes < 1 << 30, "{outcome:?}");
}

#[tokio::test]
async fn handlers_see_who_asks() {
    let router = Router::new().route(
        "/",
        route(|peer: axum::extract::ConnectInfo<Peer>| async move { peer.0.0.ip().to_string() }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async { axum::serve(Wires::new(listener), service).await });
    assert_eq!(get(address, "/", &[]).await.body.unwrap(), "127.0.0.1");
}

#[tokio::test]
async fn one_file_is_served_at_every_target() {
    let tree = Tree::new();
    let serve = ServeFile::new(tree.path().join("pre.txt")).precompressed_gzip();
    let address = on_wires(Router::new().fallback_service(serve)).await;
    assert_eq!(get(address, "/any/thing", &[]).await.body.unwrap(), "plain");
    let gzip = get(address, "/", &[("accept-encoding", "gzip")]).await;
    assert_eq!(gzip.header("content-encoding"), "gzip");
    assert_eq!(gzip.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(gzip.header("vary"), "accept-encoding");
    assert_eq!(gzip.body.unwrap(), "as gzip");
}
