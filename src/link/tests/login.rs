//! The login: what passes, and each way in which it does not.

use super::{NOW_MS, seed, user};
use crate::link::{
    CLOCK_SKEW_MS_MAX, Exporter, NodeKey, UserIdentity, login_proof_message, make_login, verify_login,
};
use crate::wire::{Capabilities, ClientFrame, CloseCode, Login, NodeId};

const EXPORTER: Exporter = Exporter([0x77; 32]);

fn node_id() -> NodeId {
    NodeKey::from_seed(seed(1)).unwrap().node_id()
}

fn login() -> Login {
    make_login(&user(2), &EXPORTER, &node_id(), NOW_MS)
}

fn verify(login: &Login) -> Result<crate::link::LoggedIn, CloseCode> {
    verify_login(login, &EXPORTER, &node_id(), NOW_MS)
}

#[test]
fn a_login_tells_the_node_who_is_there() {
    let logged_in = verify(&login()).unwrap();
    let user = user(2);
    assert_eq!((logged_in.address, logged_in.device_id), (user.address(), user.device_id()));
    assert_eq!((logged_in.version, logged_in.capabilities), (1, Capabilities(0)));
}

#[test]
fn the_login_of_the_document_is_the_one_that_is_made() {
    let user = UserIdentity::create(seed(2), seed(3), 1_900_000_000_000).unwrap();
    let message = login_proof_message(&EXPORTER, &node_id(), &user.address(), &user.device_id(), 1, NOW_MS);
    let mut frame = Vec::new();
    ClientFrame::Login(make_login(&user, &EXPORTER, &node_id(), NOW_MS)).encode(&mut frame);
    let document = include_str!("../../../docs/WIRE.md");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines = [format!("login.message {}", hex(&message)), format!("login.frame {}", hex(&frame))];
    let lacking: Vec<_> = lines.iter().filter(|line| !document.contains(*line)).collect();
    assert!(lacking.is_empty(), "docs/WIRE.md lacks these vectors: {lacking:#?}");
}

#[test]
fn a_login_replayed_on_another_link_or_relayed_to_another_node_fails() {
    let other_link = Exporter([0x78; 32]);
    assert_eq!(verify_login(&login(), &other_link, &node_id(), NOW_MS), Err(CloseCode::AuthFailed));
    let other_node = NodeKey::from_seed(seed(9)).unwrap().node_id();
    assert_eq!(verify_login(&login(), &EXPORTER, &other_node, NOW_MS), Err(CloseCode::AuthFailed));
}

#[test]
fn a_login_with_any_signed_part_changed_fails() {
    let changes: [fn(&mut Login); 6] = [
        |login| login.time_ms += 1,
        |login| login.grant_expires_ms += 1,
        |login| login.grant_signature[0] ^= 1,
        |login| login.proof_signature[63] ^= 1,
        |login| login.version_max += 1,
        |login| login.user_key = *super::user(5).user_key().public().as_bytes(),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut login = login();
        change(&mut login);
        assert_eq!(verify(&login), Err(CloseCode::AuthFailed), "change {index}");
    }
}

#[test]
fn a_device_without_a_grant_of_its_own_fails() {
    let (mine, other) = (user(2), user(5));
    let mut login = make_login(&mine, &EXPORTER, &node_id(), NOW_MS);
    login.device_key = *other.device_key().public().as_bytes();
    let message = login_proof_message(
        &EXPORTER,
        &node_id(),
        &mine.address(),
        &other.device_id(),
        login.version_max,
        login.time_ms,
    );
    login.proof_signature = other.device_key().sign(&message);
    assert_eq!(verify(&login), Err(CloseCode::AuthFailed));
}

#[test]
fn keys_of_small_order_and_keys_off_the_curve_fail() {
    let mut identity_point = [0; 32];
    identity_point[0] = 1;
    for key in [identity_point, [0; 32], [0xff; 32], [2; 32]] {
        let mut forged = login();
        forged.user_key = key;
        // With the neutral element as key, this signature verifies over every message.
        forged.grant_signature = [0; 64];
        forged.grant_signature[0] = 1;
        assert_eq!(verify(&forged), Err(CloseCode::AuthFailed));
        let mut forged = login();
        forged.device_key = key;
        forged.proof_signature = [0; 64];
        forged.proof_signature[0] = 1;
        assert_eq!(verify(&forged), Err(CloseCode::AuthFailed));
    }
}

#[test]
fn clocks_may_differ_by_ten_minutes_and_no_more() {
    let login = login();
    for (wall_ms, expected) in [
        (NOW_MS + CLOCK_SKEW_MS_MAX, true),
        (NOW_MS - CLOCK_SKEW_MS_MAX, true),
        (NOW_MS + CLOCK_SKEW_MS_MAX + 1, false),
        (NOW_MS - CLOCK_SKEW_MS_MAX - 1, false),
        (0, false),
        (u64::MAX, false),
    ] {
        let verified = verify_login(&login, &EXPORTER, &node_id(), wall_ms);
        assert_eq!(verified.err(), if expected { None } else { Some(CloseCode::ClockSkew) });
    }
}

#[test]
fn a_grant_ends_at_its_time() {
    for (expires_ms, expected) in [(NOW_MS + 1, None), (NOW_MS, Some(CloseCode::GrantExpired))] {
        let user = UserIdentity::create(seed(2), seed(3), expires_ms).unwrap();
        let login = make_login(&user, &EXPORTER, &node_id(), NOW_MS);
        assert_eq!(verify(&login).err(), expected);
    }
}

#[test]
fn versions_must_overlap() {
    for (min, max, expected) in [
        (2, 3, Some(CloseCode::Version)),
        (0, 0, Some(CloseCode::Version)),
        (2, 1, Some(CloseCode::Version)),
        (1, 0, Some(CloseCode::Version)),
    ] {
        let mut login = login();
        (login.version_min, login.version_max) = (min, max);
        assert_eq!(verify(&login).err(), expected, "{min} to {max}");
    }
    let user = user(2);
    let mut newer = make_login(&user, &EXPORTER, &node_id(), NOW_MS);
    (newer.version_min, newer.version_max) = (0, 7);
    let message = login_proof_message(&EXPORTER, &node_id(), &user.address(), &user.device_id(), 7, NOW_MS);
    newer.proof_signature = user.device_key().sign(&message);
    assert_eq!(verify(&newer).map(|logged_in| logged_in.version), Ok(1));
}
