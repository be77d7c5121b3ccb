//! Which messages wait behind a refused one, so that a retry is overtaken by nothing that could be held back.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::{Address, RequestId};

/// The refused messages of one recipient.
#[derive(Debug, Default)]
struct Refused {
    /// Refused, and without another answer since.
    unanswered: BTreeSet<RequestId>,
    /// Of these, the ones that were not sent again yet.
    waiting: BTreeSet<RequestId>,
}

/// The recipients with refused messages; no larger than the outbox.
#[derive(Debug, Default)]
pub(super) struct Hold {
    refused: BTreeMap<Address, Refused>,
}

impl Hold {
    /// A message was refused and is to be sent again.
    pub(super) fn refused(&mut self, to: Address, request: RequestId) {
        let refused = self.refused.entry(to).or_default();
        refused.unanswered.insert(request);
        refused.waiting.insert(request);
    }

    /// A message is on its way.
    pub(super) fn sent(&mut self, to: &Address, request: RequestId) {
        if let Some(refused) = self.refused.get_mut(to) {
            refused.waiting.remove(&request);
        }
    }

    /// The connection broke while this message was on its way.
    pub(super) fn returned(&mut self, to: &Address, request: RequestId) {
        if let Some(refused) = self.refused.get_mut(to)
            && refused.unanswered.contains(&request)
        {
            refused.waiting.insert(request);
        }
    }

    /// A message has its final word.
    pub(super) fn ended(&mut self, to: &Address, request: RequestId) {
        if let Some(refused) = self.refused.get_mut(to) {
            refused.unanswered.remove(&request);
            refused.waiting.remove(&request);
            if refused.unanswered.is_empty() {
                self.refused.remove(to);
            }
        }
    }

    /// Whether the order allows to send this message now.
    pub(super) fn allows(&self, to: &Address, request: RequestId) -> bool {
        let Some(refused) = self.refused.get(to) else { return true };
        match refused.waiting.contains(&request) {
            // A retry: in the order of the retries.
            true => refused.waiting.first() == Some(&request),
            // Anything else: only what was given before them.
            false => refused.unanswered.first().is_none_or(|first| request < *first),
        }
    }

    /// The next retry of each recipient.
    pub(super) fn heads(&self) -> impl Iterator<Item = RequestId> {
        self.refused.values().filter_map(|refused| refused.waiting.first().copied())
    }
}
