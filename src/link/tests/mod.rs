//! Tests of identity, login and transport.

mod established;
mod foreign;
mod handshake;
mod identity;
mod login;
mod pair;

use zeroize::Zeroizing;

use super::{Seed, UserIdentity};

/// A seed for tests.
fn seed(byte: u8) -> Seed {
    Zeroizing::new([byte; 32])
}

/// A wall clock for tests, in milliseconds since 1970.
const NOW_MS: u64 = 1_800_000_000_000;

/// A user whose grant has a year to go.
fn user(byte: u8) -> UserIdentity {
    UserIdentity::create(seed(byte), seed(byte + 1), NOW_MS + 365 * 86_400_000).unwrap()
}
