//! `trine listen`: receives messages, prints them, and acknowledges what it printed.

use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde::Serialize;

use super::{Connect, ConnectArgs};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::Output;
use crate::cli::session::{self, Session};
use crate::client::{ClientEvent, ReceivedMessage};
use crate::relay::Window;

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

/// How long to look for a node that is away.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Messages that may be on their way at once.
const WINDOW: Window = Window { messages: 256, bytes: 1 << 20 };

/// A message, as `--json` prints it.
#[derive(Serialize)]
struct Printed {
    id: String,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    sent_ms: u64,
    payload: String,
}

/// Receives, prints, acknowledges.
pub fn run(options: &ListenOptions) -> Result<Exit, CliError> {
    session::block_on(receive(options))
}

async fn receive(options: &ListenOptions) -> Result<Exit, CliError> {
    let mut session = Session::prepare(&options.connect, Some(WINDOW), GIVE_UP)?;
    let mut output = Output::stdout();
    let mut left = options.count.map(NonZeroU64::get);
    while left != Some(0) {
        let event = session.driver.next().await.map_err(|error| session.explain(error))?;
        match event {
            ClientEvent::Received(message) => {
                print(&mut output, options.json, &message)?;
                session.driver.client().done(message.key());
                left = left.map(|left| left - 1);
            }
            ClientEvent::Ready { node } => {
                if let Some(node) = session.ready(node)? {
                    eprintln!("trine: trusting node {node} from now on");
                }
            }
            ClientEvent::EpochChanged => {
                eprintln!("trine: the node lost part of its log; messages to this address may be missing");
            }
            _ => {}
        }
    }
    session.driver.finish(Duration::from_secs(1)).await;
    Ok(Exit::Ok)
}

fn print(output: &mut Output<io::Stdout>, json: bool, message: &ReceivedMessage) -> Result<(), CliError> {
    if json {
        return output.json(&Printed {
            id: message.id.to_string(),
            seq: message.seq.0,
            from: message.from.map(|from| from.to_string()),
            sent_ms: message.sent_ms,
            payload: BASE64_STANDARD.encode(&message.payload),
        });
    }
    output.line(&readable(&message.payload))
}

/// The text of a message with what could steer a terminal made visible.
fn readable(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::readable;
    use crate::cli::testing::parse;

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        assert_eq!(readable(b"a\x1b[2Jb\tc"), "a\u{FFFD}[2Jb\tc");
    }

    #[test]
    fn a_count_of_zero_is_refused() {
        assert!(parse("trine listen --node h:1 --key k --count 0").is_err());
        assert!(parse("trine listen --node h:1 --key k --count 1").is_ok());
    }
}
