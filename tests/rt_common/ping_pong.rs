//! Two cores that send each other one message at a time and sleep in between. A test and a measurement use
//! it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trine::rt::api::{CoreId, CoreLogic, Effects, Event, Next, Now};
use trine::rt::clock::Clock;
use trine::rt::crossing::{CoreCrossings, Port};
use trine::rt::executor::{CoreContext, RunningNode, StartError, run};
use trine::rt::ring::{CoreControl, RingConfig};

use super::{Reply, eventually_within, setup, stop};

/// How a core gets the other one's attention.
#[derive(Clone, Copy, PartialEq)]
pub enum By {
    /// As the runtime does it.
    MsgRing,
    /// By writing to its eventfd, for comparison.
    Eventfd,
}

/// Core 0 sends requests, one at a time, and core 1 answers; both sleep in between.
struct PingPong {
    crossings: CoreCrossings<Reply>,
    by: By,
    other: Arc<std::sync::OnceLock<Vec<Arc<CoreControl>>>>,
    rounds: u64,
    asked: u64,
    answered: Arc<AtomicU64>,
    draining: bool,
}

impl PingPong {
    fn ask(&mut self) {
        self.asked += 1;
        self.crossings.push_request(CoreId(1), &[b"ping"]).expect("one at a time");
        self.publish_by_eventfd();
    }

    fn publish_by_eventfd(&mut self) {
        if self.by == By::Eventfd && !self.crossings.publish().is_empty() {
            let controls = self.other.get().expect("set before the first ask");
            controls[1 - usize::from(self.crossings.core().0)].notify();
        }
    }
}

impl CoreLogic for PingPong {
    fn on_event(&mut self, _now: Now, event: Event<'_>, _effects: &mut Effects) {
        panic!("no event was asked for: {event:?}");
    }

    fn turn(&mut self, _now: Now, _effects: &mut Effects) -> Next {
        let me = self.crossings.core();
        let other = CoreId(1 - me.0);
        while self.crossings.peek_request(other).is_some() {
            self.crossings.pop_request(other);
            self.crossings.push_reply(other, [1; 64]).expect("one at a time");
            self.publish_by_eventfd();
        }
        if me == CoreId(0) && self.other.get().is_some() {
            while self.crossings.pop_reply(other).is_some() {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            if self.asked == self.answered.load(Ordering::Relaxed) && self.asked < self.rounds {
                self.ask();
            }
        }
        if self.draining { Next::Done } else { Next::Event }
    }

    fn begin_shutdown(&mut self, _now: Now, _effects: &mut Effects) {
        self.draining = true;
    }

    fn port(&mut self) -> Option<&mut dyn Port> {
        Some(&mut self.crossings)
    }
}

fn start(by: By, rounds: u64) -> Option<(RunningNode, Arc<AtomicU64>)> {
    let answered = Arc::new(AtomicU64::new(0));
    let other = Arc::new(std::sync::OnceLock::new());
    let factories: Vec<_> = (0..2)
        .map(|_| {
            let (answered, other) = (Arc::clone(&answered), Arc::clone(&other));
            move |context: CoreContext<Reply>| {
                let crossings = context.crossings;
                Ok::<_, Infallible>(PingPong {
                    crossings,
                    by,
                    other,
                    rounds,
                    asked: 0,
                    answered,
                    draining: false,
                })
            }
        })
        .collect();
    let mut setup = setup(RingConfig::default());
    setup.listen = None;
    let node = match run(setup, factories) {
        Ok(node) => node,
        Err(error @ StartError::Processors { .. }) => {
            eprintln!("SKIPPED: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    other.set(node.controls()).expect("set once");
    node.controls()[0].notify();
    Some((node, answered))
}

/// Runs `rounds` round trips and prints what one wake-up costs.
pub fn ping_pong(by: By, rounds: u64, name: &str) -> Option<u64> {
    let (node, answered) = start(by, rounds)?;
    let clock = Clock::start();
    eventually_within(120, name, || answered.load(Ordering::Relaxed) == rounds);
    let us = clock.mono_us();
    let stats = node.stats();
    let wakes: u64 = stats.iter().map(|core| core.wakes_received.get()).sum();
    let parks: u64 = stats.iter().map(|core| core.parks.get()).sum();
    let enters: u64 = stats.iter().map(|core| core.enters.get()).sum();
    println!(
        "{name}: {:.2} us per wake-up, {parks} sleeps, {wakes} ring messages, {:.2} enters per wake-up",
        us as f64 / (2 * rounds) as f64,
        enters as f64 / (2 * rounds) as f64,
    );
    stop(node);
    Some(parks)
}
