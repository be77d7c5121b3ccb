//! Logins: everybody comes back at once. Each is a new TCP connection, a full TLS 1.3 handshake, and a login.

use std::sync::Arc;

use trine::link::UserIdentity;

use super::Effort;
use crate::error::Result;
use crate::load::{Load, Throughput};
use crate::proto::trine::Users;
use crate::report::{Row, Stat, Target};
use crate::server::Bench;

const NAME: &str = "logins";
const PER_CORE_AND_S: f64 = 3_000.0;
/// Logins under way.
const AT_ONCE: usize = 64;
/// Users who come back in turn.
const USERS: u64 = 2_000;

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let identities: Result<Vec<_>> = (0..USERS).map(|user| Users::identity(user).map(Arc::new)).collect();
    let identities = identities?;
    let mut runs = Vec::new();
    for run in 1..=effort.runs {
        say(&format!("{NAME}: run {run} of {}", effort.runs));
        runs.push(storm(bench, effort, &identities)?);
    }
    let of = |value: fn(&Throughput) -> f64| Stat::of(runs.iter().map(value));
    let row = |measure, unit, value, target| {
        Row::new(NAME, "TLS 1.3 and login", measure, unit, of(value), None, target)
    };
    let generator = of(|run| run.generator * 100.0).map_or(0.0, |stat| stat.median);
    let server = of(|run| run.server() * 100.0).map_or(0.0, |stat| stat.median);
    let note = format!("processor shares: node {server:.0} %, generator {generator:.0} %");
    let per_core = row(
        "logins per second of one core's time",
        "1/s",
        |run| 1e6 / run.cost_us(),
        Target::AtLeast(PER_CORE_AND_S),
    );
    let cost = row("server CPU per login", "us", Throughput::cost_us, Target::None);
    let seen = row("logins seen", "1/s", Throughput::rate, Target::None);
    Ok(per_core.into_iter().chain(cost).chain(seen.map(|row| row.noted(note, false))).collect())
}

fn storm(bench: &Bench, effort: &Effort, identities: &[Arc<UserIdentity>]) -> Result<Throughput> {
    let trine = bench.trine(1)?;
    let users = Users::new(trine.node)?;
    let mut turn = identities.iter().cycle();
    let next = || users.session(turn.next().map(Arc::clone));
    Load::storm(AT_ONCE, &trine.server, next, effort.warm_up, effort.measured)
}
