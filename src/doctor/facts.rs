//! What `collect.rs` finds and `judge.rs` judges: answers of the kernel, without opinions.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pagewire_engine::Route;
use pagewire_engine::device::{Features, IpVersion, Layer};
use pagewire_engine::proof::{Passage, ProofError};

use crate::flags::Target;
use crate::mount::Mount;

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) directory: Directory,
    pub(crate) way: Way,
    pub(crate) kernel: Kernel,
    pub(crate) settings: Settings,
    pub(crate) user: u32,
}

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) mount: Option<Mount>,
    pub(crate) ground: Ground,
    /// Of every route, on `ground`.
    pub(crate) passages: Vec<(Route, Result<Passage, ProofError>)>,
    /// Of a file of this user on `ground`; none where that is memory.
    pub(crate) residency: Option<Residency>,
    pub(crate) beneath_lookups: io::Result<()>,
    pub(crate) cached_lookups: io::Result<()>,
}

/// Which questions about the page cache a file answers.
#[derive(Debug)]
pub(crate) struct Residency {
    /// How many pages it finds of one that is there.
    pub(crate) cachestat: io::Result<u64>,
    pub(crate) nowait_reads: io::Result<()>,
}

/// Where the file lay that the routes were measured with.
#[derive(Debug)]
pub(crate) enum Ground {
    Directory,
    /// In another directory of the same file system.
    Beside(PathBuf),
    /// In memory, because the directory takes no file.
    Memory(io::Error),
}

/// The way out of this host.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) chosen: Chosen,
    /// From above to below, the one that traffic leaves by first.
    pub(crate) layers: Vec<(Layer, io::Result<Features>)>,
    /// Those that packets may have.
    pub(crate) versions: Vec<IpVersion>,
}

/// Why this device is looked at.
#[derive(Debug)]
pub(crate) enum Chosen {
    To(Target, SocketAddr),
    Named,
    /// Nothing was asked for: the one that leads to the internet.
    Internet,
    /// Nothing was asked for, and nothing leads to the internet: loopback.
    NoWayOut,
}

/// What the kernel's records cost for one version and cipher.
#[derive(Debug)]
pub(crate) struct TlsSuite {
    /// Such as `TLS 1.3 AES-128-GCM`.
    pub(crate) name: &'static str,
    /// CPU for a GB: sealed by the kernel, and by this program. Or why the kernel does not.
    pub(crate) cost: Result<(Duration, Duration), String>,
    pub(crate) kernel_is_taken: bool,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    /// As uname(2) has it.
    pub(crate) release: String,
    pub(crate) machine: String,
    pub(crate) zerocopy_sends: io::Result<()>,
    pub(crate) tls: io::Result<()>,
    /// Where it has TLS.
    pub(crate) tls_suites: Vec<TlsSuite>,
    pub(crate) io_uring: io::Result<()>,
    pub(crate) unsent_bound: io::Result<u32>,
}

/// Limits and what stands in /proc/sys; `None` where it cannot be read.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) congestion_control: Option<String>,
    pub(crate) send_buffer: Option<String>,
    pub(crate) receive_buffer: Option<String>,
    pub(crate) io_uring_disabled: Option<String>,
    pub(crate) mappings_max: Option<String>,
    pub(crate) pipe_pages_soft: Option<String>,
    /// Soft and hard limit; `None` is unlimited.
    pub(crate) descriptors: (Option<u64>, Option<u64>),
}
