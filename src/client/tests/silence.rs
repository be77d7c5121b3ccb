//! A node that says nothing, during the login and after it.

use super::{Rig, SECOND_US, Said};
use crate::client::ClientError;
use crate::wire::{RequestId, ServerFrame};

#[test]
fn a_node_that_does_not_answer_two_pings_is_gone() {
    let mut rig = Rig::new();
    rig.log_in();
    let (error, said) = rig.wait_for_end();
    assert!(matches!(error, ClientError::Silent), "{error}");
    assert_eq!(said, [(30, Said::Ping), (45, Said::Ping)]);
    assert_eq!(rig.now.mono_us, SECOND_US + 60 * SECOND_US);
}

#[test]
fn a_node_that_answers_is_asked_every_half_minute_and_stays() {
    let mut rig = Rig::new();
    rig.log_in();
    for _ in 0..20 {
        let next_us = rig.client.next_us().unwrap();
        assert_eq!(next_us, rig.now.mono_us + 30 * SECOND_US);
        rig.pass(30 * SECOND_US);
        assert_eq!(rig.turn(), [Said::Ping]);
        rig.say(&ServerFrame::Pong { request: RequestId(0), opaque: [0; 8] });
        assert_eq!(rig.turn(), []);
    }
}

#[test]
fn a_client_that_only_listens_speaks_now_and_then() {
    let mut rig = Rig::new();
    rig.log_in();
    let mut pings = 0;
    for number in 0..100 {
        rig.pass(SECOND_US);
        rig.deliver(0, 1, number);
        pings += rig.turn().iter().filter(|said| **said == Said::Ping).count();
    }
    assert_eq!(pings, 3, "the node closes what it does not hear");
}

#[test]
fn a_program_that_did_not_run_does_not_take_the_node_for_gone() {
    let mut rig = Rig::new();
    rig.log_in();
    rig.pass(30 * SECOND_US);
    assert_eq!(rig.turn(), [Said::Ping]);
    rig.pass(15 * SECOND_US);
    assert_eq!(rig.turn(), [Said::Ping]);
    rig.pass(600 * SECOND_US);
    assert_eq!(rig.turn(), [Said::Ping], "it asks once more");
    let (error, _) = rig.wait_for_end();
    assert!(matches!(error, ClientError::Silent), "{error}");
}

#[test]
fn a_login_that_is_not_answered_ends_after_ten_seconds() {
    let mut rig = Rig::new();
    rig.client.connecting(rig.now);
    rig.pass(4 * SECOND_US);
    rig.open();
    let (error, said) = rig.wait_for_end();
    assert!(matches!(error, ClientError::LoginLate), "{error}");
    assert_eq!((said, rig.now.mono_us), (vec![], 11 * SECOND_US), "counted from the beginning");
}
