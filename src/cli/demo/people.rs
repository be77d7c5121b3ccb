//! Who takes part: a sender, a recipient who is online, and one who is not.

use std::sync::Arc;
use std::time::Duration;

use super::failed;
use super::process::Ready;
use crate::cli::error::CliError;
use crate::cli::session::random;
use crate::client::{Client, ClientConfig, Driver};
use crate::link::{ClientLinkConfig, Expect, LinkCrypto, Seed, UserIdentity};
use crate::relay::Window;
use crate::rt::clock::Clock;
use crate::wire::Address;

/// How long to look for a node that is away, and to wait for a receipt.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The keys are worth nothing after the demonstration.
const GRANT_MS: u64 = 24 * 60 * 60 * 1000;
const WINDOW: Window = Window { messages: 256, bytes: 1 << 20 };

/// A user with a device.
#[derive(Clone, Debug)]
pub(super) struct Person(Arc<UserIdentity>);

impl Person {
    /// Makes somebody new.
    pub(super) fn new(clock: &Clock) -> Result<Self, CliError> {
        let expires_ms = clock.now().wall_ms + GRANT_MS;
        let (user, device) = (Seed::from(random::<32>()?), Seed::from(random::<32>()?));
        UserIdentity::create(user, device, expires_ms).map(|id| Self(Arc::new(id))).map_err(failed)
    }

    /// Where others send to.
    pub(super) fn address(&self) -> Address {
        self.0.address()
    }

    /// A connection that only sends.
    pub(super) fn sends_to(&self, node: &Ready, clock: &Clock) -> Result<Driver, CliError> {
        self.connect(node, clock, None)
    }

    /// A connection that receives.
    pub(super) fn listens_to(&self, node: &Ready, clock: &Clock) -> Result<Driver, CliError> {
        self.connect(node, clock, Some(WINDOW))
    }

    fn connect(&self, node: &Ready, clock: &Clock, subscribe: Option<Window>) -> Result<Driver, CliError> {
        let link =
            ClientLinkConfig::new(Expect::Exactly(node.node), &LinkCrypto::system()).map_err(failed)?;
        let client = Client::new(ClientConfig {
            identity: Arc::clone(&self.0),
            link: Arc::new(link),
            subscribe,
            give_up_us: GIVE_UP.as_micros() as u64,
            hash_seed: u64::from_le_bytes(random()?),
        });
        Ok(Driver::new(node.listen.to_string(), client, *clock, GIVE_UP))
    }
}
