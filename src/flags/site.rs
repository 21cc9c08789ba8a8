//! Flags of `pagewire serve` that say what is served, and how.

use std::path::PathBuf;

use clap::Args;
use pagewire_http::SiteConfig;

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

    /// Send each file as it is, also where NAME.zst, NAME.br or NAME.gz lies beside it
    #[arg(long)]
    no_precompressed: bool,
}

impl SiteFlags {
    pub(crate) fn config(&self) -> SiteConfig {
        let Self { directory, no_listing, hidden, no_precompressed } = self;
        SiteConfig {
            listing: !no_listing,
            hidden: *hidden,
            precompressed: !no_precompressed,
            ..SiteConfig::new(directory)
        }
    }
}
