//! Serves files over HTTP through hyper, by the routes of pagewire-engine.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]
