//! The public face of pagewire-http on real servers and real connections: axum, hyper and tower
//! stacks, with and without a wire below them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends by a panic")]

mod clients;
mod dir;
mod examples;
mod fallback;
mod layers;
mod stage;
mod wire;
