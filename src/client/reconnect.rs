//! When to connect again: pauses that double, drawn apart by a seed, and never before the node wants it.

/// First and longest pause before connecting again.
const PAUSE_FIRST_US: u64 = 50_000;
const PAUSE_LONGEST_US: u64 = 5_000_000;
/// Most that a node's hint can keep a client away: a node with a fault must not do so for days.
const HINT_US_MAX: u64 = 300_000_000;

/// The pacing of one client's connections. A pause follows every loss; only a login makes it short again.
#[derive(Debug)]
pub(super) struct Reconnect {
    random: u64,
    pause_us: u64,
    not_before_us: u64,
    offline_since_us: Option<u64>,
}

impl Reconnect {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: seed, pause_us: PAUSE_FIRST_US, not_before_us: 0, offline_since_us: None }
    }

    /// An attempt begins.
    pub(super) fn attempt(&mut self, now_us: u64) {
        self.offline_since_us.get_or_insert(now_us);
    }

    /// The login was accepted.
    pub(super) fn ready(&mut self) {
        (self.pause_us, self.not_before_us, self.offline_since_us) = (PAUSE_FIRST_US, 0, None);
    }

    /// The attempt failed or the connection broke.
    pub(super) fn lost(&mut self, now_us: u64) {
        self.offline_since_us.get_or_insert(now_us);
        let half_us = self.pause_us / 2;
        let pause_us = half_us + self.below(half_us);
        self.not_before_us = self.not_before_us.max(now_us + pause_us);
        self.pause_us = (self.pause_us * 2).min(PAUSE_LONGEST_US);
    }

    /// The node asked not to be called again for this long.
    pub(super) fn stay_away(&mut self, now_us: u64, retry_ms: u32) {
        let hint_us = (u64::from(retry_ms) * 1000).min(HINT_US_MAX);
        self.not_before_us = self.not_before_us.max(now_us + hint_us);
    }

    /// The node goes away and wants its clients to come back spread over this time. Returns this client's
    /// moment; no connection is made before it.
    pub(super) fn spread(&mut self, now_us: u64, spread_ms: u32) -> u64 {
        let spread_us = (u64::from(spread_ms) * 1000).min(HINT_US_MAX);
        let at_us = now_us + self.below(spread_us);
        self.not_before_us = self.not_before_us.max(at_us);
        at_us
    }

    /// When the next attempt may begin; in the past if now.
    pub(super) fn not_before_us(&self) -> u64 {
        self.not_before_us
    }

    /// Since when there is no login; `None` if there is one, or none was tried yet.
    pub(super) fn offline_since_us(&self) -> Option<u64> {
        self.offline_since_us
    }

    /// A number in `0..=most`: one step of SplitMix64, scaled.
    fn below(&mut self, most: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * (u128::from(most) + 1)) >> 64) as u64
    }
}
