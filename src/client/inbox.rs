//! What arrived: duplicates told from new messages, and what to acknowledge.
//!
//! # Promise
//! The cursor passes a message only after the program has said that it is done with it, whatever was
//! forgotten meanwhile. A duplicate is told by sender and id, as an id is unique per sender only.
//!
//! # Failure model
//! The set of ids is bounded: a message that comes again after [`SEEN_IDS_MAX`] others is shown again, and
//! must be done again. Ephemeral messages, which cost their sender nothing, have a small set of their own.

use std::collections::VecDeque;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;

use crate::relay::hasher;
use crate::wire::{Address, Epoch, MailboxSeq, MessageId};

/// Stored messages that a client remembers to recognise one that comes again.
pub const SEEN_IDS_MAX: usize = 16 * 1024;
/// The same for ephemeral ones, which come twice only if somebody repeats them.
const SEEN_EPHEMERAL_MAX: usize = 1024;

/// What tells a message from all others of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageKey {
    /// Who sent it; [`Address::NONE`] if not told.
    pub from: Address,
    /// The sender's id for it.
    pub id: MessageId,
    /// It is in the mailbox, as opposed to ephemeral.
    pub is_stored: bool,
}

/// The receiving half of a client.
#[derive(Debug)]
pub(super) struct Inbox {
    stored: Seen,
    ephemeral: Seen,
    pub(super) epoch: Option<Epoch>,
    /// What arrived on this connection and is not acknowledged, in rising order. No longer than what the
    /// program was shown and is not done with, and the window behind it.
    arrived: VecDeque<Arrived>,
    cursor: MailboxSeq,
    /// The cursor moved and the node was not told.
    owes_ack: bool,
    /// The cursor had moved when a connection ended: the node will send again what it was not told about.
    owed_before: bool,
}

#[derive(Debug)]
struct Arrived {
    seq: MailboxSeq,
    key: MessageKey,
    done: bool,
}

impl Inbox {
    pub(super) fn new(hash_seed: u64) -> Self {
        Self {
            stored: Seen::new(SEEN_IDS_MAX, hash_seed),
            ephemeral: Seen::new(SEEN_EPHEMERAL_MAX, hash_seed),
            epoch: None,
            arrived: VecDeque::new(),
            cursor: MailboxSeq(0),
            owes_ack: false,
            owed_before: false,
        }
    }

    /// A session began. True if the mailbox's past was lost since the last one.
    pub(super) fn welcome(&mut self, epoch: Epoch, cursor: MailboxSeq) -> bool {
        self.arrived.clear();
        self.cursor = cursor;
        self.owed_before |= std::mem::take(&mut self.owes_ack);
        self.epoch.replace(epoch).is_some_and(|before| before != epoch)
    }

    /// A message arrived. True if it is new.
    pub(super) fn arrive(&mut self, seq: MailboxSeq, key: MessageKey) -> bool {
        if !key.is_stored {
            return self.ephemeral.insert(key);
        }
        let is_new = self.stored.insert(key);
        let done = !is_new && (self.stored.is_done(&key) || self.is_in_hand(&key));
        self.arrived.push_back(Arrived { seq, key, done });
        self.move_cursor();
        is_new
    }

    /// An earlier arrival on this connection stands for this message: the cursor cannot pass that one.
    fn is_in_hand(&self, key: &MessageKey) -> bool {
        self.arrived.iter().any(|arrived| !arrived.done && arrived.key == *key)
    }

    /// The program is done with a message: the cursor moves as far as everything before it is done too.
    /// Fast in the order of arrival; otherwise it takes time in proportion to what is skipped.
    pub(super) fn done(&mut self, key: &MessageKey) {
        if !key.is_stored {
            return;
        }
        self.stored.done(key);
        if let Some(arrived) = self.arrived.iter_mut().find(|arrived| !arrived.done && arrived.key == *key) {
            arrived.done = true;
        }
        self.move_cursor();
    }

    fn move_cursor(&mut self) {
        while let Some(arrived) = self.arrived.pop_front_if(|arrived| arrived.done) {
            self.cursor = arrived.seq;
            self.owes_ack = true;
        }
    }

    /// What to acknowledge now, if anything.
    pub(super) fn take_ack(&mut self) -> Option<(Epoch, MailboxSeq)> {
        let epoch = self.epoch?;
        std::mem::take(&mut self.owes_ack).then_some((epoch, self.cursor))
    }

    /// Everything that waited has arrived, and with it what earlier connections could not acknowledge.
    pub(super) fn caught_up(&mut self) {
        self.owed_before = false;
    }

    /// Something the program is done with is not acknowledged yet.
    pub(super) fn is_owing(&self) -> bool {
        self.owes_ack || self.owed_before
    }

    /// Something an earlier connection did not acknowledge has not come again yet.
    pub(super) fn is_owing_from_before(&self) -> bool {
        self.owed_before
    }
}

/// The last keys, and whether the program is done with them.
#[derive(Debug)]
struct Seen {
    most: usize,
    order: VecDeque<MessageKey>,
    done: HashMap<MessageKey, bool, SeedableRandomState>,
}

impl Seen {
    fn new(most: usize, hash_seed: u64) -> Self {
        Self { most, order: VecDeque::new(), done: HashMap::with_hasher(hasher(hash_seed)) }
    }

    /// True if the key was not there. The oldest one makes room.
    fn insert(&mut self, key: MessageKey) -> bool {
        if self.done.contains_key(&key) {
            return false;
        }
        if self.order.len() == self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.done.remove(&oldest);
        }
        self.done.insert(key, false);
        self.order.push_back(key);
        true
    }

    fn done(&mut self, key: &MessageKey) {
        if let Some(done) = self.done.get_mut(key) {
            *done = true;
        }
    }

    /// False for a key that was forgotten.
    fn is_done(&self, key: &MessageKey) -> bool {
        self.done.get(key).copied().unwrap_or(false)
    }
}
