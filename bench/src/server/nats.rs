//! NATS with its defaults, in the clear, without JetStream.

use std::process::{Command, Stdio};

use super::{Bench, Server, await_port, find, free_port, version_of};
use crate::error::Result;

/// What is installed.
pub fn version() -> Result<String> {
    version_of(&find("nats-server", "nats-server")?, "--version")
}

impl Bench {
    /// Starts NATS.
    pub fn nats(&self) -> Result<Server> {
        let program = find("nats-server", "nats-server")?;
        let dir = self.fresh_dir("nats")?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .args(["-a", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = self.spawn(&mut command, &[self.processors.server])?;
        await_port(child, ([127, 0, 0, 1], port).into(), dir)
    }
}
