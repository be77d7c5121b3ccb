//! Finding records: what is there of a key before it is changed, and reading one whole.

use std::ops::Range;

use crate::buffer::AlignedBuf;
use crate::format::record::{Kind, RECORD_HEADER_BYTES};
use crate::index::{Entry, Place, Prefix};
use crate::io::{BLOCK_BYTES, Errno};
use crate::keyed::family::Tree;
use crate::keyed::payload::{HEAD_BYTES, Head, Payload};
use crate::keyed::place::unpack;
use crate::keyed::{Class, Event, Family, Identity, InFlight, KeyedStore, LostReason, Ticket, seconds_of};
use crate::lane::RecordLoc;

/// Bytes of a buffer in which the head of any record can be read.
pub(super) const HEAD_BUFFER_BYTES: usize = 2 * BLOCK_BYTES;

/// The right to change one key. Nobody else changes it, or another key that begins with the same 8 bytes,
/// until the hold is spent or given back with [`KeyedStore::release`].
#[derive(Debug)]
#[must_use = "a hold that is neither spent nor released keeps its key for ever"]
pub struct Hold {
    identity: Identity,
}

impl Hold {
    /// What it is on.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// What there is of an identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// The record.
    pub live: Option<Found>,
    /// The lease that lengthened its life.
    pub lease: Option<Found>,
    /// What overrules an earlier one.
    pub tombstone: Option<Found>,
}

/// One record of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its owner's sequence number.
    pub sequence: u64,
    /// End of its life, in seconds since 1970.
    pub expires_s: u32,
    /// BLAKE3 of its body.
    pub root: [u8; 32],
    pub(super) place: Place,
    /// When it is let go, in seconds since 1970; it may be kept longer than it lives, for what it overrules.
    kept_until_s: u32,
    pub(super) serial: u64,
    birth: u64,
}

impl Existing {
    /// When the last of it expires, in seconds since 1970; 0 if there is nothing.
    pub fn expires_s(&self) -> u32 {
        self.each().map(|(_, found)| found.expires_s).max().unwrap_or(0)
    }

    pub(super) fn kept_until_s(&self) -> u32 {
        self.each().map(|(_, found)| found.kept_until_s).max().unwrap_or(0)
    }

    /// Since when there has been something of the identity; `None` if there is nothing.
    pub(super) fn birth(&self) -> Option<u64> {
        self.each().map(|(_, found)| found.birth).min()
    }

    pub(super) fn places(&self) -> impl Iterator<Item = (Tree, Place)> {
        self.each().map(|(tree, found)| (tree, found.place))
    }

    fn each(&self) -> impl Iterator<Item = (Tree, Found)> {
        let marks = [self.lease, self.tombstone].into_iter().flatten().map(|found| (Tree::Marks, found));
        self.live.map(|found| (Tree::Live, found)).into_iter().chain(marks)
    }

    /// Notes one more; of two in one role the later counts, and the earlier is returned.
    fn note(&mut self, tree: Tree, found: Found, kind: Kind) -> Option<Found> {
        let slot = self.slot(tree, kind);
        match *slot {
            Some(there) if there.serial >= found.serial => Some(found),
            there => slot.replace(found).and(there),
        }
    }

    /// Forgets what is not there any more.
    fn retain(&mut self, is_there: impl Fn(Tree, Place) -> bool) {
        self.live = self.live.filter(|found| is_there(Tree::Live, found.place));
        self.lease = self.lease.filter(|found| is_there(Tree::Marks, found.place));
        self.tombstone = self.tombstone.filter(|found| is_there(Tree::Marks, found.place));
    }

    /// Where a record of this kind, found in this tree, belongs. An expired one may be kept as a tombstone.
    fn slot(&mut self, tree: Tree, kind: Kind) -> &mut Option<Found> {
        match (tree, kind) {
            (Tree::Live, _) => &mut self.live,
            (Tree::Marks, Kind::Lease) => &mut self.lease,
            (Tree::Marks, _) => &mut self.tombstone,
        }
    }
}

/// How [`KeyedStore::begin`] ended.
#[derive(Debug)]
pub enum Begun {
    /// The key is held.
    Held(Hold),
    /// Something must be read first; [`Event::Held`] or [`Event::LookupFailed`] comes with this ticket.
    Reading(Ticket),
}

/// Why a key could not be looked up. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Someone else changes it, or all buffers are in use.
    #[error("the key is being changed, or too many are looked up; try again when something has completed")]
    Busy,
    /// There is no record of this key.
    #[error("there is no record of this key")]
    Absent,
    /// The buffer cannot hold the record.
    #[error("reading this record needs a buffer of {needed} bytes; the one given has {given}")]
    BufferTooSmall {
        /// Bytes the blocks take.
        needed: usize,
        /// Bytes of the buffer.
        given: usize,
    },
}

/// A record in the buffer that it was read into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its head.
    pub head: Head,
    /// From this hour since 1970 on it is gone; `None` if that is far away.
    pub gone_from_hour: Option<u64>,
    card: Range<usize>,
    lease: Range<usize>,
    body: Range<usize>,
}

impl Read {
    fn new(buf: &[u8], payload: &Payload<'_>, gone_from_hour: Option<u64>) -> Self {
        let within = |part: &[u8]| {
            let start = part.as_ptr().addr() - buf.as_ptr().addr();
            start..start + part.len()
        };
        let (card, lease, body) = (within(payload.card), within(payload.lease), within(payload.body));
        Self { head: payload.head, gone_from_hour, card, lease, body }
    }

    /// The card. `buf` is the buffer that came with the event.
    pub fn card<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        &buf[self.card.clone()]
    }

    /// The lease that was put with it.
    pub fn lease<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        &buf[self.lease.clone()]
    }

    /// The shard, or the record.
    pub fn body<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        &buf[self.body.clone()]
    }
}

/// How a read of a record ended.
#[derive(Debug)]
pub enum Got {
    /// Here it is.
    Record(Box<Read>),
    /// There is none of this key.
    Absent,
    /// There may have been one: a record whose key begins alike is damaged. It is named in [`Event::Lost`].
    Lost,
    /// The disk did not give it. It stays in the index.
    Unreadable(Errno),
    /// It became larger while it was looked for: ask again with a buffer of this many bytes.
    BufferTooSmall(usize),
}

/// Why a key cannot be held now.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are the larger one")]
pub(super) enum Lock {
    /// Someone has it: this is there of it.
    Held(Existing),
    /// So many records of it are being copied.
    Moving(u32),
}

/// A read in flight.
#[derive(Debug)]
pub(super) struct Reading {
    ticket: Ticket,
    identity: Identity,
    /// What is being read.
    at: (Tree, Place),
    /// Read once and found damaged.
    again: bool,
    purpose: Purpose,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "boxed as a whole while in flight")]
enum Purpose {
    /// Heads of all that begins like the key.
    Lookup { seen: Vec<(Tree, Place)>, existing: Existing },
    /// The whole record; places that are other keys' or lost.
    Get { not_it: Vec<Place>, lost: bool },
}

impl KeyedStore {
    /// Takes hold of a key. At once if nothing begins like it, otherwise when that was read.
    pub fn begin(&mut self, identity: Identity) -> Result<Begun, LookupError> {
        let (family, prefix) = (identity.family, identity.prefix());
        if self.locks.contains_key(&(family, prefix)) {
            return Err(LookupError::Busy);
        }
        let existing = Existing::default();
        let Some(at) = self.next_alike(&identity, &[]) else {
            self.locks.insert((family, prefix), Lock::Held(existing));
            return Ok(Begun::Held(Hold { identity }));
        };
        let buf = self.head_buffers.pop().ok_or(LookupError::Busy)?;
        self.locks.insert((family, prefix), Lock::Held(existing));
        let ticket = self.next_ticket();
        let purpose = Purpose::Lookup { seen: Vec::new(), existing };
        self.start_read(Reading { ticket, identity, at, again: false, purpose }, buf);
        Ok(Begun::Reading(ticket))
    }

    /// What there is of the key that is held.
    pub fn existing(&self, hold: &Hold) -> Existing {
        let key = (hold.identity.family, hold.identity.prefix());
        match self.locks.get(&key) {
            Some(Lock::Held(existing)) => *existing,
            Some(Lock::Moving(_)) | None => Existing::default(),
        }
    }

    /// Gives a hold back without changing anything.
    pub fn release(&mut self, hold: Hold) {
        self.unlock(hold.identity.family, hold.identity.prefix());
    }

    pub(super) fn unlock(&mut self, family: Family, prefix: Prefix) {
        match self.locks.get_mut(&(family, prefix)) {
            Some(Lock::Moving(copies)) if *copies > 1 => *copies -= 1,
            Some(_) => {
                self.locks.remove(&(family, prefix));
            }
            None => debug_assert!(false, "a lock is taken away once"),
        }
    }

    /// Keeps a key from being changed while a record of it is copied; false if it is held.
    pub(super) fn lock_to_move(&mut self, family: Family, prefix: Prefix) -> bool {
        match self.locks.entry((family, prefix)).or_insert(Lock::Moving(0)) {
            Lock::Moving(copies) => {
                *copies += 1;
                true
            }
            Lock::Held(_) => false,
        }
    }

    /// Reads the record of an identity into `buf`; [`Event::Got`] says how it ended and gives the buffer
    /// back.
    pub fn get(&mut self, identity: Identity, buf: AlignedBuf) -> Result<Ticket, (LookupError, AlignedBuf)> {
        let spans = self.living(&identity).map(|place| (unpack(place).1.span_bytes(), place));
        let Some((needed, place)) = spans.max() else { return Err((LookupError::Absent, buf)) };
        let given = buf.len();
        if given < needed {
            return Err((LookupError::BufferTooSmall { needed, given }, buf));
        }
        let ticket = self.next_ticket();
        let purpose = Purpose::Get { not_it: Vec::new(), lost: false };
        self.start_read(Reading { ticket, identity, at: (Tree::Live, place), again: false, purpose }, buf);
        Ok(ticket)
    }

    /// Places of records whose keys begin like this one and that have not expired.
    fn living(&self, identity: &Identity) -> impl Iterator<Item = Place> {
        let live = &self.families[identity.family.at()].live;
        let is_gone = |place: &Place| place.due().hour(live.origin()).is_some_and(|hour| hour <= self.hour);
        live.candidates(identity.prefix()).filter(move |place| !is_gone(place))
    }

    fn start_read(&mut self, reading: Reading, buf: AlignedBuf) {
        let (class, loc) = reading.loc();
        match self.lanes[class as usize].read(loc, buf) {
            Ok((op, request)) => {
                self.outbox.push(request);
                self.in_flight.insert((class, op), InFlight::Record(Box::new(reading)));
            }
            // PANIC: entries of the index point to records of this partition, and buffers were measured.
            Err((error, _)) => unreachable!("an entry of the index cannot be read: {error}"),
        }
    }

    /// The end of a read of a record.
    pub(super) fn end_read(
        &mut self,
        mut reading: Reading,
        result: Result<usize, Errno>,
        buf: AlignedBuf,
        events: &mut Vec<Event>,
    ) {
        let (family, prefix, (tree, place)) =
            (reading.identity.family, reading.identity.prefix(), reading.at);
        // What expired or was replaced while it was being read is of no interest any more.
        let read = match self.families[family.at()].get(tree).holds(prefix, place) {
            true => result.map(|_| self.parse(&reading, &buf)),
            false => Ok(Parsed::Gone),
        };
        if matches!(read, Ok(Parsed::Damaged) | Err(_)) && !reading.again {
            reading.again = true;
            return self.start_read(reading, buf);
        }
        reading.again = false;
        if let Ok(Parsed::Damaged) = read {
            self.lose((family, tree, Entry { prefix, place }), LostReason::Damaged, None, events);
        }
        match reading.purpose {
            Purpose::Lookup { .. } => self.go_on_looking(reading, read, buf, events),
            Purpose::Get { .. } => self.go_on_getting(reading, read, buf, events),
        }
    }

    /// What was read.
    fn parse(&self, reading: &Reading, buf: &[u8]) -> Parsed {
        match reading.purpose {
            Purpose::Lookup { .. } => self.parse_head(reading, buf),
            Purpose::Get { .. } => self.parse_whole(reading, buf),
        }
        .filter(|parsed| match parsed {
            Parsed::Head(head) => reading.is_alike(head),
            Parsed::Whole(read) => reading.is_alike(&read.head),
            Parsed::Damaged | Parsed::Gone => true,
        })
        .unwrap_or(Parsed::Damaged)
    }

    /// The checksum of a head says that it is one, not that it is the one of this place.
    fn parse_head(&self, reading: &Reading, buf: &[u8]) -> Option<Parsed> {
        let (class, loc) = unpack(reading.at.1);
        let lane = &self.lanes[class as usize];
        let is_whole = loc.span_bytes() <= reading.loc().1.span_bytes();
        let belongs = if is_whole { lane.parse_read(loc, buf).is_ok() } else { lane.may_begin(loc, buf) };
        let start = loc.offset as usize % BLOCK_BYTES;
        let head = Head::of_record(buf.get(start..)?).filter(|_| belongs);
        head.map(Parsed::Head)
    }

    fn parse_whole(&self, reading: &Reading, buf: &[u8]) -> Option<Parsed> {
        let (class, loc) = reading.loc();
        let record = self.lanes[class as usize].parse_read(loc, buf).ok()?;
        let payload = Payload::parse(&record)?;
        let live = &self.families[reading.identity.family.at()].live;
        let gone_from_hour = reading.at.1.due().hour(live.origin());
        Some(Parsed::Whole(Box::new(Read::new(buf, &payload, gone_from_hour))))
    }

    fn go_on_looking(
        &mut self,
        mut reading: Reading,
        read: Result<Parsed, Errno>,
        buf: AlignedBuf,
        events: &mut Vec<Event>,
    ) {
        let (identity, ticket, (tree, place)) = (reading.identity, reading.ticket, reading.at);
        let (family, prefix) = (identity.family, identity.prefix());
        let Purpose::Lookup { seen, existing } = &mut reading.purpose else { return };
        match read {
            Err(errno) => {
                self.head_buffers.push(buf);
                self.unlock(family, prefix);
                return events.push(Event::LookupFailed { ticket, errno });
            }
            Ok(Parsed::Head(head)) if head.identity == identity => {
                let due = place.due().hour(self.families[family.at()].get(tree).origin());
                let older = existing.note(tree, Found::new(&head, place, due), head.kind);
                older.into_iter().for_each(|older| self.kill(family, tree, prefix, older.place));
            }
            Ok(_) => {}
        }
        seen.push((tree, place));
        if let Some(next) = self.next_alike(&identity, seen) {
            reading.at = next;
            return self.start_read(reading, buf);
        }
        existing.retain(|tree, place| self.families[family.at()].get(tree).holds(prefix, place));
        self.locks.insert((family, prefix), Lock::Held(*existing));
        self.head_buffers.push(buf);
        events.push(Event::Held { ticket, hold: Hold { identity } });
    }

    fn go_on_getting(
        &mut self,
        mut reading: Reading,
        read: Result<Parsed, Errno>,
        buf: AlignedBuf,
        events: &mut Vec<Event>,
    ) {
        let (identity, ticket) = (reading.identity, reading.ticket);
        let Purpose::Get { not_it, lost } = &mut reading.purpose else { return };
        let got = match read {
            Err(errno) => Some(Got::Unreadable(errno)),
            Ok(Parsed::Whole(read)) if read.head.identity == identity => Some(Got::Record(read)),
            Ok(parsed) => {
                *lost |= matches!(parsed, Parsed::Damaged);
                None
            }
        };
        if let Some(got) = got {
            return events.push(Event::Got { ticket, got, buf });
        }
        not_it.push(reading.at.1);
        let next = self.living(&identity).find(|place| !not_it.contains(place));
        let got = match next.map(|place| (place, unpack(place).1.span_bytes())) {
            Some((place, needed)) if needed <= buf.len() => {
                reading.at.1 = place;
                return self.start_read(reading, buf);
            }
            Some((_, needed)) => Got::BufferTooSmall(needed),
            None if *lost => Got::Lost,
            None => Got::Absent,
        };
        events.push(Event::Got { ticket, got, buf });
    }

    /// A record or a mark that begins like the key and was not seen yet.
    fn next_alike(&self, identity: &Identity, seen: &[(Tree, Place)]) -> Option<(Tree, Place)> {
        let trees = &self.families[identity.family.at()];
        Tree::ALL.into_iter().find_map(|tree| {
            let mut places = trees.get(tree).candidates(identity.prefix()).map(|place| (tree, place));
            places.find(|at| !seen.contains(at))
        })
    }
}

/// What was read at a place.
enum Parsed {
    Head(Head),
    Whole(Box<Read>),
    /// No record whose key begins as it should.
    Damaged,
    /// The index does not point there any more.
    Gone,
}

impl Found {
    fn new(head: &Head, place: Place, due_hour: Option<u64>) -> Self {
        let Head { sequence, expires_s, root, serial, birth, .. } = *head;
        let kept_until_s = expires_s.max(due_hour.map_or(0, seconds_of));
        Self { sequence, expires_s, root, place, kept_until_s, serial, birth }
    }
}

impl Reading {
    /// True if a record belongs where it was found.
    fn is_alike(&self, head: &Head) -> bool {
        let is_of_family = head.kind == head.identity.family.kind();
        head.prefix() == self.identity.prefix()
            && head.identity.family == self.identity.family
            && (self.at.0 == Tree::Marks || is_of_family)
    }

    /// What to read of it.
    fn loc(&self) -> (Class, RecordLoc) {
        let (class, loc) = unpack(self.at.1);
        match self.purpose {
            Purpose::Get { .. } => (class, loc),
            Purpose::Lookup { .. } => {
                let len = (RECORD_HEADER_BYTES + HEAD_BYTES) as u32;
                (class, RecordLoc { len, ..loc })
            }
        }
    }
}
