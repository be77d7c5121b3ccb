//! Entry points that take any bytes: for the fuzz targets, and for the random tests that stand in for them.

use super::key_file::{decode_node_key, decode_user_identity, encode_node_key, encode_user_identity};

/// Decodes `bytes` as key files. Panics if decoding and encoding disagree.
pub fn key_files(bytes: &[u8]) {
    if let Ok(key) = decode_node_key(bytes) {
        assert_eq!(encode_node_key(&key).as_bytes(), bytes);
    }
    if let Ok(identity) = decode_user_identity(bytes) {
        assert_eq!(encode_user_identity(&identity).as_bytes(), bytes);
    }
}
