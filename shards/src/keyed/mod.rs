//! Records found by key: shards with their cards and leases, DHT records, key bundles, and what overrules
//! them.
//!
//! A [`KeyedStore`] is one *partition*: the keys of one lane of the store's map, owned by one core. It keeps
//! its records in three lanes of its own, one per [`Class`] of remaining life, and an index in memory.
//!
//! **Promise.** What was reported as [`Event::Stored`] is found after any crash, or reported as lost; of two
//! records of one key the one taken later counts; what was deleted does not come back. A record is there
//! until the end of the hour in which it expires, and not after.
//!
//! **How a change runs.** [`KeyedStore::begin`] gives a [`Hold`] on a key, which says what is there; nobody
//! else changes that key meanwhile. [`KeyedStore::put`], [`KeyedStore::delete`] and [`KeyedStore::extend`]
//! spend the hold and append to a lane; when the write is durable the index swings and the event comes.
//!
//! **Why deleted stays deleted.** Dead records are read again at a start for as long as their segment was not
//! used anew. So whatever overrules a record is kept at least as long as that record would have lived: a
//! later record or a tombstone never expires before what it replaces. Once it may go, so may they. That goes
//! for records, too, that the index does not know of and the disk may: refused ones, and damaged ones.
//!
//! **Failure model.** That of [`crate::lane`]. A record that reads wrong twice is taken out of the index and
//! named in [`Event::Lost`]; a key of which that happens can be put again. Everything is read and verified in
//! turns, whether anybody asks for it or not.
//!
//! **Bounds.** Entries, lookups and segments are limited by configuration; nothing grows beyond. Each call
//! does a bounded amount of work.
//!
//! Layout: [`Place`](crate::index::Place) packing in `place`, bytes in `payload`, what is in memory per
//! family of records in `family`, changes in `change`, reading in `read`, the way back after a stop in
//! `restore`, verifying in `scrub` and, for the offline tools, in `audit`.

mod audit;
mod capacity;
mod change;
mod checkpoint;
mod class;
mod compact;
mod family;
mod pace;
mod payload;
mod place;
mod read;
mod restore;
mod scrub;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::buffer::AlignedBuf;
use crate::format::Lsn;
use crate::index::{Due, Entry, Fingerprint, Prefix};
use crate::io::{DiskDone, DiskOp, Errno, OpId};
use crate::lane::{Completion, Lane, RecordLoc, Usage};
use change::Appended;
use checkpoint::writer::Checkpointer;
use compact::Compactor;
use family::{Tree, Trees};
use read::{Lock, Reading};
use scrub::Scrubber;

pub use audit::{Audit, AuditLoss, FamilySum};
pub use capacity::{Capacity, CapacityState};
pub use change::{ChangeError, NewRecord};
pub use class::Class;
pub use family::{Family, Identity};
pub use payload::{HEAD_BYTES, Head, Payload};
pub use place::SEGMENT_BYTES_MAX;
pub use read::{Begun, Existing, Found, Got, Hold, LookupError, Read};
pub use restore::{KeyedConfig, RestoreError, Restored};
pub use scrub::{KnownLost, LostReason, SCRUB_WITHIN_S, ScrubProgress};

/// Entries that one turn lets expire, at most.
const EXPIRED_PER_POLL: usize = 256;

/// Names a lookup, a read or a change until its event comes. Unique in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Something ended.
#[derive(Debug)]
pub enum Event {
    /// What the index knew of a key was read; the key is held now.
    Held {
        /// Of the lookup.
        ticket: Ticket,
        /// To be spent or released.
        hold: Hold,
    },
    /// The disk did not say what there is of the key; it is not held.
    LookupFailed {
        /// Of the lookup.
        ticket: Ticket,
        /// Of the second attempt.
        errno: Errno,
    },
    /// A change is durable.
    Stored {
        /// Of the change.
        ticket: Ticket,
    },
    /// A change did not take place: its lane is read-only, or what it was to extend has expired meanwhile.
    /// The key is as it was. After a restart the change may be there nevertheless, whole: what a disk does
    /// with a write that it reports as failed is not known.
    Refused {
        /// Of the change.
        ticket: Ticket,
    },
    /// A read ended.
    Got {
        /// Of the read.
        ticket: Ticket,
        /// What was found.
        got: Got,
        /// The caller's buffer; the parts of a record are in it.
        buf: AlignedBuf,
    },
    /// A record that the index pointed to is lost, and was taken out of the index. To be fetched from another
    /// node and put again. [`KeyedStore::known_lost`] has it, too.
    Lost(KnownLost),
    /// Operations in many places failed within a short time: it is the device, not a bad spot on it. At most
    /// one in ten minutes, for as long as it goes on. The owner should tell its operator, take no more shards
    /// here, and see to it that what is here gets another home; reads go on as far as they succeed. Until the
    /// ten minutes are over nothing is verified, and nothing that cannot be read is given up: a cable that
    /// comes loose must not empty the index.
    DeviceFailing {
        /// How many failed.
        failures: u32,
        /// The last of them.
        errno: Errno,
    },
    /// A checkpoint could not be written. Nothing is lost; the next start takes longer. To be counted.
    CheckpointTrouble {
        /// How.
        errno: Errno,
    },
    /// A write failed, a segment could not be made, or a piece of one not be read; the lane goes on as
    /// [`Completion`] says. To be counted.
    DiskTrouble {
        /// Where.
        class: Class,
        /// How.
        errno: Errno,
    },
}

/// One partition of keyed records. Made by [`KeyedStore::restore`].
#[derive(Debug)]
pub struct KeyedStore {
    config: KeyedConfig,
    lanes: [Lane; Class::ALL.len()],
    families: [Trees; Family::ALL.len()],
    /// Keys that are held or whose records are being copied, by their prefix.
    locks: HashMap<(Family, Prefix), Lock>,
    /// Records on their way to the disk, in the order of their lane.
    appended: [VecDeque<Appended>; Class::ALL.len()],
    /// Keys of records that may come back at a restart although the index does not point to them, because
    /// they were refused or found damaged, and the hour until which that is so. What replaces them lives as
    /// long.
    shadows: HashMap<(Family, Prefix), u64>,
    /// Entries that records on their way will add.
    entries_under_way: u64,
    in_flight: HashMap<(Class, OpId), InFlight>,
    head_buffers: Vec<AlignedBuf>,
    outbox: Vec<DiskOp>,
    /// What one completion made durable; empty in between.
    committed: Vec<(Lsn, RecordLoc)>,
    /// Given to the record taken last.
    serial: u64,
    tickets: u64,
    compactor: Compactor,
    checkpointer: Checkpointer,
    /// Room for a run of a checkpoint.
    checkpoint_scratch: Vec<u8>,
    scrubber: Scrubber,
    state: CapacityState,
    /// [`KeyedStore::begin_shutdown`] was called.
    is_closing: bool,
    /// Monotonic, as told last.
    now_us: u64,
    /// Hours since 1970, as told last.
    hour: u64,
}

/// What a read in flight is for.
#[derive(Debug)]
enum InFlight {
    /// One record, or its head.
    Record(Box<Reading>),
    /// A piece of a segment that is being emptied.
    Compaction,
    /// A piece of a segment, or a record, that is being verified.
    Scrub,
}

/// The hour from which a record that expires then is gone.
fn hour_of(expires_s: u32) -> u64 {
    u64::from(expires_s).div_ceil(3_600)
}

/// The end of an hour's life in seconds since 1970, as far as they can be counted.
fn seconds_of(hour: u64) -> u32 {
    u32::try_from(hour.saturating_mul(3_600)).unwrap_or(u32::MAX)
}

impl KeyedStore {
    /// Emits the operations that are due and lets records expire. To be called once at the end of each turn.
    /// `now_us` is monotonic, `now_s` the wall clock in seconds since 1970.
    pub fn poll(&mut self, now_us: u64, now_s: u64, out: &mut Vec<DiskOp>) {
        self.now_us = now_us;
        if now_s / 3_600 > self.hour {
            self.hour = now_s / 3_600;
            self.shadows.retain(|_, until| *until > self.hour);
        }
        self.expire();
        self.update_state();
        self.compact(now_us);
        self.scrub(now_us, now_s);
        self.write_checkpoint();
        self.close_lanes();
        for class in Class::ALL {
            let free = self.free_segments();
            let lane = &mut self.lanes[class as usize];
            lane.limit_segments(lane.segment_count() + free);
            lane.poll(now_us, out);
        }
        let free = self.free_segments();
        let lane = &mut self.checkpointer.lane;
        lane.limit_segments(lane.segment_count() + free);
        lane.poll(now_us, out);
        out.append(&mut self.outbox);
    }

    /// When [`KeyedStore::poll`] must be called next even if nothing happens, in monotonic microseconds; a
    /// time in the past if at once.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.has_expired() || self.checkpointer.can_go_on() {
            return Some(0);
        }
        let lanes = self.lanes.iter().chain([&self.checkpointer.lane]).filter_map(Lane::next_deadline);
        lanes.chain(self.compactor.next_us()).chain(self.scrub_next_us()).min()
    }

    /// Takes the end of an operation of one of its lanes; what it meant is added to `events`.
    ///
    /// # Panics
    /// If it is of no lane of this partition.
    pub fn complete(&mut self, now_us: u64, done: DiskDone, events: &mut Vec<Event>) {
        if done.lane == checkpoint::lane(self.config.partition) {
            return self.complete_checkpoint(now_us, done, events);
        }
        let class = Class::of_lane(done.lane).filter(|class| class.lane(self.config.partition) == done.lane);
        let Some(class) = class else { panic!("lane {} is not of this partition", done.lane.0) };
        self.now_us = now_us;
        if let Err(errno) = done.result {
            self.note_failure(class, done.op, errno, events);
        }
        let mut committed = std::mem::take(&mut self.committed);
        let lane = &mut self.lanes[class as usize];
        let completion = lane.complete(now_us, done, |record| committed.push((record.lsn, record.loc)));
        committed.drain(..).for_each(|(lsn, loc)| self.apply(class, lsn, loc, events));
        self.committed = committed;
        match completion {
            Completion::Refused { first, last, errno } => {
                self.refuse(class, (first, last), events);
                events.push(Event::DiskTrouble { class, errno });
            }
            Completion::WriteFailed(errno) | Completion::PrepareFailed(errno) => {
                events.push(Event::DiskTrouble { class, errno });
            }
            Completion::Read { op, result, buf: Some(buf) } => match self.in_flight.remove(&(class, op)) {
                Some(InFlight::Record(reading)) => self.end_read(*reading, result, buf, events),
                Some(InFlight::Compaction) => self.end_piece(result, buf, events),
                Some(InFlight::Scrub) => self.end_scrub(class, result, buf, events),
                // PANIC: every read that a lane knows of was begun here.
                None => unreachable!("{class:?} read for nobody"),
            },
            // PANIC: the border to the machine gives every buffer back and ends what was begun, once.
            Completion::Read { buf: None, .. } => unreachable!("a read came back without its buffer"),
            Completion::Unknown(done) => unreachable!("{class:?} has no operation {:?}", done.op),
            Completion::Committed { .. } | Completion::Housekeeping | Completion::Prepared(_) => {}
        }
    }

    /// The entries of a family whose keys begin between `from` and `to`, both included, in order. Taking the
    /// first costs a search; to go on later, begin after the last prefix seen.
    pub fn entries_of(&self, family: Family, from: Prefix, to: Prefix) -> impl Iterator<Item = Entry> {
        self.families[family.at()].live.range(from, to)
    }

    /// Count and sum of the live records of a family whose keys begin between `from` and `to`, both included.
    pub fn fingerprint(&self, family: Family, from: Prefix, to: Prefix) -> Fingerprint {
        self.families[family.at()].live.fingerprint(from, to)
    }

    /// Records and marks in the index.
    pub fn entries(&self) -> u64 {
        self.families.iter().map(Trees::len).sum()
    }

    /// Memory of the index, in bytes.
    pub fn index_bytes(&self) -> usize {
        let trees = self.families.iter();
        trees.map(|trees| trees.live.heap_bytes() + trees.marks.heap_bytes()).sum()
    }

    /// Bytes that compaction copied since the start.
    pub fn compacted_bytes(&self) -> u64 {
        self.compactor.copied_bytes
    }

    /// Bytes per second that compaction may read and copy now.
    pub fn compaction_rate(&self) -> u64 {
        self.compactor.pace.rate()
    }

    /// How full the lane of a class is.
    pub fn usage(&self, class: Class) -> Usage {
        self.lanes[class as usize].usage()
    }

    /// How full the lane of checkpoints is.
    pub fn checkpoint_usage(&self) -> Usage {
        self.checkpointer.lane.usage()
    }

    /// Checkpoints that could not be finished since the start. Nothing is lost by that.
    pub fn checkpoints_abandoned(&self) -> u64 {
        self.checkpointer.abandoned
    }

    /// Asks to finish: no more changes; what was taken is written, then a checkpoint. Go on with
    /// [`KeyedStore::poll`] and [`KeyedStore::complete`] until [`KeyedStore::is_drained`].
    pub fn begin_shutdown(&mut self) {
        if !std::mem::replace(&mut self.is_closing, true) {
            self.scrubber.stop();
            self.checkpointer.want();
        }
    }

    /// True if shutdown was asked for and nothing is left to do or in flight.
    pub fn is_drained(&self) -> bool {
        let mut lanes = self.lanes.iter().chain([&self.checkpointer.lane]);
        self.outbox.is_empty() && self.in_flight.is_empty() && lanes.all(Lane::is_drained)
    }

    fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Segments that no lane has, of those that the partition may have.
    fn free_segments(&self) -> u32 {
        let lanes = self.lanes.iter().chain([&self.checkpointer.lane]);
        self.config.segments_max.saturating_sub(lanes.map(Lane::segment_count).sum())
    }

    /// Shuts the lanes down when the last checkpoint is written.
    fn close_lanes(&mut self) {
        if self.is_closing && !self.checkpointer.has_work() {
            self.lanes.iter_mut().chain([&mut self.checkpointer.lane]).for_each(Lane::begin_shutdown);
        }
    }

    fn has_expired(&self) -> bool {
        let mut trees = self.families.iter().flat_map(|trees| Tree::ALL.map(|tree| trees.get(tree)));
        trees.any(|tree| tree.due_by(self.hour).is_some())
    }

    /// Takes an entry out that is due. If something that it overrules may come back, it becomes a tombstone.
    fn let_go(&mut self, family: Family, tree: Tree, entry: Entry) {
        let Entry { prefix, place } = entry;
        let until =
            self.shadows.get(&(family, prefix)).filter(|until| tree == Tree::Live && **until > self.hour);
        if let Some(until) = until {
            let (class, loc) = place::unpack(place);
            let marks = &mut self.families[family.at()].marks;
            let due = Due::of_hour(*until, marks.origin());
            let inserted = marks.insert(prefix, place.with_due(due));
            debug_assert!(inserted.is_ok(), "it was counted before");
            self.lanes[class as usize].adopt(loc, Tree::Marks.counted_as(family));
        }
        self.kill(family, tree, prefix, place);
    }

    /// Takes out what is due.
    fn expire(&mut self) {
        let mut budget = EXPIRED_PER_POLL;
        for family in Family::ALL {
            for tree in Tree::ALL {
                let index = self.families[family.at()].get_mut(tree);
                index.set_origin(self.hour);
                while budget > 0
                    && let Some(entry) = self.families[family.at()].get(tree).due_by(self.hour)
                {
                    self.let_go(family, tree, entry);
                    budget -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
impl KeyedStore {
    /// Lane and length of everything that the index points to.
    fn live_bytes_by_index(&self) -> impl Iterator<Item = (Class, u64)> {
        let trees = self.families.iter().flat_map(|trees| Tree::ALL.map(|tree| trees.get(tree)));
        let places = trees.flat_map(|tree| tree.range(Prefix::MIN, Prefix::MAX)).map(|entry| entry.place);
        places.map(|place| (place::unpack(place).0, u64::from(place::unpack(place).1.len)))
    }
}
