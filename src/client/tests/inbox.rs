//! What counts as done, and what tells a duplicate.

use super::{address, id};
use crate::client::inbox::{Inbox, MessageKey, SEEN_IDS_MAX};
use crate::wire::{Epoch, MailboxSeq};

const EPOCH: Epoch = Epoch(1);

fn key(from: u8, number: u64) -> MessageKey {
    MessageKey { from: address(from), id: id(number), is_stored: true }
}

fn inbox() -> Inbox {
    let mut inbox = Inbox::new(1);
    inbox.welcome(EPOCH, MailboxSeq(0));
    inbox
}

fn cursor(inbox: &mut Inbox) -> Option<u64> {
    inbox.take_ack().map(|(_, cursor)| cursor.0)
}

#[test]
fn a_message_whose_id_was_forgotten_is_acknowledged_only_when_it_is_done() {
    let mut inbox = inbox();
    let last = SEEN_IDS_MAX as u64 + 10;
    assert!(inbox.arrive(MailboxSeq(1), key(1, 1)));
    for seq in 2..=last {
        assert!(inbox.arrive(MailboxSeq(seq), key(1, seq)));
        inbox.done(&key(1, seq));
    }
    assert_eq!(cursor(&mut inbox), None, "the first is still in the program's hands");
    inbox.done(&key(1, 1));
    assert_eq!(cursor(&mut inbox), Some(last));
}

#[test]
fn ephemeral_messages_do_not_make_a_stored_one_forgotten() {
    let mut inbox = inbox();
    assert!(inbox.arrive(MailboxSeq(1), key(1, 0)));
    for number in 1..=SEEN_IDS_MAX as u64 + 1 {
        assert!(inbox.arrive(MailboxSeq(0), MessageKey { is_stored: false, ..key(2, number) }));
    }
    assert!(!inbox.arrive(MailboxSeq(2), key(1, 0)), "a duplicate");
    assert_eq!(cursor(&mut inbox), None);
    inbox.done(&key(1, 0));
    assert_eq!(cursor(&mut inbox), Some(2));
}

#[test]
fn the_same_id_from_two_senders_is_two_messages() {
    let mut inbox = inbox();
    assert!(inbox.arrive(MailboxSeq(1), key(1, 7)));
    assert!(inbox.arrive(MailboxSeq(2), key(2, 7)));
    inbox.done(&key(2, 7));
    assert_eq!(cursor(&mut inbox), None, "the first sender's is not done");
    inbox.done(&key(1, 7));
    assert_eq!(cursor(&mut inbox), Some(2));
}

#[test]
fn an_ephemeral_message_cannot_stand_for_a_stored_one() {
    let mut inbox = inbox();
    assert!(inbox.arrive(MailboxSeq(1), key(1, 7)));
    let ephemeral = MessageKey { is_stored: false, ..key(1, 7) };
    assert!(inbox.arrive(MailboxSeq(0), ephemeral));
    inbox.done(&ephemeral);
    assert_eq!(cursor(&mut inbox), None);
}

#[test]
fn a_repeated_message_is_acknowledged_again_without_the_program() {
    let mut inbox = inbox();
    assert!(inbox.arrive(MailboxSeq(1), key(1, 1)));
    inbox.done(&key(1, 1));
    inbox.welcome(EPOCH, MailboxSeq(0));
    assert!(inbox.is_owing_from_before(), "the acknowledgement was not sent in time");
    assert!(!inbox.arrive(MailboxSeq(1), key(1, 1)));
    assert_eq!(cursor(&mut inbox), Some(1));
    inbox.caught_up();
    assert!(!inbox.is_owing());
}

#[test]
fn a_message_in_hand_across_a_reconnect_is_acknowledged_when_it_is_done() {
    let mut inbox = inbox();
    assert!(inbox.arrive(MailboxSeq(1), key(1, 1)));
    inbox.welcome(EPOCH, MailboxSeq(0));
    assert!(!inbox.arrive(MailboxSeq(1), key(1, 1)), "it was shown");
    assert_eq!(cursor(&mut inbox), None, "but it is not done");
    inbox.done(&key(1, 1));
    assert_eq!(cursor(&mut inbox), Some(1));
}
