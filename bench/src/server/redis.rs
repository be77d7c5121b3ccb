//! Redis with an append-only file that is flushed before every answer.

use std::process::{Command, Stdio};

use super::{Bench, Server, await_port, find, free_port, version_of};
use crate::error::Result;

/// What is installed.
pub fn version() -> Result<String> {
    version_of(&find("redis-server", "redis-server")?, "--version")
}

impl Bench {
    /// Starts Redis with `appendfsync always` and no other persistence.
    pub fn redis(&self) -> Result<Server> {
        let program = find("redis-server", "redis-server")?;
        let dir = self.fresh_dir("redis")?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--maxclients",
            "10000",
        ]);
        command.args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--auto-aof-rewrite-percentage",
            "0",
        ]);
        command.arg("--dir").arg(dir.path()).stdout(Stdio::null());
        let child = self.spawn(&mut command, &[self.processors.server])?;
        await_port(child, ([127, 0, 0, 1], port).into(), dir)
    }
}
