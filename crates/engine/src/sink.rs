//! What is known of a socket: which routes it may take, which it refused, what is under way on
//! it. Moves nothing itself.

use crate::plan::Facts;
use crate::residency::Storage;
use crate::route::{Route, RouteChoice, RouteSet};
use crate::routes::splice::Pipe;
use crate::source::{FileRange, SourceFile};

/// The state of one socket that outlives a step.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    choice: RouteChoice,
    /// Refused routes by the device of the file system: what sendfile(2) accepts depends on both
    /// the socket and the kind of file. As long as the number of file systems sent from.
    refused: Vec<(u64, RouteSet)>,
    under_way: Option<UnderWay>,
    /// Made when the splice route is first taken.
    pub(crate) pipe: Option<Pipe>,
}

/// A file range of which a part was sent.
#[derive(Debug)]
struct UnderWay {
    source: SourceFile,
    /// Where its unsent rest starts.
    position: u64,
    route: Route,
}

impl Sink {
    pub(crate) fn new(choice: RouteChoice) -> Self {
        Self { choice, ..Self::default() }
    }

    /// The facts of a step for `range`.
    pub(crate) fn facts(&self, range: &FileRange) -> Facts {
        let under_way = self.under_way.as_ref().filter(|under_way| {
            under_way.position == range.position() && under_way.source.is(range.source())
        });
        Facts {
            choice: self.choice,
            refused: self.refused(range),
            piped: self.wants_piped(range) && self.piped(range).is_some(),
            under_way: under_way.map(|under_way| under_way.route),
            range_bytes: range.len(),
        }
    }

    fn refused(&self, range: &FileRange) -> RouteSet {
        let device = range.source().identity().device;
        let known = self.refused.iter().find(|(known, _)| *known == device);
        known.map_or(RouteSet::default(), |(_, routes)| *routes)
    }

    /// Whether bytes of `range` have to be in the pipe before they are sent: those of a file
    /// behind a server, which nothing but a pipe keeps at hand. The kernel can ask the server
    /// again whenever it likes, even about pages that it has.
    ///
    /// Where another route than splice was chosen for every byte, that is what is taken, and a
    /// server that hangs can be felt.
    pub(crate) fn wants_piped(&self, range: &FileRange) -> bool {
        range.source().storage() == Storage::Remote
            && matches!(self.choice, RouteChoice::Auto | RouteChoice::Only(Route::Splice))
            && !self.refused(range).contains(Route::Splice)
    }

    /// Whether `range` may be read where it is mapped.
    #[cfg(feature = "tls")]
    pub(crate) fn may_map(&self, range: &FileRange) -> bool {
        matches!(self.choice, RouteChoice::Auto | RouteChoice::Only(Route::MmapWrite))
            && !self.wants_piped(range)
            && !self.refused(range).contains(Route::MmapWrite)
    }

    /// How many bytes from the front of `range` are in the pipe.
    pub(crate) fn piped(&self, range: &FileRange) -> Option<u64> {
        self.pipe.as_ref()?.held_of(range).map(|bytes| bytes as u64)
    }

    /// Remembers that `route` was refused for files like that of `range`.
    pub(crate) fn refuse(&mut self, range: &FileRange, route: Route) {
        let device = range.source().identity().device;
        let routes = self.refused(range).with(route);
        self.refused.retain(|(known, _)| *known != device);
        self.refused.push((device, routes));
    }

    /// Remembers that the first `bytes` of `range` were sent by `route`.
    pub(crate) fn sent(&mut self, range: &FileRange, bytes: u64, route: Route) {
        self.under_way = (bytes < range.len()).then(|| UnderWay {
            source: range.source().clone(),
            position: range.position() + bytes,
            route,
        });
    }
}
