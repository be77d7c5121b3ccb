//! Two cores against one: the durable live work again, on a node of one core and on one of two. Half of the
//! messages then cross from one core to the other. Only the cost per message is compared: on a machine of
//! two processors the generator shares one with the node.

use trine::wire::MessageClass;

use super::{Effort, live};
use crate::error::Result;
use crate::load::Throughput;
use crate::report::{Row, Stat, Target};
use crate::server::Bench;

const NAME: &str = "two-cores";
const WINDOW: u32 = 16;

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for run in 1..=effort.runs {
        say(&format!("{NAME}: run {run} of {}", effort.runs));
        one.push(live::closed_trine(bench, effort, WINDOW, MessageClass::Durable, 1)?);
        two.push(live::closed_trine(bench, effort, WINDOW, MessageClass::Durable, 2)?);
    }
    let cost = |runs: &[Throughput]| Stat::of(runs.iter().map(Throughput::cost_us));
    let peer = cost(&one).map(|stat| ("one core", stat));
    let work = format!("durable, window {WINDOW}");
    let measure = "server CPU per message on two cores";
    let row = Row::new(NAME, work, measure, "us", cost(&two), peer, Target::AtMostTimes(1.1));
    let note = "the generator shares a processor with the second core";
    Ok(row.map(|row| row.noted(note, false)).into_iter().collect())
}
