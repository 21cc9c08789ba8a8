//! What this process may have open, and how it is shared out.

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use pagewire_engine::{Patience, Tolerance};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::slots::Slots;

/// Files kept open at most. Each holds a mapping too once it was sent, of which a process may
/// have 65,530 (`vm.max_map_count`).
const OPEN_FILES_MAX: u64 = 512;

/// Raises the limit of open descriptors (RLIMIT_NOFILE) as far as this user may, and returns it:
/// the soft limit of 1,024 is for programs that still use select(2).
///
/// # Errors
///
/// Those of setrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// What a server grants its clients, beyond what is fixed. Docs: docs/limits.md.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Connections at most; `None` for as many as descriptors allow.
    pub connections_max: Option<NonZeroUsize>,
    /// Connections of one IPv4 address or IPv6 /64 at most; `None` for a quarter of all.
    pub per_address_max: Option<NonZeroUsize>,
    /// Bytes per second that a TCP connection is sent at most.
    pub rate: Option<NonZeroU64>,
    /// Bytes per second that all connections together are sent at most.
    pub rate_total: Option<NonZeroU64>,
}

/// A response of which the peer takes nothing for so long is given up: a video that was paused
/// for a meal is still there.
const STALLED_MAX: Duration = Duration::from_secs(600);

/// The same while more than half of all connections are in use; nginx waits as long.
const STALLED_MAX_PRESSED: Duration = Duration::from_secs(60);

/// Bytes per second that the peer must take then, over two minutes. Apache asks for as many.
const PACE_MIN_PRESSED: u64 = 500;

/// Descriptors for what is no connection and no kept file: directories being read, listeners, the
/// log; and a part of all for what connections need besides (pipes, a second descriptor while
/// they wait for a disk).
const DESCRIPTORS_KEPT_BACK: u64 = 64;

impl Limits {
    pub(crate) fn slots(&self) -> Slots {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max = self.connections_max.map_or_else(
            || usize::try_from(connections_max(descriptors)).unwrap_or(usize::MAX),
            usize::from,
        );
        let per_address = self.per_address_max.map_or(max.div_ceil(4), usize::from);
        let calm = Tolerance { stalled_max: STALLED_MAX, pace_min: 0 };
        // Who is sent little cannot take much.
        let pace_min = match (self.rate, self.rate_total) {
            (_, Some(_)) => 0,
            (Some(rate), None) => PACE_MIN_PRESSED.min(rate.get() / 2),
            (None, None) => PACE_MIN_PRESSED,
        };
        let pressed = Tolerance { stalled_max: STALLED_MAX_PRESSED, pace_min };
        Slots::new(max, per_address, Patience::new(calm, pressed))
    }
}

/// So many connections with so many descriptors.
fn connections_max(descriptors: u64) -> u64 {
    let files = (descriptors / 4).min(OPEN_FILES_MAX);
    let kept_back = DESCRIPTORS_KEPT_BACK.min(descriptors / 8) + descriptors / 8;
    descriptors.saturating_sub(files).saturating_sub(kept_back).max(1)
}

/// How many files may be kept open: a quarter of what the process may, so that connections and
/// their pipes have the rest.
pub(crate) fn open_files_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((descriptors / 4).min(OPEN_FILES_MAX)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_files() {
        for (descriptors, expected) in [(64, 32), (256, 128), (1024, 576), (20_000, 16_924)] {
            assert_eq!(connections_max(descriptors), expected, "{descriptors}");
        }
    }
}
