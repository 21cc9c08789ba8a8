//! Moves bytes from files to sockets by the cheapest route the kernel has, and says which.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "rooms that only the wire enters"))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("pagewire-engine needs 64-bit Linux: its routes are Linux system calls");

mod closing;
mod cold;
mod delivery;
mod error;
mod gate;
mod meter;
mod patience;
mod plan;
mod registry;
mod residency;
mod route;
mod routes;
mod sink;
#[cfg(feature = "tokio")]
mod socket;
mod source;
mod sys;
mod throttle;
mod transfer;
mod warmth;
#[cfg(feature = "tokio")]
mod wire;

pub mod blocking;
pub mod copies;
#[cfg(feature = "device")]
pub mod device;
pub mod pacing;
pub mod probe;
pub mod proof;
#[cfg(feature = "tls")]
pub mod tls;

pub use delivery::{Delivery, DeliveryWatch, Ledger, Outcome};
pub use error::{RangeError, SendError, TransferError};
pub use meter::{Cold, Count, Meter, Report, Tally};
pub use patience::{PACE_WINDOW, Patience, Tolerance};
pub use plan::{SMALL_RANGE_BYTES_MAX, STEP_BYTES_MAX};
pub use residency::Storage;
pub use route::{Route, RouteChoice, UnknownRoute};
#[cfg(feature = "tokio")]
pub use socket::Socket;
pub use source::{FileRange, Identity, Modified, Part, Payload, SourceFile};
pub use throttle::Throttle;
pub use warmth::Warmth;
#[cfg(feature = "tokio")]
pub use wire::Wire;
