//! The table of mailboxes of one core: by key in constant time, by address through a seeded hash.

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;
use slab::Slab;

use super::mailbox::{Mailbox, MailboxKey};
use crate::wire::Address;

/// A hasher that gives the same order for the same seed, and another for another.
pub(crate) fn hasher(seed: u64) -> SeedableRandomState {
    SeedableRandomState::with_seed(seed, SharedSeed::global_fixed())
}

/// All mailboxes of a core.
pub(super) struct Table {
    slots: Slab<Mailbox>,
    by_address: HashMap<Address, MailboxKey, SeedableRandomState>,
}

impl Table {
    pub(super) fn new(hash_seed: u64) -> Self {
        Self { slots: Slab::new(), by_address: HashMap::with_hasher(hasher(hash_seed)) }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Exclusive upper bound of the keys in use, for walking the table in steps.
    pub(super) fn key_end(&self) -> u32 {
        u32::try_from(self.slots.capacity()).unwrap_or(u32::MAX)
    }

    pub(super) fn find(&self, address: &Address) -> Option<MailboxKey> {
        self.by_address.get(address).copied()
    }

    pub(super) fn insert(&mut self, mailbox: Mailbox) -> MailboxKey {
        let address = mailbox.address;
        let slot = self.slots.insert(mailbox);
        // PANIC: the number of mailboxes is limited far below 2^32 before a mailbox is made.
        let key = MailboxKey(u32::try_from(slot).expect("mailboxes are fewer than 2^32"));
        let before = self.by_address.insert(address, key);
        debug_assert!(before.is_none(), "one mailbox per address");
        key
    }

    pub(super) fn remove(&mut self, key: MailboxKey) {
        let mailbox = self.slots.remove(key.0 as usize);
        self.by_address.remove(&mailbox.address);
    }

    pub(super) fn get(&self, key: MailboxKey) -> Option<&Mailbox> {
        self.slots.get(key.0 as usize)
    }

    pub(super) fn get_mut(&mut self, key: MailboxKey) -> Option<&mut Mailbox> {
        self.slots.get_mut(key.0 as usize)
    }
}

impl std::ops::Index<MailboxKey> for Table {
    type Output = Mailbox;
    fn index(&self, key: MailboxKey) -> &Mailbox {
        &self.slots[key.0 as usize]
    }
}

impl std::ops::IndexMut<MailboxKey> for Table {
    fn index_mut(&mut self, key: MailboxKey) -> &mut Mailbox {
        &mut self.slots[key.0 as usize]
    }
}
