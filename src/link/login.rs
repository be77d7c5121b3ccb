//! The login: what a client signs to prove who it is on this one link, and how a node checks it.
//!
//! Promise: a LOGIN frame is worth nothing on another link (the TLS exporter differs) or towards another node
//! (the node id differs). On failure the same work is done whichever part was wrong.

use super::identity::{Grant, KEY_BYTES, PublicKey, UserIdentity};
use crate::wire::{Address, Capabilities, CloseCode, DeviceId, Login, NodeId, PROTOCOL_VERSION};

/// Largest accepted difference between the client's clock and the node's, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 10 * 60 * 1000;

const LABEL: &[u8; 14] = b"trine login v1";
const MESSAGE_BYTES: usize = LABEL.len() + 32 + 32 + 32 + 16 + 2 + 8;

/// Stands in for a public key of small order, so that such a login costs as much to refuse as any other: the
/// Ed25519 base point, to which nobody is known to hold a seed.
const STAND_IN_KEY: [u8; KEY_BYTES] = {
    let mut bytes = [0x66; KEY_BYTES];
    bytes[0] = 0x58;
    bytes
};

/// A value that only the two ends of this link know; the same on both.
#[derive(Clone, PartialEq, Eq)]
pub struct Exporter(pub [u8; 32]);

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter(..)")
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// Who logged in, and what was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// The user.
    pub address: Address,
    /// The user's device.
    pub device_id: DeviceId,
    /// Highest version that both sides speak.
    pub version: u16,
    /// Features that both sides have.
    pub capabilities: Capabilities,
}

/// What the device key signs. `version` is the highest that the client offers.
pub fn login_proof_message(
    exporter: &Exporter,
    node_id: &NodeId,
    address: &Address,
    device_id: &DeviceId,
    version: u16,
    time_ms: u64,
) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    let mut rest = &mut message[..];
    let fields: [&[u8]; 7] = [
        LABEL,
        &exporter.0,
        &node_id.0,
        &address.0,
        &device_id.0,
        &version.to_be_bytes(),
        &time_ms.to_be_bytes(),
    ];
    for field in fields {
        let (slot, tail) = rest.split_at_mut(field.len());
        slot.copy_from_slice(field);
        rest = tail;
    }
    message
}

/// The LOGIN frame with which `identity` logs in on the link with this exporter, to this node, at this time.
pub fn make_login(identity: &UserIdentity, exporter: &Exporter, node_id: &NodeId, time_ms: u64) -> Login {
    let device = identity.device_key();
    let version_max = PROTOCOL_VERSION;
    let message = login_proof_message(
        exporter,
        node_id,
        &identity.address(),
        &identity.device_id(),
        version_max,
        time_ms,
    );
    Login {
        version_min: PROTOCOL_VERSION,
        version_max,
        capabilities: Capabilities::SUPPORTED,
        time_ms,
        user_key: *identity.user_key().public().as_bytes(),
        device_key: *device.public().as_bytes(),
        grant_expires_ms: identity.grant().expires_ms,
        grant_signature: identity.grant().signature,
        proof_signature: device.sign(&message),
    }
}

/// Checks a LOGIN frame that arrived on the link with this exporter at the node `node_id`, at `wall_ms`.
///
/// Errors, in this order: `Version`, `AuthFailed`, `ClockSkew`, `GrantExpired`.
pub fn verify_login(
    login: &Login,
    exporter: &Exporter,
    node_id: &NodeId,
    wall_ms: u64,
) -> Result<LoggedIn, CloseCode> {
    let version = login.version_max.min(PROTOCOL_VERSION);
    if login.version_min > login.version_max || version < login.version_min.max(PROTOCOL_VERSION) {
        return Err(CloseCode::Version);
    }
    let (user, user_sound) = key_or_stand_in(login.user_key);
    let (device, device_sound) = key_or_stand_in(login.device_key);
    let (address, device_id) = (user.address(), device.device_id());
    let message =
        login_proof_message(exporter, node_id, &address, &device_id, login.version_max, login.time_ms);
    let grant = Grant { expires_ms: login.grant_expires_ms, signature: login.grant_signature };
    let granted = grant.verify(&user, &device).is_ok();
    let proven = device.verify(&message, &login.proof_signature).is_ok();
    if !(user_sound & device_sound & granted & proven) {
        return Err(CloseCode::AuthFailed);
    }
    if login.time_ms.abs_diff(wall_ms) > CLOCK_SKEW_MS_MAX {
        return Err(CloseCode::ClockSkew);
    }
    if login.grant_expires_ms <= wall_ms {
        return Err(CloseCode::GrantExpired);
    }
    let capabilities = login.capabilities.both(Capabilities::SUPPORTED);
    Ok(LoggedIn { address, device_id, version, capabilities })
}

/// The key, or one of no use in its place, and whether it was the key.
fn key_or_stand_in(bytes: [u8; KEY_BYTES]) -> (PublicKey, bool) {
    match PublicKey::parse(bytes) {
        Ok(key) => (key, true),
        Err(_) => {
            // PANIC: the base point is on the curve and has the group's large order.
            (PublicKey::parse(STAND_IN_KEY).expect("the base point is a key"), false)
        }
    }
}
