//! Flags of `pagewire serve` that say what is served, and how.

use std::path::{Path, PathBuf};

use clap::Args;
use pagewire_http::SiteConfig;

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
}

impl SiteFlags {
    /// Of this `directory`, which need not be the root that the flags name.
    pub(crate) fn config(&self, directory: &Path) -> SiteConfig {
        let Self { root: _, no_listing, hidden } = self;
        SiteConfig { directory: directory.to_owned(), listing: !no_listing, hidden: *hidden }
    }
}
