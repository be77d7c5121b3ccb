//! Entry points that take any bytes: for the fuzz targets, and for the random tests that stand in for them.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::identity::NodeKey;
use super::key_file::{decode_node_key, decode_user_identity, encode_node_key, encode_user_identity};
use super::{
    ClientLink, ClientLinkConfig, Expect, Handshake, Link, LinkCrypto, LinkError, RECORD_PLAIN_BYTES_MAX,
    ServerLink, ServerLinkConfig,
};

/// Decodes `bytes` as key files. Panics if decoding and encoding disagree.
pub fn key_files(bytes: &[u8]) {
    if let Ok(key) = decode_node_key(bytes) {
        assert_eq!(encode_node_key(&key).as_bytes(), bytes);
    }
    if let Ok(identity) = decode_user_identity(bytes) {
        assert_eq!(encode_user_identity(&identity).as_bytes(), bytes);
    }
}

thread_local! {
    static CONFIGS: (Arc<ServerLinkConfig>, Arc<ClientLinkConfig>) = configs();
}

/// Hands `bytes` to a new link of either side, whole and in small pieces. Panics if a link comes of it.
pub fn handshakes(bytes: &[u8]) {
    CONFIGS.with(|(server, client)| {
        for size in [usize::MAX, 7] {
            let mut out = Vec::new();
            let mut link = ServerLink::new(server);
            for chunk in bytes.chunks(size) {
                let mut data = chunk.to_vec();
                if link.receive(&mut data, &mut out, &mut |_| Err(LinkError::NotTls)).is_err() {
                    break;
                }
            }
            assert!(!link.is_established());
            let Ok(mut link) = ClientLink::new(client, &mut out) else { return };
            let _ = link.receive(&mut bytes.to_vec(), &mut out, &mut |_| Err(LinkError::NotTls));
            assert!(!link.is_established());
        }
    });
}

/// Seals `bytes` behind the first as a record of the content type that the first names, and hands it to an
/// established link of either side.
pub fn records(bytes: &[u8]) {
    let Some((&content_type, plain)) = bytes.split_first() else { return };
    let plain = &plain[..plain.len().min(RECORD_PLAIN_BYTES_MAX)];
    let (mut client, mut server) = established();
    exchange(&mut client, &mut server, content_type, plain);
    let (mut client, mut server) = established();
    exchange(&mut server, &mut client, content_type, plain);
}

fn exchange<F: Handshake, T: Handshake>(
    from: &mut Link<F>,
    to: &mut Link<T>,
    content_type: u8,
    plain: &[u8],
) {
    let mut heard = 0;
    let mut out = Vec::new();
    // PANIC: the caller has finished the handshake, and the plain text fits in a record.
    let mut record = from.seal_any(plain, content_type).expect("the link is established");
    let mut sink = |plain: &mut [u8]| {
        heard += plain.len();
        Ok::<_, LinkError>(plain.len())
    };
    let accepted = to.receive(&mut record, &mut out, &mut sink);
    assert_eq!(accepted.is_err(), to.is_failed());
    assert!(out.len() < 64, "at most one alert or key update answers a record");
    assert!(heard <= plain.len());
}

/// Two links after their handshake.
fn established() -> (ClientLink, ServerLink) {
    CONFIGS.with(|(server, client)| {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        // PANIC: the configuration is the constant one below.
        let mut client = ClientLink::new(client, &mut up).expect("a fixed configuration is sound");
        let mut server = ServerLink::new(server);
        let mut ignore = |plain: &mut [u8]| Ok::<_, LinkError>(plain.len());
        // Three flights: hello, the node's answer, finished.
        for _ in 0..2 {
            let _ = server.receive(&mut std::mem::take(&mut up), &mut down, &mut ignore);
            let _ = client.receive(&mut std::mem::take(&mut down), &mut up, &mut ignore);
        }
        assert!(client.is_established() && server.is_established());
        (client, server)
    })
}

fn configs() -> (Arc<ServerLinkConfig>, Arc<ClientLinkConfig>) {
    let crypto = LinkCrypto::seeded(1);
    // PANIC: here and below, constants that every run of the tests shows to be accepted.
    let key = NodeKey::from_seed(Zeroizing::new([1; 32])).expect("any seed makes a key");
    // PANIC: as above.
    let server = ServerLinkConfig::new(&key, &crypto).expect("a fixed key makes a configuration");
    // PANIC: as above.
    let client = ClientLinkConfig::new(Expect::Any, &crypto).expect("a fixed configuration is sound");
    (Arc::new(server), Arc::new(client))
}
