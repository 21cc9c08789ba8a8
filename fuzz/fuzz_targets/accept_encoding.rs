//! Any Accept-Encoding header. What has to hold is in crates/http/src/fuzzing.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pagewire_http::fuzzing::accept_encoding(data));
