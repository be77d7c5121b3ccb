//! Cores that sleep and are woken by each other, many thousands of times.

mod rt_common;

use rt_common::ping_pong::{By, ping_pong};

#[test]
fn no_wake_up_is_lost_in_two_hundred_thousand_between_sleeping_cores() {
    const ROUNDS: u64 = 110_000;
    let Some(parks) = ping_pong(By::MsgRing, ROUNDS, "MSG_RING") else { return };
    assert!(parks >= ROUNDS, "the cores hardly slept ({parks} times), so the test shows little");
}
