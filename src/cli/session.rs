//! What `send` and `listen` share: the user's key, the node's identity, and a connection that comes back.
//!
//! The identity of a node is checked every time. Unless it is given with `--node-id`, the one seen first is
//! remembered in a file beside the key (`alice.key.nodes`, one `host:port identity` per line) and any other
//! is refused.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cmd::Connect;
use super::error::{CliError, Exit};
use crate::client::{Client, ClientConfig, ClientError, Driver, DriverError};
use crate::link::{ClientLinkConfig, Expect, LinkCrypto, LinkError, UserIdentity, key_file};
use crate::relay::Window;
use crate::rt::clock::Clock;
use crate::rt::{entropy, files};
use crate::wire::{MessageId, NodeId};

/// A key file is smaller than this.
const KEY_FILE_BYTES_MAX: usize = 4096;
/// A list of known nodes is smaller than this.
const NODES_FILE_BYTES_MAX: usize = 1 << 20;

/// A user's connection to a node.
pub struct Session {
    /// The running client.
    pub driver: Driver,
    known: KnownNodes,
    learned: bool,
}

impl Session {
    /// Prepares a connection; nothing is sent before the driver is polled.
    pub fn prepare(
        connect: &Connect,
        subscribe: Option<Window>,
        give_up: Duration,
    ) -> Result<Self, CliError> {
        let identity = read_identity(&connect.key)?;
        let addr = connect.node.to_string();
        let known = KnownNodes::beside(&connect.key, &addr);
        let expected = match &connect.node_id {
            Some(text) => Some(parse_node_id(text)?),
            None => known.find()?,
        };
        let expect = expected.map_or(Expect::Any, Expect::Exactly);
        let link = ClientLinkConfig::new(expect, &LinkCrypto::system()).map_err(internal)?;
        let config = ClientConfig {
            identity: Arc::new(identity),
            link: Arc::new(link),
            subscribe,
            give_up_us: u64::try_from(give_up.as_micros()).unwrap_or(u64::MAX),
            hash_seed: u64::from_le_bytes(random()?),
        };
        let driver = Driver::new(addr, Client::new(config), Clock::start(), give_up);
        Ok(Self { driver, known, learned: expected.is_none() })
    }

    /// A login succeeded: remembers the identity of a node that was not known. Returns it if it is new.
    pub fn ready(&mut self, node: NodeId) -> Result<Option<NodeId>, CliError> {
        if !std::mem::take(&mut self.learned) {
            return Ok(None);
        }
        self.known.remember(&node)?;
        // From now on no other will do, also for this process.
        let link = ClientLinkConfig::new(Expect::Exactly(node), &LinkCrypto::system()).map_err(internal)?;
        self.driver.client().trust_only(Arc::new(link));
        Ok(Some(node))
    }

    /// What went wrong, for the user.
    pub fn explain(&self, error: DriverError) -> CliError {
        let exit = match &error {
            DriverError::Unreachable { .. } => Exit::Unreachable,
            DriverError::Client(ClientError::Link(LinkError::WrongNode { .. })) => {
                return CliError::new(Exit::IdentityMismatch, self.known.alarm(&error));
            }
            DriverError::Client(_) | DriverError::Refused(_) => Exit::Failed,
        };
        CliError::new(exit, error.to_string())
    }
}

/// A runtime for one command, on this thread.
pub fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(internal)?.block_on(work)
}

/// A message id nobody else will choose.
pub fn new_message_id() -> Result<MessageId, CliError> {
    random().map(MessageId)
}

/// Random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], CliError> {
    entropy::bytes().map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failed, error.to_string())
}

fn read_identity(path: &Path) -> Result<UserIdentity, CliError> {
    let bytes = files::read_secret(path, KEY_FILE_BYTES_MAX).map_err(|error| {
        let hint = format!("{error}; `trine keygen --out {}` makes a key", path.display());
        CliError::new(Exit::Usage, hint)
    })?;
    key_file::decode_user_identity(&bytes)
        .map_err(|error| CliError::new(Exit::Usage, format!("the key file {}: {error}", path.display())))
}

fn parse_node_id(text: &str) -> Result<NodeId, CliError> {
    text.parse().map_err(|error| CliError::new(Exit::Usage, format!("--node-id {text}: {error}")))
}

/// The identities of nodes that were seen with a key.
struct KnownNodes {
    path: PathBuf,
    addr: String,
}

impl KnownNodes {
    fn beside(key: &Path, addr: &str) -> Self {
        let mut path = key.as_os_str().to_owned();
        path.push(".nodes");
        Self { path: path.into(), addr: addr.to_owned() }
    }

    fn find(&self) -> Result<Option<NodeId>, CliError> {
        if !self.path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&self.path, NODES_FILE_BYTES_MAX)
            .map_err(|error| CliError::new(Exit::Usage, error.to_string()))?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().find_map(|line| line.strip_prefix(&self.addr)?.strip_prefix(' '));
        line.map(|id| {
            id.trim().parse().map_err(|error| {
                let message = format!("{} holds no identity for {}: {error}", self.path.display(), self.addr);
                CliError::new(Exit::Usage, message)
            })
        })
        .transpose()
    }

    #[allow(clippy::disallowed_methods, reason = "a list of the user's, not a file of the node")]
    fn remember(&self, node: &NodeId) -> Result<(), CliError> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.path);
        opened.and_then(|mut file| writeln!(file, "{} {node}", self.addr)).map_err(|error| {
            let message = format!("cannot remember the node's identity in {}: {error}", self.path.display());
            CliError::new(Exit::Failed, message)
        })
    }

    fn alarm(&self, error: &DriverError) -> String {
        format!(
            "THE IDENTITY OF THE NODE AT {} IS NOT THE ONE EXPECTED.\n  {error}\n  Nothing was sent. \
             Somebody may be between you and the node, or it was set up anew.\n  If the change is meant, \
             remove its line from {} or give --node-id.",
            self.addr,
            self.path.display()
        )
    }
}
