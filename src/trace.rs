//! What the program says of its own doings, for who looks for a fault: `--verbose`, or the
//! variable PAGEWIRE_LOG with a filter of tracing-subscriber. Off, it costs a look at a static.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// A filter such as `pagewire_http=debug`.
pub(crate) const VARIABLE: &str = "PAGEWIRE_LOG";

/// Writes to standard error what PAGEWIRE_LOG lets through, or what so many `-v` do.
pub(crate) fn start(verbose: u8) -> anyhow::Result<()> {
    let by_flag = match verbose {
        0 => "warn",
        1 => "info,pagewire=debug,pagewire_http=debug,pagewire_engine=debug",
        _ => "trace",
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(filter) if verbose == 0 => EnvFilter::try_new(&filter)
            .map_err(|error| anyhow::anyhow!("{VARIABLE}={filter} is no filter: {error}"))?,
        _ => EnvFilter::new(by_flag),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot trace: {error}"))
}
