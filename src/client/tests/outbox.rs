//! Which message may be sent when another was refused.

use super::{accepted, at, message, refused};
use crate::client::outbox::Outbox;
use crate::wire::{ClientFrame, Decoded, Limit, ReceiptStatus, RejectReason, RequestId, decode_frame};

const WINDOW: u32 = 16;
const ROOM_BYTES: usize = 1 << 20;

fn outbox(recipients: &[u8]) -> Outbox {
    let mut outbox = Outbox::default();
    for (number, to) in (1..).zip(recipients) {
        outbox.push(at(0), message(*to, number), u64::MAX);
    }
    outbox
}

/// Numbers of the messages that are written now.
fn written(outbox: &mut Outbox, now_us: u64) -> Vec<u64> {
    let (mut out, mut numbers) = (Vec::new(), Vec::new());
    outbox.write(at(now_us), WINDOW, &mut out, ROOM_BYTES);
    let mut rest = &out[..];
    while let Decoded::Frame { frame, consumed } = decode_frame(rest, Limit::AfterLogin).unwrap() {
        let Some(ClientFrame::Send(send)) = ClientFrame::parse(frame).unwrap() else { panic!("a send") };
        numbers.push(send.request.0);
        rest = &rest[consumed..];
        if rest.is_empty() {
            break;
        }
    }
    numbers
}

fn refuse(outbox: &mut Outbox, now_us: u64, request: u64, retry_ms: u32) {
    assert_eq!(outbox.receipt(at(now_us), &refused(request, RejectReason::Busy, retry_ms)), None);
}

fn accept(outbox: &mut Outbox, request: u64) {
    let report = outbox.receipt(at(0), &accepted(request)).unwrap();
    assert_eq!((report.request, report.status), (RequestId(request), ReceiptStatus::Accepted));
}

/// Nothing, where `written` would have to parse an empty buffer.
fn writes_nothing(outbox: &mut Outbox, now_us: u64) -> bool {
    let mut out = Vec::new();
    outbox.write(at(now_us), WINDOW, &mut out, ROOM_BYTES);
    out.is_empty()
}

#[test]
fn nothing_new_overtakes_a_refused_message() {
    let mut outbox = outbox(&[1, 1, 1]);
    assert_eq!(written(&mut outbox, 0), [1, 2, 3]);
    refuse(&mut outbox, 0, 1, 10);
    accept(&mut outbox, 2);
    outbox.push(at(0), message(1, 4), u64::MAX);
    assert!(writes_nothing(&mut outbox, 9_999), "the time has not come");
    assert_eq!(outbox.retry_us(WINDOW), Some(10_000));
    assert_eq!(written(&mut outbox, 10_000), [1], "the new one waits for the answer");
    assert!(writes_nothing(&mut outbox, 10_000));
    accept(&mut outbox, 1);
    assert_eq!(written(&mut outbox, 10_000), [4]);
}

#[test]
fn a_refused_message_that_is_refused_again_still_holds_the_others_back() {
    let mut outbox = outbox(&[1]);
    assert_eq!(written(&mut outbox, 0), [1]);
    refuse(&mut outbox, 0, 1, 10);
    outbox.push(at(0), message(1, 2), u64::MAX);
    assert_eq!(written(&mut outbox, 10_000), [1]);
    refuse(&mut outbox, 10_000, 1, 10);
    assert!(writes_nothing(&mut outbox, 10_001));
    assert_eq!(written(&mut outbox, 20_000), [1]);
}

#[test]
fn retries_keep_their_order_whatever_their_times() {
    let mut outbox = outbox(&[1, 1]);
    assert_eq!(written(&mut outbox, 0), [1, 2]);
    refuse(&mut outbox, 0, 2, 1);
    refuse(&mut outbox, 0, 1, 50);
    assert!(writes_nothing(&mut outbox, 49_999), "the second does not go before the first");
    assert_eq!(outbox.retry_us(WINDOW), Some(50_000));
    assert_eq!(written(&mut outbox, 50_000), [1, 2]);
}

#[test]
fn other_recipients_are_not_held_up() {
    let mut outbox = outbox(&[1, 2]);
    assert_eq!(written(&mut outbox, 0), [1, 2]);
    refuse(&mut outbox, 0, 1, 10);
    outbox.push(at(0), message(2, 3), u64::MAX);
    assert_eq!(written(&mut outbox, 1), [3]);
}

#[test]
fn a_lost_connection_keeps_the_order_behind_a_refused_message() {
    let mut outbox = outbox(&[1, 1, 1]);
    assert_eq!(written(&mut outbox, 0), [1, 2, 3]);
    refuse(&mut outbox, 0, 2, 10);
    outbox.connection_lost();
    assert_eq!(written(&mut outbox, 0), [1], "what was given before the refused one does not wait");
    assert_eq!(written(&mut outbox, 10_000), [2]);
    outbox.connection_lost();
    assert_eq!(written(&mut outbox, 10_000), [1, 2], "the third waits for the answer to the second");
    accept(&mut outbox, 2);
    assert_eq!(written(&mut outbox, 10_000), [3]);
}

#[test]
fn a_message_that_is_given_up_holds_nobody_back() {
    let mut outbox = Outbox::default();
    outbox.push(at(0), message(1, 1), 20_000);
    outbox.push(at(0), message(1, 2), u64::MAX);
    assert_eq!(written(&mut outbox, 0), [1, 2]);
    refuse(&mut outbox, 0, 2, 1);
    refuse(&mut outbox, 0, 1, 10);
    assert!(outbox.give_up(at(20_000)).is_some());
    assert_eq!(written(&mut outbox, 20_000), [2]);
}

#[test]
fn a_refusal_without_a_hint_is_not_repeated_at_once() {
    let mut outbox = outbox(&[1]);
    assert_eq!(written(&mut outbox, 0), [1]);
    refuse(&mut outbox, 0, 1, 0);
    assert!(outbox.retry_us(WINDOW).unwrap() >= 50_000);
    assert!(writes_nothing(&mut outbox, 1));
}

#[test]
fn a_retry_is_no_reason_to_wake_while_the_window_is_full() {
    let mut outbox = outbox(&[1, 2]);
    let mut out = Vec::new();
    outbox.write(at(0), 1, &mut out, ROOM_BYTES);
    refuse(&mut outbox, 0, 1, 10);
    outbox.write(at(1), 1, &mut out, ROOM_BYTES);
    assert_eq!(outbox.retry_us(1), None, "the only place is taken by the second");
    accept(&mut outbox, 2);
    assert_eq!(outbox.retry_us(1), Some(10_000));
}
