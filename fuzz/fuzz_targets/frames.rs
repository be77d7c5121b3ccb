//! Any bytes as frames of both directions.
//! The same entry point is driven by random tests in `src/wire/tests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trine::wire::fuzz::frames(bytes));
