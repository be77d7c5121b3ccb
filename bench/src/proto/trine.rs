//! Trine: the client library of the node, over the generator's own connections.

use std::collections::VecDeque;
use std::sync::Arc;

use ::trine::client::{Client, ClientConfig, ClientError, ClientEvent, NewMessage, Stage};
use ::trine::link::{ClientLinkConfig, Expect, LinkCrypto, Seed, UserIdentity};
use ::trine::relay::Window;
use ::trine::rt::api::Now;
use ::trine::wire::{Address, MessageClass, MessageId, NodeId, ReceiptStatus};

use super::{payload, stamp_of};
use crate::error::{BenchError, Result};
use crate::load::{FlowSpec, Protocol};

/// What a receiver lets be under way to it.
const WINDOW: Window = Window { messages: 8192, bytes: 16 << 20 };
const GIVE_UP_US: u64 = 60_000_000;

/// What all clients of one node share.
#[derive(Clone)]
pub struct Users {
    link: Arc<ClientLinkConfig>,
    /// Makes the ids of this run's messages differ from those of any other.
    run: u64,
}

impl Users {
    /// For the node with this identity.
    pub fn new(node: NodeId) -> Result<Self> {
        let link =
            ClientLinkConfig::new(Expect::Exactly(node), &LinkCrypto::system()).map_err(|e| failed(&e))?;
        let run = ::trine::rt::entropy::bytes().map(u64::from_le_bytes).map_err(|e| failed(&e))?;
        Ok(Self { link: Arc::new(link), run })
    }

    /// A user. The same number is the same user in every run.
    pub fn identity(number: u64) -> Result<UserIdentity> {
        let seed = |device: u8| {
            let mut seed = Seed::new([device; 32]);
            seed[..8].copy_from_slice(&number.to_le_bytes());
            seed
        };
        UserIdentity::create(seed(1), seed(2), u64::MAX).map_err(|error| failed(&error))
    }

    /// A client of user `number`, who receives if `receives`.
    pub fn client(&self, number: u64, receives: bool) -> Result<Client> {
        Ok(self.client_of(Arc::new(Self::identity(number)?), receives))
    }

    /// A client of this user.
    pub fn client_of(&self, identity: Arc<UserIdentity>, receives: bool) -> Client {
        Client::new(ClientConfig {
            identity,
            link: Arc::clone(&self.link),
            subscribe: receives.then_some(WINDOW),
            give_up_us: GIVE_UP_US,
            hash_seed: self.run,
        })
    }

    /// Someone who sends durable messages, in turn, to the users numbered `to`, who are not connected.
    pub fn publisher(&self, number: u64, to: impl Iterator<Item = u64>) -> Result<FlowSpec<TrineClient>> {
        let to: Result<Vec<Address>> = to.map(|user| Ok(Self::identity(user)?.address())).collect();
        let sender = self.side(number, false, Role::Publisher { to: to?, sent: VecDeque::new() })?;
        Ok(FlowSpec { sender, receiver: None })
    }

    /// Two users, of whom one sends to the other.
    pub fn pair(&self, index: u64, class: MessageClass) -> Result<FlowSpec<TrineClient>> {
        let (from, to) = (2 * index, 2 * index + 1);
        let address = Self::identity(to)?.address();
        let receiver = Some(self.side(to, true, Role::Receiver)?);
        Ok(FlowSpec { sender: self.side(from, false, Role::Sender { to: address, class })?, receiver })
    }

    /// Someone who is connected and does nothing.
    pub fn idle(&self, number: u64) -> Result<FlowSpec<TrineClient>> {
        Ok(FlowSpec { sender: self.side(number, true, Role::Receiver)?, receiver: None })
    }

    /// A session of this user, or of user 0, that only logs in.
    pub fn session(&self, identity: Option<Arc<UserIdentity>>) -> Result<TrineClient> {
        let identity = identity.map_or_else(|| Self::identity(0).map(Arc::new), Ok)?;
        Ok(TrineClient {
            client: self.client_of(identity, false),
            role: Role::Receiver,
            id: [0; 16],
            count: 0,
        })
    }

    fn side(&self, number: u64, receives: bool, role: Role) -> Result<TrineClient> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.run ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
        Ok(TrineClient { client: self.client(number, receives)?, role, id, count: 0 })
    }
}

enum Role {
    /// A message ends with its receipt.
    Publisher {
        to: Vec<Address>,
        sent: VecDeque<u64>,
    },
    /// A message ends at the receiver.
    Sender {
        to: Address,
        class: MessageClass,
    },
    Receiver,
}

/// One session.
pub struct TrineClient {
    client: Client,
    role: Role,
    id: [u8; 16],
    count: u64,
}

impl TrineClient {
    fn next_id(&mut self) -> MessageId {
        self.count += 1;
        self.id[8..].copy_from_slice(&self.count.to_le_bytes());
        MessageId(self.id)
    }

    fn event(&mut self, event: ClientEvent, done: &mut Vec<u64>) -> Result<()> {
        match event {
            ClientEvent::Sent(report) if report.status == ReceiptStatus::Accepted => {
                if let Role::Publisher { sent, .. } = &mut self.role {
                    done.extend(sent.pop_front());
                }
            }
            ClientEvent::Received(message) => {
                done.extend(stamp_of(&message.payload));
                self.client.done(message.key());
            }
            ClientEvent::Ready { .. } | ClientEvent::CaughtUp => {}
            unexpected => {
                let what = format!("unexpected event {unexpected:?}");
                return Err(BenchError::Peer { peer: "trine", what });
            }
        }
        Ok(())
    }
}

impl Protocol for TrineClient {
    fn open(&mut self, now: Now, out: &mut Vec<u8>) -> Result<()> {
        self.client.connected(now, out).map_err(|error| client_failed(&error))
    }

    fn is_ready(&self) -> bool {
        self.client.stage() == Stage::Ready
    }

    fn send(&mut self, now: Now, stamp_ns: u64, _out: &mut Vec<u8>) -> Result<()> {
        let id = self.next_id();
        let to = match &mut self.role {
            Role::Sender { to, class: MessageClass::Ephemeral } => {
                let to = *to;
                if !self.client.send_ephemeral(now, to, id, &payload(stamp_ns)) {
                    let what = "the client had no room for a message".into();
                    return Err(BenchError::Peer { peer: "trine", what });
                }
                return Ok(());
            }
            Role::Sender { to, .. } => *to,
            Role::Publisher { to, sent } => {
                sent.push_back(stamp_ns);
                to[(self.count % to.len() as u64) as usize]
            }
            Role::Receiver => return Ok(()),
        };
        let payload = payload(stamp_ns).to_vec();
        let (class, want_delivered, anonymous) = (MessageClass::Durable, false, false);
        self.client.send(now, NewMessage { to, id, ttl_s: 0, class, want_delivered, anonymous, payload });
        Ok(())
    }

    fn receive(&mut self, now: Now, data: &mut [u8], done: &mut Vec<u64>, out: &mut Vec<u8>) -> Result<()> {
        self.client.receive(now, data, out).map_err(|error| client_failed(&error))?;
        while let Some(event) = self.client.poll(now) {
            self.event(event, done)?;
        }
        Ok(())
    }

    fn flush(&mut self, now: Now, out: &mut Vec<u8>) -> Result<()> {
        self.client.flush(now, out).map_err(|error| client_failed(&error))
    }
}

fn failed(error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Peer { peer: "trine", what: error.to_string() }
}

/// The words for a client that cannot go on.
pub fn client_failed(error: &ClientError) -> BenchError {
    failed(error)
}
