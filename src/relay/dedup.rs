//! The dedup window: which message ids a mailbox has seen, by which number.
//!
//! Each mailbox remembers its newest ids, up to a count and an age, in the order of their numbers. This index
//! answers "seen?" for all mailboxes of the core: it holds 12 bytes per id, a hash and where the id itself
//! stands. It is cut into parts, so that the one that must grow, or be cleared of what was removed, never
//! holds up a turn for long. It is rebuilt at start from message records, which outlive their messages until
//! their segment is reclaimed, and from dedup records, which carry ids out of a segment before that.

use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use shards::io::SegmentId;

use super::chunks::Chunks;
use super::mailbox::{Mailbox, MailboxKey, Proof, Remembered};
use super::table::hasher;
use crate::wire::MessageId;

/// Parts of the index. With four million ids, each has 65,536.
const PARTS: usize = 64;

/// Ids that a mailbox keeps when the core holds as many as it may: enough for what a sender has under way.
const IDS_WHEN_FULL: u32 = 64;

/// Ids beyond its number that a mailbox keeps before it forgets them, all at once: their slots are anywhere
/// in memory, and a processor that is asked for many of them at a time does not wait for each.
const FORGOTTEN_AT_ONCE: usize = 32;

/// Where an id stands. The number is cut to 32 bits: a mailbox remembers far fewer ids than that at once.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    mailbox: MailboxKey,
    seq: u32,
}

impl Slot {
    /// A hash that fills 64 bits, as the table wants, from the 32 that are kept.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// All remembered ids of a core.
pub(super) struct DedupIndex {
    parts: Vec<HashTable<Slot>>,
    hasher: SeedableRandomState,
    len: u64,
}

impl DedupIndex {
    pub(super) fn new(hash_seed: u64) -> Self {
        let parts = (0..PARTS).map(|_| HashTable::new()).collect();
        Self { parts, hasher: hasher(hash_seed.rotate_left(17)), len: 0 }
    }

    /// How many ids a mailbox may keep now: `ids_max`, unless all mailboxes together hold `core_max`.
    pub(super) fn allowance(&self, ids_max: u32, core_max: u64) -> u32 {
        if self.len < core_max { ids_max } else { ids_max.min(IDS_WHEN_FULL) }
    }

    /// The part and the hash of an id.
    fn place(&self, key: MailboxKey, id: MessageId) -> (usize, u32) {
        let hash = self.hasher.hash_one((key, id));
        (hash as usize % PARTS, (hash >> 32) as u32)
    }

    /// The number under which the mailbox took this id.
    pub(super) fn find(&self, key: MailboxKey, mailbox: &Mailbox, id: MessageId) -> Option<u64> {
        let (part, hash) = self.place(key, id);
        let remembered = |slot: &Slot| mailbox.remembered_by_low(slot.seq).filter(|entry| entry.id == id);
        let is_it = |slot: &Slot| slot.hash == hash && slot.mailbox == key && remembered(slot).is_some();
        let slot = self.parts[part].find(Slot::spread(hash), is_it)?;
        remembered(slot).map(|entry| entry.seq)
    }

    /// Remembers an id that [`DedupIndex::find`] does not know, and now and then forgets the oldest beyond
    /// `ids_max`.
    pub(super) fn remember(
        &mut self,
        key: MailboxKey,
        mailbox: &mut Mailbox,
        entry: Remembered,
        ids_max: u32,
    ) {
        self.insert(key, &entry);
        mailbox.remembered.push_back(entry);
        if mailbox.remembered.len() >= ids_max as usize + FORGOTTEN_AT_ONCE {
            while mailbox.remembered.len() > ids_max as usize {
                self.forget_oldest(key, mailbox);
            }
        }
    }

    fn insert(&mut self, key: MailboxKey, entry: &Remembered) {
        let (part, hash) = self.place(key, entry.id);
        let slot = Slot { hash, mailbox: key, seq: entry.seq as u32 };
        self.parts[part].insert_unique(Slot::spread(hash), slot, |slot| Slot::spread(slot.hash));
        self.len += 1;
    }

    fn remove(&mut self, key: MailboxKey, entry: &Remembered) {
        let (part, hash) = self.place(key, entry.id);
        let is_it = |slot: &Slot| slot.hash == hash && slot.mailbox == key && slot.seq == entry.seq as u32;
        if let Ok(found) = self.parts[part].find_entry(Slot::spread(hash), is_it) {
            found.remove();
            self.len -= 1;
        }
    }

    /// Takes an id found while the log is replayed, where ids do not come in the order of their age. It is
    /// known after [`DedupIndex::settle`].
    pub(super) fn recall(mailbox: &mut Mailbox, entry: Remembered, ids_max: u32) {
        mailbox.remembered.push_back(entry);
        if mailbox.remembered.len() >= 2 * ids_max.max(1) as usize {
            put_in_order(&mut mailbox.remembered, ids_max);
        }
    }

    /// Brings recalled ids into the order of their age, forgets the oldest beyond `ids_max`, and knows the
    /// others.
    pub(super) fn settle(&mut self, key: MailboxKey, mailbox: &mut Mailbox, ids_max: u32) {
        put_in_order(&mut mailbox.remembered, ids_max);
        for entry in mailbox.remembered.iter() {
            self.insert(key, entry);
        }
    }

    /// Forgets one id that was never committed.
    pub(super) fn retract(&mut self, key: MailboxKey, mailbox: &mut Mailbox, seq: u64) {
        if let Some(at) = mailbox.remembered_at(seq)
            && let Some(entry) = mailbox.remembered.remove(at)
        {
            self.remove(key, &entry);
        }
    }

    /// Forgets what is older than `since_s`. Ids that are not committed yet stay.
    pub(super) fn forget_before(&mut self, key: MailboxKey, mailbox: &mut Mailbox, since_s: u32) {
        let is_old = |entry: &Remembered| entry.at_s < since_s && entry.proof != Proof::NOT_YET;
        while mailbox.remembered.front().is_some_and(is_old) {
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
        mailbox.remembered.retain(|entry| {
            let keep = entry.proof != Proof::in_segment(segment);
            if !keep {
                self.remove(key, entry);
            }
            keep
        });
        (before - mailbox.remembered.len()) as u64
    }

    fn forget_oldest(&mut self, key: MailboxKey, mailbox: &mut Mailbox) {
        if let Some(entry) = mailbox.remembered.pop_front() {
            self.remove(key, &entry);
        }
    }
}

/// Sorts by number, keeps what was recalled last of each, and drops the oldest beyond `ids_max`.
fn put_in_order(remembered: &mut Chunks<Remembered>, ids_max: u32) {
    let mut sorted: Vec<Remembered> = remembered.iter().copied().collect();
    sorted.sort_by_key(|entry| entry.seq);
    let of_its_own = |at: usize| sorted.get(at + 1).is_none_or(|next| next.seq != sorted[at].seq);
    let newest_of_each = (0..sorted.len()).filter(|at| of_its_own(*at));
    let surplus = newest_of_each.clone().count().saturating_sub(ids_max as usize);
    *remembered = newest_of_each.skip(surplus).map(|at| sorted[at]).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Address, Epoch};
    use shards::io::LaneId;

    const KEY: MailboxKey = MailboxKey(3);

    fn mailbox() -> Mailbox {
        Mailbox::new(Address([1; 32]), LaneId(0), Epoch(1))
    }

    fn entry(seq: u64, segment: Option<u32>) -> Remembered {
        let proof = segment.map_or(Proof::NOT_YET, |segment| Proof::in_segment(SegmentId(segment)));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&seq.to_le_bytes());
        Remembered { id: MessageId(id), seq, at_s: seq as u32, proof }
    }

    #[test]
    fn the_newest_ids_are_known_and_no_others() {
        let (mut index, mut mailbox) = (DedupIndex::new(1), mailbox());
        for seq in 1..=10_000 {
            assert_eq!(index.find(KEY, &mailbox, entry(seq, None).id), None);
            index.remember(KEY, &mut mailbox, entry(seq, None), 4_096);
        }
        let known = |seq| index.find(KEY, &mailbox, entry(seq, None).id);
        assert!((10_000 - 4_096 + 1..=10_000).all(|seq| known(seq) == Some(seq)));
        assert!((1..=10_000 - 4_096 - FORGOTTEN_AT_ONCE as u64).all(|seq| known(seq).is_none()));
        assert_eq!(index.find(MailboxKey(4), &mailbox, entry(10_000, None).id), None, "another mailbox's");
        assert_eq!(index.len, mailbox.remembered.len() as u64);
    }

    #[test]
    fn gaps_that_refused_messages_leave_do_not_hide_the_others() {
        let (mut index, mut mailbox) = (DedupIndex::new(1), mailbox());
        (1..=100).for_each(|seq| index.remember(KEY, &mut mailbox, entry(seq, Some(seq as u32 % 7)), 1_000));
        index.retract(KEY, &mut mailbox, 50);
        index.forget_segment(KEY, &mut mailbox, SegmentId(3));
        for seq in 1..=100 {
            let expected = (seq != 50 && seq % 7 != 3).then_some(seq);
            assert_eq!(index.find(KEY, &mailbox, entry(seq, None).id), expected);
        }
    }

    #[test]
    fn ids_recalled_in_any_order_settle_into_the_newest_with_their_newest_place() {
        let (mut index, mut mailbox) = (DedupIndex::new(1), mailbox());
        for seq in (1..=50).rev().chain(40..=60) {
            let segment = Some(if seq >= 40 { 9 } else { 1 });
            DedupIndex::recall(&mut mailbox, entry(seq, segment), 30);
        }
        index.settle(KEY, &mut mailbox, 30);
        let seqs: Vec<u64> = mailbox.remembered.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (31..=60).collect::<Vec<_>>());
        assert_eq!(
            mailbox.remembered_mut(45).map(|entry| entry.proof),
            Some(Proof::in_segment(SegmentId(9)))
        );
        assert_eq!(index.find(KEY, &mailbox, entry(45, None).id), Some(45));
        assert_eq!(index.len, 30);
    }

    #[test]
    fn a_full_core_leaves_each_mailbox_its_newest_few() {
        let (mut index, mut mailbox) = (DedupIndex::new(1), mailbox());
        (1..=200).for_each(|seq| {
            let ids_max = index.allowance(4_096, 100);
            index.remember(KEY, &mut mailbox, entry(seq, None), ids_max);
        });
        assert!(mailbox.remembered.len() <= 100 + FORGOTTEN_AT_ONCE);
        assert_eq!(index.allowance(4_096, 10), IDS_WHEN_FULL);
    }
}
