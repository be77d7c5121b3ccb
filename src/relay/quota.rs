//! How fast one sender may send: token buckets, exact because an identity has one home core.

use super::Relay;
use super::mailbox::MailboxKey;
use crate::rt::api::Now;

/// A token bucket's size: `per_s` refills it, `burst` is what it holds. A rate of 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second.
    pub per_s: u64,
    /// Most tokens at once.
    pub burst: u64,
}

/// A token bucket. Starts full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Tokens used, in millionths, so that a new bucket is full without knowing its rate.
    used_millionths: u64,
    at_us: u64,
}

impl Bucket {
    /// Takes `tokens`, or says in how many milliseconds they will be there.
    pub fn take(&mut self, now_us: u64, rate: Rate, tokens: u64) -> Result<(), u32> {
        if rate.per_s == 0 {
            return Ok(());
        }
        let refilled = now_us.saturating_sub(self.at_us).saturating_mul(rate.per_s);
        let used = self.used_millionths.saturating_sub(refilled);
        self.at_us = now_us;
        self.used_millionths = used;
        // A single large request may overdraw a full bucket; else it could never pass.
        let burst = rate.burst.max(tokens).saturating_mul(1_000_000);
        let wanted = used.saturating_add(tokens.saturating_mul(1_000_000));
        if wanted > burst {
            let wait_us = (wanted - burst).div_ceil(rate.per_s);
            return Err(u32::try_from(wait_us.div_ceil(1000)).unwrap_or(u32::MAX));
        }
        self.used_millionths = wanted;
        Ok(())
    }

    /// Gives back tokens that were taken for nothing.
    pub fn give_back(&mut self, tokens: u64) {
        self.used_millionths = self.used_millionths.saturating_sub(tokens.saturating_mul(1_000_000));
    }

    /// It has refilled completely.
    pub fn is_full(&self, now_us: u64, rate: Rate) -> bool {
        now_us.saturating_sub(self.at_us).saturating_mul(rate.per_s) >= self.used_millionths
    }
}

/// What one sender has used of its rates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    messages: Bucket,
    bytes: Bucket,
}

impl Relay {
    /// Charges the owner of a mailbox for sending a message of `bytes`, or says when to try again, in
    /// milliseconds.
    pub fn charge(&mut self, now: Now, key: MailboxKey, bytes: u64) -> Result<(), u32> {
        let (messages, byte_rate) = (self.limits.sender_messages, self.limits.sender_bytes);
        let Some(mailbox) = self.mailboxes.get_mut(key) else { return Ok(()) };
        mailbox.usage.messages.take(now.mono_us, messages, 1)?;
        let charged = mailbox.usage.bytes.take(now.mono_us, byte_rate, bytes);
        charged.inspect_err(|_| mailbox.usage.messages.give_back(1))
    }

    /// Takes back what [`Relay::charge`] took: the message has to wait and will be charged when it is tried
    /// again.
    pub fn refund(&mut self, key: MailboxKey, bytes: u64) {
        let Some(mailbox) = self.mailboxes.get_mut(key) else { return };
        mailbox.usage.messages.give_back(1);
        mailbox.usage.bytes.give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 10, burst: 5 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        for _ in 0..5 {
            assert_eq!(bucket.take(0, RATE, 1), Ok(()));
        }
        assert_eq!(bucket.take(0, RATE, 1), Err(100));
        assert_eq!(bucket.take(99_000, RATE, 1), Err(1));
        assert_eq!(bucket.take(100_000, RATE, 1), Ok(()));
    }

    #[test]
    fn a_request_larger_than_the_burst_passes_when_the_bucket_is_full() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(0, RATE, 50), Ok(()));
        assert_eq!(bucket.take(0, RATE, 1), Err(4_600));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(0, Rate { per_s: 0, burst: 0 }, u64::MAX), Ok(()));
    }
}
