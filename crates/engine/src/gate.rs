//! The gate before each step: bytes of a file pass when they are in the page cache; those that
//! are not are brought in first, by the cold pool. One gate a socket.

use std::task::{Context, Poll};

use crate::cold::{Fetch, Urgency};
use crate::error::Fault;
use crate::meter::Cold;
use crate::residency::{Residency, Storage};
use crate::route::Route;
use crate::sink::Sink;
use crate::source::{FileRange, SourceFile};
use crate::transfer::PartRef;

/// The length of a cold window: one is brought in while another one is sent.
const WINDOW_BYTES: u64 = 512 * 1024;

/// What one socket knows of the residency of what it sends.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Up to here the file under way is known to be in the page cache.
    known: Option<(SourceFile, u64)>,
    /// The window that this socket waits for.
    wanted: Option<Fetch>,
    /// The window after the one that is being sent.
    ahead: Option<Fetch>,
    /// Since it was last taken.
    cold: Cold,
}

impl Gate {
    /// Ready with how many bytes from the front of `parts` may be sent without waiting for a
    /// disk; at least one. An error is the disk's, for this file.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[PartRef<'_>],
        sink: &mut Sink,
    ) -> Poll<Result<usize, Fault>> {
        let mut room: u64 = 0;
        let mut files = 0;
        for part in parts {
            let (len, passes) = match part {
                PartRef::Bytes(bytes) => (bytes.len() as u64, bytes.len() as u64),
                // There is one pipe: what precedes it goes first.
                PartRef::File(range) if files > 0 && sink.wants_piped(range) => break,
                PartRef::File(range) => match self.poll_range(cx, range, sink) {
                    Poll::Ready(passes) => (range.len(), passes?),
                    // What precedes it may go, if that is more than its own head.
                    Poll::Pending if files > 0 => break,
                    Poll::Pending => return Poll::Pending,
                },
            };
            files += usize::from(matches!(part, PartRef::File(_)));
            room += passes;
            if passes < len || room >= WINDOW_BYTES {
                break;
            }
        }
        Poll::Ready(Ok(usize::try_from(room).unwrap_or(usize::MAX)))
    }

    /// What had to be brought in since the last call.
    pub(crate) fn take_cold(&mut self) -> Cold {
        std::mem::take(&mut self.cold)
    }

    /// Ready with how many bytes from the front of `range` are in the page cache, or in the pipe
    /// of `sink`.
    fn poll_range(
        &mut self,
        cx: &mut Context<'_>,
        range: &FileRange,
        sink: &mut Sink,
    ) -> Poll<Result<u64, Fault>> {
        let source = range.source();
        if sink.wants_piped(range) {
            return self.poll_piped(cx, range, sink);
        }
        if source.storage() == Storage::Memory {
            return Poll::Ready(Ok(range.len()));
        }
        let known = source.known_hot(range.position()).or_else(|| self.known_of(range));
        if let Some(end) = known {
            return Poll::Ready(Ok(range.end().min(end) - range.position()));
        }
        let covering = |fetch: &Fetch| fetch.covers(range.position(), source);
        let wanted = match self.wanted.take().filter(covering) {
            Some(wanted) => wanted,
            None => {
                let ahead = self.ahead.take().filter(covering);
                match (self.ask(range), ahead) {
                    (Some(hot), _) => return Poll::Ready(Ok(hot)),
                    (None, Some(ahead)) => self.want(ahead),
                    (None, None) => {
                        source.read_only_when_asked();
                        self.want(Fetch::begin(&range.front(WINDOW_BYTES), Urgency::Now))
                    }
                }
            }
        };
        match wanted.poll(cx) {
            Poll::Pending => {
                self.wanted = Some(wanted);
                Poll::Pending
            }
            Poll::Ready(outcome) => {
                outcome?;
                let end = wanted.range().end();
                self.known = Some((source.clone(), end));
                self.fetch_ahead(range, end);
                Poll::Ready(Ok(end.min(range.end()) - range.position()))
            }
        }
    }

    /// As `poll_range`, by way of a pipe that the cold pool fills.
    fn poll_piped(
        &mut self,
        cx: &mut Context<'_>,
        range: &FileRange,
        sink: &mut Sink,
    ) -> Poll<Result<u64, Fault>> {
        if let Some(piped) = sink.piped(range) {
            return Poll::Ready(Ok(piped));
        }
        let fits = |fetch: &Fetch| fetch.fills_pipe_with(range);
        let wanted = match (self.wanted.take().filter(fits), self.ahead.take().filter(fits)) {
            (Some(wanted), _) => wanted,
            (None, Some(ahead)) if ahead.is_done() => ahead,
            (None, Some(ahead)) => self.want(ahead),
            (None, None) => self.want(Fetch::into_pipe(&range.front(WINDOW_BYTES), Urgency::Now)),
        };
        match wanted.poll(cx) {
            Poll::Pending => {
                self.wanted = Some(wanted);
                Poll::Pending
            }
            Poll::Ready(outcome) => {
                outcome?;
                sink.pipe = wanted.take_pipe();
                let Some(piped) = sink.piped(range) else {
                    // It does not splice: the next poll takes another way.
                    sink.refuse(range, Route::Splice);
                    return self.poll_range(cx, range, sink);
                };
                let next = range.starting_at(range.position() + piped);
                let ahead = |next: FileRange| next.front(WINDOW_BYTES);
                self.ahead = next.map(|next| Fetch::into_pipe(&ahead(next), Urgency::Ahead));
                Poll::Ready(Ok(piped))
            }
        }
    }

    /// Up to where `range` is known to be in the page cache.
    fn known_of(&self, range: &FileRange) -> Option<u64> {
        let (source, end) = self.known.as_ref()?;
        (source.is(range.source()) && *end > range.position()).then_some(*end)
    }

    /// Asks the kernel about what lies ahead of it: as far as its block reaches, so that the
    /// question is spread over some steps, and if not all of that is there, near.
    fn ask(&mut self, range: &FileRange) -> Option<u64> {
        let source = range.source();
        if source.storage() == Storage::Remote {
            return None;
        }
        let hot = |front: &FileRange| source.residency(front) == Residency::Hot;
        let far = range.front(source.block_end(range.position()) - range.position());
        if hot(&far) {
            source.found_hot(&far);
            self.known = Some((source.clone(), far.end()));
            return Some(far.len());
        }
        let near = range.front(WINDOW_BYTES);
        if near.len() < far.len() && hot(&near) {
            self.known = Some((source.clone(), near.end()));
            self.fetch_ahead(range, near.end());
            return Some(near.len());
        }
        None
    }

    /// Has this socket wait for `fetch`, and counts that.
    fn want(&mut self, fetch: Fetch) -> Fetch {
        fetch.hurry();
        self.cold.waits += 1;
        self.cold.bytes += fetch.range().len();
        fetch
    }

    /// Starts on the window of `range` that begins at `position`.
    fn fetch_ahead(&mut self, range: &FileRange, position: u64) {
        let next = range.starting_at(position);
        self.ahead = next.map(|next| Fetch::begin(&next.front(WINDOW_BYTES), Urgency::Ahead));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Wake, Waker};

    use super::*;
    use crate::residency::tests::{drop_pages, on_disk};

    const LEN: u64 = 3 * WINDOW_BYTES + 1;

    /// A file on the disk under the build, none of it in the page cache.
    fn cold_file() -> Option<(tempfile::TempDir, SourceFile)> {
        let (directory, file) = on_disk(LEN)?;
        let source = SourceFile::new(file).unwrap();
        drop_pages(&source, || source.residency(&source.whole()) == Residency::Cold);
        Some((directory, source))
    }

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    #[test]
    fn cold_windows_are_brought_in_one_by_one() {
        let Some((_directory, source)) = cold_file() else { return };
        let (mut gate, mut sink) = (Gate::default(), Sink::default());
        let mut position = 0;
        while position < LEN {
            let parts = [PartRef::File(source.range(position, LEN - position).unwrap())];
            let room = block_on(poll_fn(|cx| gate.poll(cx, &parts, &mut sink))).unwrap() as u64;
            assert!(room > 0);
            let passed = source.range(position, room).unwrap();
            assert_eq!(source.residency(&passed), Residency::Hot);
            position += room;
        }
        assert_eq!(position, LEN);
        assert!(gate.take_cold().waits >= 1);
        assert_eq!(gate.take_cold(), Cold::default());
    }

    #[test]
    fn hot_files_pass_at_once() {
        let Some((_directory, source)) = cold_file() else { return };
        let mut content = vec![0; usize::try_from(LEN).unwrap()];
        rustix::io::pread(&source, &mut content, 0).unwrap();
        let (mut gate, mut sink) = (Gate::default(), Sink::default());
        let parts = [PartRef::Bytes(b"head"), PartRef::File(source.whole())];
        let waker = Waker::noop();
        let polled = gate.poll(&mut Context::from_waker(waker), &parts, &mut sink);
        assert_eq!(polled, Poll::Ready(Ok(usize::try_from(LEN).unwrap() + 4)));
        assert_eq!(gate.take_cold(), Cold::default());
        assert_eq!(source.known_hot(1), Some(LEN), "all of it was seen");
    }

    #[test]
    fn what_precedes_a_cold_file_passes_when_it_is_more_than_a_head() {
        let Some((_directory, source)) = cold_file() else { return };
        let in_memory = crate::proof::scratch_file_in_memory().unwrap();
        in_memory.set_len(100).unwrap();
        let hot = SourceFile::new(in_memory).unwrap().whole();
        let parts = [PartRef::Bytes(b"head"), PartRef::File(hot), PartRef::File(source.whole())];
        let (mut gate, mut sink) = (Gate::default(), Sink::default());
        let waker = Waker::noop();
        let polled = gate.poll(&mut Context::from_waker(waker), &parts, &mut sink);
        assert_eq!(polled, Poll::Ready(Ok(104)));
        let polled = gate.poll(&mut Context::from_waker(waker), &parts[2..], &mut sink);
        // The disk may have been quicker than this second look.
        assert!(polled.is_pending() || matches!(polled, Poll::Ready(Ok(_))));
    }
}
