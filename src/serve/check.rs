//! `--check`: everything that a start does, but for listening and serving.

use std::io::{self, Write};

use anyhow::Context;
use pagewire_http::check_sites;
use pagewire_http::tls::Challenges;

use crate::config::Config;
use crate::serve::banner;
use crate::serve::doors::Doors;
use crate::serve::error::with_way_out;

pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    check_sites(&config.mounts).map_err(with_way_out)?;
    let doors = Doors::of(config, &[], &Challenges::default())?;
    let mut out = io::stdout().lock();
    report(config, &doors, &mut out).context("cannot print what would be served")
}

fn report(config: &Config, doors: &Doors, out: &mut impl Write) -> io::Result<()> {
    banner::print_sites(config, "would serve", out)?;
    let addresses: Vec<_> = doors.listen.iter().map(|listen| listen.address.to_string()).collect();
    writeln!(out, "  on {}", addresses.join(", "))?;
    doors.lines().try_for_each(|line| writeln!(out, "{line}"))?;
    writeln!(out, "nothing stands against it")?;
    out.flush()
}
