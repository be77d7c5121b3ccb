//! Keys, identifiers, grants and key files.

use proptest::prelude::*;

use super::{NOW_MS, seed, user};
use crate::link::key_file::{
    KeyFileError, decode_node_key, decode_user_identity, encode_node_key, encode_user_identity,
};
use crate::link::{Grant, KeyError, NodeKey, PublicKey, SecretKey, UserIdentity};

const DOCUMENT: &str = include_str!("../../../docs/WIRE.md");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn identifiers_and_grants_are_the_documented_ones() {
    let node = NodeKey::from_seed(seed(1)).unwrap();
    let user = UserIdentity::create(seed(2), seed(3), 1_900_000_000_000).unwrap();
    let lines = [
        format!("node.public {}", hex(node.key().public().as_bytes())),
        format!("node.id {}", node.node_id()),
        format!("user.public {}", hex(user.user_key().public().as_bytes())),
        format!("user.address {}", user.address()),
        format!("device.public {}", hex(user.device_key().public().as_bytes())),
        format!("device.id {}", hex(&user.device_id().0)),
        format!("grant.signature {}", hex(&user.grant().signature)),
    ];
    let lacking: Vec<_> = lines.iter().filter(|line| !DOCUMENT.contains(*line)).collect();
    assert!(lacking.is_empty(), "docs/WIRE.md lacks these vectors: {lacking:#?}");
}

/// For a key A of small order, the equation [s]B = R + [h]A holds with s = 0 and R = -[h]A, which is one of
/// eight points; so trying those as R forges a signature without any secret.
#[test]
fn a_key_for_which_anyone_can_sign_is_refused() {
    let points: Vec<[u8; 32]> = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ]
    .iter()
    .map(|text| std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()))
    .collect();
    for key in &points {
        let forged = (0..=255u8).any(|message| {
            points.iter().any(|commitment| {
                let signature = [&commitment[..], &[0; 32]].concat();
                ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
                    .verify(&[message], &signature)
                    .is_ok()
            })
        });
        assert!(forged, "this point has small order: {}", hex(key));
        assert_eq!(PublicKey::parse(*key), Err(KeyError::SmallOrder));
    }
    for (first, last) in [(0xed, 0x7f), (0xed, 0xff), (0xee, 0x7f), (0xee, 0xff), (0xec, 0xff)] {
        let mut key = [0xff; 32];
        (key[0], key[31]) = (first, last);
        assert_eq!(PublicKey::parse(key), Err(KeyError::SmallOrder), "another encoding of one of them");
    }
}

#[test]
fn a_grant_is_valid_only_for_its_user_device_and_time() {
    let [owner, device, other] = [1, 2, 3].map(|byte| SecretKey::from_seed(seed(byte)).unwrap());
    let grant = Grant::sign(&owner, device.public(), NOW_MS);
    assert_eq!(grant.verify(owner.public(), device.public()), Ok(()));
    assert_eq!(grant.verify(other.public(), device.public()), Err(KeyError::BadSignature));
    assert_eq!(grant.verify(owner.public(), other.public()), Err(KeyError::BadSignature));
    let longer = Grant { expires_ms: NOW_MS + 1, ..grant };
    assert_eq!(longer.verify(owner.public(), device.public()), Err(KeyError::BadSignature));
}

#[test]
fn key_files_read_back_as_the_same_keys() {
    let node = NodeKey::from_seed(seed(7)).unwrap();
    let text = encode_node_key(&node);
    assert!(text.starts_with("trine-node-key 1\nnode-id trinenode1"));
    assert_eq!(decode_node_key(text.as_bytes()).unwrap().node_id(), node.node_id());

    let user = user(8);
    let text = encode_user_identity(&user);
    let read = decode_user_identity(text.as_bytes()).unwrap();
    assert_eq!(
        (read.address(), read.device_id(), *read.grant()),
        (user.address(), user.device_id(), *user.grant())
    );
    assert!(text.len() < 1024);
}

#[test]
fn a_key_file_with_any_changed_byte_is_refused() {
    let text = encode_user_identity(&user(8));
    for at in 0..text.len() {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1;
        assert!(decode_user_identity(&bytes).is_err(), "byte {at}");
        assert!(decode_user_identity(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_key_file_of_another_kind_is_refused_with_the_reason() {
    let node = encode_node_key(&NodeKey::from_seed(seed(7)).unwrap());
    let refused = decode_user_identity(node.as_bytes()).unwrap_err();
    assert_eq!(refused, KeyFileError::WrongHead { expected: "trine-user-key 1" });
    let newer = node.replace("trine-node-key 1", "trine-node-key 2");
    assert!(matches!(decode_node_key(newer.as_bytes()), Err(KeyFileError::WrongHead { .. })));
    let longer = format!("{}\n", *node);
    assert_eq!(decode_node_key(longer.as_bytes()).unwrap_err(), KeyFileError::TrailingLines);
    assert_eq!(decode_node_key(&[b'a'; 5000]).unwrap_err(), KeyFileError::NotText);
    let refused = decode_node_key(b"trine-node-key 1\nseed 00\n").unwrap_err();
    assert_eq!(refused, KeyFileError::BadLine { line: 2, field: "node-id" });
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let shown = format!("{:?} {:?}", NodeKey::from_seed(seed(0xab)).unwrap(), user(0xab));
    assert!(!shown.contains("171, 171") && !shown.contains("abab"), "{shown}");
}

proptest! {
    #[test]
    fn random_key_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::link::fuzz::key_files(&bytes);
    }

    #[test]
    fn damaged_key_files_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode_user_identity(&user(8)).as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        crate::link::fuzz::key_files(&bytes);
    }
}
