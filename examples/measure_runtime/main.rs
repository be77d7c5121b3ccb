//! The measurements of `docs/decisions/0001-runtime.md`: `cargo run --example measure_runtime -- wake` or
//! `disk`.

mod disk;
#[path = "../../tests/rt_common/mod.rs"]
mod rt_common;

use rt_common::ping_pong::{By, ping_pong};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("wake") => measure_wake_ups(),
        Some("disk") => disk::measure(),
        _ => eprintln!("say what to measure: wake (of a core by another) or disk (durable overwrites)"),
    }
}

/// Prints what it costs to wake a core, by a message to its ring and by its eventfd.
fn measure_wake_ups() {
    for _ in 0..3 {
        ping_pong(By::MsgRing, 100_000, "MSG_RING");
        ping_pong(By::Eventfd, 100_000, "eventfd");
    }
}
