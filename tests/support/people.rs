//! Users of the client library, for tests that need more control than the program's commands give.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use trine::client::{Client, ClientConfig, ClientEvent, Driver, NewMessage};
use trine::link::{ClientLinkConfig, Expect, LinkCrypto, Seed, UserIdentity};
use trine::relay::Window;
use trine::rt::clock::Clock;
use trine::wire::{Address, MessageClass, MessageId};

use super::PATIENCE;

/// Ten years after 2020 in milliseconds, and as long as any test.
pub const GRANT_ENDS_MS: u64 = 4_000_000_000_000;

/// The user with this number; the same in every run.
pub fn user(number: u8) -> Arc<UserIdentity> {
    device(number, 0)
}

/// A device of the user with this number.
pub fn device(number: u8, device: u8) -> Arc<UserIdentity> {
    let mut seeds = [[number; 32], [number; 32]];
    seeds[0][0] = 1;
    seeds[1][0] = 2;
    seeds[1][1] = device;
    let [user, device] = seeds.map(Seed::from);
    Arc::new(UserIdentity::create(user, device, GRANT_ENDS_MS).unwrap())
}

/// The client's side of TLS, for any node.
pub fn any_node() -> Arc<ClientLinkConfig> {
    Arc::new(ClientLinkConfig::new(Expect::Any, &LinkCrypto::system()).unwrap())
}

/// A connection of `identity`; it receives if it has a window.
pub fn driver(at: SocketAddr, identity: &Arc<UserIdentity>, subscribe: Option<Window>) -> Driver {
    let client = Client::new(ClientConfig {
        identity: Arc::clone(identity),
        link: any_node(),
        subscribe,
        give_up_us: PATIENCE.as_micros() as u64,
        hash_seed: 1,
    });
    Driver::new(at.to_string(), client, Clock::start(), PATIENCE)
}

/// A connection that receives.
pub fn listener(at: SocketAddr, identity: &Arc<UserIdentity>) -> Driver {
    driver(at, identity, Some(Window { messages: 256, bytes: 1 << 20 }))
}

/// Gives a durable message to `driver`.
pub fn give(driver: &mut Driver, to: Address, id: u128, payload: &[u8]) {
    let now = driver.clock().now();
    let (id, payload) = (MessageId(id.to_be_bytes()), payload.to_vec());
    let class = MessageClass::Durable;
    let message = NewMessage { to, id, ttl_s: 0, class, want_delivered: false, anonymous: false, payload };
    driver.client().send(now, message);
}

/// The next event; panics if there is none for long.
pub async fn next(driver: &mut Driver) -> ClientEvent {
    timeout(PATIENCE, driver.next()).await.expect("an event in time").expect("a node that answers")
}

/// Takes and acknowledges everything that waits: numbers of the ids and payloads, in order of arrival.
pub async fn take_all(driver: &mut Driver) -> Vec<(u128, Vec<u8>)> {
    let mut taken = Vec::new();
    loop {
        match next(driver).await {
            ClientEvent::Received(message) => {
                driver.client().done(message.key());
                taken.push((u128::from_be_bytes(message.id.0), message.payload));
            }
            ClientEvent::CaughtUp => return taken,
            _ => {}
        }
    }
}

/// Says goodbye.
pub async fn leave(driver: Driver) {
    driver.finish(Duration::from_secs(2)).await;
}

/// A runtime on this thread.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
