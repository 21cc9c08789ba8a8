//! `--check`: everything that a start does, but for listening and serving.

use std::io::{self, Write};

use anyhow::Context;
use pagewire_http::check_sites;

use crate::config::Config;
use crate::serve::banner;
use crate::serve::error::with_way_out;

pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    check_sites(&config.mounts).map_err(with_way_out)?;
    let mut out = io::stdout().lock();
    report(config, &mut out).context("cannot print what would be served")
}

fn report(config: &Config, out: &mut impl Write) -> io::Result<()> {
    banner::print_sites(config, "would serve", out)?;
    let flags = &config.flags;
    let addresses: Vec<_> = flags.listen.iter().map(ToString::to_string).collect();
    writeln!(out, "  on {}", addresses.join(", "))?;
    writeln!(out, "nothing stands against it")?;
    out.flush()
}
