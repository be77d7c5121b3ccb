//! `trine send`: one message, or one per line of standard input.

use std::io;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader, Split};

use super::{Connect, ConnectArgs};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::Output;
use crate::cli::session::{self, Session};
use crate::client::{ClientEvent, NewMessage, SendReport, Stage};
use crate::config::Span;
use crate::wire::{Address, MessageClass, MessageId, ReceiptStatus};

const EXAMPLES: &str = "\
Examples:
  trine send --node 127.0.0.1:9001 --key alice.key --to ADDRESS \"hello\"
  trine send --node 127.0.0.1:9001 --key alice.key --to ADDRESS --ttl 7d hello
  trine send --node 127.0.0.1:9001 --key alice.key --to ADDRESS --lines --json < messages.txt

The message goes to the node as it is: seal it yourself if the node's operator shall not read it.
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

/// Lines that may wait for a receipt before more are read.
const UNSENT_MAX: usize = 4096;

/// The receipt of one message, as `--json` prints it.
#[derive(Serialize)]
struct Printed {
    line: u64,
    id: String,
    status: &'static str,
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_ms: Option<u32>,
}

/// Sends and prints receipts. Ends well only if nothing was rejected.
pub fn run(options: &SendOptions) -> Result<Exit, CliError> {
    let to = options
        .to
        .parse()
        .map_err(|error| CliError::new(Exit::Usage, format!("--to {}: {error}", options.to)))?;
    session::block_on(Sending::start(options, to)?.run())
}

struct Sending<'a> {
    options: &'a SendOptions,
    to: Address,
    session: Session,
    output: Output<io::Stdout>,
    lines: u64,
    rejected: u64,
    /// Messages that were given up while there was no session with the node.
    undeliverable: u64,
}

impl<'a> Sending<'a> {
    fn start(options: &'a SendOptions, to: Address) -> Result<Self, CliError> {
        let session = Session::prepare(&options.connect, None, options.give_up.as_duration())?;
        Ok(Self { options, to, session, output: Output::stdout(), lines: 0, rejected: 0, undeliverable: 0 })
    }

    async fn run(mut self) -> Result<Exit, CliError> {
        let mut input = match &self.options.content {
            Content::Text(text) => {
                self.give(text.clone().into_bytes())?;
                None
            }
            Content::Lines => Some(BufReader::new(tokio::io::stdin()).split(b'\n')),
        };
        while input.is_some() || !self.session.driver.client().is_settled() {
            let may_read = input.is_some() && self.session.driver.client().unsent() < UNSENT_MAX;
            tokio::select! {
                event = self.session.driver.next() => {
                    let event = event.map_err(|error| self.session.explain(error))?;
                    self.event(event)?;
                }
                line = next_line(&mut input), if may_read => match line? {
                    Some(line) => self.give(line)?,
                    None => input = None,
                },
            }
        }
        if self.undeliverable > 0 {
            let (node, count) = (&self.options.connect.node, self.undeliverable);
            let message = format!(
                "the node at {node} was away for too long: {count} without a receipt; is it running?"
            );
            return Err(CliError::new(Exit::Unreachable, message));
        }
        let ok = self.rejected == 0;
        self.session.driver.finish(Duration::from_secs(1)).await;
        Ok(if ok { Exit::Ok } else { Exit::Failed })
    }

    /// Gives one message to the client; it is number `lines` from then on.
    fn give(&mut self, payload: Vec<u8>) -> Result<(), CliError> {
        let (class, ttl_ms) = match self.options.keep {
            Keep::Durable { ttl } => (MessageClass::Durable, ttl.map_or(0, |ttl| ttl.as_ms())),
            Keep::Ephemeral => (MessageClass::Ephemeral, 0),
        };
        let message = NewMessage {
            to: self.to,
            id: session::new_message_id()?,
            ttl_s: u32::try_from(ttl_ms.div_ceil(1000)).unwrap_or(u32::MAX),
            class,
            want_delivered: false,
            anonymous: false,
            payload,
        };
        let now = self.session.driver.clock().now();
        let request = self.session.driver.client().send(now, message);
        self.lines += 1;
        debug_assert_eq!(request.0, self.lines, "requests are numbered like lines");
        Ok(())
    }

    fn event(&mut self, event: ClientEvent) -> Result<(), CliError> {
        match event {
            ClientEvent::Sent(report) => self.report(&report),
            ClientEvent::GaveUp { request, id } => {
                self.rejected += 1;
                self.undeliverable += u64::from(self.session.driver.client().stage() != Stage::Ready);
                self.print(request.0, id, "unknown", None, Some(("GaveUp", 0)))
            }
            ClientEvent::Ready { node } => {
                if let Some(node) = self.session.ready(node)? {
                    eprintln!("trine: trusting node {node} from now on");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn report(&mut self, report: &SendReport) -> Result<(), CliError> {
        let refusal = match report.status {
            ReceiptStatus::Rejected(reason) => Some((reason.name(), report.retry_ms)),
            _ => None,
        };
        self.rejected += u64::from(refusal.is_some());
        let status = match report.status {
            ReceiptStatus::Accepted => "accepted",
            ReceiptStatus::Delivered => "delivered",
            ReceiptStatus::Rejected(_) => "rejected",
            ReceiptStatus::Relayed => "relayed",
        };
        let seq = (report.seq.0 > 0).then_some(report.seq.0);
        self.print(report.request.0, report.id, status, seq, refusal)
    }

    fn print(
        &mut self,
        line: u64,
        id: MessageId,
        status: &'static str,
        seq: Option<u64>,
        refusal: Option<(&'static str, u32)>,
    ) -> Result<(), CliError> {
        if self.options.json {
            let (reason, retry_ms) = (refusal.map(|(reason, _)| reason), refusal.map(|(_, ms)| ms));
            return self.output.json(&Printed { line, id: id.to_string(), status, seq, reason, retry_ms });
        }
        match (refusal, seq) {
            (Some((reason, _)), _) => self.output.line(&format!("line {line}: {status}: {reason}")),
            (None, Some(seq)) => self.output.line(&format!("line {line}: {status} as {seq}")),
            (None, None) => self.output.line(&format!("line {line}: {status}")),
        }
    }
}

type Lines = Option<Split<BufReader<tokio::io::Stdin>>>;

async fn next_line(input: &mut Lines) -> Result<Option<Vec<u8>>, CliError> {
    let Some(lines) = input else { return Ok(None) };
    lines
        .next_segment()
        .await
        .map_err(|error| CliError::new(Exit::Failed, format!("standard input cannot be read: {error}")))
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
