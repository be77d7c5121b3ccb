//! Pauses between connections, hints of the node, reasons to wake, and the goodbye.

use super::{Rig, SECOND_US, Said, accepted, message, refused};
use crate::client::{ClientError, ClientEvent, Stage};
use crate::wire::{Close, CloseCode, RejectReason, RequestId, ServerFrame};

/// Pause after a loss now, in milliseconds.
fn pause_ms(rig: &mut Rig) -> u64 {
    rig.lose();
    (rig.client.connect_us() - rig.now.mono_us) / 1000
}

#[test]
fn the_pause_doubles_until_a_login_is_accepted() {
    let mut rig = Rig::new();
    let mut longest_ms = 50;
    for _ in 0..10 {
        rig.open();
        let pause_ms = pause_ms(&mut rig);
        assert!((longest_ms / 2..=longest_ms).contains(&pause_ms), "{pause_ms} of {longest_ms}");
        assert_eq!(rig.client.next_us(), Some(rig.client.connect_us()));
        longest_ms = (longest_ms * 2).min(5_000);
        rig.pass(6 * SECOND_US);
    }
    assert_eq!(rig.client.offline_since_us(), Some(SECOND_US), "a handshake is no login");
    rig.log_in();
    assert_eq!(rig.client.offline_since_us(), None);
    assert!(pause_ms(&mut rig) <= 50);
    assert_eq!(rig.client.offline_since_us(), Some(rig.now.mono_us));
}

#[test]
fn a_client_comes_back_when_the_node_said_and_not_before() {
    let mut rig = Rig::new();
    rig.open();
    rig.say(&ServerFrame::Close(Close { code: CloseCode::Overloaded, retry_ms: 7_000, detail: "" }));
    rig.turn();
    assert_eq!(pause_ms(&mut rig), 7_000);
}

#[test]
fn a_hint_of_weeks_keeps_nobody_away_for_weeks() {
    let mut rig = Rig::new();
    rig.open();
    rig.say(&ServerFrame::Close(Close { code: CloseCode::Overloaded, retry_ms: u32::MAX, detail: "" }));
    rig.turn();
    assert_eq!(pause_ms(&mut rig), 300_000);
}

#[test]
fn a_node_that_goes_away_is_left_within_the_time_it_named() {
    let mut rig = Rig::new();
    rig.log_in();
    let start_us = rig.now.mono_us;
    rig.say(&ServerFrame::GoAway { spread_ms: 20_000 });
    assert_eq!(rig.turn(), []);
    let (error, said) = rig.wait_for_end();
    assert!(matches!(error, ClientError::GoingAway), "{error}");
    assert_eq!(said, []);
    let after_us = rig.now.mono_us - start_us;
    assert!(after_us > 0 && after_us <= 20 * SECOND_US, "{after_us}");
}

#[test]
fn a_node_that_is_gone_before_it_said_is_not_called_before_this_clients_moment() {
    let mut rig = Rig::new();
    rig.log_in();
    rig.say(&ServerFrame::GoAway { spread_ms: 20_000 });
    rig.turn();
    let moment_us = rig.client.next_us().unwrap();
    rig.lose();
    assert_eq!(rig.client.connect_us(), moment_us);
}

#[test]
fn an_overdue_retry_does_not_wake_a_client_that_cannot_send() {
    let mut rig = Rig::new();
    rig.log_in();
    rig.client.send(rig.now, message(1, 1));
    assert_eq!(rig.turn(), [Said::Send(RequestId(1))]);
    rig.say(&ServerFrame::Receipt(refused(1, RejectReason::Busy, 500)));
    assert_eq!(rig.turn(), []);
    assert_eq!(rig.client.next_us(), Some(rig.now.mono_us + 500_000));
    // The network takes nothing.
    rig.pass(SECOND_US);
    let mut full = vec![0; 600 * 1024];
    rig.client.flush(rig.now, &mut full).unwrap();
    assert_eq!(full.len(), 600 * 1024, "nothing is added to what the network does not take");
    assert!(rig.client.next_us().unwrap() > rig.now.mono_us);
    // During a login.
    rig.lose();
    rig.open();
    assert!(rig.client.next_us().unwrap() > rig.now.mono_us);
    assert_eq!(rig.log_in(), [Said::Subscribe, Said::Send(RequestId(1))]);
}

#[test]
fn an_overdue_retry_does_not_wake_a_client_whose_window_is_full() {
    let mut rig = Rig::new();
    rig.send_window = 1;
    rig.log_in();
    rig.client.send(rig.now, message(1, 1));
    rig.client.send(rig.now, message(2, 2));
    assert_eq!(rig.turn(), [Said::Send(RequestId(1))]);
    rig.say(&ServerFrame::Receipt(refused(1, RejectReason::Busy, 1)));
    assert_eq!(rig.turn(), [Said::Send(RequestId(2))]);
    rig.pass(SECOND_US);
    assert_eq!(rig.turn(), []);
    assert!(rig.client.next_us().unwrap() > rig.now.mono_us, "only a receipt can change something");
    rig.say(&ServerFrame::Receipt(accepted(2)));
    assert_eq!(rig.turn(), [Said::Send(RequestId(1))]);
}

#[test]
fn goodbye_acknowledges_what_is_done_and_nothing_else_and_is_the_last_word() {
    let mut rig = Rig::new();
    rig.log_in();
    rig.deliver(1, 9, 1);
    rig.deliver(2, 9, 2);
    rig.turn();
    let Some(ClientEvent::Received(first)) = rig.client.poll(rig.now) else { panic!("a message") };
    rig.client.done(first.key());
    rig.client.send(rig.now, message(1, 1));
    rig.client.bye();
    assert_eq!(rig.client.stage(), Stage::Leaving);
    rig.deliver(3, 9, 3);
    assert_eq!(rig.turn(), [Said::Ack(1), Said::Bye]);
    rig.deliver(4, 9, 4);
    rig.pass(31 * SECOND_US);
    assert_eq!(rig.turn(), [], "no message and no ping after the goodbye");
}

#[test]
fn what_is_done_while_the_connection_is_gone_is_acknowledged_before_leaving() {
    let mut rig = Rig::new();
    rig.log_in();
    rig.deliver(1, 9, 1);
    rig.turn();
    let Some(ClientEvent::Received(first)) = rig.client.poll(rig.now) else { panic!("a message") };
    rig.lose();
    rig.client.done(first.key());
    assert!(rig.client.is_owing() && !rig.client.may_leave());
    rig.log_in();
    assert!(!rig.client.may_leave(), "the node has not sent it again yet");
    rig.deliver(1, 9, 1);
    rig.say(&ServerFrame::CaughtUp { seq: crate::wire::MailboxSeq(1) });
    assert_eq!(rig.turn(), [Said::Ack(1)]);
    assert!(!rig.client.is_owing() && rig.client.may_leave());
}
