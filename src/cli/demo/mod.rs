//! The demonstration: a node in a process of its own, a sender, a recipient who is online and one who is not, and a
//! SIGKILL while messages are under way.
//!
//! # Promise
//! The verdict is drawn from what the clients saw, not from what the node says of itself: the receipts that the sender
//! got are compared with what arrived. Nothing is left behind: the node ends and its directory goes, also on Ctrl-C
//! and when the demonstration fails.
//!
//! # Failure model
//! A node that does not start is reported with the end of its log. A node that loses, repeats, changes or reorders a
//! message, or that never answers, makes the verdict fail; nothing here waits for ever.
//!
//! Called by `trine demo` only.

mod check;
mod narrator;
mod people;
mod process;
mod recipient;
mod report;
mod sender;
mod text;

use std::net::{Ipv4Addr, SocketAddr};

use tokio::sync::oneshot;

use self::narrator::Narrator;
use self::people::Person;
use self::process::{Launch, NodeProcess, Ready};
use self::recipient::{Arrival, Recipient};
use self::report::{Observed, Report};
use self::sender::{Numbering, Outcome, Sent, WINDOW};
use self::text::Text;
use super::cmd::demo::DemoOptions;
use super::error::{CliError, Exit};
use super::human::{bytes, count, micros};
use super::output::Output;
use super::session;
use crate::admin::ShutdownSignals;
use crate::config::Limits;
use crate::rt::clock::Clock;

/// One who is online, and one who is not.
const RECIPIENTS: usize = 2;

/// When the node was away, in monotonic microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outage {
    killed_us: u64,
    ready_us: u64,
}

impl Outage {
    fn us(self) -> u64 {
        self.ready_us - self.killed_us
    }

    /// Whether something that took from one time to another had nothing to do with the outage.
    fn spares(self, from_us: u64, to_us: u64) -> bool {
        to_us < self.killed_us || from_us > self.ready_us
    }
}

/// Runs the demonstration. Ends well only if every promise held.
pub fn run(options: &DemoOptions) -> Result<Exit, CliError> {
    let text = Text::load(options.input.as_deref())?;
    session::block_on(async {
        let mut signals = ShutdownSignals::install().map_err(failed)?;
        tokio::select! {
            report = Demo::new(&text, options.json)?.run() => {
                let report = report?;
                if options.json {
                    Output::stdout().json(&report)?;
                }
                Ok(if report.ok() { Exit::Ok } else { Exit::Failed })
            }
            _ = signals.next() => {
                Err(CliError::new(Exit::Interrupted, "interrupted; the node is stopped and its directory removed".into()))
            }
        }
    })
}

struct Demo<'a> {
    text: &'a Text,
    narrator: Narrator,
    clock: Clock,
    launch: Launch,
    numbering: Numbering,
    /// Removed, with everything in it, when this is dropped.
    _dir: tempfile::TempDir,
}

impl<'a> Demo<'a> {
    fn new(text: &'a Text, json: bool) -> Result<Self, CliError> {
        let dir = tempfile::Builder::new().prefix("trine-demo-").tempdir();
        let dir = dir.map_err(|error| failed(format!("no directory for the node: {error}; set TMPDIR")))?;
        let settings = settings_for(text);
        let launch = Launch { data: dir.path().join("node"), log: dir.path().join("node.log"), settings };
        Ok(Self {
            text,
            narrator: Narrator::new(text.len() * RECIPIENTS, json),
            clock: Clock::start(),
            launch,
            numbering: Numbering::new()?,
            _dir: dir,
        })
    }

    async fn run(self) -> Result<Report, CliError> {
        self.introduce()?;
        let node = self.launch.start((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let Ready { node: id, listen, cores } = node.ready;
        self.narrator.say("node", &format!("{id} on {listen}, {cores} cores, a process of its own"))?;
        let person = || Person::new(&self.clock);
        let people = [person()?, person()?, person()?];
        let (node, outage, sent, online) = self.exchange(node, &people).await?;
        self.narrator.end();
        let [_, online_person, offline_person] = &people;

        let offline = self.receive(&node.ready, offline_person).await?;
        let (arrived, took) = (count(offline.arrivals.len() as u64), micros(offline.us));
        self.narrator
            .say("connected", &format!("the offline recipient, who was handed {arrived} lines in {took}"))?;
        // Both come back as if they had forgotten everything: what they acknowledged must not come again.
        let mut again = 0;
        for person in [online_person, offline_person] {
            again += self.receive(&node.ready, person).await?.arrivals.len();
        }
        let clean_stop = node.stop().await;
        let report = Report::of(&Observed {
            text: self.text,
            sent: &sent,
            online: &online.arrivals,
            offline: &offline.arrivals,
            catch_up_us: offline.us,
            outage,
            again,
            past_lost: online.past_lost || offline.past_lost,
            clean_stop,
        });
        report.tell(&self.narrator)?;
        Ok(report)
    }

    fn introduce(&self) -> Result<(), CliError> {
        let text = self.text;
        let times = if text.times > 1 { format!(", {} times over", text.times) } else { String::new() };
        let (lines, source) = (count(text.distinct() as u64), &text.source);
        let size = bytes(text.bytes());
        self.narrator.say("text", &format!("{lines} lines of {source}{times}, {size}, to two recipients"))?;
        for (name, value) in &self.launch.settings {
            self.narrator.say("setting", &format!("{name}={value}: the text is too long for the default"))?;
        }
        Ok(())
    }

    /// The sender sends, the online recipient receives, and in the middle the node is killed and started again.
    async fn exchange(
        &self,
        node: NodeProcess,
        people: &[Person; 1 + RECIPIENTS],
    ) -> Result<(NodeProcess, Outage, Vec<Sent>, Seen), CliError> {
        let ready = node.ready;
        let [sender, online, offline] = people;
        let (half, at_half) = oneshot::channel();
        let (all, all_sent) = oneshot::channel();
        let mut recipient = Recipient::new(online.listens_to(&ready, &self.clock)?, self.numbering);
        let driver = sender.sends_to(&ready, &self.clock)?;
        self.narrator.doing("sending");
        let sending = async {
            let to = [online.address(), offline.address()];
            let sent = sender::send_all(driver, self.text, to, self.numbering, half, &self.narrator).await?;
            // Nobody listens any more only if the recipient failed, and its error is reported.
            let _ = all.send(accepted(&sent, 0));
            Ok(sent)
        };
        let ((node, outage), sent, ()) = tokio::try_join!(
            self.kill_and_restart(node, at_half),
            sending,
            recipient.receive_until(all_sent)
        )?;
        let past_lost = recipient.past_lost;
        Ok((node, outage, sent, Seen { arrivals: recipient.leave().await, us: 0, past_lost }))
    }

    async fn kill_and_restart(
        &self,
        node: NodeProcess,
        at_half: oneshot::Receiver<()>,
    ) -> Result<(NodeProcess, Outage), CliError> {
        if at_half.await.is_err() {
            // The sender failed, and its error is on its way.
            return std::future::pending().await;
        }
        let listen: SocketAddr = node.ready.listen;
        let killed_us = self.clock.mono_us();
        node.kill_hard()?;
        self.narrator.doing("killed; restarting");
        self.narrator
            .say("killed", &format!("SIGKILL at half of the receipts, about {WINDOW} messages under way"))?;
        let node = self.launch.start(listen).await?;
        let outage = Outage { killed_us, ready_us: self.clock.mono_us() };
        self.narrator
            .say("restarted", &format!("on the same port, ready {} after the kill", micros(outage.us())))?;
        self.narrator.doing("sending");
        Ok((node, outage))
    }

    /// Connects `person` and takes everything that waits.
    async fn receive(&self, node: &Ready, person: &Person) -> Result<Seen, CliError> {
        let start_us = self.clock.mono_us();
        let mut recipient = Recipient::new(person.listens_to(node, &self.clock)?, self.numbering);
        recipient.catch_up().await?;
        let us = self.clock.mono_us() - start_us;
        let past_lost = recipient.past_lost;
        Ok(Seen { arrivals: recipient.leave().await, us, past_lost })
    }
}

/// What a recipient saw, and how long that took.
struct Seen {
    arrivals: Vec<Arrival>,
    us: u64,
    past_lost: bool,
}

/// How many messages to `recipient` were acknowledged.
fn accepted(sent: &[Sent], recipient: usize) -> usize {
    let mine = sent.iter().skip(recipient).step_by(RECIPIENTS);
    mine.filter(|sent| matches!(sent.outcome, Outcome::Accepted { .. })).count()
}

/// Limits that a long text exceeds, raised: an offline recipient's mailbox must hold all of it, and the sender is as
/// fast as the node lets it be.
fn settings_for(text: &Text) -> Vec<(&'static str, String)> {
    let limits = Limits::default();
    let (lines, messages) = (text.len() as u64, (text.len() * RECIPIENTS) as u64);
    let sent_bytes = text.bytes() * RECIPIENTS as u64;
    let mib = |bytes: u64| format!("{} MiB", (bytes * 2).div_ceil(1 << 20));
    let mut settings = Vec::new();
    if lines > u64::from(limits.mailbox_messages_max) {
        settings.push(("TRINE_LIMITS_MAILBOX_MESSAGES_MAX", lines.to_string()));
    }
    if text.bytes() > limits.mailbox_bytes_max.as_bytes() / 2 {
        settings.push(("TRINE_LIMITS_MAILBOX_BYTES_MAX", mib(text.bytes())));
    }
    if messages > u64::from(limits.identity_messages_burst) {
        settings.push(("TRINE_LIMITS_IDENTITY_MESSAGES_BURST", (messages * 2).to_string()));
    }
    if sent_bytes > limits.identity_bytes_burst.as_bytes() / 2 {
        settings.push(("TRINE_LIMITS_IDENTITY_BYTES_BURST", mib(sent_bytes)));
    }
    settings
}

fn failed(why: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failed, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_usual_length_needs_no_settings() {
        assert_eq!(settings_for(&Text::load(None).unwrap()), []);
    }

    #[test]
    fn the_settings_for_the_longest_text_are_ones_that_a_node_takes() {
        let lines = vec![b"0123456789".repeat(13); 500_000];
        let text = Text { lines, times: 1, source: "t".into() };
        let settings = settings_for(&text);
        assert_eq!(settings.len(), 4, "{settings:?}");
        let env = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
        let profile = crate::config::Profile::Dev;
        crate::config::load(profile, None, env, crate::config::Overrides::default()).unwrap();
    }

    #[test]
    fn what_overlaps_the_outage_is_not_spared() {
        let outage = Outage { killed_us: 10, ready_us: 20 };
        assert!(outage.spares(1, 9) && outage.spares(21, 30));
        assert!(!outage.spares(9, 10) && !outage.spares(5, 30) && !outage.spares(20, 21));
    }
}
