//! The node under test, with limits raised so far that none of them is what is measured.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ::trine::wire::NodeId;
use tempfile::TempDir;

use super::{Bench, Server, await_line};
use crate::error::{BenchError, Context, Result};

/// The configuration of every node under test, for as many lanes as it has cores. Two segments per lane are
/// made before the node starts, so that a short run overwrites segments as a node in service does and makes
/// none.
pub fn config(cores: usize) -> String {
    CONFIG.replace("LANES", &cores.to_string())
}

const CONFIG: &str = "\
listen = '127.0.0.1:0'
http = '127.0.0.1:0'

[store]
lanes = LANES
segment_bytes = '128 MiB'
max_bytes = '12 GiB'

[limits]
connections_per_core_max = 200000
half_open_per_core_max = 200000
connections_per_prefix_max = 200000
connects_per_prefix_per_s = 1000000
connects_per_prefix_burst = 1000000
mailboxes_per_core_max = 1000000
queued_messages_per_core_max = 100000000
mailbox_messages_max = 10000000
mailbox_bytes_max = '16 GiB'
send_window_max = 4096
deliver_window_messages_max = 8192
deliver_window_bytes_max = '16 MiB'
identity_messages_per_s = 10000000
identity_messages_burst = 100000000
identity_bytes_per_s = '16 GiB'
identity_bytes_burst = '16 GiB'

[deadlines]
tls = '60s'
login = '60s'
idle = '1h'
";

/// A node that is running.
pub struct TrineServer {
    /// Its process.
    pub server: Server,
    /// Its identity.
    pub node: NodeId,
    /// From its start to its `ready` line.
    pub started_in: Duration,
}

impl Bench {
    /// What is under test.
    pub fn trine_version(&self) -> Result<String> {
        super::version_of(&self.trine, "--version")
    }

    /// Formats a store and starts a node of `cores` cores on it.
    pub fn trine(&self, cores: usize) -> Result<TrineServer> {
        let dir = self.trine_store(cores)?;
        let mut trine = self.trine_on(dir.path(), cores)?;
        trine.server._dir = Some(dir);
        Ok(trine)
    }

    /// A directory with a freshly formatted store for this many cores and a configuration.
    pub fn trine_store(&self, cores: usize) -> Result<TempDir> {
        let dir = self.fresh_dir("trine")?;
        let config = dir.path().join("bench.toml");
        std::fs::write(&config, self::config(cores)).context("writing the node's configuration")?;
        let mut command = Command::new(&self.trine);
        command.arg("init").arg("--data").arg(dir.path().join("data")).arg("--config").arg(&config);
        let output = command.output().context("running `trine init`")?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(BenchError::Peer { peer: "trine init", what: words });
        }
        Ok(dir)
    }

    /// Starts a node on a store that is there already.
    pub fn trine_on(&self, dir: &Path, cores: usize) -> Result<TrineServer> {
        let cpus: Vec<usize> = match cores {
            1 => vec![self.processors.server],
            _ => self.processors.all.iter().copied().take(cores).collect(),
        };
        let mut command = Command::new(&self.trine);
        command.args(["node", "--cores", &cores.to_string()]).arg("--data").arg(dir.join("data"));
        command.arg("--config").arg(dir.join("bench.toml")).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = self.spawn(&mut command, &cpus)?;
        let line = await_line(&mut child, "ready:")?;
        let started_in = started.elapsed();
        // ready: node ID on IP:PORT, N cores, http IP:PORT
        let mut words = line.split([' ', ',']).skip(2);
        let node = words.next().and_then(|word| word.parse().ok());
        let addr = words.nth(1).and_then(|word| word.parse().ok());
        let (Some(node), Some(addr)) = (node, addr) else {
            return Err(BenchError::Peer {
                peer: "trine",
                what: format!("its ready line is unknown: {line}"),
            });
        };
        Ok(TrineServer { server: Server { child, addr, _dir: None }, node, started_in })
    }
}
