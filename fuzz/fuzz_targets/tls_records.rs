//! Any records of a TLS peer. What has to hold is in crates/engine/src/tls/fuzzing.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pagewire_engine::tls::fuzzing::tls_records(data));
