//! Asks the kernel, the file system and the device, and measures the routes. Judges nothing.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use pagewire_engine::device::{Device, Devices, Features, IpVersion};
use pagewire_engine::{Route, probe, proof};
use rustix::process::{Resource, geteuid, getrlimit};
use rustix::system::uname;

use crate::doctor::facts::{
    Chosen, Directory, Facts, Ground, Kernel, Residency, Settings, TlsSuite, Way,
};
use crate::flags::{DoctorFlags, Target};
use crate::mount::Mount;

/// Disks and name servers that answer at all answer sooner; who waits for the doctor at night
/// wants to know that one does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// Servers of the root zone, a.root-servers.net: addresses of the internet that stay. They are
/// looked up among the routes, and nothing is sent to them.
const INTERNET: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// # Errors
///
/// When the question makes no sense: no such directory, device, host or route.
pub(crate) fn collect(flags: &DoctorFlags) -> anyhow::Result<Facts> {
    let path = flags.directory.clone();
    let directory = begin("doctor-disk", move || directory(&path))?;
    let way = way(flags)?;
    let directory = directory.recv_timeout(PATIENCE).map_err(|_| {
        let directory = flags.directory.display();
        anyhow!("{directory} did not answer within {PATIENCE:?}: its disk or its server hangs")
    })??;
    Ok(Facts { directory, way, kernel: kernel(), settings: settings(), user: geteuid().as_raw() })
}

/// Has `work` done by a thread of its own, which may hang.
fn begin<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Receiver<T>> {
    let (sender, receiver) = sync_channel(1);
    let work = move || {
        // Nobody waits any more for an answer that comes late.
        sender.send(work()).ok();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(receiver)
}

fn directory(path: &Path) -> anyhow::Result<Directory> {
    let name = path.display();
    let opened = File::open(path).with_context(|| format!("cannot open the directory {name}"))?;
    let stat = opened.metadata().with_context(|| format!("cannot look at {name}"))?;
    if !stat.is_dir() {
        bail!("{name} is not a directory: name the directory that it lies in");
    }
    let path = fs::canonicalize(path).with_context(|| format!("cannot resolve {name}"))?;
    let (ground, scratch) = scratch(&path, stat.dev()).context("cannot make a file to measure")?;
    let on_disk = !matches!(ground, Ground::Memory(_));
    let passages = Route::ALL.map(|route| (route, proof::on_loopback(route, &scratch)));
    let residency = on_disk.then(|| Residency {
        cachestat: probe::cachestat(&scratch),
        nowait_reads: probe::nowait_reads(&scratch),
    });
    Ok(Directory {
        path,
        mount: Mount::of(&opened),
        ground,
        passages: passages.into(),
        residency,
        beneath_lookups: probe::beneath_lookups(&opened),
        cached_lookups: probe::cached_lookups(&opened),
    })
}

/// A file without a name to measure with: in the directory, else on its file system, else in
/// memory.
fn scratch(directory: &Path, device: u64) -> io::Result<(Ground, File)> {
    let refusal = match tempfile::tempfile_in(directory) {
        Ok(file) => return Ok((Ground::Directory, file)),
        Err(refusal) => refusal,
    };
    let here = |path: &PathBuf| fs::metadata(path).is_ok_and(|stat| stat.dev() == device);
    let usual = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into(), "/dev/shm".into()];
    for beside in usual.into_iter().filter(here) {
        if let Ok(file) = tempfile::tempfile_in(&beside) {
            return Ok((Ground::Beside(beside), file));
        }
    }
    Ok((Ground::Memory(refusal), proof::scratch_file_in_memory()?))
}

fn way(flags: &DoctorFlags) -> anyhow::Result<Way> {
    let devices = Devices::list()?;
    let (chosen, device, versions) = if let Some(target) = &flags.to {
        let (address, device) = toward(&devices, target)?;
        let version = IpVersion::of(address.ip());
        (Chosen::To(target.clone(), address), device, vec![version])
    } else if let Some(name) = &flags.device {
        let device = devices.named(name).ok_or_else(|| no_device(&devices, name))?;
        (Chosen::Named, device, vec![IpVersion::V4, IpVersion::V6])
    } else {
        undirected(&devices)?
    };
    let layers = devices.stack(device).into_iter();
    let layers = layers.map(|layer| {
        let features = Features::of(&layer.device.name);
        (layer, features)
    });
    Ok(Way { chosen, layers: layers.collect(), versions })
}

/// The first address of the target that a route leads to, as a client would try them.
fn toward<'a>(devices: &'a Devices, target: &Target) -> anyhow::Result<(SocketAddr, &'a Device)> {
    let host = &target.host;
    let question = (host.clone(), target.port);
    let answer = begin("doctor-name", move || question.to_socket_addrs())?;
    let answer = answer.recv_timeout(PATIENCE);
    let addresses = answer.map_err(|_| anyhow!("no name server answered within {PATIENCE:?}"));
    let addresses = addresses.and_then(|addresses| Ok(addresses?));
    let addresses = addresses.with_context(|| format!("cannot resolve the host {host}"))?;
    let mut refusal = anyhow!("the host {host} has no address");
    for address in addresses {
        match devices.toward(address) {
            Ok(device) => return Ok((address, device)),
            Err(error) => refusal = error.into(),
        }
    }
    Err(refusal.context(format!("cannot find the way to {target}")))
}

fn no_device(devices: &Devices, name: &str) -> anyhow::Error {
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    anyhow!("there is no network device {name} here; there are {}", names.join(", "))
}

fn undirected(devices: &Devices) -> anyhow::Result<(Chosen, &Device, Vec<IpVersion>)> {
    for address in INTERNET {
        if let Ok(device) = devices.toward(SocketAddr::new(address, 443)) {
            return Ok((Chosen::Internet, device, vec![IpVersion::of(address)]));
        }
    }
    let loopback = devices.loopback().context("this network namespace has no loopback device")?;
    Ok((Chosen::NoWayOut, loopback, vec![IpVersion::V4]))
}

fn kernel() -> Kernel {
    let name = uname();
    let tls = probe::kernel_tls();
    let tls_suites = if tls.is_ok() { tls_suites() } else { Vec::new() };
    Kernel {
        release: name.release().to_string_lossy().into_owned(),
        machine: name.machine().to_string_lossy().into_owned(),
        zerocopy_sends: probe::zerocopy_sends(),
        tls,
        tls_suites,
        io_uring: probe::io_uring(),
        unsent_bound: probe::unsent_bound(),
    }
}

fn tls_suites() -> Vec<TlsSuite> {
    let suites = pagewire_engine::tls::probe().suites.iter().map(|of| {
        let cost = of.cost.clone().map(|cost| {
            let of_a_gb = |time: Duration| time.mul_f64(1e9 / cost.bytes as f64);
            (of_a_gb(cost.kernel), of_a_gb(cost.user_space))
        });
        TlsSuite { name: of.name, cost, kernel_is_taken: of.kernel_is_taken() }
    });
    suites.collect()
}

fn settings() -> Settings {
    let limit = getrlimit(Resource::Nofile);
    Settings {
        congestion_control: setting("net/ipv4/tcp_congestion_control"),
        send_buffer: setting("net/ipv4/tcp_wmem"),
        receive_buffer: setting("net/ipv4/tcp_rmem"),
        io_uring_disabled: setting("kernel/io_uring_disabled"),
        mappings_max: setting("vm/max_map_count"),
        pipe_pages_soft: setting("fs/pipe-user-pages-soft"),
        descriptors: (limit.current, limit.maximum),
    }
}

fn setting(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
