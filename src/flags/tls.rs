//! Flags of `pagewire serve` about HTTPS.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use pagewire_engine::tls::TlsChoice;
use pagewire_http::ListenAddress;

use crate::flags::AcmeFlags;

#[derive(Debug, Args)]
pub(crate) struct TlsFlags {
    /// Certificate for HTTPS, in PEM, with those that lead to one that clients know
    ///
    /// Then every --listen speaks TLS 1.2 and 1.3, and HTTP/2 too. May be given more than once,
    /// each with its --tls-key: clients get the one whose names have that which they ask for, the
    /// first one if none has. Read anew when a file changes, and at SIGHUP.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tls_cert: Vec<PathBuf>,

    /// Key of the --tls-cert at the same place, in PEM, without a password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tls_key: Vec<PathBuf>,

    /// HTTPS with a certificate that is made here, kept, and made anew when it has expired
    ///
    /// Clients warn of it, and its fingerprint, which is printed, tells whether it is this one.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key", "acme_domain"])]
    pub(crate) tls_self_signed: bool,

    #[command(flatten)]
    pub(crate) acme: AcmeFlags,

    /// Directory where certificates are kept that are made here, or issued by ACME
    /// [default: pagewire in $XDG_STATE_HOME or ~/.local/state; systemd's StateDirectory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,

    /// Address that answers by sending clients on to HTTPS: IP:PORT, or unix:/PATH
    ///
    /// With 308 and the same host and path, to the port of the first --listen. Only what begins
    /// with /.well-known/acme-challenge/ is answered from the site.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub(crate) https_redirect: Vec<ListenAddress>,

    /// Who seals TLS records: the kernel, so that files are sent without a copy, or this process
    ///
    /// auto takes the kernel where a test at start found that it does so, rightly and for less.
    /// kernel-immutable promises that no served file is ever changed in place: a network device
    /// that seals records then reads them from the page cache, without a copy (Linux 5.19). A
    /// promise that is not kept breaks connections.
    #[arg(long, value_name = "auto|kernel|kernel-immutable|user-space", default_value = "auto")]
    pub(crate) tls_records: TlsChoice,
}

impl TlsFlags {
    /// Whether there is TLS at all.
    pub(crate) fn is_wanted(&self) -> bool {
        self.tls_self_signed || !self.tls_cert.is_empty() || !self.acme.acme_domain.is_empty()
    }
}
