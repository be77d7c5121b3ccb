//! What an operator sees of a running node over HTTP: health, readiness, metrics, status. And signals.
//!
//! Runs on the housekeeping thread, on a current-thread tokio runtime that the caller starts: never on a data
//! core. It only reads the counters of the cores ([`crate::stats`]) and the [`Readiness`] of the node, so
//! nothing that a scraper does can slow a core down or change what it does.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200 when clients are served; 503 with the reason otherwise |
//! | `/metrics` | OpenMetrics text, one series per core |
//! | `/statusz` | JSON for people and for `trine status` |
//!
//! There is no authentication: bind it to this machine or to a management network. What may go wrong: too
//! many or too slow clients, which are bounded in number, bytes and time (see the `server` module) and then
//! closed.

mod codes;
mod metrics;
mod readiness;
mod routes;
mod server;
mod signals;
mod status;

use std::sync::Arc;

pub use codes::CodeName;
pub use readiness::{Readiness, ReadinessCell};
pub use server::serve;
pub use signals::{Shutdown, ShutdownSignals, Signal};

use crate::config::Limits;
use crate::rt::api::Now;
use crate::stats::CoreStats;

/// Reads the clock; given by the runtime.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// What the HTTP surface shows.
#[derive(Clone)]
pub struct AdminState {
    /// Version of the program.
    pub version: &'static str,
    /// The node's identity in text form.
    pub node_id: String,
    /// Counters of every core.
    pub stats: Arc<[CoreStats]>,
    /// How far the node is.
    pub readiness: Arc<ReadinessCell>,
    /// Limits in effect.
    pub limits: Limits,
    /// Names of the wire's codes.
    pub code_name: CodeName,
    /// Reads the clock.
    pub clock: Clock,
    /// When the process started.
    pub started: Now,
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminState").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl AdminState {
    /// Whole seconds since the process started.
    fn uptime_s(&self) -> u64 {
        (self.clock)().mono_us.saturating_sub(self.started.mono_us) / 1_000_000
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A state with a clock that stands still, for the tests of this folder.

    use super::*;
    use crate::stats::{Vocabulary, per_core};

    pub(crate) fn state(cores: u16) -> AdminState {
        AdminState {
            version: "1.2.3",
            node_id: "node1test".into(),
            stats: per_core(cores),
            readiness: Arc::new(ReadinessCell::new(Readiness::Starting)),
            limits: Limits::default(),
            code_name: |vocabulary, code| match (vocabulary, code) {
                (Vocabulary::Class, 0) => Some("durable"),
                (Vocabulary::Class, 1) => Some("ephemeral"),
                (Vocabulary::Status, 1) => Some("accepted"),
                _ => None,
            },
            clock: Arc::new(|| Now { mono_us: 65_000_000, wall_ms: 1_000_000 }),
            started: Now { mono_us: 5_000_000, wall_ms: 940_000 },
        }
    }
}
