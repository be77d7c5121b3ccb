//! Handshakes between our two sides, whole and in pieces, and the ways in which they fail.

use std::sync::Arc;

use proptest::prelude::*;

use super::pair::{Configs, End, connect, established, node_key, shuttle};
use super::{NOW_MS, seed, user};
use crate::link::{
    ClientLink, ClientLinkConfig, Expect, HANDSHAKE_BYTES_MAX, LinkCrypto, LinkError, NodeKey, ServerLink,
    ServerLinkConfig, make_login, verify_login,
};
use crate::wire::CloseCode;

#[test]
fn two_ends_agree_on_a_link_and_talk() {
    let mut pair = established(1, u64::MAX);
    assert_eq!(pair.0.link.node_id(), Some(node_key().node_id()));
    assert_eq!(pair.0.link.exporter(), pair.1.link.exporter());
    pair.0.say(b"hello node");
    pair.1.say(b"hello client");
    shuttle(&mut pair, usize::MAX).unwrap();
    assert_eq!((&pair.1.heard[..], &pair.0.heard[..]), (&b"hello node"[..], &b"hello client"[..]));
    assert_eq!(pair.0.link.held_bytes() + pair.1.link.held_bytes(), 0);
}

#[test]
fn a_link_works_when_its_bytes_arrive_one_by_one() {
    let mut pair = connect(&Configs::new(2, u64::MAX));
    shuttle(&mut pair, 1).unwrap();
    pair.0.say(&[7; 1000]);
    pair.1.say(&[8; 1000]);
    shuttle(&mut pair, 1).unwrap();
    assert_eq!((pair.1.heard, pair.0.heard), (vec![7; 1000], vec![8; 1000]));
    assert_eq!(pair.0.link.held_bytes() + pair.1.link.held_bytes(), 0);
}

#[test]
fn a_link_works_when_its_bytes_are_cut_anywhere() {
    for size in (2..700).step_by(7) {
        let mut pair = connect(&Configs::new(3, u64::MAX));
        shuttle(&mut pair, size).unwrap();
        pair.0.say(&[7; 300]);
        pair.0.say(&[9; 300]);
        shuttle(&mut pair, size).unwrap();
        assert_eq!(pair.1.heard, [[7; 300], [9; 300]].concat(), "pieces of {size}");
    }
}

#[test]
fn data_directly_behind_the_handshake_is_opened_in_the_same_call() {
    let mut pair = connect(&Configs::new(4, u64::MAX));
    let hello = pair.0.take_out();
    pair.1.hear(&hello).unwrap();
    let answer = pair.1.take_out();
    pair.0.hear(&answer).unwrap();
    assert!(pair.0.link.is_established() && !pair.1.link.is_established());
    pair.0.say(b"login");
    let finished_and_data = pair.0.take_out();
    pair.1.hear(&finished_and_data).unwrap();
    assert_eq!(pair.1.heard, b"login");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes = |seed| {
        let mut pair = connect(&Configs::new(seed, u64::MAX));
        let mut wire = pair.0.out.clone();
        while !pair.0.out.is_empty() {
            let sent = pair.0.take_out();
            pair.1.hear(&sent).unwrap();
            wire.extend_from_slice(&pair.1.out);
            let answered = pair.1.take_out();
            pair.0.hear(&answered).unwrap();
            wire.extend_from_slice(&pair.0.out);
        }
        pair.0.say(b"sealed");
        wire.extend_from_slice(&pair.0.out);
        wire
    };
    assert_eq!(bytes(5), bytes(5));
    assert_ne!(bytes(5), bytes(6));
}

#[test]
fn randomness_of_the_system_works_and_differs() {
    let crypto = LinkCrypto::system();
    let config = Arc::new(ClientLinkConfig::new(Expect::Any, &crypto).unwrap());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let client = ClientLink::new(&config, &mut first).unwrap();
    ClientLink::new(&config, &mut second).unwrap();
    assert_ne!(first, second);
    let server_config = Arc::new(ServerLinkConfig::new(&node_key(), &crypto).unwrap());
    let mut pair = (End::new(client, first), End::new(ServerLink::new(&server_config), Vec::new()));
    shuttle(&mut pair, usize::MAX).unwrap();
    assert_eq!(pair.0.link.node_id(), Some(server_config.node_id()));
}

#[test]
fn a_client_refuses_another_node_than_the_expected_one() {
    let mut configs = Configs::new(7, u64::MAX);
    let expected = NodeKey::from_seed(seed(9)).unwrap().node_id();
    configs.client =
        Arc::new(ClientLinkConfig::new(Expect::Exactly(expected), &LinkCrypto::seeded(8)).unwrap());
    let mut pair = connect(&configs);
    let refused = shuttle(&mut pair, usize::MAX).unwrap_err();
    assert_eq!(refused, LinkError::WrongNode { expected, found: node_key().node_id() });
    assert!(pair.0.link.is_failed());

    let alert = pair.0.take_out();
    let told = pair.1.hear(&alert).unwrap_err();
    assert!(matches!(told, LinkError::PeerAlert { .. }), "the node is told by an alert: {told:?}");
}

#[test]
fn a_login_made_on_one_link_fails_on_another_and_at_another_node() {
    let (first, second) = (established(10, u64::MAX), established(11, u64::MAX));
    let (mine, other) = (first.1.link.exporter().unwrap(), second.1.link.exporter().unwrap());
    let node_id = node_key().node_id();
    let login = make_login(&user(2), first.0.link.exporter().unwrap(), &node_id, NOW_MS);
    assert!(verify_login(&login, mine, &node_id, NOW_MS).is_ok());
    assert_eq!(verify_login(&login, other, &node_id, NOW_MS), Err(CloseCode::AuthFailed));
    let elsewhere = NodeKey::from_seed(seed(9)).unwrap().node_id();
    assert_eq!(verify_login(&login, mine, &elsewhere, NOW_MS), Err(CloseCode::AuthFailed));
}

#[test]
fn what_is_not_tls_is_refused_at_its_first_byte() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\x00", b"TRN1", b"\x16\x02\x00\x00\x10"] {
        let mut server = End::new(ServerLink::new(&Configs::new(12, u64::MAX).server), Vec::new());
        assert_eq!(server.hear(bytes), Err(LinkError::NotTls), "{bytes:?}");
        assert!(server.link.is_failed());
        assert_eq!(server.hear(b"more"), Err(LinkError::NotEstablished));
    }
}

#[test]
fn a_record_that_claims_too_much_is_refused_from_its_header() {
    let mut server = End::new(ServerLink::new(&Configs::new(13, u64::MAX).server), Vec::new());
    let refused = server.hear(&[22, 3, 1, 0xff, 0xff]);
    assert_eq!(refused, Err(LinkError::RecordTooLarge { bytes: 65_535 }));
}

#[test]
fn a_handshake_without_end_is_refused_at_its_limit() {
    let mut server = End::new(ServerLink::new(&Configs::new(14, u64::MAX).server), Vec::new());
    // A ClientHello that claims 60 KiB, in records of 1 KiB.
    let mut record = vec![22, 3, 1, 4, 0];
    record.resize(5 + 1024, 0);
    let mut first = record.clone();
    first[5..9].copy_from_slice(&[1, 0, 0xf0, 0]);
    let mut sent = first.len();
    let mut answer = server.hear(&first);
    while answer.is_ok() {
        sent += record.len();
        answer = server.hear(&record);
    }
    assert_eq!(answer, Err(LinkError::HandshakeTooLarge));
    assert!(sent <= HANDSHAKE_BYTES_MAX + record.len());
}

#[test]
fn any_flipped_bit_in_the_handshake_fails_it() {
    let configs = Configs::new(15, u64::MAX);
    let mut pair = connect(&configs);
    let hello = pair.0.take_out();
    let mut silent = 0;
    for at in 0..hello.len() {
        let mut pair = connect(&configs);
        let mut bytes = pair.0.take_out();
        bytes[at] ^= 1;
        let outcome = pair.1.hear(&bytes).and_then(|()| shuttle(&mut pair, usize::MAX));
        let up = pair.0.link.is_established() && pair.1.link.is_established();
        assert!(outcome.is_err() || !up || at == 2, "bit in byte {at} of the hello");
        silent += usize::from(outcome.is_ok());
    }
    assert!(silent < hello.len() / 4, "most are noticed at once, the others wait for bytes that never come");
}

#[test]
fn the_seeded_key_exchange_agrees_with_rings_and_refuses_points_of_small_order() {
    let seeded = LinkCrypto::seeded(16).provider().kx_groups[0];
    let system = LinkCrypto::system().provider().kx_groups[0];
    let (mine, theirs) = (seeded.start().unwrap(), system.start().unwrap());
    let (my_key, their_key) = (mine.pub_key().to_vec(), theirs.pub_key().to_vec());
    let (mine, theirs) = (mine.complete(&their_key).unwrap(), theirs.complete(&my_key).unwrap());
    assert_eq!(mine.secret_bytes(), theirs.secret_bytes());
    for group in [seeded, system] {
        assert!(group.start().unwrap().complete(&[0; 32]).is_err());
        assert!(group.start().unwrap().complete(&my_key[..31]).is_err());
    }
}

#[test]
fn links_can_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<ServerLink>();
    is_send::<ClientLink>();
}

proptest! {
    #[test]
    fn random_bytes_instead_of_a_handshake_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 1..400),
    ) {
        crate::link::fuzz::handshakes(&bytes);
        let record = [&[22, 3, 1, (bytes.len() >> 8) as u8, bytes.len() as u8][..], &bytes].concat();
        crate::link::fuzz::handshakes(&record);
    }
}
