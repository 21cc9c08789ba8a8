//! What is printed at start: where the server is, what it serves, and which routes this kernel
//! and file system offer, measured at that moment.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use pagewire_engine::{Route, proof};
use pagewire_http::ListenAddress;

use crate::flags::ServeFlags;
use crate::mount::Mount;
use crate::serve::AdminAddress;

pub(crate) fn print(
    flags: &ServeFlags,
    addresses: &[ListenAddress],
    admin: Option<&AdminAddress>,
) -> io::Result<()> {
    let directory = fs::canonicalize(&flags.site.directory)?;
    let file_system = file_system_of(&directory).unwrap_or_else(|| "unknown".to_owned());
    let mut out = io::stdout().lock();
    let version = env!("CARGO_PKG_VERSION");
    writeln!(out, "pagewire {version} serves {} ({file_system})", directory.display())?;
    for address in addresses {
        match address {
            ListenAddress::Tcp(address) => reachable(address)
                .iter()
                .try_for_each(|address| writeln!(out, "  http://{address}/"))?,
            other => writeln!(out, "  {other}")?,
        }
    }
    if let Some(admin) = admin {
        writeln!(out, "admin: {admin}")?;
    }
    writeln!(out, "{}", routes_here(&directory))?;
    let route = flags.route;
    writeln!(out, "route: {route} (stop with Ctrl-C; a second one cuts running responses)")?;
    out.flush()
}

/// The addresses to type for one that is listened on: for "any", those of the interfaces.
fn reachable(address: &SocketAddr) -> Vec<SocketAddr> {
    if !address.ip().is_unspecified() {
        return vec![*address];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses = interfaces.into_iter().map(|interface| interface.ip());
    let usable = addresses.filter(|ip| match ip {
        IpAddr::V4(_) => true,
        // Link-local ones cannot be typed without the interface's name.
        IpAddr::V6(ip) => address.is_ipv6() && !ip.is_unicast_link_local(),
    });
    let usable: Vec<_> = usable.map(|ip| SocketAddr::new(ip, address.port())).collect();
    if usable.is_empty() { vec![*address] } else { usable }
}

/// One line: how each route passes bytes, by the mutation oracle on loopback.
fn routes_here(directory: &Path) -> String {
    let (scratch, place) = match proof::scratch_file_in(directory) {
        Ok(scratch) => (Ok(scratch), ""),
        Err(_) => (proof::scratch_file_in_memory(), " with a file in memory"),
    };
    let scratch = match scratch {
        Ok(scratch) => scratch,
        Err(error) => return format!("routes here: not measured ({error})"),
    };
    let passages = Route::ALL.map(|route| match proof::on_loopback(route, &scratch) {
        Ok(passage) => format!("{route} {passage}"),
        Err(error) => format!("{route} not measured ({error})"),
    });
    format!("routes here, measured on loopback{place}: {}", passages.join(", "))
}

/// The type of the file system that `path` lies on.
fn file_system_of(path: &Path) -> Option<String> {
    Mount::of(&File::open(path).ok()?).map(|mount| mount.file_system)
}
