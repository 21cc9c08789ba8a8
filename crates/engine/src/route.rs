//! The routes that bytes can take from a file to a socket, and facts about each. PURE.

use std::fmt;
use std::str::FromStr;

/// A way that bytes move from a file to a socket.
///
/// Copies are copies by the CPU on the sending side; the device's own transfers (from the disk,
/// to the wire) are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Route {
    /// sendfile(2): one system call, the socket gets references to page-cache pages. No copy
    /// where the device has scatter-gather and checksum offload, one in the kernel elsewhere.
    Sendfile,
    /// splice(2) from the file to a pipe and from the pipe to the socket: two system calls,
    /// copies as for [`Route::Sendfile`].
    Splice,
    /// sendmsg(2) from a mapping of the file: one system call, one copy into the socket.
    MmapWrite,
    /// pread(2) into a buffer and send(2) from it: two system calls, two copies.
    ReadWrite,
}

impl Route {
    /// Every route, the cheapest for large files first. Stepping down follows this order.
    pub const ALL: [Self; 4] = [Self::Sendfile, Self::Splice, Self::MmapWrite, Self::ReadWrite];

    /// The route's name as in flags and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sendfile => "sendfile",
            Self::Splice => "splice",
            Self::MmapWrite => "mmap-write",
            Self::ReadWrite => "read-write",
        }
    }

    /// System calls that one step makes; two mode switches each.
    #[must_use]
    pub const fn calls_per_step(self) -> u32 {
        match self {
            Self::Sendfile | Self::MmapWrite => 1,
            Self::Splice | Self::ReadWrite => 2,
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Sendfile => 0,
            Self::Splice => 1,
            Self::MmapWrite => 2,
            Self::ReadWrite => 3,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which routes a sink may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RouteChoice {
    /// The cheapest for each range, by its size and by what the kernel accepts.
    #[default]
    Auto,
    /// This one for every byte of a file, while the kernel accepts it.
    Only(Route),
}

impl fmt::Display for RouteChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Only(route) => route.fmt(f),
        }
    }
}

/// A name that is not a route's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such route; the routes are auto, sendfile, splice, mmap-write and read-write")]
pub struct UnknownRoute;

impl FromStr for Route {
    type Err = UnknownRoute;

    fn from_str(name: &str) -> Result<Self, UnknownRoute> {
        Self::ALL.into_iter().find(|route| route.name() == name).ok_or(UnknownRoute)
    }
}

impl FromStr for RouteChoice {
    type Err = UnknownRoute;

    fn from_str(name: &str) -> Result<Self, UnknownRoute> {
        match name {
            "auto" => Ok(Self::Auto),
            _ => name.parse().map(Self::Only),
        }
    }
}

/// A set of routes, as small as a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteSet(u8);

impl RouteSet {
    pub(crate) const fn with(self, route: Route) -> Self {
        Self(self.0 | 1 << route.index())
    }

    pub(crate) const fn contains(self, route: Route) -> bool {
        self.0 & 1 << route.index() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for route in Route::ALL {
            assert_eq!(route.name().parse(), Ok(route));
            assert_eq!(route.name().parse(), Ok(RouteChoice::Only(route)));
        }
        assert_eq!("auto".parse(), Ok(RouteChoice::Auto));
        assert_eq!("".parse::<RouteChoice>(), Err(UnknownRoute));
        assert_eq!("auto".parse::<Route>(), Err(UnknownRoute));
    }

    #[test]
    fn all_is_in_the_order_of_the_indices() {
        for (index, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route.index(), index);
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = RouteSet::default().with(Route::Splice);
        assert!(set.contains(Route::Splice));
        assert!(!set.contains(Route::Sendfile));
    }
}
