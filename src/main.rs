//! The `pagewire` program: parse, run one command, exit code.
#![forbid(unsafe_code)]

mod doctor;
mod flags;
mod lab;
mod mount;
mod password;
mod serve;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use crate::flags::{Command, Flags};

/// It gives memory back: what ten thousand connections needed while they were busy, the C
/// library's keeps, because something small still lies on every page of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let ran = match Flags::parse().command {
        Command::Doctor(flags) => return doctor::run(&flags),
        Command::Lab(flags) => lab::run(&flags),
        Command::Password(flags) => password::run(&flags),
        Command::Serve(flags) => serve::run(&flags),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pagewire: {error:#}");
            ExitCode::FAILURE
        }
    }
}
