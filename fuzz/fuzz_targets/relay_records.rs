//! Any bytes in a record of the relay whose checksum holds.
//! The same entry point is driven by random tests in `src/relay/records.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trine::relay::fuzz_records(bytes));
