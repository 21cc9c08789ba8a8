//! Flags of `pagewire serve` that are no keys of its configuration file.

use std::path::PathBuf;

use clap::Args;

use crate::config::Mounted;

#[derive(Debug, Args)]
pub(crate) struct FileFlags {
    /// Read what the command line and the environment do not say from this TOML file
    ///
    /// Its keys are the flags' long names, and root for DIR; paths in it start at the file's own
    /// directory. Each table under a line `[[site]]` serves another directory: root, the hosts
    /// that it is served for (host), what paths begin with (path), and any flag of sites.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Serve a further directory below a path; may be given more than once
    #[arg(long, value_name = "/PATH=DIR")]
    pub(crate) mount: Vec<Mounted>,

    /// Say what would be done, and what stands against it, without doing it
    ///
    /// Reads the configuration, opens the directories and ends with exit status 0, or 1 if
    /// something is wrong.
    #[arg(long)]
    pub(crate) check: bool,

    /// Print the configuration in effect as TOML, each line with where its value came from
    #[arg(long)]
    pub(crate) show_config: bool,
}
