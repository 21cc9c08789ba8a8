//! Any query of a directory, with any Accept header.
//! What has to hold is in crates/http/src/fuzzing.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pagewire_http::fuzzing::listing_query(data));
