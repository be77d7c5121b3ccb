//! The commands, one file each: arguments with their help, validated options, and what the command does.

pub mod demo;
pub mod init;
pub mod keygen;
pub mod listen;
pub mod node;
pub mod send;
pub mod status;
pub mod store;

use std::path::PathBuf;

use clap::Args;

use super::addr::HostPort;

/// How to reach a node as a user; the same for every command that does.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Where the node listens
    #[arg(long, value_name = "HOST:PORT")]
    node: HostPort,
    /// The user's key file, made by `trine keygen`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The node's identity; without it, the identity seen first is remembered beside the key
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
}

/// How to reach a node as a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Where the node listens.
    pub node: HostPort,
    /// The user's key file.
    pub key: PathBuf,
    /// Text form of the identity that the node must have; `None` trusts the first one seen.
    pub node_id: Option<String>,
}

impl ConnectArgs {
    fn validate(self) -> Connect {
        let Self { node, key, node_id } = self;
        Connect { node, key, node_id }
    }
}
