//! What arrived: duplicates told from new messages, and what to acknowledge.

use std::collections::VecDeque;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;

use crate::relay::hasher;
use crate::wire::{Epoch, MailboxSeq, MessageId};

/// Ids that a client remembers to recognise a message that comes again.
pub const SEEN_IDS_MAX: usize = 16 * 1024;

/// The receiving half of a client.
#[derive(Debug)]
pub(super) struct Inbox {
    order: VecDeque<MessageId>,
    /// Ids that arrived, and whether the program is done with them.
    seen: HashMap<MessageId, bool, SeedableRandomState>,
    pub(super) epoch: Option<Epoch>,
    /// What arrived on this connection and is not acknowledged, in rising order.
    arrived: VecDeque<(MailboxSeq, MessageId)>,
    cursor: MailboxSeq,
    /// The cursor moved and the node was not told.
    owes_ack: bool,
}

impl Inbox {
    pub(super) fn new(hash_seed: u64) -> Self {
        Self {
            order: VecDeque::new(),
            seen: HashMap::with_hasher(hasher(hash_seed)),
            epoch: None,
            arrived: VecDeque::new(),
            cursor: MailboxSeq(0),
            owes_ack: false,
        }
    }

    /// A session began. True if the mailbox's past was lost since the last one.
    pub(super) fn welcome(&mut self, epoch: Epoch, cursor: MailboxSeq) -> bool {
        self.arrived.clear();
        self.cursor = cursor;
        self.owes_ack = false;
        self.epoch.replace(epoch).is_some_and(|before| before != epoch)
    }

    /// A message arrived. True if it is new.
    pub(super) fn arrive(&mut self, seq: MailboxSeq, id: MessageId) -> bool {
        let fresh = !self.seen.contains_key(&id);
        if fresh {
            self.seen.insert(id, false);
            self.order.push_back(id);
            if self.order.len() > SEEN_IDS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
        if seq.0 > 0 {
            self.arrived.push_back((seq, id));
            self.move_cursor();
        }
        fresh
    }

    /// The program is done with a message: the cursor moves as far as everything before it is done too.
    pub(super) fn done(&mut self, id: MessageId) {
        if let Some(done) = self.seen.get_mut(&id) {
            *done = true;
        }
        self.move_cursor();
    }

    fn move_cursor(&mut self) {
        let seen = &self.seen;
        let is_done = |entry: &mut (MailboxSeq, MessageId)| seen.get(&entry.1).copied().unwrap_or(true);
        while let Some((seq, _)) = self.arrived.pop_front_if(is_done) {
            self.cursor = seq;
            self.owes_ack = true;
        }
    }

    /// What to acknowledge now, if anything.
    pub(super) fn take_ack(&mut self) -> Option<(Epoch, MailboxSeq)> {
        let epoch = self.epoch?;
        std::mem::take(&mut self.owes_ack).then_some((epoch, self.cursor))
    }
}
