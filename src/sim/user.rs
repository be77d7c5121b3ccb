//! A user: the client of production over a simulated connection, and what it must hold true.

use std::collections::BTreeMap;
use std::sync::Arc;

use shards::testing::Rng;

use crate::client::{Client, ClientConfig, ClientEvent, NewMessage};
use crate::link::{ClientLinkConfig, Expect, LinkCrypto, Seed, UserIdentity};
use crate::relay::Window;
use crate::rt::api::Now;
use crate::wire::{Address, MessageClass, MessageId, NodeId, ReceiptStatus};

/// Far beyond any simulated time.
const GIVE_UP_US: u64 = u64::MAX / 4;

/// One user with one device.
pub(super) struct User {
    pub client: Client,
    pub address: Address,
    /// Output that the connection has not taken.
    pub unsent: Vec<u8>,
    /// Messages given to the client.
    pub sent: u64,
    /// Numbers in the recipient's mailbox of what was acknowledged, by id.
    pub accepted: BTreeMap<[u8; 16], (Address, u64)>,
    /// What arrived, in order.
    pub received: Vec<(MessageId, u64)>,
    /// Messages the node refused for good.
    pub refused: u64,
}

impl User {
    pub(super) fn new(seed: u64, number: u64, node: NodeId) -> Self {
        let key = |purpose: u8| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes()).update(&[purpose]);
            Seed::from(<[u8; 32]>::from(hasher.finalize()))
        };
        let identity = UserIdentity::create(key(0), key(1), u64::MAX).unwrap();
        let address = identity.address();
        let crypto = LinkCrypto::seeded(seed ^ (number << 32));
        let config = ClientConfig {
            identity: Arc::new(identity),
            link: Arc::new(ClientLinkConfig::new(Expect::Exactly(node), &crypto).unwrap()),
            subscribe: Some(Window { messages: 8, bytes: 8 * 1024 }),
            give_up_us: GIVE_UP_US,
            hash_seed: number,
        };
        Self {
            client: Client::new(config),
            address,
            unsent: Vec::new(),
            sent: 0,
            accepted: BTreeMap::new(),
            received: Vec::new(),
            refused: 0,
        }
    }

    /// Gives the client a message for `to`.
    pub(super) fn send(&mut self, now: Now, rng: &mut Rng, number: u64, to: Address) {
        self.sent += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        id[8..].copy_from_slice(&self.sent.to_le_bytes());
        let bytes = if rng.one_in(20) { rng.below(9_000) } else { rng.below(300) };
        let message = NewMessage {
            to,
            id: MessageId(id),
            ttl_s: 0,
            class: MessageClass::Durable,
            want_delivered: rng.one_in(2),
            anonymous: false,
            payload: vec![number as u8; bytes as usize],
        };
        self.client.send(now, message);
    }

    /// Takes what the client reports.
    pub(super) fn take_events(&mut self, now: Now, recipients: &BTreeMap<[u8; 16], Address>) {
        while let Some(event) = self.client.poll(now) {
            match event {
                ClientEvent::Sent(report) => match report.status {
                    ReceiptStatus::Accepted => {
                        let to = recipients[&report.id.0];
                        let before = self.accepted.insert(report.id.0, (to, report.seq.0));
                        assert!(before.is_none(), "one final receipt per message");
                    }
                    ReceiptStatus::Rejected(_) => self.refused += 1,
                    status => panic!("a durable message got {status:?}"),
                },
                ClientEvent::Received(message) => {
                    self.received.push((message.id, message.seq.0));
                    self.client.done(message.key());
                }
                ClientEvent::EpochChanged => panic!("nothing was lost, but the epoch changed"),
                ClientEvent::Closed { code, .. } => {
                    assert_eq!(
                        code,
                        crate::wire::CloseCode::ShuttingDown,
                        "no session is closed for a fault"
                    );
                }
                ClientEvent::GaveUp { .. } => panic!("simulated users never give up"),
                ClientEvent::Ready { .. } | ClientEvent::CaughtUp | ClientEvent::Delivered { .. } => {}
            }
        }
    }
}
