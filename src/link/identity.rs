//! Ed25519 keys of nodes, users and devices, and the identifiers that are hashes of them.
//!
//! Seeds come in as parameters; nothing here draws a random number. A seed is wiped from memory when its key
//! is dropped. The expanded key that ring makes from it for one signature lives on the stack for that call
//! only.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::wire::{Address, DeviceId, NodeId};

const NODE_ID_CONTEXT: &str = "trine 2026 node id v1";
const ADDRESS_CONTEXT: &str = "trine 2026 user address v1";
const DEVICE_ID_CONTEXT: &str = "trine 2026 device id v1";
const GRANT_LABEL: &[u8; 21] = b"trine device grant v1";

/// Bytes of an Ed25519 seed and of a public key.
pub const KEY_BYTES: usize = 32;
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The secret an Ed25519 key is made from; wiped when dropped.
pub type Seed = Zeroizing<[u8; KEY_BYTES]>;

/// A key or signature that cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// One of the eight points for which signatures can be made without a secret.
    #[error("the public key has small order, anyone could sign for it; make a new key")]
    SmallOrder,
    /// The signature is not by this key over this message, or the key is no curve point.
    #[error("the signature is not valid for this key and message")]
    BadSignature,
    /// ring did not accept the seed.
    #[error("the seed does not make an Ed25519 key")]
    BadSeed,
}

/// The y coordinates, sign bit cleared, of all encodings of points of small order: 0, 1, the two of order 8,
/// -1, and the two that are 0 and 1 again when reduced.
const SMALL_ORDER: [[u8; KEY_BYTES]; 7] = [
    [0; KEY_BYTES],
    edges(0x01, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    edges(0xec, 0xff, 0x7f),
    edges(0xed, 0xff, 0x7f),
    edges(0xee, 0xff, 0x7f),
];

/// 32 bytes that are `middle` but for the first and the last.
const fn edges(first: u8, middle: u8, last: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [middle; KEY_BYTES];
    bytes[0] = first;
    bytes[KEY_BYTES - 1] = last;
    bytes
}

/// An Ed25519 public key that is not of small order. Whether it is a curve point at all shows when it
/// verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Refuses keys of small order.
    pub fn parse(bytes: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        let mut y = bytes;
        y[KEY_BYTES - 1] &= 0x7f;
        if SMALL_ORDER.contains(&y) { Err(KeyError::SmallOrder) } else { Ok(Self(bytes)) }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Checks `signature` over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| KeyError::BadSignature)
    }

    /// The id of the node with this key.
    pub fn node_id(&self) -> NodeId {
        NodeId(blake3::derive_key(NODE_ID_CONTEXT, &self.0))
    }

    /// The address of the user with this key.
    pub fn address(&self) -> Address {
        Address(blake3::derive_key(ADDRESS_CONTEXT, &self.0))
    }

    /// The id of the device with this key.
    pub fn device_id(&self) -> DeviceId {
        let hash = blake3::derive_key(DEVICE_ID_CONTEXT, &self.0);
        DeviceId(std::array::from_fn(|index| hash[index]))
    }
}

/// A secret key with its public half. Never printed.
pub struct SecretKey {
    seed: Seed,
    public: PublicKey,
}

impl SecretKey {
    /// The key that `seed` makes.
    pub fn from_seed(seed: Seed) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| KeyError::BadSeed)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::BadSeed)?;
        Ok(Self { seed, public: PublicKey::parse(public)? })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The secret half.
    pub(super) fn seed(&self) -> &[u8; KEY_BYTES] {
        &self.seed
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        // PANIC: from_seed has made a pair of this seed, and it has not changed.
        let pair = Ed25519KeyPair::from_seed_unchecked(&*self.seed).expect("a seed that was accepted");
        // PANIC: every Ed25519 signature has 64 bytes.
        pair.sign(message).as_ref().try_into().expect("64 bytes")
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// The user key's word that a device may act for the user until a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The user key's signature.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Grant {
    /// Signs a grant for the device with the key `device`.
    pub fn sign(user: &SecretKey, device: &PublicKey, expires_ms: u64) -> Self {
        Self { expires_ms, signature: user.sign(&grant_message(device.as_bytes(), expires_ms)) }
    }

    /// Checks that `user` granted this to `device`. Does not look at the time.
    pub fn verify(&self, user: &PublicKey, device: &PublicKey) -> Result<(), KeyError> {
        user.verify(&grant_message(device.as_bytes(), self.expires_ms), &self.signature)
    }
}

fn grant_message(device: &[u8; KEY_BYTES], expires_ms: u64) -> [u8; GRANT_LABEL.len() + KEY_BYTES + 8] {
    let mut message = [0; GRANT_LABEL.len() + KEY_BYTES + 8];
    let (label, rest) = message.split_at_mut(GRANT_LABEL.len());
    let (key, expiry) = rest.split_at_mut(KEY_BYTES);
    label.copy_from_slice(GRANT_LABEL);
    key.copy_from_slice(device);
    expiry.copy_from_slice(&expires_ms.to_be_bytes());
    message
}

/// A node's key.
#[derive(Debug)]
pub struct NodeKey(SecretKey);

impl NodeKey {
    /// The key that `seed` makes.
    pub fn from_seed(seed: Seed) -> Result<Self, KeyError> {
        SecretKey::from_seed(seed).map(Self)
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.0.public().node_id()
    }

    /// Secret and public half.
    pub(super) fn key(&self) -> &SecretKey {
        &self.0
    }
}

/// All that one device of a user needs to log in.
#[derive(Debug)]
pub struct UserIdentity {
    user: SecretKey,
    device: SecretKey,
    grant: Grant,
}

impl UserIdentity {
    /// Makes the keys of a user and of a first device, and grants that device access until `expires_ms`.
    pub fn create(user_seed: Seed, device_seed: Seed, expires_ms: u64) -> Result<Self, KeyError> {
        let user = SecretKey::from_seed(user_seed)?;
        let device = SecretKey::from_seed(device_seed)?;
        let grant = Grant::sign(&user, device.public(), expires_ms);
        Ok(Self { user, device, grant })
    }

    /// Puts stored parts together; refuses a grant that is not by this user for this device.
    pub fn from_parts(user_seed: Seed, device_seed: Seed, grant: Grant) -> Result<Self, KeyError> {
        let user = SecretKey::from_seed(user_seed)?;
        let device = SecretKey::from_seed(device_seed)?;
        grant.verify(user.public(), device.public())?;
        Ok(Self { user, device, grant })
    }

    /// The user's address.
    pub fn address(&self) -> Address {
        self.user.public().address()
    }

    /// The device's id.
    pub fn device_id(&self) -> DeviceId {
        self.device.public().device_id()
    }

    /// The grant of this device.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(super) fn user_key(&self) -> &SecretKey {
        &self.user
    }

    pub(super) fn device_key(&self) -> &SecretKey {
        &self.device
    }
}
