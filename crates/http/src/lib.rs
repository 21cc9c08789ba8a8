//! Serves files over HTTP through hyper, by the routes of pagewire-engine.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod body;
mod conditional;
mod error;
mod files;
mod partial;
mod range;
mod resolve;
mod respond;
mod serve;
mod service;

pub use body::FileBody;
pub use error::{RequestError, StartError};
pub use serve::{Config, Exchange, Observer, Server, Totals};
