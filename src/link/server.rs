//! The node's side of a link: its key as raw public key or as certificate, whichever the client asks for.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};
use rustls::pki_types::CertificateDer;
use rustls::server::{
    Acceptor, AlwaysResolvesServerRawPublicKeys, CertificateType, ClientHello, ResolvesServerCert,
    ServerConnectionData, UnbufferedServerConnection,
};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ServerConfig, version};

use super::crypto::{LinkCrypto, NoTime};
use super::error::{LinkError, alert};
use super::exporter::CaptureExporter;
use super::handshake::{ALPN, Finished, Handshake, Handshaking, drive};
use super::identity::NodeKey;
use super::link_state::{Link, RECORDS_PER_KEY};
use super::record::content;
use super::spki::{encode_spki, with_pkcs8};
use crate::wire::NodeId;

/// The node's side of a link.
pub type ServerLink = Link<ServerHandshake>;

/// What all links of a node share.
#[derive(Debug)]
pub struct ServerLinkConfig {
    node_id: NodeId,
    raw_key: Arc<ServerConfig>,
    certificate: Arc<ServerConfig>,
    records_per_key: u64,
}

impl ServerLinkConfig {
    /// Prepares both forms of the node's key. The same key gives the same bytes.
    pub fn new(key: &NodeKey, crypto: &LinkCrypto) -> Result<Self, LinkError> {
        let signer = with_pkcs8(key.key(), rustls::crypto::ring::sign::any_eddsa_type)?;
        let raw = CertifiedKey::new(
            vec![CertificateDer::from(encode_spki(key.key().public()))],
            Arc::clone(&signer),
        );
        let raw_key = server_config(crypto, Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(raw))))?;
        let certificate = server_config(crypto, Arc::new(OneCertificate::new(key, signer)?))?;
        Ok(Self { node_id: key.node_id(), raw_key, certificate, records_per_key: RECORDS_PER_KEY })
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Replaces sealing keys after so many records, instead of the most that is safe.
    pub fn with_records_per_key(mut self, records: u64) -> Self {
        self.records_per_key = records.clamp(1, RECORDS_PER_KEY);
        self
    }
}

fn server_config(
    crypto: &LinkCrypto,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, LinkError> {
    let mut config = ServerConfig::builder_with_details(crypto.provider(), Arc::new(NoTime))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(CaptureExporter);
    Ok(Arc::new(config))
}

/// The self-signed certificate, whatever name a client asks for.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl OneCertificate {
    /// Made from the node's key alone: fixed dates, serial number from the node id, deterministic signature.
    fn new(key: &NodeKey, signer: Arc<dyn SigningKey>) -> Result<Self, LinkError> {
        const FAULT: LinkError = LinkError::Internal("the node's certificate could not be made");
        let pair = with_pkcs8(key.key(), |der| KeyPair::try_from(der)).map_err(|_| FAULT)?;
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        params.serial_number = Some(SerialNumber::from_slice(&key.node_id().0[..16]));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "trine node");
        let certificate = params.self_signed(&pair).map_err(|_| FAULT)?;
        Ok(Self(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer))))
    }
}

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// The node's side of a handshake.
pub struct ServerHandshake {
    config: Arc<ServerLinkConfig>,
    phase: Phase,
}

enum Phase {
    /// Waiting for the whole ClientHello, which decides in what form the key is shown.
    Hello(Box<Acceptor>),
    Running(Box<UnbufferedServerConnection>),
}

impl Link<ServerHandshake> {
    /// The node's side of a connection that was just accepted.
    pub fn new(config: &Arc<ServerLinkConfig>) -> Self {
        let phase = Phase::Hello(Box::default());
        Self::handshaking(Handshaking::new(ServerHandshake { config: Arc::clone(config), phase }))
    }
}

impl ServerHandshake {
    /// Feeds the hello to rustls's parser, and chooses a configuration once it is whole.
    fn read_hello(
        acceptor: &mut Acceptor,
        config: &ServerLinkConfig,
        mut fresh: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<UnbufferedServerConnection>, LinkError> {
        while !fresh.is_empty() {
            match acceptor.read_tls(&mut fresh) {
                Ok(1..) => {}
                _ => return Err(LinkError::HandshakeTooLarge),
            }
        }
        let accepted = match acceptor.accept() {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Ok(None),
            Err((error, mut alert)) => {
                // Writing to a vector does not fail; and if it did, closing without an alert is right as
                // well.
                let _ = alert.write_all(out);
                return Err(error.into());
            }
        };
        let hello = accepted.client_hello();
        if !hello.alpn().is_some_and(|mut names| names.any(|name| name == ALPN)) {
            out.extend_from_slice(&[content::ALERT, 3, 3, 0, 2, 2, alert::NO_APPLICATION_PROTOCOL]);
            return Err(LinkError::WrongProtocol);
        }
        let takes_raw_key =
            hello.server_cert_types().is_some_and(|types| types.contains(&CertificateType::RawPublicKey));
        let config = if takes_raw_key { &config.raw_key } else { &config.certificate };
        Ok(Some(UnbufferedServerConnection::new(Arc::clone(config))?))
    }
}

impl Handshake for ServerHandshake {
    type Data = ServerConnectionData;
    type Peer = ();
    const IS_CLIENT: bool = false;

    fn advance(&mut self, records: &mut [u8], fresh: usize, out: &mut Vec<u8>) -> Result<usize, LinkError> {
        if let Phase::Hello(acceptor) = &mut self.phase {
            match Self::read_hello(acceptor, &self.config, &records[fresh..], out)? {
                Some(connection) => self.phase = Phase::Running(Box::new(connection)),
                None => return Ok(0),
            }
        }
        match &mut self.phase {
            Phase::Hello(_) => Ok(0),
            Phase::Running(connection) => drive(&mut **connection, records, out),
        }
    }

    fn is_complete(&self) -> bool {
        matches!(&self.phase, Phase::Running(connection) if !connection.is_handshaking())
    }

    fn finish(self) -> Result<Finished<Self>, LinkError> {
        let Phase::Running(connection) = self.phase else { return Err(LinkError::NotEstablished) };
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(LinkError::WrongProtocol);
        }
        let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
        Ok(Finished { secrets, kernel, peer: () })
    }

    fn records_per_key(&self) -> u64 {
        self.config.records_per_key
    }
}
