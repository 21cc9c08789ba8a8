//! Flags of `pagewire completions` and `pagewire man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print the completions of a shell
///
/// For bash, put them into ~/.local/share/bash-completion/completions/pagewire; for zsh, into a
/// file _pagewire in a directory of $fpath; for fish, into
/// ~/.config/fish/completions/pagewire.fish.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CompletionFlags {
    /// The shell to complete in
    pub(crate) shell: Shell,
}

/// Print the manual page of the program and its commands
#[derive(Debug, Args)]
pub(crate) struct ManFlags {
    /// Write one page a command into this directory, as packages have them
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}
