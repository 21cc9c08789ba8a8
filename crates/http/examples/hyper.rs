//! hyper without a framework: `cargo run --example hyper FILE`. The connection is a wire, and the
//! response is a file; hyper knows nothing of either.

use std::convert::Infallible;
use std::path::PathBuf;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pagewire_http::{FileBody, SendFile, wrap};
use tokio::net::TcpListener;

async fn answer(path: PathBuf, request: Request<Incoming>) -> Response<FileBody> {
    match SendFile::open(path).await {
        Ok(file) => file.for_request(request.method(), request.headers()).into_response(),
        Err(error) => {
            let mut response = Response::new(FileBody::from(format!("{error}\n")));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let path = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "Cargo.toml".into()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let path = path.clone();
        tokio::spawn(async move {
            let answer = |request| {
                let path = path.clone();
                async { Ok::<_, Infallible>(answer(path, request).await) }
            };
            let io = TokioIo::new(wrap(stream));
            let served = http1::Builder::new().serve_connection(io, service_fn(answer)).await;
            if let Err(error) = served {
                eprintln!("{peer}: {error}");
            }
        });
    }
}
