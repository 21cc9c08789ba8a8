//! What the report says of the machine it was measured on.

use std::fs::{self, File};
use std::path::Path;

use rustix::process::geteuid;
use rustix::thread::sched_getaffinity;

use crate::lab::report::Machine;
use crate::lab::stage::congestion_control;
use crate::mount::Mount;

/// What the system tells of itself; `files` is where the files lie.
pub(crate) fn machine(files: &Path) -> Machine {
    let system = rustix::system::uname();
    let name = [system.sysname(), system.release()].map(|part| part.to_string_lossy());
    Machine {
        kernel: name.join(" "),
        processor: field("/proc/cpuinfo", "model name"),
        processors: sched_getaffinity(None).map_or(0, |allowed| allowed.count()),
        memory_bytes: kibibytes("MemTotal").map(|kib| kib * 1024),
        congestion_control: congestion_control().ok(),
        file_system: file_system_of(files),
        root: geteuid().is_root(),
    }
}

/// Memory that programs can have without others losing theirs.
pub(crate) fn available_bytes() -> u64 {
    kibibytes("MemAvailable").map_or(0, |kib| kib * 1024)
}

fn kibibytes(name: &str) -> Option<u64> {
    field("/proc/meminfo", name)?.trim_end_matches(" kB").parse().ok()
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let mut named = fields.filter(|(field, _)| field.trim() == name);
    named.next().map(|(_, value)| value.trim().to_owned())
}

fn file_system_of(path: &Path) -> Option<String> {
    Mount::of(&File::open(path).ok()?).map(|mount| mount.file_system)
}
