//! Flags of `pagewire serve`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use pagewire_engine::RouteChoice;
use pagewire_http::{Listen, ListenAddress};

use crate::flags::{LimitFlags, SiteFlags, TlsFlags};
use crate::serve::{AdminAddress, LogFormat};
use crate::trace;

/// Serve a directory over HTTP
///
/// Large files go from the page cache to the socket by sendfile, without a copy by the CPU where
/// the network device can gather; small ones leave with their head in one system call. After
/// each response one line on standard error says what was sent and by which route.
#[derive(Debug, Args)]
pub(crate) struct ServeFlags {
    #[command(flatten)]
    pub(crate) site: SiteFlags,

    /// Address to listen on: IP:PORT or unix:/PATH; may be given more than once
    ///
    /// Port 0 takes a free one; the any address of IPv6 is IPv4 too. A Unix socket gets the
    /// permission bits of the umask, or those that are given behind it, as in
    /// unix:/run/pagewire.sock:660. Sockets that systemd passes are listened on instead of the
    /// default.
    #[arg(long, value_name = "ADDR", value_delimiter = ',', default_value = "127.0.0.1:8080")]
    pub(crate) listen: Vec<ListenAddress>,

    #[command(flatten)]
    pub(crate) tls: TlsFlags,

    /// Route that bytes take from file to socket
    ///
    /// auto chooses by size and by what the kernel accepts:
    /// sendfile: references to pages, one system call;
    /// splice: references to pages through a pipe, two system calls;
    /// mmap-write: one copy from a mapping, one system call;
    /// read-write: two copies, two system calls.
    #[arg(
        long,
        value_name = "auto|sendfile|splice|mmap-write|read-write",
        default_value = "auto",
        verbatim_doc_comment
    )]
    pub(crate) route: RouteChoice,

    /// Threads of the event loop [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Keep what the server gives up before it serves, where the kernel lets it
    ///
    /// By default it can open nothing but what it is to serve and its own settings (landlock), and
    /// cannot start programs, mount or trace (seccomp). A reload cannot add directories then.
    #[arg(long)]
    pub(crate) no_sandbox: bool,

    /// What is written of each response
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log: LogFormat,

    /// Where that is written [default: standard error]
    ///
    /// Appended to, and opened anew at SIGHUP, after logrotate has moved it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) log_file: Option<PathBuf>,

    /// Print no line after each response, as --log off
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Where metrics, health and a live page are: PORT on 127.0.0.1, IP:PORT, or a path
    ///
    /// /metrics for Prometheus, /healthz, and / for people. It tells names of files and addresses
    /// of clients to whoever reaches it. A path is that of a Unix socket for this user only, unless
    /// permission bits are given behind it, as in unix:/run/pagewire/admin.sock:660.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<AdminAddress>,

    /// Say on standard error what connections do, as far as FILTER lets it through
    ///
    /// For example debug, or pagewire_http=debug,pagewire_engine=trace: a filter of
    /// tracing-subscriber.
    #[arg(long, value_name = "FILTER", value_parser = trace::filter)]
    pub(crate) trace: Option<String>,

    #[command(flatten)]
    pub(crate) limits: LimitFlags,
}

impl ServeFlags {
    /// What is written of each response, by both flags.
    pub(crate) fn log_format(&self) -> LogFormat {
        if self.quiet { LogFormat::Off } else { self.log }
    }
}

impl ServeFlags {
    pub(crate) fn listeners(&self) -> Vec<Listen> {
        self.listen.iter().cloned().map(Listen::plain).collect()
    }
}
