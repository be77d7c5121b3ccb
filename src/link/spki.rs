//! An Ed25519 public key as the SubjectPublicKeyInfo that TLS carries (RFC 8410), and a seed as PKCS #8.

use rustls::pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use super::identity::{KEY_BYTES, PublicKey, SecretKey};

const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The DER form of a public key.
pub(super) fn encode_spki(key: &PublicKey) -> Vec<u8> {
    [&SPKI_HEAD[..], key.as_bytes()].concat()
}

/// Reads the DER form of an acceptable Ed25519 key; anything else is none.
pub(super) fn decode_spki(der: &[u8]) -> Option<PublicKey> {
    let key: &[u8; KEY_BYTES] = der.strip_prefix(&SPKI_HEAD)?.try_into().ok()?;
    PublicKey::parse(*key).ok()
}

/// Calls `with` with the DER form of a secret key, which is wiped afterwards.
pub(super) fn with_pkcs8<T>(key: &SecretKey, with: impl FnOnce(&PrivatePkcs8KeyDer<'_>) -> T) -> T {
    let mut der = Zeroizing::new([0; PKCS8_HEAD.len() + KEY_BYTES]);
    let (head, seed) = der.split_at_mut(PKCS8_HEAD.len());
    head.copy_from_slice(&PKCS8_HEAD);
    seed.copy_from_slice(key.seed());
    with(&PrivatePkcs8KeyDer::from(&der[..]))
}
