//! Flags of `pagewire serve` that say what is served, and how.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pagewire_http::{PasswordFileError, Passwords, SiteConfig};

#[derive(Debug, Args)]
pub(crate) struct SiteFlags {
    /// The directory to serve
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// Answer 404 for directories without an index.html, instead of a page that lists them
    #[arg(long)]
    no_listing: bool,

    /// List and serve names that start with a dot, too
    ///
    /// Without it they answer 404, whatever leads to them, but for /.well-known/ (RFC 8615).
    #[arg(long)]
    hidden: bool,

    /// Ask for a name and a password, by a file of lines name:hash
    ///
    /// Hashes are argon2's or bcrypt's: `pagewire password NAME` and `htpasswd -B` make such
    /// lines.
    #[arg(long, value_name = "FILE", value_parser = passwords)]
    auth: Option<Passwords>,

    /// Which symbolic links are followed: those that stay inside DIR, or none
    #[arg(long, value_name = "WHICH", default_value = "inside")]
    symlinks: Symlinks,
}

/// Links that lead out of the directory are never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Symlinks {
    Inside,
    None,
}

fn passwords(path: &str) -> Result<Passwords, PasswordFileError> {
    Passwords::open(Path::new(path))
}

impl SiteFlags {
    pub(crate) fn has_passwords(&self) -> bool {
        self.auth.is_some()
    }

    pub(crate) fn config(&self) -> SiteConfig {
        let Self { directory, no_listing, hidden, auth, symlinks } = self;
        SiteConfig {
            directory: directory.clone(),
            listing: !no_listing,
            hidden: *hidden,
            passwords: auth.clone(),
            follow_symlinks: *symlinks == Symlinks::Inside,
        }
    }
}
