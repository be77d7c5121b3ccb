//! Verifying what was read of a segment.

use std::ops::Range;

use crate::format::record::{Kind, RecordView};
use crate::index::{Due, Entry, Place, Prefix};
use crate::io::{BLOCK_BYTES, Errno};
use crate::keyed::family::Tree;
use crate::keyed::payload::{Head, Payload};
use crate::keyed::place::pack;
use crate::keyed::scrub::{GIVE_WAY_US, Suspect, Target};
use crate::keyed::{Class, Event, Family, InFlight, KeyedStore, hour_of};
use crate::lane::{BatchView, RecordLoc};

/// Records of a batch that one step looks at.
const RECORDS_PER_STEP: usize = 256;
/// Damaged ranges of a segment that are told apart; what comes after widens the last.
const RANGES_MAX: usize = 64;
/// In each pass the roots of one of so many records are verified.
const ROOTS_PART: u64 = 10;

/// The segment that is being verified.
#[derive(Debug)]
pub(super) struct Current {
    pub target: Target,
    /// Where the next batch is expected; 0 if the header of the segment is.
    pub next: u32,
    /// Verify the root of every record.
    all_roots: bool,
    /// What of the segment is in the buffer.
    loaded: Range<u32>,
    /// Records of the next batch that were looked at.
    checked: usize,
    /// Where something was wrong and was read again.
    again_at: Option<u32>,
    /// Where the damage began in which the next batch is looked for.
    damaged_from: Option<u32>,
    /// Ranges in which no batch is as it should be.
    pub(super) damage: Vec<Range<u32>>,
    /// Those of them, by bits, that cost a record.
    pub(super) hit: u64,
    /// Something of it is lost.
    pub(super) has_lost: bool,
    /// Where in the index the search for what points into a damaged range goes on.
    pub(super) cursor: Option<(Family, Tree, Prefix)>,
    batch_bytes: u32,
}

impl Current {
    /// At the beginning of a segment.
    pub fn new(target: Target, batch_bytes: u32, all_roots: bool) -> Self {
        Self {
            target,
            next: 0,
            all_roots,
            loaded: 0..0,
            checked: 0,
            again_at: None,
            damaged_from: None,
            damage: Vec::new(),
            hit: 0,
            has_lost: false,
            cursor: None,
            batch_bytes,
        }
    }

    /// True if the next batch is in the buffer, however long it is.
    pub fn is_loaded(&self) -> bool {
        let needed = self.batch_bytes.min(self.target.end - self.next);
        self.loaded.start <= self.next && self.loaded.end.saturating_sub(self.next) >= needed
    }

    /// True if nothing can be done before the next piece may be read.
    pub fn waits_for_turn(&self) -> bool {
        self.next < self.target.end && !self.is_loaded() && self.again_at != Some(self.next)
    }

    /// True if something in it was not as it should be and was not dealt with.
    pub fn has_damage(&mut self) -> bool {
        self.end_damage();
        !self.damage.is_empty()
    }

    /// True if something was wrong, and the roots of nine tenths were taken for right.
    pub fn must_be_repeated(&self) -> bool {
        self.has_lost && !self.all_roots
    }

    /// The buffer is used for something else.
    pub fn unload(&mut self) {
        self.loaded = self.next..self.next;
    }

    /// What lies at `next` is not as it should be: to be read once more, and then to be stepped over. `batch`
    /// is the length of the batch if that is known.
    fn doubt(&mut self, batch: Option<u32>) {
        if self.damaged_from.is_none() && self.again_at != Some(self.next) {
            self.again_at = Some(self.next);
            return self.unload();
        }
        if batch.is_some() {
            self.end_damage();
        }
        self.step_over(batch.unwrap_or(BLOCK_BYTES as u32));
        if batch.is_some() {
            self.end_damage();
        }
    }

    fn step_over(&mut self, bytes: u32) {
        self.damaged_from.get_or_insert(self.next);
        self.next = (self.next + bytes).min(self.target.end);
        self.checked = 0;
    }

    /// From `next` on it is as it should be again.
    fn end_damage(&mut self) {
        if let Some(from) = self.damaged_from.take() {
            self.note_damage(from..self.next);
        }
    }

    fn note_damage(&mut self, range: Range<u32>) {
        if self.damage.len() == RANGES_MAX
            && let Some(last) = self.damage.last_mut()
        {
            last.end = last.end.max(range.end);
        } else {
            self.damage.push(range);
        }
    }
}

/// True if the pass with this number verifies the root of a record whose key begins like this.
fn is_of_tenth(prefix: Prefix, pass: u64, salt: u64) -> bool {
    // Prefixes are hashes already; the multiplication is for those that somebody chose.
    let mixed = (prefix.0 ^ prefix.0 >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (mixed + pass % ROOTS_PART + salt % ROOTS_PART).is_multiple_of(ROOTS_PART)
}

impl KeyedStore {
    /// Reads on from the next batch, if it is time.
    pub(super) fn load_piece(&mut self, now_us: u64) -> bool {
        let progress = self.scrubber.progress();
        let it = &mut self.scrubber;
        let (Some(pass), Some(current)) = (&mut it.pass, &mut it.current) else { return false };
        // What is read again is so at once.
        if current.waits_for_turn() {
            if now_us < pass.ready_us(now_us, progress) {
                return false;
            }
            let is_in_the_way = self.compactor.is_working() || self.compactor.pace.is_felt();
            if is_in_the_way && !pass.is_behind(now_us, progress) {
                it.not_before_us = now_us + GIVE_WAY_US;
                return false;
            }
            pass.note_asked(now_us, progress);
        }
        let Some(buf) = it.buf.take() else { return false };
        let Target { class, segment, end, .. } = current.target;
        let bytes = buf.len().min((end - current.next) as usize);
        current.loaded = current.next..current.next + bytes as u32;
        current.checked = 0;
        let start = u64::from(current.next);
        let (op, request) = self.lanes[class as usize].read_blocks(segment, start, bytes, buf);
        self.outbox.push(request);
        self.in_flight.insert((class, op), InFlight::Scrub);
        false
    }

    /// A piece was read, or could not be. One that cannot be read twice is damage as a whole: what lives in
    /// it will be read record by record.
    pub(super) fn end_scrub_piece(
        &mut self,
        class: Class,
        result: Result<usize, Errno>,
        events: &mut Vec<Event>,
    ) {
        let Some(current) = &mut self.scrubber.current else { return };
        let bytes = current.loaded.end - current.loaded.start;
        let errno = match result {
            Ok(read) if read == bytes as usize => return,
            // The file ends before it should.
            Ok(_) => Errno(5),
            Err(errno) => errno,
        };
        events.push(Event::DiskTrouble { class, errno });
        if self.scrubber.trouble.failing_until_us(self.now_us).is_some() {
            return current.unload();
        }
        if current.again_at != Some(current.next) {
            current.again_at = Some(current.next);
        } else {
            current.step_over(bytes);
        }
        current.unload();
    }

    /// Verifies some of what is in the buffer.
    pub(super) fn check_loaded(&mut self) -> bool {
        let it = &mut self.scrubber;
        let (Some(mut current), Some(buf)) = (it.current.take(), it.buf.take()) else { return false };
        let Target { class, segment, end, .. } = current.target;
        let from = (current.next - current.loaded.start) as usize;
        let bytes = &buf[from..(current.loaded.end - current.loaded.start) as usize];
        let lane = &self.lanes[class as usize];
        if current.next == 0 {
            match lane.front_at(segment, bytes) {
                Some(front) => current.next = front.min(end),
                None => current.doubt(None),
            }
        } else {
            match lane.batch_at(segment, current.next, bytes) {
                Some(batch) => self.check_batch(&mut current, &batch),
                None => current.doubt(lane.batch_bytes_at(segment, current.next, bytes)),
            }
        }
        (self.scrubber.current, self.scrubber.buf) = (Some(current), Some(buf));
        true
    }

    /// Looks at some records of a sound batch.
    fn check_batch(&mut self, current: &mut Current, batch: &BatchView<'_>) {
        current.end_damage();
        let mut records = batch.records().skip(current.checked);
        for (loc, record) in records.by_ref().take(RECORDS_PER_STEP) {
            current.checked += 1;
            self.check_record(current, loc, &record);
        }
        if records.next().is_none() {
            current.next = (current.next + batch.bytes).min(current.target.end);
            current.checked = 0;
        }
    }

    /// Looks at one record, if it lives.
    fn check_record(&mut self, current: &mut Current, loc: RecordLoc, record: &RecordView<'_>) {
        let class = current.target.class;
        let Some(head) = Head::decode(record.kind, record.expires_s, record.payload) else {
            // Whose it is only the index can say.
            return current.note_damage(loc.offset..loc.offset + loc.len);
        };
        let Some(place) = pack(class, loc, Due::LATER) else { return };
        let Some((tree, place)) = self.entry_at(&head, place) else { return };
        let (family, prefix) = (head.identity.family, head.prefix());
        let pass = self.scrubber.pass.map_or(0, |pass| pass.number);
        let with_root = current.all_roots || is_of_tenth(prefix, pass, self.scrubber.salt);
        if !is_sound(tree, record, with_root) {
            let entry = Entry { prefix, place };
            return self.scrubber.suspects.push_back(Suspect::new(family, tree, entry, None));
        }
        if place.due() == Due::LATER {
            self.set_due(tree, &head, place);
        }
    }

    /// An entry that was due later than could be said is given the hour that it is due, if that can be said
    /// now.
    fn set_due(&mut self, tree: Tree, head: &Head, place: Place) {
        let (family, prefix) = (head.identity.family, head.prefix());
        // Whoever holds the key knows the entry as it is.
        if self.locks.contains_key(&(family, prefix)) {
            return;
        }
        let trees = &self.families[family.at()];
        let (index, own) = (trees.get(tree), hour_of(head.expires_s));
        let hour = match tree {
            // A lease of the same key, or of one that begins like it, may have lengthened its life.
            Tree::Live => {
                let origin = trees.marks.origin();
                let marks = trees.marks.candidates(prefix);
                marks.map(|mark| mark.due().hour(origin)).try_fold(own, |hour, mark| Some(hour.max(mark?)))
            }
            // A record that serves as a tombstone does so for as long as something else lives.
            Tree::Marks if !head.kind.is_metadata() => None,
            Tree::Marks => self.shadows.get(&(family, prefix)).copied().max(Some(own)),
        };
        let Some(hour) = hour else { return };
        let due = Due::of_hour(hour, index.origin());
        if due != Due::LATER {
            self.families[family.at()].get_mut(tree).swing(prefix, place, place.with_due(due));
        }
    }
}

/// True if a record is what an entry in this tree may point to, with its root if that is asked for.
pub(super) fn is_sound(tree: Tree, record: &RecordView<'_>, with_root: bool) -> bool {
    let Some(payload) = Payload::parse(record) else { return false };
    has_place_in(tree, &payload.head, record.kind) && (!with_root || is_root_right(&payload))
}

/// True if a head is that of its record, and of a kind that belongs in this tree.
pub(super) fn has_place_in(tree: Tree, head: &Head, kind: Kind) -> bool {
    head.kind == kind && (tree == Tree::Marks || kind == head.identity.family.kind())
}

/// True if the root of a record is that of its body. Marks have none.
pub(super) fn is_root_right(payload: &Payload<'_>) -> bool {
    payload.head.kind.is_metadata() || *blake3::hash(payload.body).as_bytes() == payload.head.root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_passes_verify_each_root_once_and_each_pass_about_a_tenth() {
        for salt in [0, 7, 1_700_000_123] {
            let mut of_pass = [0u32; 10];
            for number in 0..10_000u64 {
                let passes = (1..=10).filter(|pass| is_of_tenth(Prefix(number << 40), *pass, salt));
                let passes: Vec<u64> = passes.collect();
                assert_eq!(passes.len(), 1, "{number}");
                of_pass[passes[0] as usize - 1] += 1;
            }
            assert!(of_pass.iter().all(|count| (900..1_100).contains(count)), "{of_pass:?}");
        }
    }
}
