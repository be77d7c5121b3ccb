//! Any bytes to a new link of either side, instead of a TLS handshake.
//! The same entry point is driven by random tests in `src/link/tests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trine::link::fuzz::handshakes(bytes));
