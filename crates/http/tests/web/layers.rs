//! Through tower's layers: the bytes are right, nothing panics, and the report tells which layers
//! pass bytes on untouched.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use pagewire_engine::Outcome;
use pagewire_http::ServeDir;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::{ResponseBodyTimeoutLayer, TimeoutLayer};
use tower_http::trace::TraceLayer;

use crate::stage::{LARGE, Reply, Tree, content, get, on_wires};

/// The reply for the large file through what `around` puts around the service, and its outcome.
async fn through(around: impl FnOnce(ServeDir) -> Router) -> (Reply, Outcome) {
    let tree = Tree::new();
    let (serve, outcomes) = tree.serve();
    let address = on_wires(around(serve)).await;
    let reply = get(address, "/large.bin", &[("accept-encoding", "gzip")]).await;
    (reply, outcomes.next().await)
}

#[track_caller]
fn check(reply: Reply, outcome: &Outcome, on_wire: bool) {
    assert_eq!(reply.status, 200);
    assert!(reply.body.unwrap() == content(LARGE));
    assert!(outcome.cut_short.is_none(), "{outcome:?}");
    assert_eq!(outcome.on_wire, on_wire, "{outcome:?}");
    let copied = outcome.report.tally.total().user_copied_bytes;
    assert_eq!(copied < LARGE as u64, on_wire, "{outcome:?}");
}

#[tokio::test]
async fn layers_that_pass_bytes_on() {
    let (reply, outcome) = through(|serve| {
        let value = HeaderValue::from_static("nosniff");
        let layers = ServiceBuilder::new()
            .layer(TraceLayer::new_for_http())
            .layer(ResponseBodyTimeoutLayer::new(Duration::from_secs(60)))
            .layer(TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                Duration::from_secs(60),
            ))
            .layer(SetResponseHeaderLayer::overriding(http::header::X_CONTENT_TYPE_OPTIONS, value));
        Router::new().fallback_service(serve).layer(layers)
    })
    .await;
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    check(reply, &outcome, true);
}

#[tokio::test]
async fn bodies_in_boxes_and_limits() {
    type Boxed = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
    let (reply, outcome) = through(|serve| {
        let limited = ServiceExt::<Request<Body>>::map_response(serve, |response: Response<_>| {
            response.map(|body| -> Boxed { Limited::new(body, LARGE).boxed_unsync() })
        });
        Router::new().fallback_service(limited)
    })
    .await;
    check(reply, &outcome, true);
}

#[tokio::test]
async fn a_limit_that_is_too_low_ends_the_body() {
    let (reply, outcome) = through(|serve| {
        let limited =
            ServiceExt::<Request<Body>>::map_response(serve, |mut response: Response<_>| {
                // Else hyper finds that the two lengths contradict each other, and panics.
                response.headers_mut().remove(http::header::CONTENT_LENGTH);
                response.map(|body| Body::new(Limited::new(body, LARGE / 2)))
            });
        Router::new().fallback_service(limited)
    })
    .await;
    assert!(reply.body.is_err());
    assert!(outcome.cut_short.is_some(), "{outcome:?}");
}

#[tokio::test]
async fn a_compressing_layer_reads_chunks() {
    let (reply, outcome) = through(|serve| {
        let text = SetResponseHeaderLayer::overriding(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain"),
        );
        Router::new().fallback_service(serve).layer(text).layer(CompressionLayer::new())
    })
    .await;
    assert_eq!(reply.header("content-encoding"), "gzip");
    assert!(!outcome.on_wire && outcome.cut_short.is_none(), "{outcome:?}");
    assert_eq!(outcome.report.tally.total().user_copied_bytes, LARGE as u64);
    assert!(gunzipped(reply.body.unwrap()) == content(LARGE));
}

#[tokio::test]
async fn a_compressing_layer_leaves_others_alone() {
    let compression = CompressionLayer::new().gzip(true);
    let plain = |_: StatusCode, _: http::Version, _: &http::HeaderMap, _: &http::Extensions| false;
    let (reply, outcome) = through(|serve| {
        Router::new().fallback_service(serve).layer(compression.compress_when(plain))
    })
    .await;
    check(reply, &outcome, true);
}

#[tokio::test]
async fn a_layer_that_collects_reads_chunks() {
    let (reply, outcome) = through(|serve| {
        let collected =
            ServiceExt::<Request<Body>>::then(serve, async |response: Result<Response<_>, _>| {
                let (head, body) = response?.into_parts();
                let body = BodyExt::collect(body).await.map(|body| body.to_bytes()).unwrap();
                Ok(Response::from_parts(head, Body::from(body)))
            });
        Router::new().fallback_service(collected)
    })
    .await;
    assert!(reply.body.unwrap() == content(LARGE));
    assert!(!outcome.on_wire && outcome.cut_short.is_none(), "{outcome:?}");
}

/// By the program: a second opinion that no crate of ours had a part in.
fn gunzipped(bytes: Bytes) -> Vec<u8> {
    let mut gunzip = Command::new("gzip")
        .args(["-dc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = gunzip.stdin.take().unwrap();
    let writer = std::thread::spawn(move || io::Write::write_all(&mut input, &bytes).unwrap());
    let mut plain = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "the size is this test's own choice")]
    gunzip.stdout.take().unwrap().read_to_end(&mut plain).unwrap();
    writer.join().unwrap();
    assert!(gunzip.wait().unwrap().success());
    plain
}
