//! The relay against a real lane on the simulated disk, with sessions that only write down what they are
//! told.

mod hostile;
mod rig;

use rig::{ALICE, BOB, Heard, PHONE, Rig, TABLET, WINDOW};

use super::{AckOutcome, AttachRefusal, Outcome, Verdict, Window};
use crate::wire::{MailboxSeq, RejectReason};

fn accepted(seq: u64) -> Outcome {
    Outcome::Accepted(MailboxSeq(seq))
}

#[test]
fn a_receipt_comes_with_the_commit_and_not_before() {
    let mut rig = Rig::new();
    assert_eq!(rig.send(1, BOB, b"hello"), Verdict::Pending);
    assert_eq!(rig.heard, []);
    rig.submit();
    assert_eq!(rig.heard, [], "submitted is not durable");
    rig.commit();
    assert_eq!(rig.heard, [Heard::Receipt { token: 1, outcome: accepted(1) }]);
}

#[test]
fn a_message_reaches_a_connected_device_with_its_commit() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.send(1, BOB, b"hello");
    rig.commit();
    assert_eq!(rig.delivered(phone), [1]);
    assert_eq!(rig.acknowledge(phone, 1), AckOutcome::Done);
    assert_eq!(rig.relay.queued_messages(), 0);
}

#[test]
fn a_device_that_comes_later_gets_everything_in_order_and_is_told_when_it_has_it() {
    let mut rig = Rig::new();
    for token in 1..=20 {
        rig.send(token, BOB, &[token as u8; 900]);
    }
    rig.commit();
    rig.heard.clear();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.settle();
    assert_eq!(
        rig.delivered(phone),
        (1..=WINDOW.messages.into()).collect::<Vec<_>>(),
        "the window bounds it"
    );
    rig.acknowledge(phone, 8);
    rig.settle();
    rig.acknowledge(phone, 16);
    rig.settle();
    assert_eq!(rig.delivered(phone), (1..=20).collect::<Vec<_>>());
    assert!(rig.heard.contains(&Heard::CaughtUp { conn: phone.conn, seq: 20 }));
}

#[test]
fn one_device_that_reads_nothing_holds_back_neither_senders_nor_other_devices() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    let tablet = rig.listen(BOB, TABLET, WINDOW);
    rig.deaf.push(tablet.conn);
    for token in 1..=100 {
        assert_eq!(rig.send(token, BOB, b"x"), Verdict::Pending);
        rig.commit();
        rig.acknowledge(phone, token);
    }
    assert_eq!(rig.delivered(phone), (1..=100).collect::<Vec<_>>());
    assert!(rig.delivered(tablet).is_empty());
    assert_eq!(rig.relay.queued_messages(), 100, "they wait for the tablet, on disk");
    rig.deaf.clear();
    for _ in 0..20 {
        rig.writable(tablet);
        rig.settle();
        let last = rig.delivered(tablet).last().copied().unwrap_or(0);
        rig.acknowledge(tablet, last);
    }
    assert_eq!(rig.delivered(tablet), (1..=100).collect::<Vec<_>>());
    assert_eq!(rig.relay.queued_messages(), 0);
}

#[test]
fn the_same_id_twice_gets_the_same_receipt_and_is_stored_once() {
    let mut rig = Rig::new();
    rig.send_as(1, 77, BOB, b"hello");
    assert_eq!(rig.send_as(2, 77, BOB, b"hello"), Verdict::Pending, "it waits for the first one's commit");
    rig.commit();
    assert_eq!(rig.outcomes(), [(1, accepted(1)), (2, accepted(1))]);
    let Verdict::Known(receipt) = rig.send_as(3, 77, BOB, b"hello") else { panic!("known at once") };
    assert_eq!(receipt.outcome, accepted(1));
    assert_eq!(rig.relay.queued_messages(), 1);
}

#[test]
fn an_id_that_another_sender_used_first_suppresses_nothing() {
    let mut rig = Rig::new();
    assert_eq!(rig.send_from_other(1, 77, BOB, b"junk"), Verdict::Pending);
    rig.commit();
    assert_eq!(rig.send_as(2, 77, BOB, b"hello"), Verdict::Pending);
    rig.commit();
    assert_eq!(rig.outcomes(), [(1, accepted(1)), (2, accepted(2))]);
    rig.restart();
    let Verdict::Known(receipt) = rig.send_as(3, 77, BOB, b"hello") else { panic!("remembered") };
    assert_eq!(receipt.outcome, accepted(2));
}

#[test]
fn a_restart_forgets_neither_messages_nor_cursors_nor_ids() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    for token in 1..=6 {
        rig.send_as(token, 100 + token, BOB, b"x");
    }
    rig.commit();
    rig.acknowledge(phone, 4);
    rig.housekeep();
    rig.commit();
    rig.restart();
    let Verdict::Known(receipt) = rig.send_as(9, 103, BOB, b"x") else { panic!("the id is remembered") };
    assert_eq!(receipt.outcome, accepted(3));
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.settle();
    assert_eq!(rig.delivered(phone), [5, 6]);
    rig.send(10, BOB, b"new");
    rig.commit();
    assert_eq!(rig.outcomes(), [(10, accepted(7))], "numbers are not used twice");
}

#[test]
fn a_message_expires_at_its_time_and_frees_its_place() {
    let mut rig = Rig::new();
    rig.send_ttl(1, BOB, 60);
    rig.commit();
    rig.pass_seconds(59);
    rig.housekeep();
    assert_eq!(rig.relay.queued_messages(), 1);
    rig.pass_seconds(1);
    rig.housekeep();
    assert_eq!(rig.relay.queued_messages(), 0);
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.settle();
    assert!(rig.delivered(phone).is_empty());
}

#[test]
fn a_time_to_live_beyond_the_longest_is_refused() {
    let mut rig = Rig::new();
    let verdict = rig.send_ttl(1, BOB, rig::TTL_MAX_S + 1);
    let Verdict::Known(receipt) = verdict else { panic!("refused at once") };
    assert_eq!(receipt.outcome, Outcome::Rejected { reason: RejectReason::BadTtl, retry_ms: 0 });
}

#[test]
fn a_full_mailbox_refuses_and_says_when_to_try_again() {
    let mut rig = Rig::new();
    for token in 1..=u64::from(rig::MAILBOX_MESSAGES) {
        assert_eq!(rig.send(token, BOB, b"x"), Verdict::Pending);
        rig.commit();
    }
    let Verdict::Known(receipt) = rig.send(999, BOB, b"x") else { panic!("refused at once") };
    let Outcome::Rejected { reason, retry_ms } = receipt.outcome else { panic!("{receipt:?}") };
    assert_eq!(reason, RejectReason::MailboxMessages);
    assert!(retry_ms > 0);
    assert_eq!(rig.send(1_000, ALICE, b"x"), Verdict::Pending, "other mailboxes take messages");
}

#[test]
fn a_sender_who_asked_is_told_once_of_the_first_acknowledgement() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    let tablet = rig.listen(BOB, TABLET, WINDOW);
    rig.send_notify(1, BOB);
    rig.commit();
    rig.acknowledge(phone, 1);
    rig.acknowledge(tablet, 1);
    let told = rig.heard.iter().filter(|heard| matches!(heard, Heard::Delivered { .. })).count();
    assert_eq!(told, 1);
}

#[test]
fn an_acknowledgement_waits_when_the_way_to_the_sender_is_full() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.send_notify(1, BOB);
    rig.commit();
    rig.no_way = true;
    assert_eq!(rig.acknowledge(phone, 1), AckOutcome::Blocked);
    assert_eq!(rig.relay.queued_messages(), 1, "nothing is let go that its sender would not hear of");
    rig.no_way = false;
    assert_eq!(rig.acknowledge(phone, 1), AckOutcome::Done);
    assert_eq!(rig.relay.queued_messages(), 0);
}

#[test]
fn selective_acknowledgements_open_the_window_and_move_no_cursor() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, Window { messages: 2, bytes: 1 << 20 });
    for token in 1..=3 {
        rig.send(token, BOB, b"x");
    }
    rig.commit();
    assert_eq!(rig.delivered(phone), [1, 2]);
    rig.acknowledge_some(phone, 0, &[2]);
    assert_eq!(rig.relay.queued_messages(), 3);
    rig.acknowledge(phone, 1);
    rig.settle();
    assert_eq!(rig.delivered(phone), [1, 2, 3]);
    assert_eq!(rig.relay.queued_messages(), 1, "one and two are acknowledged together now");
}

#[test]
fn an_acknowledgement_of_another_epoch_or_of_the_future_changes_nothing() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.send(1, BOB, b"x");
    rig.commit();
    assert_eq!(rig.acknowledge_epoch(phone, 1, 12345), AckOutcome::Stale);
    assert_eq!(rig.relay.queued_messages(), 1);
    rig.acknowledge(phone, u64::MAX);
    rig.send(2, BOB, b"y");
    rig.commit();
    assert_eq!(rig.delivered(phone), [1, 2], "what was not committed could not be acknowledged");
}

#[test]
fn the_newest_session_of_a_device_displaces_the_older_one() {
    let mut rig = Rig::new();
    let first = rig.listen(BOB, PHONE, WINDOW);
    let second = rig.attach(BOB, PHONE).unwrap();
    assert_eq!(second.1.displaced, Some(first.conn));
    rig.send(1, BOB, b"x");
    rig.commit();
    assert!(rig.delivered(first).is_empty(), "the old session gets nothing any more");
}

#[test]
fn a_mailbox_takes_no_more_devices_than_it_may() {
    let mut rig = Rig::new();
    for device in 0..rig::DEVICES {
        rig.attach(BOB, rig::device(device)).unwrap();
    }
    assert_eq!(rig.attach(BOB, rig::device(200)).unwrap_err(), AttachRefusal::TooManyDevices);
}

#[test]
fn an_ephemeral_message_is_handed_over_or_dropped_and_never_written() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.send_ephemeral(1, BOB),
        Outcome::Rejected { reason: RejectReason::NotConnected, retry_ms: 0 }
    );
    let phone = rig.listen(BOB, PHONE, WINDOW);
    assert_eq!(rig.send_ephemeral(2, BOB), Outcome::Relayed);
    assert_eq!(rig.delivered(phone), [0]);
    assert_eq!(rig.submit(), 0, "no write was asked for");
}

#[test]
fn ids_outlive_the_segment_that_held_their_messages() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    let mut token = 0;
    while rig.relay.stats.relay.acks.get() < 2_000 {
        token += 1;
        rig.send_as(token, token, BOB, &[0; 700]);
        rig.commit();
        rig.acknowledge(phone, token);
        rig.housekeep();
        rig.commit();
    }
    assert!(rig.segments_used() < 6, "segments are used again: {}", rig.segments_used());
    let oldest = token - u64::from(rig::DEDUP_IDS) + 1;
    rig.restart();
    let Verdict::Known(receipt) = rig.send_as(9_999, oldest, BOB, b"x") else { panic!("remembered") };
    assert_eq!(receipt.outcome, accepted(oldest));
    assert_eq!(rig.send_as(10_000, oldest - 1, BOB, b"x"), Verdict::Pending, "and no more than it may");
}
