//! A client's and a node's link with a wire between them.

use std::sync::Arc;

use super::seed;
use crate::link::{
    ClientLink, ClientLinkConfig, Expect, Handshake, Link, LinkCrypto, LinkError, NodeKey, ServerLink,
    ServerLinkConfig,
};

/// The node's key in these tests.
pub(super) fn node_key() -> NodeKey {
    NodeKey::from_seed(seed(1)).unwrap()
}

/// Both sides' settings.
pub(super) struct Configs {
    pub(super) server: Arc<ServerLinkConfig>,
    pub(super) client: Arc<ClientLinkConfig>,
}

impl Configs {
    /// With randomness from `random`, and new keys after so many records.
    pub(super) fn new(random: u64, records_per_key: u64) -> Self {
        let crypto = LinkCrypto::seeded(random);
        let expect = Expect::Exactly(node_key().node_id());
        Self {
            server: Arc::new(
                ServerLinkConfig::new(&node_key(), &crypto).unwrap().with_records_per_key(records_per_key),
            ),
            client: Arc::new(
                ClientLinkConfig::new(expect, &crypto).unwrap().with_records_per_key(records_per_key),
            ),
        }
    }
}

/// A link with what it has sent and received.
pub(super) struct End<H: Handshake> {
    pub(super) link: Link<H>,
    /// Bytes to the other end.
    pub(super) out: Vec<u8>,
    /// Plaintext from the other end.
    pub(super) heard: Vec<u8>,
}

impl<H: Handshake> End<H> {
    pub(super) fn new(link: Link<H>, out: Vec<u8>) -> Self {
        Self { link, out, heard: Vec::new() }
    }

    /// Hands over bytes from the other end.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let heard = &mut self.heard;
        let mut data = bytes.to_vec();
        self.link.receive(&mut data, &mut self.out, &mut |plain: &mut [u8]| {
            heard.extend_from_slice(plain);
            Ok::<_, LinkError>(plain.len())
        })
    }

    /// Seals `plain` in one go.
    pub(super) fn say(&mut self, plain: &[u8]) {
        let start = self.link.begin_record(&mut self.out);
        self.out.extend_from_slice(plain);
        self.link.end_record(&mut self.out, start).unwrap();
    }

    /// What has been sent since the last time.
    pub(super) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

pub(super) type Pair = (End<crate::link::ClientHandshake>, End<crate::link::ServerHandshake>);

/// Two ends before the first byte has arrived.
pub(super) fn connect(configs: &Configs) -> Pair {
    let mut out = Vec::new();
    let client = ClientLink::new(&configs.client, &mut out).unwrap();
    (End::new(client, out), End::new(ServerLink::new(&configs.server), Vec::new()))
}

/// Carries bytes both ways, at most `size` at once, until none are left.
pub(super) fn shuttle((client, server): &mut Pair, size: usize) -> Result<(), LinkError> {
    while !client.out.is_empty() || !server.out.is_empty() {
        for chunk in client.take_out().chunks(size) {
            server.hear(chunk)?;
        }
        for chunk in server.take_out().chunks(size) {
            client.hear(chunk)?;
        }
    }
    Ok(())
}

/// Two ends after the handshake.
pub(super) fn established(random: u64, records_per_key: u64) -> Pair {
    let mut pair = connect(&Configs::new(random, records_per_key));
    shuttle(&mut pair, usize::MAX).unwrap();
    assert!(pair.0.link.is_established() && pair.1.link.is_established());
    pair
}
