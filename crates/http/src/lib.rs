//! Serves files over HTTP through hyper, by the routes of pagewire-engine: their bytes go from the
//! page cache to the socket without a copy in this process.
//!
//! # Quick start
//!
//! An axum program switches over by its listener, and by where its files come from:
//!
//! ```no_run
//! # #[cfg(feature = "axum")]
//! # mod program {
//! use axum::http::{HeaderMap, Method};
//! use axum::{Router, routing::get};
//! use pagewire_http::{RequestError, SendFile, ServeDir, Wires};
//!
//! async fn download(method: Method, headers: HeaderMap) -> Result<SendFile, RequestError> {
//!     Ok(SendFile::open("x.bin").await?.for_request(&method, &headers))
//! }
//!
//! pub async fn serve() -> std::io::Result<()> {
//!     let router = Router::new()
//!         .route("/download", get(download))
//!         .fallback_service(ServeDir::new("assets"));
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//!     axum::serve(Wires::new(listener), router).await
//! }
//! # }
//! ```
//!
//! Programs on hyper [`wrap`] the streams that they accept; the crate's `examples/` have one.
//!
//! # Under other stacks
//!
//! The answers are the same on every connection. Where a response does not end in a
//! [`Wire`](pagewire_engine::Wire), be it for another listener, TLS in this process, HTTP/2 or a
//! layer that compresses, its file is read in chunks of 64 KiB: hot ones at once, others on a
//! thread that may wait for the disk. Each body finds out by itself, and reports it
//! ([`SendFile::on_end`], [`ServeDir::on_end`]). `docs/layers.md` in the repository has the table.
//!
//! # What a changing file does
//!
//! A file that is replaced by another is sent as it was. One that is cut shorter while it is sent
//! ends the response with an error and the connection with it; no code of this crate reads mapped
//! memory, so there is no SIGBUS. A layer that reads the frames which it passes on untouched does
//! read mapped memory: see [`FileRange::mapped_bytes`](pagewire_engine::FileRange::mapped_bytes).
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod archive;
mod auth;
#[cfg(feature = "axum")]
mod axum;
mod body;
mod conditional;
mod connection;
mod cors;
mod devices;
mod digest;
mod encoding;
mod error;
mod fallback;
mod fast_lane;
mod files;
mod framed;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod http2;
mod limits;
mod listen;
mod listing;
mod monitor;
mod offer;
mod partial;
mod range;
mod redirect;
mod refusals;
mod reload;
mod resolve;
mod respond;
mod rules;
mod send_file;
mod serve;
mod serve_body;
mod serve_dir;
mod serve_file;
mod service;
mod site;
mod sites;
mod slots;
pub mod tls;
mod transfers;
mod unix_socket;
mod wires;

#[cfg(feature = "axum")]
pub use crate::axum::Peer;
pub use auth::Passwords;
pub use body::FileBody;
pub use cors::{CorsOrigin, OriginError};
pub use error::{PasswordFileError, PasswordLineError, PlaceError, RequestError, StartError};
pub use limits::{Limits, raise_descriptor_limit};
pub use listen::{Listen, ListenAddress, ListenAddressError, PeerAddress, Security};
pub use monitor::Monitor;
pub use refusals::{Refusal, Refused};
pub use reload::{Relistened, Reloader};
pub use rules::{CacheRule, HeaderRule, RuleError};
pub use send_file::SendFile;
pub use serve::{Agent, Config, Exchange, Observer, Server, SiteConfig, Totals};
pub use serve_body::ServeBody;
pub use serve_dir::{NoFallback, ServeDir};
pub use serve_file::ServeFile;
pub use sites::{HostPattern, Mount, PathPrefix, check_sites};
pub use transfers::Transfer;
pub use unix_socket::{SocketName, listen_at};
pub use wires::{Wires, wrap};
