//! Flags of `pagewire serve` that say what is served, and how.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use pagewire_http::{CacheRule, CorsOrigin, HeaderRule, PasswordFileError, Passwords, SiteConfig};

#[derive(Debug, Args)]
pub(crate) struct SiteFlags {
    /// The directory to serve
    #[arg(value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

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
    #[arg(long, value_name = "FILE", value_parser = passwords, value_hint = ValueHint::FilePath)]
    auth: Option<Passwords>,

    /// Which symbolic links are followed: those that stay inside DIR, or none
    #[arg(long, value_name = "WHICH", default_value = "inside")]
    symlinks: Symlinks,

    /// Send each file as it is, also where NAME.zst, NAME.br or NAME.gz lies beside it
    #[arg(long)]
    no_precompressed: bool,

    /// Cache-Control of files whose path matches; may be given more than once, the first one
    /// that matches counts
    ///
    /// For example '/assets/**=public, max-age=31536000, immutable' or '*.html=no-cache'. A glob
    /// that begins with a slash is matched from the root on, any other at any depth; * stops at
    /// slashes, ** does not. Without a rule nothing is said.
    #[arg(long, value_name = "GLOB=VALUE")]
    cache_control: Vec<CacheRule>,

    /// Field of responses, of all or of paths that match; may be given more than once
    ///
    /// For example 'Strict-Transport-Security: max-age=63072000' or '*.wasm=Content-Type:
    /// application/wasm'. For one name the first one that matches counts; without a value the
    /// field is not sent. X-Content-Type-Options: nosniff is sent by default.
    #[arg(long, value_name = "[GLOB=]NAME: VALUE")]
    header: Vec<HeaderRule>,

    /// Origin whose pages may read responses, or * for all (CORS); may be given more than once
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<CorsOrigin>,

    /// Send FILE, with 200, to browsers that go to a path that is not there
    ///
    /// For single-page applications, which make sense of the path by themselves. FILE lies below
    /// DIR. A path whose last name has a dot, and whatever scripts fetch, is 404 all the same.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          default_missing_value = "index.html", value_hint = ValueHint::Other)]
    spa: Option<String>,

    /// Send FILE, which lies below DIR, to browsers with 404 [default: 404.html, if it is there]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::Other)]
    not_found: Option<String>,
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
    /// Of this `directory`, which need not be the root that the flags name.
    pub(crate) fn config(&self, directory: &Path) -> SiteConfig {
        let Self { root: _, no_listing, hidden, no_precompressed, .. } = self;
        SiteConfig {
            listing: !no_listing,
            hidden: *hidden,
            precompressed: !no_precompressed,
            cache_control: self.cache_control.clone(),
            headers: self.header.clone(),
            cors: self.cors.clone(),
            // Names below the directory, wherever the file lies that they are written in.
            application: self.spa.as_ref().map(PathBuf::from),
            not_found: self.not_found.as_ref().map(PathBuf::from),
            passwords: self.auth.clone(),
            follow_symlinks: self.symlinks == Symlinks::Inside,
            ..SiteConfig::new(directory)
        }
    }
}
