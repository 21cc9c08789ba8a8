//! The file that a connection seals from where it is mapped.

use rustix::io::Errno;

use crate::route::Route;
use crate::sink::Sink;
use crate::source::{FileRange, SourceFile};
use crate::sys::window::Window;

/// What was read is given back after so many bytes. Until then it counts as memory of this
/// process; and each time all threads forget what they know of its mappings (TLB).
const HELD_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The mapping of the file under way. Apart from that of the [`SourceFile`]: what a file's cut
/// tears does not outlive a response.
#[derive(Debug, Default)]
pub(crate) struct Mapped(Option<(SourceFile, Window)>);

impl Mapped {
    /// Has `read` read the first `len` bytes of `range`, which holds as many. `None` where they
    /// cannot be mapped, which `sink` then remembers, or were not all there.
    pub(crate) fn read<R>(
        &mut self,
        sink: &mut Sink,
        range: &FileRange,
        len: usize,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let known = self.0.take().filter(|(source, _)| source.is(range.source()));
        let mut made = None;
        if let Some((source, mut window)) = known.or_else(|| open(sink, range)) {
            made = window.read(range.position(), len, read);
            if window.held() >= HELD_BYTES_MAX {
                window.let_go();
            }
            if made.is_some() && range.len() > len as u64 {
                self.0 = Some((source, window));
            }
        }
        made
    }

    /// Gives back what was read: the connection waits.
    pub(crate) fn let_go(&mut self) {
        if let Some((_, window)) = &mut self.0 {
            window.let_go();
        }
    }

    pub(crate) fn close(&mut self) {
        self.0 = None;
    }
}

fn open(sink: &mut Sink, range: &FileRange) -> Option<(SourceFile, Window)> {
    let source = range.source();
    match Window::of(source, range.position(), range.len()) {
        Ok(window) => Some((source.clone(), window)),
        Err(error) => {
            tracing::debug!(%error, "not mapped: read instead");
            // Another time there may be room for it.
            if Errno::from_io_error(&error) != Some(Errno::NOMEM) {
                sink.refuse(range, Route::MmapWrite);
            }
            None
        }
    }
}
