//! Any bytes where a lane expects its segments: the decoders alone, and a whole recovery over them.
//! The same entry point is driven by random tests in `shards/src/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shards::fuzz::segment(bytes));
