//! The only room with unsafe code. Each wrapper is safe to call and does one thing.
#![expect(
    unsafe_code,
    reason = "mappings and raw system calls have no safe form; this is their one room"
)]

pub(crate) mod cachestat;
#[cfg(feature = "device")]
pub(crate) mod ethtool;
pub(crate) mod io_uring;
#[cfg(feature = "tls")]
pub(crate) mod ktls;
pub(crate) mod mapping;
pub(crate) mod mincore;
pub(crate) mod sockopt;
#[cfg(feature = "tls")]
pub(crate) mod window;
