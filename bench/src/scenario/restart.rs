//! Restart: from the start of the process to `ready`, with many messages queued, after the node was killed.

use super::Effort;
use super::FLOWS;
use super::durable::RECIPIENTS_FROM;
use crate::error::Result;
use crate::load::Load;
use crate::proto::trine::Users;
use crate::report::{Row, Stat, Target};
use crate::server::Bench;

const NAME: &str = "restart";
const TARGET_S: f64 = 2.0;
/// Mailboxes that each of the senders fills.
const MAILBOXES_PER_SENDER: u64 = 32;
const WINDOW: u32 = 64;

/// Runs the scenario: one filling, then as many restarts as runs.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let messages = effort.queued;
    let dir = bench.trine_store(1)?;
    say(&format!("{NAME}: queueing {messages} messages"));
    {
        let trine = bench.trine_on(dir.path(), 1)?;
        let users = Users::new(trine.node)?;
        let recipients = |sender: u64| {
            let first = RECIPIENTS_FROM + sender * MAILBOXES_PER_SENDER;
            first..first + MAILBOXES_PER_SENDER
        };
        let flows: Result<Vec<_>> = (0..FLOWS as u64).map(|n| users.publisher(n, recipients(n))).collect();
        Load::connect(trine.server.addr, flows?)?.exactly(messages, WINDOW)?;
    }
    let mut seconds = Vec::new();
    for run in 1..=effort.runs {
        say(&format!("{NAME}: restart {run} of {}", effort.runs));
        seconds.push(bench.trine_on(dir.path(), 1)?.started_in.as_secs_f64());
    }
    let work = format!("{messages} messages in {} mailboxes, killed", FLOWS as u64 * MAILBOXES_PER_SENDER);
    let row = Row::new(NAME, work, "start to ready", "s", Stat::of(seconds), None, Target::AtMost(TARGET_S));
    Ok(row.into_iter().collect())
}
