//! `pagewire completions` and `pagewire man`: the flags, for shells and for man(1).

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap_mangen::Man;

use crate::flags::{self, CompletionFlags, ManFlags};

const PROGRAM: &str = "pagewire";

pub(crate) fn completions(flags: &CompletionFlags) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(flags.shell, &mut flags::command(), PROGRAM, &mut text);
    io::stdout().write_all(&text).context("cannot print the completions")
}

pub(crate) fn man(flags: &ManFlags) -> anyhow::Result<()> {
    match &flags.directory {
        Some(directory) => write_pages(directory),
        None => {
            let mut text = Vec::new();
            for (_, command) in pages() {
                Man::new(command).render(&mut text)?;
            }
            io::stdout().write_all(&text).context("cannot print the manual")
        }
    }
}

fn write_pages(directory: &Path) -> anyhow::Result<()> {
    let at = |path: &Path| format!("cannot write {}", path.display());
    fs::create_dir_all(directory).with_context(|| at(directory))?;
    for (name, command) in pages() {
        let path = directory.join(format!("{name}.1"));
        let mut text = Vec::new();
        Man::new(command).render(&mut text)?;
        fs::write(&path, text).with_context(|| at(&path))?;
    }
    Ok(())
}

/// The program's page, then one for each command; by name.
fn pages() -> Vec<(String, clap::Command)> {
    let whole = flags::command().disable_help_subcommand(true);
    let mut pages = vec![(PROGRAM.to_owned(), whole.clone())];
    for command in whole.get_subcommands() {
        let name = format!("{PROGRAM}-{}", command.get_name());
        let version = whole.get_version().unwrap_or_default().to_owned();
        let command = command.clone().name(name.clone()).version(version);
        let spoken = name.replacen('-', " ", 1);
        pages.push((name, command.display_name(spoken.clone()).bin_name(spoken)));
    }
    pages
}
