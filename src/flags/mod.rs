//! The command line, as clap parses it. One file a command; no work is done here.

mod doctor;
mod lab;
mod limits;
mod password;
mod serve;
mod site;

use clap::{Parser, Subcommand};

pub(crate) use doctor::{DoctorFlags, Target};
pub(crate) use lab::{LabFlags, Topic};
pub(crate) use limits::LimitFlags;
pub(crate) use password::PasswordFlags;
pub(crate) use serve::ServeFlags;
pub(crate) use site::SiteFlags;

/// Serves files with the fewest copies the kernel allows, and says which way each byte took.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Doctor(DoctorFlags),
    Lab(LabFlags),
    Password(PasswordFlags),
    Serve(ServeFlags),
}
