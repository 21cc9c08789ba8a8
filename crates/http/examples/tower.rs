//! A stack of tower layers over a directory: `cargo run --example tower DIR`. Texts are
//! compressed for clients that accept it, and then are read into memory; what is compressed
//! already passes the layers untouched, and leaves by sendfile.

use axum::serve;
use http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use pagewire_http::{ServeDir, Wires};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    let files = ServeDir::new(directory).on_end(|uri, outcome| {
        let copied = outcome.report.tally.total().user_copied_bytes;
        println!("{uri}: on a wire: {}, {copied} of {} bytes copied", outcome.on_wire, outcome.due);
    });
    let nosniff = HeaderValue::from_static("nosniff");
    let layers = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, nosniff))
        .layer(CompressionLayer::new());
    let router = axum::Router::new().fallback_service(files).layer(layers);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    serve(Wires::new(listener), router).await
}
