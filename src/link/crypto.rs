//! Where a link's randomness comes from: the operating system, or a seed for the simulator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::ring::kx_group;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// The cryptography of links: ring's, with X25519 and the three cipher suites of TLS 1.3.
#[derive(Clone, Debug)]
pub struct LinkCrypto {
    provider: Arc<CryptoProvider>,
}

impl LinkCrypto {
    /// Randomness from the operating system.
    pub fn system() -> Self {
        Self::with(rustls::crypto::ring::default_provider().secure_random, kx_group::X25519)
    }

    /// Randomness from a seed: the same seed and the same sequence of calls give the same bytes. For the
    /// simulator and for tests; whoever knows the seed can read the links.
    ///
    /// rustls wants its sources to live forever, so each call leaks 50 bytes.
    pub fn seeded(seed: u64) -> Self {
        let source: &'static SeededSource = Box::leak(Box::new(SeededSource::new(seed)));
        let group: &'static SeededX25519 = Box::leak(Box::new(SeededX25519 { source }));
        Self::with(source, group)
    }

    fn with(secure_random: &'static dyn SecureRandom, group: &'static dyn SupportedKxGroup) -> Self {
        let provider = CryptoProvider {
            cipher_suites: vec![
                TLS13_AES_256_GCM_SHA384,
                TLS13_AES_128_GCM_SHA256,
                TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![group],
            secure_random,
            ..rustls::crypto::ring::default_provider()
        };
        Self { provider: Arc::new(provider) }
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }
}

/// A time that stands still. TLS asks for it only for tickets and certificate dates, and links have neither.
#[derive(Debug)]
pub(super) struct NoTime;

impl TimeProvider for NoTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

/// Bytes from a seed: the n-th request is answered with the hash of n under the seed's key.
#[derive(Debug)]
struct SeededSource {
    key: [u8; 32],
    requests: AtomicU64,
}

impl SeededSource {
    fn new(seed: u64) -> Self {
        let key = blake3::derive_key("trine 2026 seeded link randomness v1", &seed.to_be_bytes());
        Self { key, requests: AtomicU64::new(0) }
    }

    fn draw(&self, buf: &mut [u8]) {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&request.to_be_bytes());
        hasher.finalize_xof().fill(buf);
    }
}

impl SecureRandom for SeededSource {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.draw(buf);
        Ok(())
    }
}

/// X25519 whose secrets come from a seeded source, which ring's cannot.
#[derive(Debug)]
struct SeededX25519 {
    source: &'static SeededSource,
}

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.source.draw(&mut *bytes);
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey::from(&secret);
        Ok(Box::new(SeededExchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct SeededExchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for SeededExchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if shared.was_contributory() {
            Ok(SharedSecret::from(&shared.as_bytes()[..]))
        } else {
            Err(PeerMisbehaved::InvalidKeyShare.into())
        }
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
