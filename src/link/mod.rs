//! Identity, login and the encrypted transport.
