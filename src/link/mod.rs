//! Identity, login and the encrypted transport.

#[doc(hidden)]
pub mod fuzz;
mod identity;
pub mod key_file;
mod login;

pub use identity::{
    Grant, KEY_BYTES, KeyError, NodeKey, PublicKey, SIGNATURE_BYTES, SecretKey, Seed, UserIdentity,
};
pub use login::{CLOCK_SKEW_MS_MAX, Exporter, LoggedIn, login_proof_message, make_login, verify_login};

#[cfg(test)]
mod tests;
