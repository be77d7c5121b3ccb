//! A second look at a partition that no node has open: everything on disk once more, and whether it agrees
//! with what [`KeyedStore::restore`] made of it.
//!
//! **What is independent of restore** is nearly everything: batches are found and verified here, records of
//! one identity are told apart by the whole key instead of a tag, and what counts of them is worked out anew.
//! What it takes from there is which segments are in use and where each ends, and it reads blocks with the
//! same reader.
//!
//! **Promise.** Every record that restore could have found is counted. Of every live one the root is
//! compared. Of every damaged one whose head can be read it is said whose it is, unless a later record of the
//! same identity makes it worthless. Nothing is written.
//!
//! **Failure model.** Blocks that cannot be read count as zeros. Memory grows with the records in the log, 64
//! bytes each. Called by the offline tools.

use std::cmp::Ordering;

use crate::checksum::crc32c;
use crate::format::Place as Use;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::format::record::{
    Kind, RECORD_HEADER_BYTES, RecordView, parse_bound, record_bytes, record_stride, walk,
};
use crate::format::segment::SegmentHeader;
use crate::format::{BATCH_BYTES_MAX, Incarnation};
use crate::index::{Due, Fingerprint, Prefix};
use crate::io::{BLOCK_BYTES, Errno, SegmentId, Volume};
use crate::keyed::family::Tree;
use crate::keyed::payload::{HEAD_BYTES, Head, Payload};
use crate::keyed::place::{pack, padding};
use crate::keyed::{Class, Family, Identity, KeyedStore, LostReason, hour_of};
use crate::lane::RecordLoc;
use crate::recovery::reader::Reader;

/// Losses that are named; more are counted.
const LOST_MAX: usize = 1 << 16;
/// Bytes that may be checksummed in a damaged range, in multiples of its length.
const EFFORT: usize = 16;
/// Records begin at multiples of this many bytes.
const RECORD_STEP: usize = 64;

/// What is there of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilySum {
    /// Count and sum of what lives.
    pub live: Fingerprint,
    /// Count and sum of tombstones, of what serves as such, and of leases.
    pub marks: Fingerprint,
}

/// A record that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLoss {
    /// Whose it was.
    pub identity: Identity,
    /// What it was.
    pub kind: Kind,
    /// Lane in which it lies.
    pub class: Class,
    /// Segment in which it lies.
    pub segment: SegmentId,
    /// Where it begins in there, in bytes.
    pub offset: u32,
    /// Why it is lost.
    pub reason: LostReason,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Audit {
    /// By the log, in the order of [`Family::ALL`].
    pub families: [FamilySum; Family::ALL.len()],
    /// Batches that are as they were written.
    pub batches: u64,
    /// Sound records, dead ones included.
    pub records: u64,
    /// Live records whose body was compared with their root.
    pub roots: u64,
    /// Live records that are lost and can be named, at most 65,536.
    pub lost: Vec<AuditLoss>,
    /// Those beyond.
    pub lost_unlisted: u64,
    /// Records that are damaged and whose heads can be read, worthless ones included.
    pub damaged: u64,
}

/// A sound record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    identity: Identity,
    serial: u64,
    kind: Kind,
    extends: u64,
    hour: u64,
}

impl Word {
    fn of(head: &Head) -> Self {
        let extends = if head.kind == Kind::Lease { head.extends() } else { 0 };
        let (identity, serial, kind) = (head.identity, head.serial, head.kind);
        Self { identity, serial, kind, extends, hour: hour_of(head.expires_s) }
    }
}

/// The segment that is being read.
#[derive(Clone, Copy)]
struct Segment {
    class: Class,
    place: Use,
    end: u32,
}

struct Auditor<'s, 'v> {
    store: &'s KeyedStore,
    reader: Reader<'v>,
    words: Vec<Word>,
    /// Damaged records that can be named, with their serials.
    candidates: Vec<(AuditLoss, Word)>,
    out: Audit,
}

impl KeyedStore {
    /// What the index says of each family, to be compared with [`Audit::families`].
    pub fn sums(&self) -> [FamilySum; Family::ALL.len()] {
        Family::ALL.map(|family| {
            let trees = &self.families[family.at()];
            let sum = |tree| trees.get(tree).fingerprint(Prefix::MIN, Prefix::MAX);
            FamilySum { live: sum(Tree::Live), marks: sum(Tree::Marks) }
        })
    }

    /// Reads everything once more. To be called on what was just restored from the same volume.
    pub fn audit(&self, volume: &dyn Volume) -> Audit {
        let mut out = Audit::default();
        let (mut words, mut candidates) = (Vec::new(), Vec::new());
        for class in Class::ALL {
            let reader = Reader::new(volume, class.lane(self.config.partition));
            let mut auditor = Auditor { store: self, reader, words, candidates, out };
            let sealed: Vec<_> = self.lanes[class as usize].sealed().collect();
            for it in sealed {
                auditor.read_segment(class, it.segment, it.incarnation, it.end);
            }
            Auditor { words, candidates, out, .. } = auditor;
        }
        words.sort_unstable();
        for (loss, damaged) in candidates {
            if !is_worthless(&words, &damaged, self.hour) {
                out.lose(loss);
            }
        }
        for group in words.chunk_by(|a, b| a.identity == b.identity) {
            out.count(group, self.hour);
        }
        out
    }
}

/// True if a damaged record has expired, or is not the last word of its identity, or not the only copy of it.
fn is_worthless(words: &[Word], damaged: &Word, hour: u64) -> bool {
    let from = words.partition_point(|word| word.identity < damaged.identity);
    let same = || words[from..].iter().take_while(|word| word.identity == damaged.identity);
    let leases = same().filter(|word| word.kind == Kind::Lease && word.extends == damaged.serial);
    let until = leases.map(|lease| lease.hour).fold(damaged.hour, u64::max);
    // A lease says nothing against the record that it extends.
    let overrules = |word: &Word| word.kind != Kind::Lease || damaged.kind == Kind::Lease;
    let is_outdone = |word: &Word| match word.serial.cmp(&damaged.serial) {
        Ordering::Less => false,
        Ordering::Equal => true,
        Ordering::Greater => overrules(word),
    };
    until <= hour || same().any(is_outdone)
}

impl Auditor<'_, '_> {
    fn read_segment(&mut self, class: Class, segment: SegmentId, incarnation: Incarnation, end: u32) {
        let lane = class.lane(self.store.config.partition);
        let place = Use { store: self.store.config.lane.store, lane, segment, incarnation };
        let segment = Segment { class, place, end };
        self.reader.open(segment.place.segment, u64::from(end));
        if end < BLOCK_BYTES as u32 {
            return;
        }
        let front = SegmentHeader::bytes_claimed(self.reader.bytes(0, BLOCK_BYTES));
        let mut offset = front.unwrap_or(BLOCK_BYTES).min(end as usize) as u32;
        while offset < end {
            offset = match self.batch_at(&segment, offset) {
                Some(header) => self.take_batch(&segment, offset, &header),
                None => self.take_damage(&segment, offset),
            };
        }
    }

    /// The header of the batch that begins here.
    fn batch_at(&mut self, segment: &Segment, offset: u32) -> Option<BatchHeader> {
        let (header, _) = BatchHeader::decode(self.reader.bytes(u64::from(offset), BLOCK_BYTES)).ok()?;
        (header.is_at(&segment.place, offset) && header.bytes <= segment.end - offset).then_some(header)
    }

    fn take_batch(&mut self, segment: &Segment, offset: u32, header: &BatchHeader) -> u32 {
        let bytes = header.bytes as usize;
        let batch = self.reader.bytes(u64::from(offset), bytes);
        if crc32c(&batch[BATCH_HEADER_BYTES..]) != header.payload_crc {
            self.salvage(segment, offset, bytes);
            return offset + header.bytes;
        }
        self.out.batches += 1;
        // The reader lends its bytes, and whoever takes a record needs all of this: a copy of one batch.
        let records = batch[BATCH_HEADER_BYTES..][..header.record_bytes as usize].to_vec();
        for (at, record) in walk(&records).take(header.records as usize) {
            let here = offset + (BATCH_HEADER_BYTES + at) as u32;
            let is_bound = parse_bound(&records[at..], here, segment.place.salt()).is_some();
            match Head::decode(record.kind, record.expires_s, record.payload) {
                Some(head) if !is_bound => {
                    self.note_damaged(segment, here, record_bytes(record.payload.len()), &head);
                }
                _ => self.take(segment, here, &record),
            }
        }
        offset + header.bytes
    }

    /// No batch begins here: looks for the next, and in what lies before it for records. Remains of an
    /// earlier use of the file are none.
    fn take_damage(&mut self, segment: &Segment, from: u32) -> u32 {
        let until = segment.end.min(from.saturating_add(BATCH_BYTES_MAX as u32));
        let block = self.reader.bytes(u64::from(from), BLOCK_BYTES);
        let is_stale = BatchHeader::decode(block).is_ok_and(|(header, _)| {
            header.incarnation < segment.place.incarnation
                && header.is_at(&Use { incarnation: header.incarnation, ..segment.place }, from)
        });
        let mut offset = from + BLOCK_BYTES as u32;
        while offset < until && self.batch_at(segment, offset).is_none() {
            offset += BLOCK_BYTES as u32;
        }
        let offset = offset.min(segment.end);
        if !is_stale {
            self.salvage(segment, from, (offset - from) as usize);
        }
        offset
    }

    /// Takes what is sound in a damaged range, and notes what is not and can be named.
    fn salvage(&mut self, segment: &Segment, offset: u32, bytes: usize) {
        let region = self.reader.bytes(u64::from(offset), bytes).to_vec();
        let (mut at, mut effort) = (0, EFFORT * bytes);
        while at + RECORD_HEADER_BYTES + HEAD_BYTES <= bytes && effort > 0 {
            let Some(head) = Head::of_record(&region[at..]) else {
                effort = effort.saturating_sub(HEAD_BYTES);
                at += RECORD_STEP;
                continue;
            };
            let place = offset + at as u32;
            let record = parse_bound(&region[at..], place, segment.place.salt());
            let len = record_bytes_of(&head);
            effort = effort.saturating_sub(len);
            match record {
                Some(record) => {
                    self.take(segment, place, &record);
                    at += record_stride(record.payload.len());
                }
                None => {
                    self.note_damaged(segment, place, len, &head);
                    at += len;
                }
            }
        }
    }

    fn note_damaged(&mut self, segment: &Segment, offset: u32, len: usize, head: &Head) {
        self.out.damaged += 1;
        let first = u64::from(offset) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let span = (u64::from(offset) + len as u64 - first) as usize;
        let reason = match self.reader.is_unreadable(first, span) {
            // What the system said is not kept for each block.
            true => LostReason::Unreadable(Errno(5)),
            false => LostReason::Damaged,
        };
        if self.candidates.len() < LOST_MAX {
            self.candidates.push((loss(segment, offset, head, reason), Word::of(head)));
        }
    }

    /// A sound record: it counts, and if it lives its root does.
    fn take(&mut self, segment: &Segment, offset: u32, record: &RecordView<'_>) {
        let Some(payload) = Payload::parse(record) else { return };
        let head = payload.head;
        self.out.records += 1;
        self.words.push(Word::of(&head));
        let len = record_bytes(record.payload.len()) as u32;
        let loc = RecordLoc { segment: segment.place.segment, offset, len };
        let entry = pack(segment.class, loc, Due::LATER).and_then(|place| self.store.entry_at(&head, place));
        if !matches!(entry, Some((Tree::Live, _))) {
            return;
        }
        self.out.roots += 1;
        if *blake3::hash(payload.body).as_bytes() != head.root {
            self.out.lose(loss(segment, offset, &head, LostReason::RootMismatch));
        }
    }
}

fn loss(segment: &Segment, offset: u32, head: &Head, reason: LostReason) -> AuditLoss {
    let (identity, kind, class) = (head.identity, head.kind, segment.class);
    AuditLoss { identity, kind, class, segment: segment.place.segment, offset, reason }
}

/// Length of the record that a head belongs to, by what the head says.
fn record_bytes_of(head: &Head) -> usize {
    let attached = usize::from(head.card_bytes) + usize::from(head.lease_bytes);
    let payload = HEAD_BYTES + attached + head.body_bytes as usize;
    record_bytes(payload + padding(payload))
}

impl Audit {
    fn lose(&mut self, loss: AuditLoss) {
        if self.lost.len() < LOST_MAX { self.lost.push(loss) } else { self.lost_unlisted += 1 }
    }

    /// Adds what is there at an hour of one identity, whose records come in the order in which they were
    /// taken.
    fn count(&mut self, group: &[Word], hour: u64) {
        let Some(last) = group.last() else { return };
        let of_key = Fingerprint::of(Prefix::of(&last.identity.key));
        let sum = &mut self.families[last.identity.family.at()];
        let until = group.iter().map(|word| word.hour).max().unwrap_or(0);
        let extended = |lease: &Word| {
            group.iter().rfind(|word| !word.kind.is_metadata() && word.serial == lease.extends)
        };
        let live_until = match last.kind {
            Kind::Tombstone => None,
            // Of what is lost, nothing that came before it counts.
            Kind::Lease => extended(last).map(|live| live.hour.max(last.hour)),
            _ => Some(last.hour),
        };
        let is_alive = live_until.is_some_and(|until| until > hour);
        if is_alive {
            sum.live += of_key;
        }
        // A lease beside what lives; a tombstone, or what serves as one, instead of it.
        let has_mark = match (is_alive, last.kind) {
            (true, Kind::Lease) => last.hour > hour,
            (true, _) => false,
            (false, _) => until > hour,
        };
        if has_mark {
            sum.marks += of_key;
        }
    }
}
