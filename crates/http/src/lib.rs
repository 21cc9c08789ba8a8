//! Serves files over HTTP through hyper, by the routes of pagewire-engine.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod body;
mod error;
mod files;
mod limits;
mod resolve;
mod respond;
mod serve;
mod service;

pub use error::{RequestError, StartError};
pub use limits::raise_descriptor_limit;
pub use serve::{Config, Exchange, Observer, Server, Totals};
