//! What is printed at start: where the server is, what it serves, and which routes this kernel
//! and file system offer, measured at that moment.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use pagewire_engine::{Route, proof};
use pagewire_http::{ListenAddress, Mount};

use crate::config::Config;
use crate::mount;
use crate::serve::AdminAddress;
use crate::serve::doors::Doors;

/// What was found out before the server began.
pub(crate) struct Measured {
    /// One line: how each route passes bytes, by the mutation oracle on loopback.
    pub(crate) routes: String,
    /// One line: who seals TLS records, where that is spoken.
    pub(crate) records: Option<String>,
    pub(crate) sandbox: String,
}

pub(crate) fn print(
    config: &Config,
    measured: &Measured,
    doors: &Doors,
    addresses: &[ListenAddress],
    admin: Option<&AdminAddress>,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    print_sites(config, "serves", &mut out)?;
    for (place, address) in addresses.iter().enumerate() {
        let scheme = doors.scheme(place);
        match address {
            ListenAddress::Tcp(address) => reachable(address)
                .iter()
                .try_for_each(|address| writeln!(out, "  {scheme}://{address}/"))?,
            other @ (ListenAddress::Unix { .. } | _) => writeln!(out, "  {other}")?,
        }
    }
    if let Some(admin) = admin {
        writeln!(out, "admin: {admin}")?;
    }
    doors.lines().try_for_each(|line| writeln!(out, "{line}"))?;
    writeln!(out, "{}", measured.routes)?;
    measured.records.iter().try_for_each(|records| writeln!(out, "TLS records: {records}"))?;
    writeln!(out, "sandbox: {}", measured.sandbox)?;
    let route = config.flags.route;
    writeln!(out, "route: {route} (stop with Ctrl-C; a second one cuts running responses)")?;
    out.flush()
}

/// A line for each directory.
pub(crate) fn print_sites(config: &Config, verb: &str, out: &mut impl Write) -> io::Result<()> {
    let mut opening = format!("pagewire {} {verb}", env!("CARGO_PKG_VERSION"));
    for mount in &config.mounts {
        let directory = fs::canonicalize(&mount.site.directory)?;
        let file_system = file_system_of(&directory).unwrap_or_else(|| "unknown".to_owned());
        writeln!(out, "{opening} {} ({file_system}){}", directory.display(), place(mount))?;
        // The next one's line is as wide up to there.
        opening = " ".repeat(opening.len());
    }
    Ok(())
}

/// For which requests.
pub(crate) fn place_of(mount: &Mount) -> String {
    let hosts: Vec<_> = mount.hosts.iter().map(ToString::to_string).collect();
    format!("{}{}", hosts.join(","), mount.path)
}

/// The same in words, if it is not for all.
fn place(mount: &Mount) -> String {
    let hosts: Vec<_> = mount.hosts.iter().map(ToString::to_string).collect();
    match (hosts.join(", "), mount.path.to_string()) {
        (hosts, path) if hosts.is_empty() && path == "/" => String::new(),
        (hosts, path) if hosts.is_empty() => format!(" at {path}"),
        (hosts, path) if path == "/" => format!(" for {hosts}"),
        (hosts, path) => format!(" for {hosts} at {path}"),
    }
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

/// How each route passes bytes of the first directory.
pub(crate) fn routes_here(config: &Config) -> String {
    let first = config.mounts.first();
    let directory = first.map_or(Path::new("/"), |mount| mount.site.directory.as_path());
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
    mount::Mount::of(&File::open(path).ok()?).map(|mount| mount.file_system)
}
