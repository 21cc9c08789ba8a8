//! The `pagewire` program: parse, run one command, exit code.
#![forbid(unsafe_code)]

mod config;
mod doctor;
mod flags;
mod lab;
mod mount;
mod paper;
mod password;
mod serve;
mod trace;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::{ContextKind, ContextValue};

use crate::flags::{Command, Flags};

/// It gives memory back: what ten thousand connections needed while they were busy, the C
/// library's keeps, because something small still lies on every page of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let line: Vec<_> = std::env::args_os().collect();
    let parsed = flags::command().try_get_matches_from(&line);
    let parsed = parsed.and_then(|matches| Flags::from_arg_matches(&matches));
    let ran = match parsed.unwrap_or_else(|error| usage(&error)).command {
        Command::Completions(flags) => paper::completions(&flags),
        Command::Doctor(flags) => return doctor::run(&flags),
        Command::Lab(flags) => lab::run(&flags),
        Command::Man(flags) => paper::man(&flags),
        Command::Password(flags) => password::run(&flags),
        Command::Serve(_) => serve::run(&line),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(error) = error.downcast_ref() {
                usage(error);
            }
            eprintln!("pagewire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends as clap does, and says so where the environment is at fault, which nobody sees.
fn usage(error: &clap::Error) -> ! {
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    let is_at_fault = |name: &OsStr, said: &OsStr| {
        let mut values = said.to_str().into_iter().flat_map(|said| said.split([',', '\n']));
        name.as_bytes().starts_with(b"PAGEWIRE_") && values.any(|one| one == value)
    };
    error.print().ok();
    if let Some((name, _)) = std::env::vars_os().find(|(name, said)| is_at_fault(name, said)) {
        eprintln!("note: the environment variable {} has that value", name.display());
    }
    std::process::exit(error.exit_code())
}
