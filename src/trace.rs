//! What the program says of its own doings, for who looks for a fault: `--trace`. Off, it costs a
//! look at a static.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// A filter such as `pagewire_http=debug`, if it is one.
pub(crate) fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; give debug, or TARGET=LEVEL,...")),
    }
}

/// Writes to standard error what `filter` lets through.
pub(crate) fn start(filter: &str) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot trace: {error}"))
}
