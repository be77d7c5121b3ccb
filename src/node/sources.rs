//! The connections of each source prefix.

use std::net::{IpAddr, SocketAddr};

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;

use super::shared::SessionLimits;
use crate::relay::{Bucket, hasher};

/// Where a connection comes from, as coarse as one operator can easily own: an IPv4 /24 or an IPv6 /56.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(u64);

impl Prefix {
    /// The prefix of a peer.
    pub fn of(peer: SocketAddr) -> Self {
        match peer.ip().to_canonical() {
            IpAddr::V4(ip) => Self(u64::from(ip.to_bits() >> 8)),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 72) as u64 | 1 << 63),
        }
    }
}

#[derive(Debug, Default)]
struct Source {
    open: u32,
    connects: Bucket,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRefusal {
    /// Too many from there are open.
    TooMany,
    /// They come too fast.
    TooFast,
}

/// The connections of this core by source.
pub struct Sources {
    by_prefix: HashMap<Prefix, Source, SeedableRandomState>,
}

impl Sources {
    /// None yet.
    pub fn new(hash_seed: u64) -> Self {
        Self { by_prefix: HashMap::with_hasher(hasher(hash_seed.rotate_left(29))) }
    }

    /// Counts a new connection, or refuses it.
    pub fn open(
        &mut self,
        now_us: u64,
        limits: &SessionLimits,
        peer: SocketAddr,
    ) -> Result<(), SourceRefusal> {
        let source = self.by_prefix.entry(Prefix::of(peer)).or_default();
        if source.open >= limits.per_prefix {
            return Err(SourceRefusal::TooMany);
        }
        source.connects.take(now_us, limits.prefix_rate, 1).map_err(|_| SourceRefusal::TooFast)?;
        source.open += 1;
        Ok(())
    }

    /// Counts a connection that another core accepted.
    pub fn adopt(&mut self, peer: SocketAddr) {
        self.by_prefix.entry(Prefix::of(peer)).or_default().open += 1;
    }

    /// A connection that was counted has ended, or has moved away.
    pub fn close(&mut self, now_us: u64, limits: &SessionLimits, peer: SocketAddr) {
        let prefix = Prefix::of(peer);
        let Some(source) = self.by_prefix.get_mut(&prefix) else { return };
        source.open = source.open.saturating_sub(1);
        if source.open == 0 && source.connects.is_full(now_us, limits.prefix_rate) {
            self.by_prefix.remove(&prefix);
        }
    }

    /// Forgets sources that have no connection and no history that matters.
    pub fn sweep(&mut self, now_us: u64, limits: &SessionLimits) {
        self.by_prefix
            .retain(|_, source| source.open > 0 || !source.connects.is_full(now_us, limits.prefix_rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_one_operator_has_easily_share_their_limit() {
        let peers = [
            "[2001:db8::1]:1",
            "[2001:db8:0:ff::ffff]:2",
            "[2001:db8:0:100::1]:3",
            "10.0.0.1:4",
            "10.0.0.9:5",
        ];
        let prefixes = peers.map(|peer| Prefix::of(peer.parse().unwrap()));
        assert_eq!(prefixes[0], prefixes[1]);
        assert_ne!(prefixes[0], prefixes[2]);
        assert_eq!(prefixes[3], prefixes[4]);
        assert_ne!(prefixes[2], prefixes[3]);
    }
}
