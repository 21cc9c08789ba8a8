//! What the kernel says of this process. What it does not say (no /proc, a sandbox) is left out.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Descriptors, memory and processor time of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    pub(crate) descriptors: Option<u64>,
    pub(crate) descriptors_max: Option<u64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) processor_seconds: f64,
}

impl Process {
    pub(crate) fn now() -> Self {
        let processor = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "a float is what is shown")]
        let processor_seconds = processor.tv_sec as f64 + processor.tv_nsec as f64 / 1e9;
        Self {
            descriptors: descriptors(),
            descriptors_max: getrlimit(Resource::Nofile).current,
            resident_bytes: resident_bytes(),
            processor_seconds,
        }
    }
}

fn descriptors() -> Option<u64> {
    // The length of the directory is their number since Linux 6.2, and 0 before.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok(),
        count => Some(count),
    }
}

fn resident_bytes() -> Option<u64> {
    // proc_pid_statm(5): pages, the second number.
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}
