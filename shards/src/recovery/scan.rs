//! Reading the batches of one segment, and judging what is wrong by what comes after it.

use crate::checksum::crc32c;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchFault, BatchHeader};
use crate::format::field::is_blank;
use crate::format::record::{
    RECORD_ALIGN, RecordView, parse, parse_bound, record_bytes, record_stride, walk,
};
use crate::format::segment::HEADER_BYTES_MAX;
use crate::format::{BATCH_BYTES_MAX, Incarnation, Lsn, Place};
use crate::io::BLOCK_BYTES;
use crate::lane::RecordLoc;
use crate::lane::config::LaneConfig;
use crate::lane::ledger::Ledger;
use crate::recovery::inventory::Target;
use crate::recovery::reader::{Reader, WINDOW_BYTES};
use crate::recovery::report::{LossReason, Losses, RecoveryCase, RecoveryReport};
use crate::recovery::{RecoverError, RecoveredRecord, Visitor};

/// Bytes that the search for sound records in a damaged batch may checksum, in multiples of the batch: bounds
/// the work that crafted payloads could cause.
const SALVAGE_EFFORT: usize = 16;
/// Where the first batch is if the header takes one block.
const FRONT_MIN: u32 = BLOCK_BYTES as u32;
const _: () = assert!(HEADER_BYTES_MAX + BATCH_BYTES_MAX <= WINDOW_BYTES);

/// The scan of one segment.
pub(crate) struct Scan<'s, 'v, 'w> {
    pub config: &'s LaneConfig,
    pub target: &'s Target,
    pub reader: &'s mut Reader<'v>,
    pub report: &'s mut RecoveryReport,
    pub ledger: &'s mut Ledger,
    pub visitor: &'s mut Visitor<'w>,
    pub losses: &'s mut Losses,
}

/// Where a scan ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanEnd {
    /// End of the last batch.
    pub offset: u32,
    /// LSN that would have come next.
    pub expected: Lsn,
    /// Highest LSN that a batch said to be durable.
    pub vouched: Lsn,
}

/// What lies where a batch should be.
#[derive(Clone, Copy, Debug)]
enum Found {
    Batch(BatchHeader, u32),
    /// Sound header, wrong payload.
    BadPayload(BatchHeader),
    Blank,
    /// A batch of an earlier use of the file.
    Stale,
    /// A batch that belongs elsewhere, or does not follow what is before it.
    Misplaced,
    Garbage,
    Unreadable,
}

impl Scan<'_, '_, '_> {
    /// Reads the segment to its end.
    pub fn run(mut self) -> Result<ScanEnd, RecoverError> {
        let front = self.target.front.unwrap_or(FRONT_MIN);
        let base = self.target.base_lsn;
        let mut end = ScanEnd { offset: front, expected: base, vouched: Lsn(0) };
        let mut chain = self.target.chain;
        self.reader.open(self.target.place.segment, u64::from(self.target.limit));
        let mut offset = front;
        while offset < self.target.limit {
            match self.look(offset, chain, end.expected)? {
                Found::Batch(header, crc) => {
                    if self.target.stop.is_some_and(|stop| header.records > 0 && header.first_lsn >= stop) {
                        self.report.note(RecoveryCase::Superseded);
                        break;
                    }
                    self.take_batch(&header, offset, &mut end);
                    chain = Some(crc);
                    offset += header.bytes;
                    end.offset = offset;
                }
                fault => match self.step_over(fault, offset, &mut end)? {
                    Some(next) => (offset, chain) = (next, None),
                    None => break,
                },
            }
        }
        if offset >= self.target.limit && self.target.wrong_size && self.target.promised.is_none() {
            self.doubt(&end);
        }
        self.settle_promise(&mut end);
        Ok(end)
    }

    /// How much of what lies from `offset` on may be no batch but the remains of a damaged header, whose
    /// length nobody knows. A header never passes for a batch, so the search for the first one goes over it.
    fn header_remains(&self, offset: u32) -> usize {
        let unknown = self.target.front.is_none() && offset == FRONT_MIN;
        if unknown { HEADER_BYTES_MAX - BLOCK_BYTES } else { 0 }
    }

    fn look(&mut self, offset: u32, chain: Option<u32>, expected: Lsn) -> Result<Found, RecoverError> {
        let at = u64::from(offset);
        let block = self.reader.bytes(at, BLOCK_BYTES);
        let (header, crc) = match BatchHeader::decode(block) {
            Ok(decoded) => decoded,
            Err(BatchFault::Newer(version)) => {
                return Err(RecoverError::NewerVersion { lane: self.config.lane, version });
            }
            Err(fault) => {
                let blank = fault == BatchFault::NoBatch && is_blank(block);
                let unreadable = self.reader.is_unreadable(at, BLOCK_BYTES);
                return Ok(match (unreadable, blank) {
                    (true, _) => Found::Unreadable,
                    (false, true) => Found::Blank,
                    (false, false) => Found::Garbage,
                });
            }
        };
        let place = &self.target.place;
        if !header.is_at(place, offset) {
            let then = Place { incarnation: header.incarnation, ..*place };
            let stale = header.incarnation < place.incarnation && header.is_at(&then, offset);
            return Ok(if stale { Found::Stale } else { Found::Misplaced });
        }
        let follows = chain.is_none_or(|chain| chain == header.previous) && header.first_lsn >= expected;
        if !follows || header.bytes > self.target.limit - offset {
            return Ok(Found::Misplaced);
        }
        let batch = self.reader.bytes(at, header.bytes as usize);
        let sound = crc32c(&batch[BATCH_HEADER_BYTES..]) == header.payload_crc;
        Ok(if sound { Found::Batch(header, crc) } else { Found::BadPayload(header) })
    }

    /// Gives the records of a sound batch to the visitor.
    fn take_batch(&mut self, header: &BatchHeader, offset: u32, end: &mut ScanEnd) {
        let lane = self.config.lane;
        if header.first_lsn > end.expected {
            self.report.note(RecoveryCase::LostWrite);
            self.losses.add(lane, end.expected, header.first_lsn.previous(), LossReason::LostWrite);
        }
        self.report.note(RecoveryCase::Batch);
        self.report.log_bytes += u64::from(header.bytes);
        let batch = self.reader.bytes(u64::from(offset), header.bytes as usize);
        let records = &batch[BATCH_HEADER_BYTES..][..header.record_bytes as usize];
        let mut next = header.first_lsn;
        for (at, record) in walk(records).take(header.records as usize) {
            if record.lsn != next {
                break;
            }
            let place = offset + (BATCH_HEADER_BYTES + at) as u32;
            deliver(self.target, place, record, self.ledger, self.visitor);
            self.report.records += 1;
            next = next.next();
        }
        // Only a record kind unknown to this version, under a sound checksum, can end the walk early.
        self.losses.add(lane, next, header.last_lsn(), LossReason::Damaged);
        end.expected = header.last_lsn().next();
        end.vouched = end.vouched.max(header.durable_lsn);
    }

    /// Judges a fault at `offset`. `Some` is where to go on; `None` if this is the end of the segment's log.
    fn step_over(
        &mut self,
        fault: Found,
        offset: u32,
        end: &mut ScanEnd,
    ) -> Result<Option<u32>, RecoverError> {
        let after = match fault {
            Found::BadPayload(header) => offset + header.bytes,
            _ => offset + BLOCK_BYTES as u32,
        };
        if matches!(fault, Found::Misplaced) {
            self.report.note(RecoveryCase::Misdirected);
        }
        let next = self.next_batch(after, offset, end.expected)?;
        // The batch after the fault begins where the sound log ended: nothing of value was here.
        let nothing_lost = next.is_some_and(|next| next.first_lsn == end.expected);
        let proven = next.is_some_and(|next| next.durable_lsn >= end.expected)
            || self.target.promised.is_some_and(|promised| promised >= end.expected);
        if !nothing_lost && !proven {
            self.end_of_log(fault, end);
            return Ok(None);
        }
        let unreadable = matches!(fault, Found::Unreadable);
        if unreadable {
            self.report.note(RecoveryCase::Unreadable);
        }
        if !nothing_lost {
            self.lose(fault, offset, next.as_ref(), end);
        }
        Ok(next.map(|next| next.offset))
    }

    /// Accounts for acknowledged records behind a fault, and saves what is sound of them.
    fn lose(&mut self, fault: Found, offset: u32, next: Option<&BatchHeader>, end: &mut ScanEnd) {
        let (case, mut reason) = match fault {
            Found::BadPayload(_) | Found::Garbage => (RecoveryCase::DamagedBatch, LossReason::Damaged),
            Found::Unreadable => (RecoveryCase::DamagedBatch, LossReason::Unreadable),
            Found::Batch(..) | Found::Blank | Found::Stale | Found::Misplaced => {
                (RecoveryCase::LostWrite, LossReason::LostWrite)
            }
        };
        self.report.note(case);
        let (until, last) = match (fault, next) {
            (Found::BadPayload(header), _) => {
                end.vouched = end.vouched.max(header.durable_lsn);
                end.offset = offset + header.bytes;
                (end.offset, header.last_lsn())
            }
            (_, Some(next)) => (next.offset, next.first_lsn.previous()),
            (_, None) => (self.target.limit, self.target.promised.unwrap_or_default()),
        };
        let bytes = ((until - offset) as usize).min(self.header_remains(offset) + BATCH_BYTES_MAX);
        self.reader.bytes(u64::from(offset), bytes);
        if self.reader.is_unreadable(u64::from(offset), bytes) {
            reason = LossReason::Unreadable;
        }
        self.salvage(offset, bytes, (end.expected, last), reason);
        end.expected = end.expected.max(last.next());
    }

    /// Keeps the records between two LSNs that lie in `bytes` bytes at `offset` and whose own checksums hold;
    /// counts the others as lost.
    fn salvage(&mut self, offset: u32, bytes: usize, (mut next, last): (Lsn, Lsn), reason: LossReason) {
        let lane = self.config.lane;
        let salt = self.target.place.salt();
        let region = self.reader.bytes(u64::from(offset), bytes);
        let mut effort = SALVAGE_EFFORT * bytes;
        let mut at = 0;
        while at < bytes && next <= last && effort > 0 {
            let claimed = parse(&region[at..]).filter(|record| (next..=last).contains(&record.lsn));
            effort = effort.saturating_sub(claimed.map_or(RECORD_ALIGN, |r| record_bytes(r.payload.len())));
            let place = offset + at as u32;
            match claimed.and_then(|_| parse_bound(&region[at..], place, salt)) {
                Some(record) => {
                    self.losses.add(lane, next, record.lsn.previous(), reason);
                    deliver(self.target, place, record, self.ledger, self.visitor);
                    self.report.records += 1;
                    next = record.lsn.next();
                    at += record_stride(record.payload.len());
                }
                None => at += RECORD_ALIGN,
            }
        }
        self.losses.add(lane, next, last, reason);
    }

    /// The next header of a batch of this use at or behind `from` that can follow `expected`.
    fn next_batch(
        &mut self,
        from: u32,
        fault_at: u32,
        expected: Lsn,
    ) -> Result<Option<BatchHeader>, RecoverError> {
        let reach = self.config.resync_bytes.saturating_add(self.header_remains(fault_at) as u32);
        let window = fault_at.saturating_add(reach);
        let until =
            if self.target.listed.is_some() { self.target.limit } else { window.min(self.target.limit) };
        let mut offset = from;
        while offset < until {
            match BatchHeader::decode(self.reader.bytes(u64::from(offset), BLOCK_BYTES)) {
                Ok((header, _)) => {
                    let fits = header.bytes <= self.target.limit - offset;
                    if header.is_at(&self.target.place, offset) && header.first_lsn >= expected && fits {
                        return Ok(Some(header));
                    }
                }
                Err(BatchFault::Newer(version)) => {
                    return Err(RecoverError::NewerVersion { lane: self.config.lane, version });
                }
                Err(BatchFault::NoBatch | BatchFault::Damaged) => {}
            }
            offset += BLOCK_BYTES as u32;
        }
        Ok(None)
    }

    /// Names the end of the log: nothing behind it was ever acknowledged.
    fn end_of_log(&mut self, fault: Found, end: &ScanEnd) {
        let first_use = self.target.previous == Some(Incarnation(0));
        match fault {
            Found::BadPayload(header) => {
                self.report.note(RecoveryCase::TornTail);
                self.report.torn_bytes += u64::from(header.bytes);
            }
            Found::Garbage if first_use => {
                self.report.note(RecoveryCase::TornTail);
                self.report.torn_bytes += BLOCK_BYTES as u64;
            }
            Found::Unreadable if self.target.promised.is_none() => {
                self.report.note(RecoveryCase::Unreadable);
                self.doubt(end);
            }
            _ => self.report.note(RecoveryCase::EndOfLog),
        }
    }

    /// Nobody can know whether acknowledged records were here: to be told as a loss, not to be hoped away.
    fn doubt(&mut self, end: &ScanEnd) {
        let mut doubt = Losses::default();
        doubt.add(self.config.lane, end.expected, end.expected, LossReason::Unreadable);
        self.report.add_losses(&doubt, 0);
    }

    /// After the last batch: records that a later header promised and that were not met.
    fn settle_promise(&mut self, end: &mut ScanEnd) {
        let Some(promised) = self.target.promised.filter(|promised| *promised >= end.expected) else {
            return;
        };
        self.report.note(RecoveryCase::LostWrite);
        self.losses.add(self.config.lane, end.expected, promised, LossReason::LostWrite);
        end.expected = promised.next();
    }
}

fn deliver(
    target: &Target,
    offset: u32,
    record: RecordView<'_>,
    ledger: &mut Ledger,
    visitor: &mut Visitor<'_>,
) {
    let RecordView { lsn, kind, expires_s, payload } = record;
    let len = record_bytes(payload.len()) as u32;
    let loc = RecordLoc { segment: target.place.segment, offset, len };
    ledger.add(loc, kind);
    visitor(RecoveredRecord { lsn, kind, expires_s, loc, payload }, ledger);
}
