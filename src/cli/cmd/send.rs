//! `trine send`: one message, or one per line of standard input.

use clap::Args;

use super::{Connect, ConnectArgs};
use crate::cli::error::{CliError, Exit};
use crate::config::Span;

const EXAMPLES: &str = "\
Examples:
  trine send --node 127.0.0.1:9001 --key alice.key --to ADDRESS \"hello\"
  trine send --node 127.0.0.1:9001 --key alice.key --to ADDRESS --ttl 7d hello
  trine send --node 127.0.0.1:9001 --key alice.key --to ADDRESS --lines --json < messages.txt

With --json, one object per receipt: line, id, status, seq; reason and retry_ms when rejected.
Ends with 1 if any message was rejected, with 3 if the node stayed away for longer than --give-up.";

/// Sends a message, or each line of standard input as one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SendArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Address of the recipient
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// The message
    #[arg(value_name = "TEXT", required_unless_present = "lines", conflicts_with = "lines")]
    text: Option<String>,
    /// Send each line of standard input as one message, pipelined
    #[arg(long)]
    lines: bool,
    /// Time after which an undelivered message expires [default: the node's]
    #[arg(long, value_name = "DURATION", conflicts_with = "ephemeral")]
    ttl: Option<Span>,
    /// Deliver now or drop; never stored
    #[arg(long)]
    ephemeral: bool,
    /// How long to try while the node is away
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    give_up: Span,
    /// Print one JSON object per receipt
    #[arg(long)]
    json: bool,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One message.
    Text(String),
    /// Each line of standard input.
    Lines,
}

/// How a message is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Stored until every device has it, or this long; `None` is the node's default.
    Durable {
        /// Time to live.
        ttl: Option<Span>,
    },
    /// Delivered now or dropped.
    Ephemeral,
}

/// What to send to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendOptions {
    /// The node and the user.
    pub connect: Connect,
    /// Text form of the recipient's address.
    pub to: String,
    /// The message or messages.
    pub content: Content,
    /// How they are kept.
    pub keep: Keep,
    /// How long to try while the node is away.
    pub give_up: Span,
    /// Print JSON.
    pub json: bool,
}

impl SendArgs {
    pub(in crate::cli) fn validate(self) -> Result<SendOptions, CliError> {
        let Self { connect, to, text, lines: _, ttl, ephemeral, give_up, json } = self;
        if ttl == Some(Span::ms(0)) {
            let message = "--ttl 0 would expire the message at once; use --ephemeral for deliver-now-or-drop";
            return Err(CliError::new(Exit::Usage, message.into()));
        }
        // clap has seen to it that there is a text or `--lines`, and not both.
        let content = text.map_or(Content::Lines, Content::Text);
        let keep = if ephemeral { Keep::Ephemeral } else { Keep::Durable { ttl } };
        Ok(SendOptions { connect: connect.validate(), to, content, keep, give_up, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;
    use crate::cli::testing::parse;

    fn options(rest: &str) -> Result<SendOptions, String> {
        match parse(&format!("trine send --node h:1 --key k --to a {rest}"))? {
            Command::Send(options) => Ok(options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_and_lines_exclude_each_other_and_one_is_needed() {
        assert_eq!(options("hello").unwrap().content, Content::Text("hello".into()));
        assert_eq!(options("--lines").unwrap().content, Content::Lines);
        assert!(options("--lines hello").is_err());
        assert!(options("--json").is_err());
    }

    #[test]
    fn an_ephemeral_message_has_no_time_to_live() {
        assert_eq!(options("x --ephemeral").unwrap().keep, Keep::Ephemeral);
        assert_eq!(options("x --ttl 30d").unwrap().keep, Keep::Durable { ttl: Some(Span::days(30)) });
        assert!(options("x --ephemeral --ttl 30d").is_err());
        assert!(options("x --ttl 0s").unwrap_err().contains("--ephemeral"));
        assert!(options("x --ttl 30").unwrap_err().contains("is no duration"));
    }

    #[test]
    fn it_gives_up_after_a_minute_unless_told_otherwise() {
        assert_eq!(options("x").unwrap().give_up, Span::seconds(60));
        assert_eq!(options("x --give-up 5s").unwrap().give_up, Span::seconds(5));
    }
}
