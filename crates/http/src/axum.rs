//! What axum needs to take this crate's types for its own. Only the feature `axum` builds it.

use std::io;
use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::response::IntoResponse;
use axum::serve::{IncomingStream, Listener};
use pagewire_engine::Wire;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, unix};

use crate::error::RequestError;
use crate::respond::refusal;
use crate::send_file::SendFile;
use crate::wires::Wires;

impl IntoResponse for SendFile {
    fn into_response(self) -> axum::response::Response {
        self.into_response().map(axum::body::Body::new)
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> axum::response::Response {
        refusal(&self).map(axum::body::Body::new)
    }
}

impl Listener for Wires<TcpListener> {
    type Io = Wire<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.accept().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener().local_addr()
    }
}

impl Listener for Wires<UnixListener> {
    type Io = Wire<UnixStream>;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.accept().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener().local_addr()
    }
}

/// Who asks, for `Router::into_make_service_with_connect_info::<Peer>()`: axum's own
/// implementation for `SocketAddr` knows axum's listeners only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, Wires<TcpListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Wires<TcpListener>>) -> Self {
        Self(*stream.remote_addr())
    }
}
