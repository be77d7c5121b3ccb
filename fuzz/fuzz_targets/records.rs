//! Any record of an authenticated peer, to an established link of either side.
//! The same entry point is driven by random tests in `src/link/tests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trine::link::fuzz::records(bytes));
