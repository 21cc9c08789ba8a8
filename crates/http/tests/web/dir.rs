//! `ServeDir` beside tower-http's: the same requests to both, and where the answers differ on
//! purpose. docs/layers.md has the same table in words.

use std::fmt::Write;
use std::os::unix::fs::symlink;

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use pagewire_http::{ServeDir, ServeFile};
use tower::ServiceExt;
use tower_http::services as theirs;

use crate::stage::Tree;

/// The answer, as far as clients rely on it.
async fn answer<S, B>(service: S, request: Request<Body>) -> String
where
    S: tower::Service<Request<Body>, Response = Response<B>, Error = std::convert::Infallible>,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let response = service.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let mut answer = head.status.as_str().to_owned();
    for name in ["content-encoding", "content-range", "location", "vary", "allow"] {
        if let Some(value) = head.headers.get(name) {
            let value = value.to_str().unwrap().replace(", ", ",");
            write!(answer, " {name}={value}").unwrap();
        }
    }
    for name in ["accept-ranges", "etag", "last-modified"] {
        if head.headers.contains_key(name) && head.status.is_success() {
            write!(answer, " {name}").unwrap();
        }
    }
    if head.status.is_success() || head.status == StatusCode::NOT_MODIFIED {
        let content_type = head.headers.get("content-type").map(|value| value.to_str().unwrap());
        let content_type = content_type.unwrap_or("").trim_end_matches("; charset=utf-8");
        write!(answer, " {content_type}").unwrap();
        if let Some(len) = head.headers.get("content-length") {
            write!(answer, " {}", len.to_str().unwrap()).unwrap();
        }
        let body = body.collect().await.unwrap().to_bytes();
        write!(answer, " {}", String::from_utf8_lossy(&body)).unwrap();
    }
    answer
}

fn request(case: &str) -> Request<Body> {
    let mut words = case.split(" | ");
    let (method, target) = words.next().unwrap().split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for header in words {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(Body::empty()).unwrap()
}

/// Sends `case`, a method, a target and headers, to both.
macro_rules! alike {
    ($ours:expr, $theirs:expr, $($case:expr),+ $(,)?) => {
        $(
            let ours = answer($ours.clone(), request($case)).await;
            let theirs = answer($theirs.clone(), request($case)).await;
            assert_eq!(ours, theirs, "{}", $case);
        )+
    };
}

macro_rules! differs {
    ($ours:expr, $theirs:expr, $($case:expr => $our:expr, $their:expr);+ $(;)?) => {
        $(
            let ours = answer($ours.clone(), request($case)).await;
            let theirs = answer($theirs.clone(), request($case)).await;
            assert!(ours.starts_with($our), "{}: {ours}", $case);
            assert!(theirs.starts_with($their), "{}: {theirs}", $case);
        )+
    };
}

#[tokio::test]
async fn what_users_of_tower_http_rely_on() {
    let tree = Tree::new();
    let (ours, theirs) = (ServeDir::new(tree.path()), theirs::ServeDir::new(tree.path()));
    alike!(
        ours,
        theirs,
        "GET /small.txt",
        "HEAD /small.txt",
        "GET /sub/page.html?query",
        "GET /sub/page%2Ehtml",
        "GET /empty",
        "GET /",
        "GET /sub/",
        "GET /sub",
        "GET /sub?a=b",
        "GET /bare/",
        "GET /none",
        "GET /small.txt/",
        "GET /small.txt/x",
        "GET /../small.txt",
        "GET /%2e%2e/small.txt",
        "GET /small.txt%00",
        "GET /small.txt | range: bytes=2-6",
        "GET /small.txt | range: bytes=2-",
        "GET /small.txt | range: bytes=-4",
        "GET /small.txt | range: bytes=0-99",
        "GET /small.txt | range: bytes=12-",
        "GET /small.txt | range: bytes=x",
        "GET /small.txt | range: bytes=5-2",
        "GET /small.txt | if-none-match: *",
        "GET /small.txt | if-none-match: \"x\"",
        "GET /small.txt | if-match: *",
        "GET /small.txt | if-match: \"x\"",
        "GET /small.txt | if-modified-since: Fri, 31 Dec 9999 23:59:59 GMT",
        "GET /small.txt | if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT",
        "GET /small.txt | if-unmodified-since: Fri, 31 Dec 9999 23:59:59 GMT",
        "GET /small.txt | if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT",
        "GET /pre.txt | accept-encoding: gzip",
    );
}

#[tokio::test]
async fn options_mean_the_same() {
    let tree = Tree::new();
    let path = tree.path();
    alike!(
        ServeDir::new(&path).append_index_html_on_directories(false),
        theirs::ServeDir::new(&path).append_index_html_on_directories(false),
        "GET /",
        "GET /sub",
        "GET /sub/",
        "GET /sub/index.html",
    );
    alike!(
        ServeDir::new(&path).redirect_to_trailing_slash(false),
        theirs::ServeDir::new(&path).redirect_to_trailing_slash(false),
        "GET /sub",
        "GET /bare",
    );
    alike!(
        ServeDir::new(&path).redirect_path_prefix("/static"),
        theirs::ServeDir::new(&path).redirect_path_prefix("/static"),
        "GET /sub?q",
    );
    alike!(
        ServeDir::new(&path).html_as_default_extension(true),
        theirs::ServeDir::new(&path).html_as_default_extension(true),
        "GET /sub/page",
        "GET /sub/none",
        "GET /small.txt",
        "GET /empty",
    );
    alike!(
        ServeDir::new(&path).ignore_multi_range_requests(true),
        theirs::ServeDir::new(&path).ignore_multi_range_requests(true),
        "GET /small.txt | range: bytes=0-0,2-2",
        "GET /small.txt | range: bytes=0-0",
    );
}

#[tokio::test]
async fn precompressed_files() {
    let tree = Tree::new();
    let path = tree.path();
    let ours = ServeDir::new(&path).precompressed_gzip().precompressed_br();
    let theirs = theirs::ServeDir::new(&path).precompressed_gzip().precompressed_br();
    alike!(
        ours,
        theirs,
        "GET /pre.txt",
        "GET /pre.txt | accept-encoding: gzip",
        "HEAD /pre.txt | accept-encoding: gzip",
        "GET /pre.txt | accept-encoding: gzip, br",
        "GET /pre.txt | accept-encoding: gzip, br;q=0.5",
        "GET /pre.txt | accept-encoding: gzip;q=0",
        "GET /pre.txt | accept-encoding: zstd",
        "GET /pre.txt | accept-encoding: gzip | range: bytes=3-",
        "GET /alone.txt | accept-encoding: gzip",
        "GET /alone.txt",
        "GET /small.txt | accept-encoding: gzip, br",
        "GET /sub/ | accept-encoding: gzip, br",
    );
    let ours = ServeDir::new(&path).precompressed_zstd().precompressed_deflate();
    let theirs = theirs::ServeDir::new(&path).precompressed_zstd().precompressed_deflate();
    alike!(
        ours,
        theirs,
        "GET /pre.txt | accept-encoding: deflate",
        "GET /pre.txt | accept-encoding: deflate, zstd, gzip",
    );
    let (ours, theirs) = (path.join("pre.txt"), path.join("pre.txt"));
    alike!(
        ServeFile::new(&ours).precompressed_br(),
        theirs::ServeFile::new(&theirs).precompressed_br(),
        "GET /any | accept-encoding: br",
        "HEAD / | accept-encoding: gzip",
        "GET / | range: bytes=1-2",
    );
}

#[tokio::test]
async fn fallbacks_and_other_methods() {
    let tree = Tree::new();
    let path = tree.path();
    let page = path.join("sub/page.html");
    alike!(
        ServeDir::new(&path).fallback(ServeFile::new(&page)),
        theirs::ServeDir::new(&path).fallback(theirs::ServeFile::new(&page)),
        "GET /none",
        "GET /bare/",
        "GET /../x",
        "GET /small.txt/",
        "POST /small.txt",
    );
    alike!(
        ServeDir::new(&path).not_found_service(ServeFile::new(&page)),
        theirs::ServeDir::new(&path).not_found_service(theirs::ServeFile::new(&page)),
        "GET /none",
        "GET /small.txt",
    );
    let echo = tower::service_fn(|request: Request<Body>| async move {
        Ok(Response::new(Body::from(format!("{} {}", request.method(), request.uri()))))
    });
    alike!(
        ServeDir::new(&path).fallback(echo).call_fallback_on_method_not_allowed(true),
        theirs::ServeDir::new(&path).fallback(echo).call_fallback_on_method_not_allowed(true),
        "POST /small.txt",
        "DELETE /none?q",
        "GET /none",
    );
    let (ours, theirs) = (ServeDir::new(&path), theirs::ServeDir::new(&path));
    alike!(ours, theirs, "POST /small.txt", "OPTIONS /none");
}

#[tokio::test]
async fn what_differs_on_purpose() {
    let tree = Tree::new();
    let path = tree.path();
    symlink("/etc/hostname", path.join("out")).unwrap();
    let (ours, theirs) = (ServeDir::new(&path), theirs::ServeDir::new(&path));
    differs!(ours, theirs,
        // A symbolic link out of the directory is not followed.
        "GET /out" => "404", "200";
        // Several ranges are answered.
        "GET /small.txt | range: bytes=0-0,2-2" => "206 accept-ranges", "416";
        // If-Range is obeyed.
        "GET /small.txt | range: bytes=0-0 | if-range: \"x\"" => "200", "206";
        // Units that are not known are ignored, as RFC 9110 has it.
        "GET /small.txt | range: lines=0-0" => "200", "416";
        // Range means nothing for HEAD, as RFC 9110 has it.
        "HEAD /small.txt | range: bytes=0-0" => "200", "206";
        // Nothing of an empty file can be asked for.
        "GET /empty | range: bytes=0-" => "416", "206";
        // A redirect never leaves the host.
        "GET //sub" => "307 location=/sub/", "307 location=//sub/";
    );
    let mut request = request("GET /small.txt");
    *request.method_mut() = Method::HEAD;
    assert!(answer(ours, request).await.ends_with("text/plain 12 "));
}

/// A release that is switched by a symbolic link is seen.
#[tokio::test]
async fn the_directory_itself_may_be_a_link() {
    let tree = Tree::new();
    let link = tree.path().join("current");
    symlink(tree.path().join("sub"), &link).unwrap();
    let ours = ServeDir::new(&link);
    let page = answer(ours.clone(), request("GET /page.html")).await;
    assert!(page.ends_with("page"), "{page}");
    assert!(answer(ServeDir::new("no/such/directory"), request("GET /")).await.starts_with("404"));
}
