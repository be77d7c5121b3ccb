//! The node of the demonstration: this same program as a child process.
//!
//! Whatever happens to the demonstration, dropping a [`NodeProcess`] kills and reaps the child.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::failed;
use crate::cli::error::CliError;
use crate::wire::NodeId;

/// A node that is not ready by then is not going to be: it zero-fills 128 MiB at first.
const START_MAX: Duration = Duration::from_secs(120);
/// A node that has not drained by then is stuck.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Lines of the node's log that are shown when it fails.
const LOG_LINES_SHOWN: usize = 20;
const NOT_CONFIGURATION: &str = "TRINE_LOG";

/// How to start the node, again and again.
#[derive(Debug)]
pub(super) struct Launch {
    /// Directory of the node.
    pub(super) data: PathBuf,
    /// Where its log goes.
    pub(super) log: PathBuf,
    /// Settings that differ from the defaults, as environment variables.
    pub(super) settings: Vec<(&'static str, String)>,
}

/// What a node says when it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) node: NodeId,
    pub(super) listen: SocketAddr,
    pub(super) cores: u16,
}

/// A running node.
#[derive(Debug)]
pub(super) struct NodeProcess {
    child: Child,
    stdout: Lines<BufReader<pipe::Receiver>>,
    pub(super) ready: Ready,
}

impl Launch {
    /// Starts the node on `listen` and waits until it serves clients.
    pub(super) async fn start(&self, listen: SocketAddr) -> Result<NodeProcess, CliError> {
        let mut child = self.spawn(listen)?;
        let stdout = match child.stdout.take().map(|pipe| pipe::Receiver::from_owned_fd(pipe.into())) {
            Some(Ok(stdout)) => BufReader::new(stdout).lines(),
            _ => return Err(failed("the output of the node cannot be read")),
        };
        let nobody = Ready { node: NodeId([0; 32]), listen, cores: 0 };
        let mut node = NodeProcess { child, stdout, ready: nobody };
        let first = timeout(START_MAX, node.stdout.next_line()).await;
        let why = match first {
            Ok(Ok(Some(line))) => match parse_ready(&line) {
                Some(ready) => {
                    node.ready = ready;
                    return Ok(node);
                }
                None => format!("it said `{line}`"),
            },
            Ok(Ok(None)) => match node.child.wait() {
                Ok(status) => format!("it ended with {status}"),
                Err(error) => error.to_string(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was not ready within {} s", START_MAX.as_secs()),
        };
        Err(failed(format!("the node did not start: {why}. Its log ends with:\n{}", self.log_tail())))
    }

    fn spawn(&self, listen: SocketAddr) -> Result<Child, CliError> {
        #[allow(clippy::disallowed_methods, reason = "the log of a child process, not a file of the node")]
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| failed(format!("cannot write {}: {error}", self.log.display())))?;
        let program = std::env::current_exe();
        let program = program.map_err(|error| failed(format!("cannot find this program: {error}")))?;
        let mut command = Command::new(program);
        command.args(["node", "--dev", "--http", "127.0.0.1:0", "--listen", &listen.to_string(), "--data"]);
        command.arg(&self.data).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // The demonstration shows the defaults, not what this shell happens to have set.
        let ours = |name: &str| name.starts_with("TRINE_") && name != NOT_CONFIGURATION;
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
            command.env_remove(name);
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.spawn().map_err(|error| failed(format!("cannot start the node: {error}")))
    }

    fn log_tail(&self) -> String {
        let bytes = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = bytes.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl NodeProcess {
    /// Ends the process with SIGKILL, as a power cut would: it gets no chance to finish anything.
    pub(super) fn kill_hard(mut self) -> Result<(), CliError> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .map_err(|error| failed(format!("cannot kill the node: {error}")))
    }

    /// Asks the node to drain and end; true if it did so in time and without complaint.
    pub(super) async fn stop(mut self) -> bool {
        let asked = Pid::from_raw(self.child.id().cast_signed())
            .is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        // The end of its output is the end of the process.
        let ended = timeout(STOP_MAX, async { while let Ok(Some(_)) = self.stdout.next_line().await {} });
        asked && ended.await.is_ok() && self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Both fail harmlessly if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads `ready: node ID on ADDR, N cores, http ADDR`.
fn parse_ready(line: &str) -> Option<Ready> {
    let (node, rest) = line.strip_prefix("ready: node ")?.split_once(" on ")?;
    let mut parts = rest.split(", ");
    let listen = parts.next()?.parse().ok()?;
    let cores = parts.next()?.strip_suffix(" cores")?.parse().ok()?;
    Some(Ready { node: node.parse().ok()?, listen, cores })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ready_node_says_is_understood() {
        let node = NodeId([7; 32]);
        let line = format!("ready: node {node} on 127.0.0.1:4001, 2 cores, http 127.0.0.1:4002");
        let listen = "127.0.0.1:4001".parse().unwrap();
        assert_eq!(parse_ready(&line), Some(Ready { node, listen, cores: 2 }));
        for line in ["", "ready: node x on 127.0.0.1:1, 2 cores", "listening"] {
            assert_eq!(parse_ready(line), None, "{line}");
        }
    }
}
