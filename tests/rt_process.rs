//! What a core does to its process: background work beside it, and its end when a core panics.

mod rt_common;

use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use rt_common::*;
use trine::rt::api::{CoreLogic, Effects, Event, Next, Now};
use trine::rt::executor::{CoreContext, run, spawn_background};
use trine::rt::ring::RingConfig;

/// Lets other tasks run once.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(move |context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn background_tasks_run_beside_a_sleeping_core_and_cost_nothing_once_they_have_ended() {
    let steps = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&steps);
    let factory = move |context: CoreContext<Reply>| {
        spawn_background(async move {
            for _ in 0..100 {
                yield_once().await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok::<_, Infallible>(Echo::new(context, Arc::default()))
    };
    let node = run(setup(RingConfig::default()), vec![factory]).expect("it starts");
    round_trip(&connect(&node), &pattern(1, 100_000), 5_000);
    eventually("the task ends", || steps.load(Ordering::Relaxed) == 100);
    round_trip(&connect(&node), b"the next sleep is one without a limit", 10);
    let stats = Arc::clone(&node.stats()[0]);
    let mut last = stats.turns.get();
    eventually("the core sleeps for good", || {
        let turns = stats.turns.get();
        std::mem::replace(&mut last, turns) == turns
    });
    stop(node);
}

struct Panics;

impl CoreLogic for Panics {
    fn on_event(&mut self, _now: Now, _event: Event<'_>, _effects: &mut Effects) {}

    fn turn(&mut self, _now: Now, _effects: &mut Effects) -> Next {
        panic!("half of the state is wrong")
    }

    fn begin_shutdown(&mut self, _now: Now, _effects: &mut Effects) {}
}

/// Set in the environment of the process that shall end itself.
const CHILD: &str = "TRINE_TEST_PANICKING_CORE";

fn run_a_core_that_panics() {
    let factory = |_: CoreContext<Reply>| Ok::<_, Infallible>(Panics);
    if let Ok(node) = run(setup(RingConfig::default()), vec![factory]) {
        let _ = node.join();
    }
}

#[test]
fn a_panic_on_a_core_ends_the_process_and_says_so() {
    if std::env::var_os(CHILD).is_some() {
        return run_a_core_that_panics();
    }
    let this = std::env::current_exe().expect("the test binary");
    let child = Command::new(this)
        .args(["--exact", "a_panic_on_a_core_ends_the_process_and_says_so", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("it runs");
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{child:?}");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(
        said.contains("half of the state is wrong") && said.contains("a panic on a core ends the node"),
        "{said}"
    );
}
