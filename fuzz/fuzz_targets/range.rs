//! Any Range header, of a file of any length. What has to hold is in crates/http/src/fuzzing.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pagewire_http::fuzzing::range(data));
