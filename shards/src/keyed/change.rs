//! Changing a key: append, and swing the index when the write is durable.

use std::ops::ControlFlow;

use crate::format::Lsn;
use crate::format::record::Kind;
use crate::index::{Due, Place, Prefix};
use crate::keyed::capacity::{LEFT_FOR_DELETIONS, LEFT_FOR_RECORDS};
use crate::keyed::family::Tree;
use crate::keyed::payload::{HEAD_BYTES, Head};
use crate::keyed::place::{pack, padding, unpack};
use crate::keyed::read::Existing;
use crate::keyed::{CapacityState, Class, Event, Family, Hold, KeyedStore, Ticket, hour_of, seconds_of};
use crate::lane::{AppendError, RecordLoc, Reserve};

/// As many zeros as a record may need behind its body.
const ZEROS: [u8; 1 << 10] = [0; 1 << 10];

/// A record to be put.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Code that made the stripe, 0 for what is no shard.
    pub code: u8,
    /// Its owner's sequence number. Whether it may replace what is there is for the caller to say.
    pub sequence: u64,
    /// End of life in seconds since 1970. It is kept at least as long as what it replaces would have been.
    pub expires_s: u32,
    /// What describes it, at most 65,535 bytes.
    pub card: &'a [u8],
    /// The signed lease, at most 65,535 bytes.
    pub lease: &'a [u8],
    /// BLAKE3 of the body.
    pub root: [u8; 32],
    /// The shard, or the record.
    pub body: &'a [u8],
}

/// Why a change was not taken. Nothing was changed, and the hold still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Its hour of expiry is over.
    #[error("it has expired already (at {expires_s} s)")]
    Expired {
        /// As given.
        expires_s: u32,
    },
    /// A lease that does not lengthen what it is for.
    #[error("the record lives until {until_s} s already; a lease can only be longer")]
    NotLonger {
        /// When the record expires now.
        until_s: u32,
    },
    /// There is no record to extend.
    #[error("there is no record of this key; nothing to extend")]
    Absent,
    /// Card or lease too long.
    #[error("a card or a lease of {bytes} bytes is too long; the most is 65,535")]
    AttachmentTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The partition is too full for records of this family.
    #[error("too full ({0:?}) for this record; delete some, wait for some to expire, or add space")]
    Capacity(CapacityState),
    /// The index is full.
    #[error("it holds {entries_max} records, as many as it may; raise the limit or wait for some to expire")]
    IndexFull {
        /// As configured.
        entries_max: u64,
    },
    /// No lane takes it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct Appended {
    pub lsn: Lsn,
    /// `None` for a copy.
    pub ticket: Option<Ticket>,
    /// `None` for a copy, which keeps that of its original.
    pub serial: Option<u64>,
    /// When it was appended, monotonic.
    pub at_us: u64,
    pub family: Family,
    pub prefix: Prefix,
    pub kind: Kind,
    /// Hour from which it is gone.
    pub hour: u64,
    pub effect: Effect,
}

/// What becomes of the index when a record is durable.
#[derive(Debug)]
pub(super) enum Effect {
    /// It replaces all there was of its identity.
    Replace(Existing),
    /// It gives the live record a longer life and replaces the lease before it.
    Extend(Existing),
    /// It is a copy of the record at this place.
    Move {
        /// Who made it.
        by: Mover,
        /// Where the index points, if the record still lives, and in which tree.
        from: (Tree, Place),
    },
}

/// Who copies records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mover {
    /// To win space.
    Compaction,
    /// To save what is sound from a damaged batch.
    Scrub,
}

/// A record ready to be appended.
struct Draft<'a> {
    head: Head,
    card: &'a [u8],
    lease: &'a [u8],
    body: &'a [u8],
}

impl KeyedStore {
    /// Puts a record in the place of whatever was there. Durable when its [`Event::Stored`] comes.
    pub fn put(&mut self, hold: Hold, record: &NewRecord<'_>) -> Result<Ticket, (ChangeError, Hold)> {
        let existing = self.existing(&hold);
        let NewRecord { code, sequence, card, lease, root, body, .. } = *record;
        let expires_s = record.expires_s.max(self.kept_until_s(&hold, &existing));
        let family = hold.identity().family;
        if !self.state.takes(family) {
            return Err((ChangeError::Capacity(self.state), hold));
        }
        let kind = family.kind();
        let draft = self.draft(&hold, kind, sequence, expires_s);
        let draft = Draft { head: Head { code, root, ..draft }, card, lease, body };
        self.take(hold, draft, Effect::Replace(existing))
    }

    /// Puts a tombstone in the place of whatever was there, if there was anything. `proof` is kept with it.
    /// It is there at least as long as what it overrules would have been.
    pub fn delete(
        &mut self,
        hold: Hold,
        sequence: u64,
        expires_s: u32,
        proof: &[u8],
    ) -> Result<Ticket, (ChangeError, Hold)> {
        let existing = self.existing(&hold);
        let expires_s = expires_s.max(self.kept_until_s(&hold, &existing));
        let head = self.draft(&hold, Kind::Tombstone, sequence, expires_s);
        let draft = Draft { head, card: proof, lease: &[], body: &[] };
        self.take(hold, draft, Effect::Replace(existing))
    }

    /// Lets the record that is there live longer. Its bytes stay where they are.
    pub fn extend(
        &mut self,
        hold: Hold,
        sequence: u64,
        expires_s: u32,
        lease: &[u8],
    ) -> Result<Ticket, (ChangeError, Hold)> {
        let existing = self.existing(&hold);
        let Some(live) = existing.live else { return Err((ChangeError::Absent, hold)) };
        let until_s = existing.expires_s();
        if expires_s <= until_s {
            return Err((ChangeError::NotLonger { until_s }, hold));
        }
        let mut head = self.draft(&hold, Kind::Lease, sequence, expires_s);
        head.root[..8].copy_from_slice(&live.serial.to_le_bytes());
        self.take(hold, Draft { head, card: &[], lease, body: &[] }, Effect::Extend(existing))
    }

    /// Until when whatever replaces a record must be kept.
    pub(super) fn kept_until_s(&self, hold: &Hold, existing: &Existing) -> u32 {
        let key = (hold.identity().family, hold.identity().prefix());
        let shadow_s = self.shadows.get(&key).map_or(0, |hour| seconds_of(*hour));
        existing.kept_until_s().max(shadow_s)
    }

    /// A record may come back at a restart although the index does not point to it: until that hour, or for
    /// ever if it is not known.
    pub(super) fn shadow(&mut self, family: Family, prefix: Prefix, hour: Option<u64>) {
        let until = self.shadows.entry((family, prefix)).or_default();
        *until = (*until).max(hour.unwrap_or(hour_of(u32::MAX)));
    }

    fn draft(&self, hold: &Hold, kind: Kind, sequence: u64, expires_s: u32) -> Head {
        let serial = self.serial + 1;
        let key = (hold.identity().family, hold.identity().prefix());
        // What may come back may be older than anything that is known.
        let is_shadowed = self.shadows.contains_key(&key);
        let birth = if is_shadowed { 0 } else { self.existing(hold).birth().unwrap_or(serial) };
        Head {
            identity: *hold.identity(),
            kind,
            expires_s,
            code: 0,
            card_bytes: 0,
            lease_bytes: 0,
            body_bytes: 0,
            sequence,
            serial,
            birth,
            root: [0; 32],
        }
    }

    fn take(&mut self, hold: Hold, draft: Draft<'_>, effect: Effect) -> Result<Ticket, (ChangeError, Hold)> {
        match self.try_take(&hold, draft, effect) {
            Ok(ticket) => Ok(ticket),
            Err(error) => Err((error, hold)),
        }
    }

    fn try_take(&mut self, hold: &Hold, draft: Draft<'_>, effect: Effect) -> Result<Ticket, ChangeError> {
        let Draft { mut head, card, lease, body } = draft;
        let too_long = |bytes| ChangeError::AttachmentTooLong { bytes };
        head.card_bytes = u16::try_from(card.len()).map_err(|_| too_long(card.len()))?;
        head.lease_bytes = u16::try_from(lease.len()).map_err(|_| too_long(lease.len()))?;
        // A body beyond 4 GiB does not fit into a batch either, which is what refuses it.
        head.body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        if self.is_closing {
            return Err(AppendError::ShuttingDown.into());
        }
        let hour = hour_of(head.expires_s);
        if hour <= self.hour {
            return Err(ChangeError::Expired { expires_s: head.expires_s });
        }
        let entries_max = self.config.entries_max;
        if self.entries() + self.entries_under_way >= entries_max {
            return Err(ChangeError::IndexFull { entries_max });
        }
        let pad = padding(HEAD_BYTES + card.len() + lease.len() + body.len());
        let parts: [&[u8]; 5] = [&head.encode(), card, lease, body, &ZEROS[..pad]];
        // Deletions need space before they give any, and compaction needs some to win it back: so only copies
        // may take the last segment, and records are refused while there are a few more.
        let wanted = Class::of(hour - self.hour);
        let least = if head.kind.is_metadata() { LEFT_FOR_DELETIONS } else { LEFT_FOR_RECORDS };
        let appended = match self.segments_left() < least {
            true => Err(AppendError::Full),
            false => self.append(Reserve::Keep, wanted, head.kind, head.expires_s, &parts),
        };
        let (class, lsn) = match appended {
            Err(AppendError::Full) if self.may_win_space() => return Err(AppendError::Busy.into()),
            Err(error) => return Err(error.into()),
            Ok(appended) => appended,
        };
        self.serial = head.serial;
        self.entries_under_way += 1;
        let of_change = self.next_ticket();
        let (family, prefix, kind) = (hold.identity().family, hold.identity().prefix(), head.kind);
        let (ticket, serial, at_us) = (Some(of_change), Some(head.serial), self.now_us);
        let appended = Appended { lsn, ticket, serial, at_us, family, prefix, kind, hour, effect };
        self.appended[class as usize].push_back(appended);
        Ok(of_change)
    }

    /// Appends to the lane of a class, or to another if that one is full.
    pub(super) fn append(
        &mut self,
        reserve: Reserve,
        class: Class,
        kind: Kind,
        expires_s: u32,
        parts: &[&[u8]],
    ) -> Result<(Class, Lsn), AppendError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let tried = class.in_order_of_choice().into_iter().try_fold(AppendError::Full, |_, class| match self
            .lanes[class as usize]
            .append_with(reserve, kind, expires_s, parts)
        {
            Err(AppendError::Full) => ControlFlow::Continue(AppendError::Full),
            ended => ControlFlow::Break(ended.map(|lsn| (class, lsn))),
        });
        match tried {
            ControlFlow::Break(ended) => {
                self.checkpointer.log_bytes += if ended.is_ok() { bytes as u64 } else { 0 };
                ended
            }
            ControlFlow::Continue(full) => Err(full),
        }
    }

    /// A record is durable at `loc`.
    pub(super) fn apply(&mut self, class: Class, lsn: Lsn, loc: RecordLoc, events: &mut Vec<Event>) {
        let Some(appended) = self.appended[class as usize].pop_front().filter(|it| it.lsn == lsn) else {
            // PANIC: a lane commits what was appended to it, in order; another order would be lost records.
            unreachable!("record {lsn:?} of {class:?} was committed out of order");
        };
        let (family, prefix, kind) = (appended.family, appended.prefix, appended.kind);
        let trees = &mut self.families[family.at()];
        let due = Due::of_hour(appended.hour, trees.get(Tree::of(kind)).origin());
        // PANIC: `try_take` padded the record so that it has a place.
        let place = pack(class, loc, due).expect("a padded record has a place");
        self.end_append(&appended);
        let stands = match appended.effect {
            Effect::Replace(existing) => {
                existing.places().for_each(|(tree, old)| self.kill(family, tree, prefix, old));
                true
            }
            Effect::Extend(existing) => {
                if let Some(lease) = existing.lease {
                    self.kill(family, Tree::Marks, prefix, lease.place);
                }
                let live = &mut self.families[family.at()].live;
                let due = Due::of_hour(appended.hour, live.origin());
                existing.live.is_some_and(|it| live.swing(prefix, it.place, it.place.with_due(due)))
            }
            Effect::Move { from: (tree, from), .. } => {
                return self.swing_to_copy(family, (tree, kind), prefix, (from, place));
            }
        };
        if stands {
            let inserted = self.families[family.at()].get_mut(Tree::of(kind)).insert(prefix, place);
            debug_assert!(inserted.is_ok(), "room was kept for it");
        } else {
            // What it was to extend expired, or was lost, while it was being written.
            self.shadow(family, prefix, Some(appended.hour));
            self.lanes[class as usize].release(loc, kind);
        }
        events.extend(appended.ticket.map(|ticket| match stands {
            true => Event::Stored { ticket },
            false => Event::Refused { ticket },
        }));
    }

    /// A record is not on its way any more.
    fn end_append(&mut self, appended: &Appended) {
        self.unlock(appended.family, appended.prefix);
        match appended.effect {
            Effect::Move { by: Mover::Compaction, .. } => self.note_copied(),
            Effect::Move { by: Mover::Scrub, .. } => {}
            Effect::Replace(_) | Effect::Extend(_) => {
                self.entries_under_way -= 1;
                self.compactor.pace.observe(self.now_us.saturating_sub(appended.at_us));
            }
        }
    }

    /// A record will never be durable.
    pub(super) fn refuse(&mut self, class: Class, (first, last): (Lsn, Lsn), events: &mut Vec<Event>) {
        while let Some(appended) =
            self.appended[class as usize].pop_front_if(|it| (first..=last).contains(&it.lsn))
        {
            self.end_append(&appended);
            if appended.ticket.is_some() {
                self.shadow(appended.family, appended.prefix, Some(appended.hour));
            }
            events.extend(appended.ticket.map(|ticket| Event::Refused { ticket }));
        }
    }

    /// Takes an entry out of the index and tells its lane that the record is dead. Does nothing if it is not
    /// there any more.
    pub(super) fn kill(&mut self, family: Family, tree: Tree, prefix: Prefix, place: Place) {
        if self.families[family.at()].get_mut(tree).remove(prefix, place) {
            let (class, loc) = unpack(place);
            self.lanes[class as usize].release(loc, tree.counted_as(family));
        }
    }
}
