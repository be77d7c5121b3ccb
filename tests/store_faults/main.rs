//! The store on real files that fail: a file system filled to the brim, SIGKILL at any moment, system calls
//! that return errors.
//!
//! Each test prints its seed. `TRINE_TEST_SEED=N cargo test --test store_faults` repeats a run's choices.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "these tests run in real time, with files and processes of their own, and fail by panicking"
)]

mod full;
mod kills;
mod meta;
mod partition;

use std::process::{Command, Stdio};

/// This test binary again, running only the test of that name, which does nothing without `variable`.
fn again(test: &str, variable: &str, value: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(variable, value).stdin(Stdio::null());
    command
}

fn seed() -> u64 {
    let given = std::env::var("TRINE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    println!("seed {seed}; TRINE_TEST_SEED={seed} repeats these choices");
    seed
}
