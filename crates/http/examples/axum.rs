//! An axum program that serves a directory and one handler's file: `cargo run --example axum DIR`.
//! What makes it send by sendfile is `Wires::new`, and the types of this crate.

use std::path::PathBuf;

use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::routing::get;
use axum::{Router, serve};
use pagewire_http::{RequestError, SendFile, ServeDir, Wires};
use tokio::net::TcpListener;

async fn download(
    State(directory): State<PathBuf>,
    method: Method,
    headers: HeaderMap,
) -> Result<SendFile, RequestError> {
    let file = SendFile::open(directory.join("x.bin")).await?;
    let report = |outcome: pagewire_engine::Outcome| {
        println!("download: {} bytes due, on a wire: {}", outcome.due, outcome.on_wire);
    };
    Ok(file.for_request(&method, &headers).on_end(report))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    let router = Router::new()
        .route("/download", get(download))
        .nest_service("/files", ServeDir::new(&directory).redirect_path_prefix("/files"))
        .with_state(directory);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    serve(Wires::new(listener), router).await
}
