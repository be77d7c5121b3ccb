//! The seeded simulator: a whole node, its clients, its network and its disk on one thread and one virtual
//! clock.
//!
//! # Purpose
//! The cores here are the very state machines of production ([`crate::node::Core`], TLS and login included),
//! driven by a scheduler that draws every choice from one seed: which core takes its turn, how many bytes a
//! connection carries, which disk operation ends, when power goes. A failure is repeated by its seed.
//!
//! # What is checked
//! Every message that was acknowledged is delivered, once to the program, in the order of its mailbox;
//! nothing is delivered that was not sent; when faults end, everything drains. The same seed gives the same
//! trace.
//!
//! # What is not
//! Threads, the kernel and its rings (tests of `rt`), and time that passes inside a turn.

mod net;
mod node;
mod user;
mod world;

use world::{Faults, Plan, World};

fn run(seed: u64, plan: Plan) -> u64 {
    let mut world = World::new(seed, plan);
    world.run();
    world.settle();
    world.trace()
}

/// Seeds of a run: `TRINE_SIM_SEED` for one, else `count` from a fixed start.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("TRINE_SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

#[test]
fn acknowledged_messages_arrive_once_and_in_order() {
    for seed in seeds(12) {
        run(seed, Plan { faults: Faults::NONE, ..Plan::default() });
    }
}

#[test]
fn connections_that_break_lose_nothing_and_repeat_nothing() {
    for seed in seeds(12) {
        run(seed, Plan { faults: Faults { disconnects: true, ..Faults::NONE }, ..Plan::default() });
    }
}

#[test]
fn power_failures_lose_nothing_that_was_acknowledged() {
    for seed in seeds(24) {
        let faults = Faults { disconnects: true, crashes: true, ..Faults::NONE };
        run(seed, Plan { faults, ..Plan::default() });
    }
}

#[test]
fn a_node_that_is_stopped_loses_nothing() {
    for seed in seeds(12) {
        run(
            seed,
            Plan { faults: Faults { stops: true, disconnects: true, ..Faults::NONE }, ..Plan::default() },
        );
    }
}

#[test]
fn a_disk_that_fails_refuses_and_loses_nothing_that_was_acknowledged() {
    for seed in seeds(24) {
        let faults = Faults { disconnects: true, crashes: true, disk: true, ..Faults::NONE };
        run(seed, Plan { faults, ..Plan::default() });
    }
}

#[test]
fn a_small_store_is_reclaimed_while_messages_flow() {
    for seed in seeds(6) {
        let faults = Faults { crashes: true, ..Faults::NONE };
        run(
            seed,
            Plan { faults, steps: 30_000, segments_per_lane: 8, crash_every: 8_000, ..Plan::default() },
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let plan = Plan {
        faults: Faults { disconnects: true, crashes: true, disk: true, ..Faults::NONE },
        ..Plan::default()
    };
    assert_eq!(run(7, plan), run(7, plan));
    assert_ne!(run(7, plan), run(8, plan));
}
