//! Our node against rustls's ordinary, buffered client, as any client of another make would come; and our
//! client against rustls's buffered server.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite;
use rustls::crypto::{CryptoProvider, verify_tls13_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme, SupportedCipherSuite,
};

use super::pair::{Configs, End, node_key};
use crate::link::spki::{encode_spki, with_pkcs8};
use crate::link::{ClientHandshake, ClientLink, LinkError, NodeKey, ServerHandshake, ServerLink};

/// Checks the handshake's signature, and that the node's public key is in what was shown.
#[derive(Debug)]
struct TestVerifier {
    raw_key: bool,
}

impl ServerCertVerifier for TestVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let node = node_key();
        let key = node.key().public().as_bytes();
        let shown = end_entity.windows(32).any(|window| window == key);
        assert!(shown, "the node's key is what it shows");
        assert_eq!(end_entity.len() == 44, self.raw_key);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 must not be negotiated".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        if self.raw_key {
            let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
            verify_tls13_signature_with_raw_key(message, &spki, dss, &algorithms)
        } else {
            verify_tls13_signature(message, cert, dss, &algorithms)
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw_key
    }
}

fn foreign_client(raw_key: bool, suites: &[SupportedCipherSuite], alpn: &[&[u8]]) -> ClientConnection {
    let provider =
        CryptoProvider { cipher_suites: suites.to_vec(), ..rustls::crypto::ring::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TestVerifier { raw_key }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    ClientConnection::new(Arc::new(config), ServerName::try_from("node.example").unwrap()).unwrap()
}

const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Carries bytes until both are quiet. The node's errors are returned.
fn shuttle(client: &mut ClientConnection, server: &mut End<ServerHandshake>) -> Result<(), LinkError> {
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        if bytes.is_empty() && server.out.is_empty() {
            return Ok(());
        }
        let heard = server.hear(&bytes);
        let answer = server.take_out();
        let mut rest = &answer[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            // What the client thinks of an alert is looked at by the tests that cause one.
            if client.process_new_packets().is_err() {
                break;
            }
        }
        heard?;
    }
}

fn new_server(random: u64) -> End<ServerHandshake> {
    End::new(ServerLink::new(&Configs::new(random, u64::MAX).server), Vec::new())
}

#[test]
fn a_foreign_client_with_any_suite_and_either_form_of_key_is_served_and_has_the_same_exporter() {
    for (index, suite) in SUITES.iter().enumerate() {
        for raw_key in [true, false] {
            let mut client = foreign_client(raw_key, &[*suite], &[b"h2", b"trine/1"]);
            let mut server = new_server(40 + index as u64);
            shuttle(&mut client, &mut server).unwrap();
            assert!(server.link.is_established() && !client.is_handshaking());
            let theirs = client.export_keying_material([0; 32], b"EXPORTER-trine-login-v1", None).unwrap();
            assert_eq!(server.link.exporter().unwrap().0, theirs, "{suite:?}");

            client.writer().write_all(&[3; 40_000]).unwrap();
            server.say(&[4; 16_000]);
            shuttle(&mut client, &mut server).unwrap();
            assert!(server.heard == [3; 40_000]);
            let mut heard = vec![0; 16_000];
            client.reader().read_exact(&mut heard).unwrap();
            assert!(heard == [4; 16_000]);
        }
    }
}

#[test]
fn new_keys_from_a_foreign_client_and_for_it_work() {
    let mut client = foreign_client(true, &SUITES, &[b"trine/1"]);
    let mut server = End::new(ServerLink::new(&Configs::new(50, 4).server), Vec::new());
    shuttle(&mut client, &mut server).unwrap();
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    for round in 0..30u8 {
        if round % 3 == 0 {
            // rustls asks for a new key of ours as well.
            client.refresh_traffic_keys().unwrap();
        }
        client.writer().write_all(&[round; 20]).unwrap();
        sent.extend_from_slice(&[round; 20]);
        server.say(&[round; 20]);
        shuttle(&mut client, &mut server).unwrap();
        let mut heard = [0; 20];
        client.reader().read_exact(&mut heard).unwrap();
        answered.extend_from_slice(&heard);
    }
    assert_eq!(server.heard, sent);
    assert_eq!(answered, sent);
}

#[test]
fn a_close_is_understood_by_a_foreign_client_and_from_it() {
    let mut client = foreign_client(true, &SUITES, &[b"trine/1"]);
    let mut server = new_server(51);
    shuttle(&mut client, &mut server).unwrap();
    client.send_close_notify();
    shuttle(&mut client, &mut server).unwrap();
    assert!(server.link.is_peer_closed());
    server.link.close_notify(&mut server.out).unwrap();
    shuttle(&mut client, &mut server).unwrap();
    assert_eq!(client.reader().read(&mut [0; 8]).unwrap(), 0, "an orderly end of the data");
}

#[test]
fn a_client_without_the_protocols_name_is_refused_by_alert() {
    for names in [&[][..], &[&b"http/1.1"[..]], &[b"trine-peer/1"], &[b"trine/10"]] {
        let mut client = foreign_client(true, &SUITES, names);
        let mut server = new_server(52);
        assert_eq!(shuttle(&mut client, &mut server), Err(LinkError::WrongProtocol));
        let told = client.process_new_packets().unwrap_err();
        assert_eq!(told, Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol));
    }
}

#[test]
fn a_client_without_a_suite_in_common_or_without_x25519_is_refused_by_alert() {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.kx_groups = vec![rustls::crypto::ring::kx_group::SECP256R1];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TestVerifier { raw_key: true }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"trine/1".to_vec()];
    let name = ServerName::try_from("node.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = new_server(53);
    let refused = shuttle(&mut client, &mut server).unwrap_err();
    assert!(matches!(refused, LinkError::Handshake(_)), "{refused:?}");
    assert!(matches!(client.process_new_packets(), Err(Error::AlertReceived(_))));
}

/// A server that shows `shown` as its raw public key, signs with the key of `signer`, and sends tickets.
fn foreign_server(shown: &NodeKey, signer: &NodeKey, alpn: &[&[u8]]) -> ServerConnection {
    let signer = with_pkcs8(signer.key(), rustls::crypto::ring::sign::any_eddsa_type).unwrap();
    let spki = CertificateDer::from(encode_spki(shown.key().public()));
    let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::new(CertifiedKey::new(vec![spki], signer)));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    ServerConnection::new(Arc::new(config)).unwrap()
}

/// Carries bytes until both are quiet. The client's errors are returned.
fn shuttle_to(client: &mut End<ClientHandshake>, server: &mut ServerConnection) -> Result<(), LinkError> {
    loop {
        let sent = client.take_out();
        let mut rest = &sent[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            if server.process_new_packets().is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        if answer.is_empty() && client.out.is_empty() {
            return Ok(());
        }
        client.hear(&answer)?;
    }
}

fn new_client(random: u64) -> End<ClientHandshake> {
    let mut out = Vec::new();
    let link = ClientLink::new(&Configs::new(random, u64::MAX).client, &mut out).unwrap();
    End::new(link, out)
}

#[test]
fn our_client_talks_to_a_foreign_server_and_ignores_its_tickets() {
    let mut server = foreign_server(&node_key(), &node_key(), &[b"trine/1"]);
    let mut client = new_client(54);
    shuttle_to(&mut client, &mut server).unwrap();
    assert_eq!(client.link.node_id(), Some(node_key().node_id()));
    let theirs = server.export_keying_material([0; 32], b"EXPORTER-trine-login-v1", None).unwrap();
    assert_eq!(client.link.exporter().unwrap().0, theirs);
    server.writer().write_all(b"hello client").unwrap();
    client.say(b"hello server");
    shuttle_to(&mut client, &mut server).unwrap();
    let mut heard = [0; 12];
    server.reader().read_exact(&mut heard).unwrap();
    assert_eq!((&client.heard[..], &heard), (&b"hello client"[..], b"hello server"));
}

#[test]
fn an_impostor_that_shows_the_nodes_key_without_having_it_is_refused() {
    let impostor = NodeKey::from_seed(super::seed(9)).unwrap();
    let mut server = foreign_server(&node_key(), &impostor, &[b"trine/1"]);
    let mut client = new_client(55);
    let refused = shuttle_to(&mut client, &mut server).unwrap_err();
    assert!(matches!(refused, LinkError::Handshake(Error::InvalidCertificate(_))), "{refused:?}");
    assert!(client.link.is_failed());
}

#[test]
fn a_server_that_does_not_speak_the_protocol_is_refused() {
    for names in [&[][..], &[&b"h2"[..]]] {
        let mut server = foreign_server(&node_key(), &node_key(), names);
        let mut client = new_client(56);
        let refused = shuttle_to(&mut client, &mut server).unwrap_err();
        // Without names of its own the server goes on and says nothing; with other names it sends an alert.
        let expected = if names.is_empty() {
            LinkError::WrongProtocol
        } else {
            LinkError::PeerAlert { description: 120 }
        };
        assert_eq!(refused, expected);
        assert!(client.link.is_failed());
    }
}
