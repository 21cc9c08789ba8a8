//! Serves files over HTTP through hyper, by the routes of pagewire-engine.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "axum")]
mod axum;
mod body;
mod conditional;
mod encoding;
mod error;
mod files;
mod offer;
mod partial;
mod range;
mod resolve;
mod respond;
mod send_file;
mod serve;
mod serve_body;
mod serve_dir;
mod serve_file;
mod service;
mod site;
mod wires;

#[cfg(feature = "axum")]
pub use crate::axum::Peer;
pub use body::FileBody;
pub use error::{RequestError, StartError};
pub use send_file::SendFile;
pub use serve::{Config, Exchange, Observer, Server, Totals};
pub use serve_body::ServeBody;
pub use serve_dir::{NoFallback, ServeDir};
pub use serve_file::ServeFile;
pub use wires::{Wires, wrap};
