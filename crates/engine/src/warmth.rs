//! Waits until bytes of a file are in the page cache, on behalf of writers that look at some of the
//! mapped bytes which they hand on. `wire.rs` needs none of this: it has a gate of its own.

use std::task::{Context, Poll, ready};

use crate::delivery::Delivery;
use crate::error::SendError;
use crate::gate::Gate;
use crate::route::{Route, RouteChoice};
use crate::sink::Sink;
use crate::source::FileRange;
use crate::transfer::PartRef;

/// Brings in what one body hands out, by the same pool of threads as for wires.
#[derive(Debug)]
pub struct Warmth {
    gate: Gate,
    /// Of no socket. It has no pipe, which would be filled with what another one sends.
    sink: Sink,
}

impl Default for Warmth {
    fn default() -> Self {
        let sink = Sink::new(RouteChoice::Only(Route::Sendfile));
        Self { gate: Gate::default(), sink }
    }
}

impl Warmth {
    /// Ready with how many bytes from the front of `range`, at least one, are in the page cache.
    /// What had to be brought in is counted for `delivery`.
    ///
    /// # Errors
    ///
    /// The disk's, for this file.
    pub fn poll_front(
        &mut self,
        cx: &mut Context<'_>,
        range: &FileRange,
        delivery: &Delivery,
    ) -> Poll<Result<u64, SendError>> {
        let parts = [PartRef::File(range.clone())];
        let room = ready!(self.gate.poll(cx, &parts, &mut self.sink))?;
        delivery.count_cold(self.gate.take_cold());
        Poll::Ready(Ok(room as u64))
    }
}
