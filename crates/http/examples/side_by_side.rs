//! The server of the measurements in bench/runs: one axum program with tower-http's `ServeDir` or
//! this crate's, and the ways in which HTTP/2 could carry a file. On one thread, as one core is
//! measured: `side_by_side WAY PORT DIR`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::serve::ListenerExt;
use axum::{Router, serve};
use http::Response;
use http_body_util::Full;
use pagewire_engine::{Route, RouteChoice, SourceFile, pacing};
use pagewire_http::{ServeDir, Wires};
use tokio::net::TcpListener;

/// Mapped bytes whatever the connection is, which only a measurement may do: HTTP/2 reads the
/// first 256 bytes of each frame of them.
fn mapped(directory: PathBuf) -> Router {
    let answer = move |uri: http::Uri| {
        let path = directory.join(uri.path().trim_start_matches('/'));
        async move {
            let file = std::fs::File::open(path).and_then(SourceFile::new);
            let bytes = file.and_then(|file| file.whole().mapped_bytes());
            Response::new(Body::new(Full::new(bytes.unwrap_or_default())))
        }
    };
    Router::new().fallback(answer)
}

fn theirs(directory: &Path) -> Router {
    Router::new().fallback_service(tower_http::services::ServeDir::new(directory))
}

fn ours(directory: &Path) -> Router {
    Router::new().fallback_service(ServeDir::new(directory))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().ok_or(std::io::ErrorKind::InvalidInput);
    let (way, port, directory) = (argument()?, argument()?, PathBuf::from(argument()?));
    let port = port.parse().map_err(std::io::Error::other)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    match way.as_str() {
        // As everybody has it, before anything is switched over.
        "tower-http-as-it-is" => serve(listener, theirs(&directory)).await,
        // With what else `Wires` sets, so that the difference is the way of the bytes alone.
        "tower-http" => {
            pacing::spare_loopback(&listener, Ipv4Addr::LOCALHOST.into())?;
            let listener = listener.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    eprintln!("TCP_NODELAY: {error}");
                }
            });
            serve(listener, theirs(&directory)).await
        }
        "pagewire" => serve(Wires::new(listener), ours(&directory)).await,
        "pagewire-without-wires" => {
            pacing::spare_loopback(&listener, Ipv4Addr::LOCALHOST.into())?;
            serve(listener, ours(&directory)).await
        }
        "mapped-sendfile" => {
            // Every frame, however small, goes by sendfile.
            let wires = Wires::new(listener).with_routes(RouteChoice::Only(Route::Sendfile));
            serve(wires, mapped(directory)).await
        }
        "mapped-write" => {
            let wires = Wires::new(listener).with_routes(RouteChoice::Only(Route::MmapWrite));
            serve(wires, mapped(directory)).await
        }
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}
