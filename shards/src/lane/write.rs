//! The write path: which operation comes next, and what its end means.
//!
//! A segment is opened by writing its header alone; its first batch follows when the header is durable. So a
//! batch that was acknowledged always has a durable header before it, and one more write per segment is the
//! whole price. A header of several blocks takes two: its first block alone, which says that the file is
//! given up, and then the others, which overwrite what was there.

use crate::buffer::AlignedBuf;
use crate::format::segment::SegmentHeader;
use crate::format::{Incarnation, Lsn, Place};
use crate::io::{BLOCK_BYTES, DiskDone, DiskOp, Errno, OpId};
use crate::lane::batch::{Batch, BatchMeta};
use crate::lane::ops::{OpClass, class_of};
use crate::lane::segments::{Role, Segment};
use crate::lane::{Committed, Completion, Lane};

/// Taken for a write that moved fewer bytes than asked, and for one whose buffer did not come back.
const EIO: Errno = Errno(5);
/// Failures in a row after which the lane turns read-only: the write and its one repetition elsewhere.
const FAILURES_MAX: u32 = 2;

/// The segment that receives batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Active {
    pub place: Place,
    pub base_lsn: Lsn,
    /// Where the next batch goes.
    pub end: u32,
    /// Checksum of the header before it: of the last batch, or of the segment.
    pub chain: u32,
}

/// The one write in flight.
#[derive(Debug)]
pub(crate) struct WriteInFlight {
    op: OpId,
    len: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The first of several blocks of the header of a segment; the others follow when it is durable.
    FirstBlock(Active),
    /// The header of a segment that becomes active when it is durable, or what is left of it.
    Header(Active),
    /// A batch at the end of the active segment, and the checksum of its header.
    Batch(BatchMeta, u32),
}

impl Lane {
    /// Emits the operations that are due. To be called once at the end of each turn. `now_us` is monotonic.
    pub fn poll(&mut self, now_us: u64, out: &mut Vec<DiskOp>) {
        self.segments.reclaim(self.durable);
        if self.read_only.is_some() {
            return;
        }
        self.prepare_if_short(now_us, out);
        if self.write.is_some() {
            return;
        }
        if let Some(active) = self.opening.take() {
            return self.write_rest_of_header(active, out);
        }
        let Some(batch) = self.queue.front() else {
            if self.owes_header && self.segments.spare_count() > usize::from(!self.may_grow()) {
                return self.open_segment(out);
            }
            return self.write_marker_if_due(now_us, out);
        };
        match self.active {
            Some(active) if self.fits(&active, batch.meta.bytes(), BLOCK_BYTES) => {
                self.write_batch(active, out);
            }
            _ => self.open_segment(out),
        }
    }

    /// When [`Lane::poll`] must be called next even if nothing happens, in monotonic microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.read_only.is_some() {
            return None;
        }
        let idle = self.write.is_none() && self.queue.is_empty();
        let marker = (idle && self.wants_marker()).then(|| self.marker_at_us());
        let retry = self.prepare_failed.filter(|_| self.is_short()).map(|(_, at_us)| at_us);
        marker.into_iter().chain(retry).min()
    }

    /// Takes the end of an operation of this lane. If it made records durable, each is shown to `committed`
    /// in LSN order before their buffer is used again.
    pub fn complete(
        &mut self,
        now_us: u64,
        done: DiskDone,
        mut committed: impl FnMut(Committed<'_>),
    ) -> Completion {
        match class_of(done.op) {
            Some(OpClass::Read(segment)) => {
                if !self.segments.end_read(segment) {
                    return Completion::Unknown(done);
                }
                Completion::Read { op: done.op, result: done.result, buf: done.buf }
            }
            Some(OpClass::Prepare) => self.end_prepare(now_us, done),
            Some(OpClass::Write) => match self.write.take_if(|write| write.op == done.op) {
                Some(write) => self.end_write(now_us, write, done, &mut committed),
                None => Completion::Unknown(done),
            },
            None => Completion::Unknown(done),
        }
    }

    /// Bytes of the batch in flight.
    pub(super) fn write_in_flight_bytes(&self) -> usize {
        self.write.as_ref().map_or(0, |write| match write.stage {
            Stage::FirstBlock(_) | Stage::Header(_) => 0,
            Stage::Batch(..) => write.len,
        })
    }

    /// True if the last records lack a durable witness and a marker could be placed.
    pub(super) fn wants_marker(&self) -> bool {
        let placeable = self.active.is_some_and(|active| self.fits(&active, BLOCK_BYTES, 0))
            || self.segments.next_spare().is_some();
        self.vouched < self.durable && placeable && self.read_only.is_none()
    }

    fn marker_at_us(&self) -> u64 {
        self.last_commit_us.saturating_add(self.config.idle_us)
    }

    /// Records keep the last block of a segment for a marker, so that a full segment can still be vouched
    /// for.
    fn fits(&self, active: &Active, bytes: usize, kept: usize) -> bool {
        active.end as usize + bytes + kept <= self.config.segment_bytes as usize
    }

    fn is_short(&self) -> bool {
        let spares = self.segments.spare_count();
        self.is_below_limit()
            && !self.closing
            && spares < self.config.spares_wanted as usize
            && !self.segments.is_freeing()
    }

    fn prepare_if_short(&mut self, now_us: u64, out: &mut Vec<DiskOp>) {
        let waiting = self.prepare_failed.is_some_and(|(_, at_us)| now_us < at_us);
        if self.prepare.is_some() || waiting || !self.is_short() {
            return;
        }
        let Some(segment) = self.segments.unused_number() else { return };
        let op = self.next_op(OpClass::Prepare);
        self.prepare = Some((op, segment));
        let size = u64::from(self.config.segment_bytes);
        out.push(DiskOp::Prepare { lane: self.config.lane, segment, size, op });
    }

    fn end_prepare(&mut self, now_us: u64, done: DiskDone) -> Completion {
        let Some((_, segment)) = self.prepare.take_if(|(op, _)| *op == done.op) else {
            return Completion::Unknown(done);
        };
        match done.result {
            Ok(_) => {
                self.prepare_failed = None;
                self.segments.set(segment, Segment::blank(Role::Spare));
                Completion::Prepared(segment)
            }
            Err(errno) => {
                self.prepare_failed = Some((errno, now_us.saturating_add(self.config.prepare_retry_us)));
                // A failed batch waits for this segment, unless another one took it already.
                let placing = self.active.is_some() || self.opening.is_some() || self.write.is_some();
                let homeless = !placing && !self.queue.is_empty();
                if self.failures > 0 && homeless && self.segments.next_spare().is_none() {
                    return self.turn_read_only(errno);
                }
                Completion::PrepareFailed(errno)
            }
        }
    }

    /// Vouches for the last batch: by a marker behind it or, where that has no place, by the next segment's
    /// header.
    fn write_marker_if_due(&mut self, now_us: u64, out: &mut Vec<DiskOp>) {
        let due = self.closing || now_us >= self.marker_at_us();
        if !due || !self.wants_marker() {
            return;
        }
        match self.active {
            Some(active) if self.fits(&active, BLOCK_BYTES, 0) => {
                let Some(buf) = self.free.pop() else { return };
                self.queue.push_back(Batch::new(buf, self.next_lsn));
                self.write_batch(active, out);
            }
            _ => self.open_segment(out),
        }
    }

    fn write_batch(&mut self, active: Active, out: &mut Vec<DiskOp>) {
        let Some(mut batch) = self.queue.pop_front() else { return };
        let chain = batch.seal(&active, self.durable);
        let op = self.next_op(OpClass::Write);
        let (lane, segment) = (self.config.lane, active.place.segment);
        let (len, offset) = (batch.meta.bytes(), u64::from(active.end));
        self.write = Some(WriteInFlight { op, len, stage: Stage::Batch(batch.meta, chain) });
        out.push(DiskOp::Write { lane, segment, offset, buf: batch.buf, len, op });
    }

    /// Seals the active segment and writes the header of the next one, if there is a spare.
    fn open_segment(&mut self, out: &mut Vec<DiskOp>) {
        let Some(id) = self.segments.next_spare() else { return };
        let Some(mut buf) = self.header_buf.take() else { return };
        self.owes_header = false;
        self.seal_active(true);
        self.incarnation = Incarnation(self.incarnation.0 + 1);
        let previous = self.segments.get(id).map_or(Incarnation(0), |segment| segment.incarnation);
        let (store, lane, incarnation) = (self.config.store, self.config.lane, self.incarnation);
        let place = Place { store, lane, segment: id, incarnation };
        let base_lsn = self.durable.next();
        let header = SegmentHeader {
            place,
            previous,
            base_lsn,
            segment_bytes: u64::from(self.config.segment_bytes),
            opened_ms: self.config.opened_ms,
            sealed: self.segments.sealed_list(),
        };
        let bytes = header.bytes();
        let chain = header.encode(&mut buf[..bytes]);
        let (last_lsn, end) = (self.durable, bytes as u32);
        let opening = Segment { incarnation, base_lsn, last_lsn, end, ..Segment::blank(Role::Active) };
        self.segments.set(id, opening);
        let op = self.next_op(OpClass::Write);
        let active = Active { place, base_lsn, end, chain };
        let (len, stage) = match bytes {
            BLOCK_BYTES => (bytes, Stage::Header(active)),
            _ => (BLOCK_BYTES, Stage::FirstBlock(active)),
        };
        self.write = Some(WriteInFlight { op, len, stage });
        out.push(DiskOp::Write { lane, segment: id, offset: 0, buf, len, op });
    }

    /// Writes the blocks of a header behind the first, which is durable.
    fn write_rest_of_header(&mut self, active: Active, out: &mut Vec<DiskOp>) {
        let Some(mut buf) = self.header_buf.take() else { return };
        let (lane, segment) = (self.config.lane, active.place.segment);
        let len = active.end as usize - BLOCK_BYTES;
        // A write takes its bytes from the front of its buffer.
        buf.copy_within(BLOCK_BYTES..BLOCK_BYTES + len, 0);
        let op = self.next_op(OpClass::Write);
        self.write = Some(WriteInFlight { op, len, stage: Stage::Header(active) });
        out.push(DiskOp::Write { lane, segment, offset: BLOCK_BYTES as u64, buf, len, op });
    }

    fn seal_active(&mut self, sound: bool) {
        if let Some(active) = self.active.take() {
            self.segments.seal(active.place.segment, sound);
            self.free_if_dead(active.place.segment);
        }
    }

    fn end_write(
        &mut self,
        now_us: u64,
        write: WriteInFlight,
        done: DiskDone,
        committed: &mut dyn FnMut(Committed<'_>),
    ) -> Completion {
        let errno = match done.result {
            Ok(bytes) if bytes == write.len => None,
            Ok(_) => Some(EIO),
            Err(errno) => Some(errno),
        };
        match (write.stage, errno) {
            (Stage::FirstBlock(active), errno) => self.end_header(active, true, done.buf, errno),
            (Stage::Header(active), errno) => self.end_header(active, false, done.buf, errno),
            (Stage::Batch(meta, _), Some(errno)) => self.end_failed_batch(meta, done.buf, errno),
            (Stage::Batch(meta, chain), None) => {
                self.last_commit_us = now_us;
                self.end_batch(meta, chain, done.buf, committed)
            }
        }
    }

    fn end_header(
        &mut self,
        active: Active,
        goes_on: bool,
        buf: Option<AlignedBuf>,
        errno: Option<Errno>,
    ) -> Completion {
        self.header_buf = buf;
        let lost_buffer = self.header_buf.is_none().then_some(EIO);
        match errno.or(lost_buffer) {
            None if goes_on => {
                self.opening = Some(active);
                Completion::Housekeeping
            }
            None => {
                self.segments.set_guide(active.place.segment);
                self.active = Some(active);
                // The header lists every sealed segment with its last LSN.
                self.vouched = self.durable;
                Completion::Housekeeping
            }
            Some(errno) => {
                self.segments.retire(active.place.segment);
                self.count_failure(errno)
            }
        }
    }

    fn end_batch(
        &mut self,
        meta: BatchMeta,
        chain: u32,
        buf: Option<AlignedBuf>,
        committed: &mut dyn FnMut(Committed<'_>),
    ) -> Completion {
        // A write is in flight only while a segment is active; without its buffer the records cannot be
        // shown.
        let (Some(mut active), Some(buf)) = (self.active, buf) else { return self.turn_read_only(EIO) };
        self.failures = 0;
        self.vouched = self.durable;
        self.durable = meta.last_lsn();
        for (loc, record) in meta.records(&buf, &active, active.end) {
            self.ledger.add(loc, record.kind);
            let (lsn, kind, expires_s, payload) = (record.lsn, record.kind, record.expires_s, record.payload);
            committed(Committed { lsn, kind, expires_s, loc, payload });
        }
        self.free.push(buf);
        active.end += meta.bytes() as u32;
        active.chain = chain;
        self.active = Some(active);
        self.segments.extend(active.place.segment, active.end, self.durable);
        if meta.records == 0 {
            return Completion::Housekeeping;
        }
        Completion::Committed { first: meta.first_lsn, last: meta.last_lsn() }
    }

    fn end_failed_batch(&mut self, meta: BatchMeta, buf: Option<AlignedBuf>, errno: Errno) -> Completion {
        self.seal_active(false);
        match buf {
            // A marker is not repeated: the header of the next segment says what it would have said.
            Some(buf) if meta.records == 0 => self.free.push(buf),
            Some(buf) => self.queue.push_front(Batch { meta, buf }),
            None => return self.turn_read_only(errno),
        }
        self.count_failure(errno)
    }

    fn count_failure(&mut self, errno: Errno) -> Completion {
        self.failures += 1;
        let stuck = self.segments.next_spare().is_none() && !self.spare_comes_by_itself();
        if self.failures >= FAILURES_MAX || (stuck && !self.queue.is_empty()) {
            return self.turn_read_only(errno);
        }
        Completion::WriteFailed(errno)
    }

    fn turn_read_only(&mut self, errno: Errno) -> Completion {
        self.read_only = Some(errno);
        while let Some(batch) = self.queue.pop_front() {
            self.free.push(batch.buf);
        }
        Completion::Refused { first: self.durable.next(), last: self.next_lsn.previous(), errno }
    }
}
