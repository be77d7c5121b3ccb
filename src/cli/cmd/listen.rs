//! `trine listen`: receives messages, prints them, and acknowledges what it printed.

use std::num::NonZeroU64;

use clap::Args;

use super::{Connect, ConnectArgs};

const EXAMPLES: &str = "\
Examples:
  trine listen --node 127.0.0.1:9001 --key bob.key
  trine listen --node 127.0.0.1:9001 --key bob.key --count 10 --json

With --json, one object per message: id, seq, from (if known), sent_ms, payload (base64).
Reconnects when the node goes away. What was printed is acknowledged and not delivered again.";

/// Receives messages and prints them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ListenArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// End after this many messages [default: never]
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Print one JSON object per message
    #[arg(long)]
    json: bool,
}

/// What to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// The node and the user.
    pub connect: Connect,
    /// Messages after which to end.
    pub count: Option<NonZeroU64>,
    /// Print JSON.
    pub json: bool,
}

impl ListenArgs {
    pub(in crate::cli) fn validate(self) -> ListenOptions {
        let Self { connect, count, json } = self;
        ListenOptions { connect: connect.validate(), count, json }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::parse;

    #[test]
    fn a_count_of_zero_is_refused() {
        assert!(parse("trine listen --node h:1 --key k --count 0").is_err());
        assert!(parse("trine listen --node h:1 --key k --count 1").is_ok());
    }
}
