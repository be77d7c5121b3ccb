//! Sequences that once hung a core, starved a device or ended the process.

use shards::io::LaneId;

use super::super::copy_forward::Walk;
use super::super::mailbox::MailboxKey;
use super::rig::{BOB, Heard, PHONE, Rig, WINDOW};

#[test]
fn a_message_that_expired_before_the_sweep_came_by_holds_nobody_up() {
    let mut rig = Rig::new();
    rig.send_ttl(1, BOB, 1);
    rig.commit();
    rig.pass_seconds(2);
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.settle();
    assert!(rig.delivered(phone).is_empty());
    rig.send(2, BOB, b"fresh");
    rig.commit();
    assert_eq!(rig.delivered(phone), [2], "the device is live");
}

#[test]
fn an_expired_message_far_from_a_live_one_does_not_keep_it_back() {
    let mut rig = Rig::new();
    rig.send_ttl(1, BOB, 1);
    rig.commit();
    for token in 10..14 {
        rig.send(token, BOB, &[0; 6_000]);
        rig.commit();
    }
    rig.pass_seconds(2);
    let phone = rig.listen(BOB, PHONE, WINDOW);
    let operations = rig.steps(200);
    assert_eq!(rig.delivered(phone), [2, 3, 4, 5]);
    assert!(operations < 20, "{operations} operations for four messages");
}

#[test]
fn a_device_whose_output_is_full_reads_nothing_until_it_drains() {
    let mut rig = Rig::new();
    for token in 1..=4 {
        rig.send(token, BOB, &[0; 3_000]);
    }
    rig.commit();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.deaf.push(phone.conn);
    let operations = rig.steps(1_000);
    assert!(operations < 10, "{operations} operations for a device that takes nothing");
    rig.deaf.clear();
    rig.writable(phone);
    rig.settle();
    assert_eq!(rig.delivered(phone), [1, 2, 3, 4]);
}

#[test]
fn a_copy_that_lies_behind_a_newer_message_is_delivered_first() {
    let mut rig = Rig::new();
    rig.send(1, BOB, &[1; 12_000]);
    rig.commit();
    rig.copy_all_of(MailboxKey(0), |segment| Walk::through(LaneId(0), segment));
    rig.submit();
    rig.send(2, BOB, &[2; 100]);
    rig.finish_one();
    rig.commit();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.steps(1_000);
    assert_eq!(rig.delivered(phone), [1, 2]);
}

#[test]
fn a_mailbox_is_not_forgotten_while_its_state_is_on_its_way_to_the_log() {
    let mut rig = Rig::new();
    let phone = rig.listen(BOB, PHONE, WINDOW);
    rig.housekeep();
    rig.commit();
    rig.leave(phone);
    rig.housekeep();
    rig.commit();
    rig.pass_seconds(3 * 86_400);
    rig.housekeep();
    rig.housekeep();
    rig.commit();
    rig.housekeep();
    assert_eq!(rig.relay.mailbox_count(), 0);
}

#[test]
fn a_read_that_fails_for_a_while_costs_no_message() {
    let mut rig = Rig::new();
    for token in 1..=3 {
        rig.send(token, BOB, &[0; 2_000]);
    }
    rig.commit();
    rig.fail_reads(3);
    let phone = rig.listen(BOB, PHONE, WINDOW);
    for _ in 0..5 {
        rig.steps(50);
        rig.housekeep();
    }
    rig.settle();
    assert_eq!(rig.delivered(phone), [1, 2, 3]);
    assert_eq!(rig.relay.stats.relay.messages_lost.get(), 0);
}

#[test]
fn only_the_message_that_is_damaged_is_lost_and_its_devices_are_told() {
    let mut rig = Rig::new();
    for token in 1..=3 {
        rig.send(token, BOB, &[0; 6_000]);
    }
    rig.commit();
    rig.damage(MailboxKey(0), 2);
    let phone = rig.listen(BOB, PHONE, WINDOW);
    for _ in 0..8 {
        rig.steps(50);
        rig.housekeep();
    }
    assert_eq!(rig.relay.stats.relay.messages_lost.get(), 1);
    assert!(rig.heard.contains(&Heard::EpochChanged { conn: phone.conn }));
    assert_eq!(rig.delivered(phone), [1, 3]);
}
