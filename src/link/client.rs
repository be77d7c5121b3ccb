//! The client's side of a link: asks for the node's raw public key and checks it against the node id.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible,
    SignatureScheme, version,
};

use super::crypto::{LinkCrypto, NoTime};
use super::error::LinkError;
use super::exporter::CaptureExporter;
use super::handshake::{ALPN, Finished, Handshake, Handshaking, drive};
use super::link_state::{Link, RECORDS_PER_KEY};
use super::spki::decode_spki;
use crate::wire::NodeId;

/// The client's side of a link.
pub type ClientLink = Link<ClientHandshake>;

/// Which node may be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This one only.
    Exactly(NodeId),
    /// Any; whoever trusts on first use compares [`ClientLink::node_id`] with what was seen before.
    Any,
}

/// What links to one node share.
#[derive(Debug)]
pub struct ClientLinkConfig {
    tls: Arc<ClientConfig>,
    records_per_key: u64,
}

impl ClientLinkConfig {
    /// For links to the node that is expected.
    pub fn new(expect: Expect, crypto: &LinkCrypto) -> Result<Self, LinkError> {
        let provider = crypto.provider();
        let verifier = NodeVerifier { expect, algorithms: provider.signature_verification_algorithms };
        let mut tls = ClientConfig::builder_with_details(provider, Arc::new(NoTime))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.enable_sni = false;
        tls.resumption = Resumption::disabled();
        tls.enable_secret_extraction = true;
        tls.key_log = Arc::new(CaptureExporter);
        Ok(Self { tls: Arc::new(tls), records_per_key: RECORDS_PER_KEY })
    }

    /// Replaces sealing keys after so many records, instead of the most that is safe.
    pub fn with_records_per_key(mut self, records: u64) -> Self {
        self.records_per_key = records.clamp(1, RECORDS_PER_KEY);
        self
    }
}

/// Checks that the other side has the key of the expected node.
#[derive(Debug)]
struct NodeVerifier {
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
}

fn wrap(error: LinkError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = decode_spki(end_entity).ok_or_else(|| wrap(LinkError::BadNodeKey))?;
        let found = key.node_id();
        match self.expect {
            Expect::Exactly(expected) if expected != found => {
                Err(wrap(LinkError::WrongNode { expected, found }))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The client's side of a handshake.
pub struct ClientHandshake {
    connection: Box<UnbufferedClientConnection>,
    records_per_key: u64,
}

impl Link<ClientHandshake> {
    /// The client's side of a connection that was just made; appends the ClientHello to `out`.
    pub fn new(config: &Arc<ClientLinkConfig>, out: &mut Vec<u8>) -> Result<Self, LinkError> {
        let name = ServerName::try_from("trine").map_err(|_| LinkError::Internal("server name"))?;
        let connection = Box::new(UnbufferedClientConnection::new(Arc::clone(&config.tls), name)?);
        let mut handshake =
            Handshaking::new(ClientHandshake { connection, records_per_key: config.records_per_key });
        handshake.start(out)?;
        Ok(Self::handshaking(handshake))
    }

    /// Who is at the other end, proven by the handshake; none before it is complete.
    pub fn node_id(&self) -> Option<NodeId> {
        self.peer()
    }
}

impl Handshake for ClientHandshake {
    type Data = ClientConnectionData;
    type Peer = NodeId;
    const IS_CLIENT: bool = true;

    fn advance(&mut self, records: &mut [u8], _fresh: usize, out: &mut Vec<u8>) -> Result<usize, LinkError> {
        drive(&mut *self.connection, records, out)
    }

    fn is_complete(&self) -> bool {
        !self.connection.is_handshaking()
    }

    fn finish(self) -> Result<Finished<Self>, LinkError> {
        if self.connection.alpn_protocol() != Some(ALPN) {
            return Err(LinkError::WrongProtocol);
        }
        let key = self.connection.peer_certificates().and_then(|chain| decode_spki(chain.first()?));
        let peer = key.ok_or(LinkError::BadNodeKey)?.node_id();
        let (secrets, kernel) = self.connection.dangerous_into_kernel_connection()?;
        Ok(Finished { secrets, kernel, peer })
    }

    fn records_per_key(&self) -> u64 {
        self.records_per_key
    }
}
