//! The dedup window: which message ids a mailbox has seen, by which number.
//!
//! Each mailbox remembers its newest ids, up to a count and an age. The order lives in the mailbox; this
//! index answers "seen?" for all mailboxes of the core. It is rebuilt at start from message records, which
//! outlive their messages until their segment is reclaimed, and from dedup records, which carry ids out of a
//! segment before that.

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;
use shards::io::SegmentId;

use super::mailbox::{Mailbox, MailboxKey, Remembered};
use super::table::hasher;
use crate::wire::MessageId;

/// A full window grows by one part in this many before its oldest ids are forgotten together: each is a
/// miss of the processor's caches, and misses in a row overlap where single ones between other work do not.
const FORGET_SHARE: u32 = 64;

/// Ids that a mailbox keeps when the core holds as many as it may: enough for what a sender has under way.
const IDS_WHEN_FULL: u32 = 64;

/// All remembered ids of a core.
pub(super) struct DedupIndex {
    seen: HashMap<(MailboxKey, MessageId), u64, SeedableRandomState>,
}

impl DedupIndex {
    pub(super) fn new(hash_seed: u64) -> Self {
        Self { seen: HashMap::with_hasher(hasher(hash_seed.rotate_left(17))) }
    }

    /// How many ids a mailbox may keep now: `ids_max`, unless all mailboxes together hold `core_max`.
    pub(super) fn allowance(&self, ids_max: u32, core_max: u64) -> u32 {
        if (self.seen.len() as u64) < core_max { ids_max } else { ids_max.min(IDS_WHEN_FULL) }
    }

    /// The number under which the mailbox took this id.
    pub(super) fn find(&self, mailbox: MailboxKey, id: MessageId) -> Option<u64> {
        self.seen.get(&(mailbox, id)).copied()
    }

    /// Remembers an id, and forgets the oldest beyond `ids_max`, many at a time. Returns `false` if it was
    /// known.
    pub(super) fn remember(
        &mut self,
        key: MailboxKey,
        mailbox: &mut Mailbox,
        entry: Remembered,
        ids_max: u32,
    ) -> bool {
        if self.seen.insert((key, entry.id), entry.seq).is_some() {
            return false;
        }
        mailbox.remembered.push_back(entry);
        if mailbox.remembered.len() > (ids_max + ids_max / FORGET_SHARE) as usize {
            while mailbox.remembered.len() > ids_max as usize {
                self.forget_oldest(key, mailbox);
            }
        }
        true
    }

    /// Remembers an id found while the log is replayed, where ids do not come in the order of their age.
    pub(super) fn recall(&mut self, key: MailboxKey, mailbox: &mut Mailbox, entry: Remembered, ids_max: u32) {
        if self.seen.insert((key, entry.id), entry.seq).is_none() {
            mailbox.remembered.push_back(entry);
        } else if let Some(known) = mailbox.remembered.iter_mut().rev().find(|known| known.id == entry.id) {
            known.segment = entry.segment;
        }
        if mailbox.remembered.len() >= 2 * ids_max.max(1) as usize {
            self.settle(key, mailbox, ids_max);
        }
    }

    /// Brings recalled ids into the order of their age and forgets the oldest beyond `ids_max`.
    pub(super) fn settle(&mut self, key: MailboxKey, mailbox: &mut Mailbox, ids_max: u32) {
        mailbox.remembered.make_contiguous().sort_unstable_by_key(|entry| entry.seq);
        while mailbox.remembered.len() > ids_max as usize {
            self.forget_oldest(key, mailbox);
        }
    }

    /// Forgets one id that was never committed.
    pub(super) fn retract(&mut self, key: MailboxKey, mailbox: &mut Mailbox, id: MessageId) {
        if self.seen.remove(&(key, id)).is_some()
            && let Some(at) = mailbox.remembered.iter().rposition(|entry| entry.id == id)
        {
            mailbox.remembered.remove(at);
        }
    }

    /// Forgets what is older than `since_s`. Ids that are not committed yet stay.
    pub(super) fn forget_before(&mut self, key: MailboxKey, mailbox: &mut Mailbox, since_s: u32) {
        while mailbox.remembered.front().is_some_and(|entry| entry.at_s < since_s && entry.segment.is_some())
        {
            self.forget_oldest(key, mailbox);
        }
    }

    /// Forgets every id whose record lies in a segment. Returns how many.
    pub(super) fn forget_segment(
        &mut self,
        key: MailboxKey,
        mailbox: &mut Mailbox,
        segment: SegmentId,
    ) -> u64 {
        let before = mailbox.remembered.len();
        let seen = &mut self.seen;
        mailbox.remembered.retain(|entry| {
            let keep = entry.segment != Some(segment);
            if !keep {
                seen.remove(&(key, entry.id));
            }
            keep
        });
        (before - mailbox.remembered.len()) as u64
    }

    fn forget_oldest(&mut self, key: MailboxKey, mailbox: &mut Mailbox) {
        if let Some(entry) = mailbox.remembered.pop_front() {
            self.seen.remove(&(key, entry.id));
        }
    }
}
