//! The command line, as clap parses it. One file a command; no work is done here.

mod acme;
mod doctor;
mod file;
mod lab;
mod limits;
mod paper;
mod password;
mod serve;
mod site;
mod tls;

use clap::{Arg, Args, CommandFactory, Parser, Subcommand};

pub(crate) use acme::AcmeFlags;
pub(crate) use doctor::{DoctorFlags, Target};
pub(crate) use file::FileFlags;
pub(crate) use lab::{LabFlags, Topic};
pub(crate) use limits::LimitFlags;
pub(crate) use paper::{CompletionFlags, ManFlags};
pub(crate) use password::PasswordFlags;
pub(crate) use serve::ServeFlags;
pub(crate) use site::SiteFlags;
pub(crate) use tls::TlsFlags;

/// Serves files with the fewest copies the kernel allows, and says which way each byte took.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Completions(CompletionFlags),
    Doctor(DoctorFlags),
    Lab(LabFlags),
    Man(ManFlags),
    Password(PasswordFlags),
    Serve(Box<ServeCommand>),
}

#[derive(Debug, Args)]
pub(crate) struct ServeCommand {
    #[command(flatten)]
    pub(crate) serve: ServeFlags,

    #[command(flatten)]
    pub(crate) file: FileFlags,
}

/// The whole command line. Each flag of `serve` is a variable of the environment, too.
pub(crate) fn command() -> clap::Command {
    let with_variable = |arg: Arg| {
        let variable = variable(&arg);
        let arg = arg.env(variable).hide_env(true);
        let is_list = matches!(arg.get_action(), clap::ArgAction::Append);
        // So that a variable can hold several; no flag has a value of two lines.
        if is_list && arg.get_value_delimiter().is_none() { arg.value_delimiter('\n') } else { arg }
    };
    Flags::command().mut_subcommand("serve", |serve| serve.mut_args(with_variable))
}

/// The flags of `serve` that are keys of the configuration file.
pub(crate) fn keys() -> clap::Command {
    ServeFlags::augment_args(clap::Command::new("pagewire"))
}

/// Those that each site may have for itself.
pub(crate) fn site_keys() -> clap::Command {
    SiteFlags::augment_args(clap::Command::new("pagewire"))
}

/// The environment's name for a flag.
pub(crate) fn variable(arg: &Arg) -> String {
    let name = arg.get_long().unwrap_or(arg.get_id().as_str());
    format!("PAGEWIRE_{}", name.replace('-', "_").to_ascii_uppercase())
}
