//! The only room with unsafe code. Each wrapper is safe to call and does one thing.
#![expect(unsafe_code, reason = "memory mappings have no safe constructor; this is their one room")]

pub(crate) mod mapping;
