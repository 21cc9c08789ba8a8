//! The `pagewire` program: parse, run one command, exit code.
#![forbid(unsafe_code)]

mod doctor;
mod flags;
mod mount;
mod serve;

use std::process::ExitCode;

use clap::Parser;

use crate::flags::{Command, Flags};

fn main() -> ExitCode {
    let ran = match Flags::parse().command {
        Command::Doctor(flags) => return doctor::run(&flags),
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
