//! How much memory the limits allow the node to take: every limit times what one of its things may cost.
//!
//! The costs are budgets, not measurements: a part that holds more than its budget per thing is a bug in that
//! part. They are upper bounds for a full node. A node takes memory as things arrive, so an idle one needs
//! little of this.

use std::fmt;

use super::{Config, Limits, Size};

/// A connection with its TLS state and session, idle, buffers returned.
const CONNECTION: Size = Size::kib(12);
/// What a connection needs more while it is not logged in: the handshake's buffers.
const HALF_OPEN: Size = Size::kib(24);
/// A mailbox with its devices' cursors, without messages.
const MAILBOX: Size = Size::kib(1);
/// One remembered message id: its place in the order of arrival and in the table, with the room both keep.
const DEDUP_ID: Size = Size::bytes(96);
/// One queued message's place in the index; its payload is in the log.
const QUEUED_MESSAGE: Size = Size::bytes(48);
/// Rings, buffer pools, log batches and crossings of one core.
const CORE: Size = Size::mib(32);

/// One kind of thing a core may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetLine {
    /// What it is.
    pub what: &'static str,
    /// How many one core may hold.
    pub per_core: u64,
    /// What each may cost.
    pub each: Size,
}

impl BudgetLine {
    /// Bytes of one core.
    pub fn bytes_per_core(&self) -> u64 {
        self.per_core.saturating_mul(self.each.as_bytes())
    }
}

/// The upper bound of the node's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What one core may hold.
    pub lines: Vec<BudgetLine>,
    /// Cores of the node.
    pub cores: u16,
}

impl Budget {
    /// The budget of `config` on a node of `cores` cores.
    pub fn of(config: &Config, cores: u16) -> Self {
        let l = &config.limits;
        let line = |what, per_core: u64, each| BudgetLine { what, per_core, each };
        let lines = vec![
            line("core", 1, CORE),
            line("connection", l.connections_per_core_max.into(), CONNECTION),
            line("connection not logged in", l.half_open_per_core_max.into(), HALF_OPEN),
            line("mailbox", l.mailboxes_per_core_max.into(), MAILBOX),
            line("remembered message id", dedup_ids(l), DEDUP_ID),
            line("queued message", l.queued_messages_per_core_max.into(), QUEUED_MESSAGE),
        ];
        Self { lines, cores }
    }

    /// Bytes of the whole node.
    pub fn total_bytes(&self) -> u64 {
        let core = self.lines.iter().fold(0_u64, |sum, line| sum.saturating_add(line.bytes_per_core()));
        core.saturating_mul(self.cores.into())
    }
}

/// Ids one core may remember: as many as its mailboxes may, within the core's own limit.
fn dedup_ids(limits: &Limits) -> u64 {
    let mailboxes = u64::from(limits.mailboxes_per_core_max) * u64::from(limits.dedup_ids_max);
    mailboxes.min(limits.dedup_ids_per_core_max.into())
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        writeln!(f, "{:<26} {:>12} {:>9} {:>14}", "at most, on each core", "things", "each", "MiB together")?;
        for line in &self.lines {
            let each = line.each.to_string();
            let bytes = mib(line.bytes_per_core());
            writeln!(f, "{:<26} {:>12} {each:>9} {bytes:>14}", line.what, line.per_core)?;
        }
        write!(f, "{:<26} {:>12} {:>9} {:>14}", "all cores", self.cores, "", mib(self.total_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::super::layers::described;
    use super::*;

    const PAGE: &str = include_str!("../../docs/LIMITS.md");

    /// The first two cells of every row whose first cell is in backquotes, below the heading.
    fn rows(heading: &str) -> Vec<(String, String)> {
        let section = PAGE.split_once(heading).unwrap().1;
        let section = section.split("\n## ").next().unwrap();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let rows = section.lines().filter(|line| line.starts_with("| `")).map(cells);
        rows.map(|row| (row[1].trim_matches('`').to_owned(), row[2].clone())).collect()
    }

    #[test]
    fn the_page_of_limits_lists_every_setting_with_its_default() {
        let mut documented = rows("\n## Settings\n");
        let mut in_code = described(&Config::default());
        documented.sort();
        in_code.sort();
        assert_eq!(documented, in_code);
    }

    #[test]
    fn the_page_of_limits_lists_what_the_dev_profile_changes() {
        let server = described(&Config::default());
        let mut changed = described(&Config::of(Profile::Dev));
        changed.retain(|setting| !server.contains(setting));
        let mut documented = rows("\n## Dev profile\n");
        documented.sort();
        changed.sort();
        assert_eq!(documented, changed);
    }

    #[test]
    fn the_page_of_limits_lists_the_cost_of_every_thing() {
        let in_code: Vec<_> = Budget::of(&Config::default(), 1)
            .lines
            .into_iter()
            .map(|line| (line.what.to_owned(), line.each.to_string()))
            .collect();
        assert_eq!(rows("\n## Memory\n"), in_code);
    }

    #[test]
    fn the_page_of_limits_shows_the_budget_as_it_is_printed() {
        let printed = Budget::of(&Config::default(), 2).to_string();
        assert!(PAGE.contains(&printed), "docs/LIMITS.md should contain:\n{printed}");
    }

    #[test]
    fn the_total_grows_with_the_cores_and_cannot_overflow() {
        let one = Budget::of(&Config::default(), 1);
        assert_eq!(Budget::of(&Config::default(), 3).total_bytes(), 3 * one.total_bytes());
        let line = BudgetLine { what: "anything", per_core: u64::MAX, each: Size::bytes(2) };
        let two_lines = Budget { lines: vec![line.clone(), line], cores: 9 };
        assert_eq!(two_lines.total_bytes(), u64::MAX);
    }

    #[test]
    fn remembered_ids_are_bounded_by_the_mailboxes_and_by_the_core() {
        let mut limits = Limits { mailboxes_per_core_max: 10, dedup_ids_max: 100, ..Limits::default() };
        assert_eq!(dedup_ids(&limits), 1_000);
        limits.dedup_ids_per_core_max = 300;
        assert_eq!(dedup_ids(&limits), 300);
    }
}
