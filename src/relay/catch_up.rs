//! Cursor mode: a device that is behind reads the log at its own pace.
//!
//! Nothing is buffered for it. When it has room it queues for one of a fixed number of reads; a read brings a
//! run of its messages that lie close together, as many as fit are pushed, and it queues again or waits until
//! it acknowledges. Once it has everything it is live, and commits are pushed to it from memory.

use std::collections::VecDeque;

use shards::io::{BLOCK_BYTES, DiskOp, Errno, LaneId, OpId, SegmentId};
use shards::{AlignedBuf, Kind, LaneSet};

use super::accept::wall_s;
use super::attach::{Mode, WaitsFor};
use super::commit::delivery_of;
use super::mailbox::{Entry, MailboxKey};
use super::records::MessageRecord;
use super::{Outlet, Relay};
use crate::rt::api::{ConnId, Now};
use crate::wire::{DeviceId, Epoch, MailboxSeq};

/// Bytes of one read. The largest record fits, whatever its position in a block.
const READ_BYTES: usize = 128 * 1024;

/// Reads that must fail in a row before a message counts as lost: an error may pass.
const READ_ATTEMPTS: u8 = 3;

/// Which session a turn at the log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reader {
    mailbox: MailboxKey,
    device: DeviceId,
    conn: ConnId,
}

/// A run of blocks of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    segment: SegmentId,
    start: u64,
    bytes: usize,
}

impl Span {
    fn holds(&self, entry: &Entry) -> bool {
        let from = u64::from(entry.loc.offset);
        entry.loc.segment == self.segment
            && from >= self.start
            && from + u64::from(entry.loc.len) <= self.start + self.bytes as u64
    }
}

/// The end of a read, as the lane reports it.
pub struct ReadEnd {
    /// Which one.
    pub op: OpId,
    /// Bytes read, or the error.
    pub result: Result<usize, Errno>,
    /// Its buffer.
    pub buf: Option<AlignedBuf>,
}

#[derive(Debug)]
struct Read {
    reader: Reader,
    lane: LaneId,
    op: OpId,
    span: Span,
}

/// Sessions that wait for a read, and the reads under way.
pub(super) struct CatchUp {
    queue: VecDeque<Reader>,
    reads: Vec<Option<Read>>,
    buffers: Vec<AlignedBuf>,
    /// Readers whose last read failed, until the next step of slow work.
    resting: Vec<Reader>,
}

impl CatchUp {
    pub(super) fn new(reads: u16) -> Self {
        Self {
            queue: VecDeque::new(),
            resting: Vec::new(),
            reads: (0..reads).map(|_| None).collect(),
            buffers: (0..reads).map(|_| AlignedBuf::zeroed(READ_BYTES)).collect(),
        }
    }
}

impl Relay {
    /// A session's buffer has drained: it may take messages again.
    pub fn on_writable(&mut self, key: MailboxKey, device: DeviceId, conn: ConnId, outlet: &mut impl Outlet) {
        if let Some(attached) = self.session_mut(key, device, conn)
            && attached.waits_for == Some(WaitsFor::Output)
        {
            attached.waits_for = None;
            self.advance(key, device, outlet);
        }
    }

    /// Lets devices try again whose next message the disk did not give back.
    pub(super) fn retry_reads(&mut self, outlet: &mut impl Outlet) {
        for reader in std::mem::take(&mut self.catch_up.resting) {
            if let Some(attached) = self.session_mut(reader.mailbox, reader.device, reader.conn) {
                attached.waits_for = None;
                self.advance(reader.mailbox, reader.device, outlet);
            }
        }
    }

    /// Decides what comes next for a device that is behind: a read, live delivery, or waiting for room.
    pub(super) fn advance(&mut self, key: MailboxKey, device: DeviceId, outlet: &mut impl Outlet) {
        let Some(mailbox) = self.mailboxes.get_mut(key) else { return };
        let Some(index) = mailbox.device_index(device) else { return };
        let committed = mailbox.committed_seq;
        let Some(attached) = mailbox.devices[index].session.as_deref() else { return };
        if attached.mode != Mode::Behind || attached.waits_for.is_some() {
            return;
        }
        let next = mailbox.entries.get(mailbox.position_from(attached.next_push)).copied();
        let Some(attached) = mailbox.devices[index].session.as_deref_mut() else { return };
        match next {
            None => {
                attached.mode = Mode::Live;
                attached.next_push = attached.next_push.max(committed + 1);
                self.stats.relay.cursor_mode_sessions.dec();
                if !std::mem::replace(&mut attached.told_caught_up, true) {
                    outlet.caught_up(attached.conn, MailboxSeq(committed));
                }
            }
            Some(entry) if attached.has_room(entry.payload_bytes() as usize) => {
                attached.mode = Mode::Queued;
                self.catch_up.queue.push_back(Reader { mailbox: key, device, conn: attached.conn });
            }
            Some(_) => {}
        }
    }

    /// Starts as many reads as there are buffers, for the sessions that waited longest.
    pub fn start_reads(
        &mut self,
        now: Now,
        lanes: &mut LaneSet,
        outlet: &mut impl Outlet,
        ops: &mut Vec<DiskOp>,
    ) {
        for _ in 0..self.catch_up.queue.len() {
            if self.catch_up.buffers.is_empty() {
                return;
            }
            let Some(reader) = self.catch_up.queue.pop_front() else { return };
            let Some(attached) = self.session_mut(reader.mailbox, reader.device, reader.conn) else {
                continue;
            };
            debug_assert_eq!(attached.mode, Mode::Queued);
            let (next_push, single) = (attached.next_push, attached.failed_reads > 0);
            let planned = self.plan(reader.mailbox, next_push, single, wall_s(now));
            // What has expired before the next live message is never pushed.
            let live_from = match planned {
                Some((first, ..)) => first,
                None => self.mailboxes[reader.mailbox].committed_seq + 1,
            };
            if let Some(attached) = self.session_mut(reader.mailbox, reader.device, reader.conn) {
                attached.next_push = live_from;
            }
            let Some((_, lane, span)) = planned else {
                self.resume(reader, outlet);
                continue;
            };
            let Some(slot) = self.catch_up.reads.iter().position(Option::is_none) else { return };
            let Some(buf) = self.catch_up.buffers.pop() else { return };
            if let Some(attached) = self.session_mut(reader.mailbox, reader.device, reader.conn) {
                attached.mode = Mode::Reading;
            }
            let (op, request) = lanes.lane_mut(lane).read_blocks(span.segment, span.start, span.bytes, buf);
            self.catch_up.reads[slot] = Some(Read { reader, lane, op, span });
            ops.push(request);
        }
    }

    /// Number of the next message of a reader that lives, and the blocks around it and as many of the
    /// following ones as one read can bring; only it if `single`.
    fn plan(&self, key: MailboxKey, next_push: u64, single: bool, now_s: u32) -> Option<(u64, LaneId, Span)> {
        let mailbox = &self.mailboxes[key];
        let entries = mailbox.entries.iter_from(mailbox.position_from(next_push));
        let mut live = entries.filter(|entry| entry.expires_s > now_s);
        let first = live.next()?;
        let end_of = |entry: &Entry| u64::from(entry.loc.offset) + u64::from(entry.loc.len);
        let start = first.loc.first_block();
        let limit = Span { segment: first.loc.segment, start, bytes: READ_BYTES };
        let more = live.take_while(|entry| !single && limit.holds(entry));
        // A message that was copied may lie behind one that is newer.
        let end = more.map(end_of).fold(end_of(first), u64::max);
        let bytes = usize::try_from(end - start).unwrap_or(READ_BYTES).next_multiple_of(BLOCK_BYTES);
        Some((first.seq, mailbox.lane, Span { bytes, ..limit }))
    }

    /// A read ended: pushes, or copies, what it brought.
    pub fn on_read(
        &mut self,
        now: Now,
        lanes: &mut LaneSet,
        lane: LaneId,
        end: ReadEnd,
        outlet: &mut impl Outlet,
    ) {
        if self.copying.owns(lane, end.op) {
            return self.on_copy_read(lanes, end);
        }
        let mut reads = self.catch_up.reads.iter_mut();
        let read = reads.find_map(|slot| slot.take_if(|read| (read.lane, read.op) == (lane, end.op)));
        let (Some(read), Some(buf)) = (read, end.buf) else {
            unreachable!("a read was started here, completes once, and gives its buffer back");
        };
        match end.result {
            Ok(got) => self.push_read(now, lanes, &read, &buf[..got.min(read.span.bytes)], outlet),
            Err(errno) => self.read_failed(now, lanes, read.reader, is_of_the_medium(errno), outlet),
        }
        self.catch_up.buffers.push(buf);
        self.resume(read.reader, outlet);
    }

    fn push_read(
        &mut self,
        now: Now,
        lanes: &mut LaneSet,
        read: &Read,
        bytes: &[u8],
        outlet: &mut impl Outlet,
    ) {
        let Reader { mailbox: key, device, conn } = read.reader;
        loop {
            let Some(attached) = self.session_mut(key, device, conn) else { return };
            let next_push = attached.next_push;
            let mailbox = &mut self.mailboxes[key];
            let at = mailbox.position_from(next_push);
            let Some(entry) = mailbox.entries.get(at).copied().filter(|entry| read.span.holds(entry)) else {
                return;
            };
            if entry.expires_s <= wall_s(now) {
                self.skip(key, device, conn, entry.seq);
                continue;
            }
            let block = (entry.loc.first_block() - read.span.start) as usize;
            let blocks = bytes.get(block..).unwrap_or_default();
            let record = lanes.lane(read.lane).parse_read(entry.loc, blocks).ok();
            let Some(message) =
                record.and_then(|r| MessageRecord::decode(r.payload)).filter(|m| m.seq == entry.seq)
            else {
                return self.read_failed(now, lanes, read.reader, true, outlet);
            };
            let Some(index) = mailbox.device_index(device) else { return };
            let device = &mut mailbox.devices[index];
            let Some(attached) = device.session.as_deref_mut() else { return };
            let redelivery = entry.seq <= device.pushed;
            if !attached.has_room(message.payload.len()) {
                return;
            }
            if !outlet.deliver(conn, &delivery_of(&message, redelivery)) {
                attached.waits_for = Some(WaitsFor::Output);
                return;
            }
            attached.failed_reads = 0;
            attached.in_flight_push(entry.seq, &message);
            device.pushed = device.pushed.max(entry.seq);
            self.stats.relay.delivered_from_log.inc();
            self.stats.relay.redelivered.add(u64::from(redelivery));
        }
    }

    fn skip(&mut self, key: MailboxKey, device: DeviceId, conn: ConnId, seq: u64) {
        if let Some(attached) = self.session_mut(key, device, conn) {
            attached.next_push = seq + 1;
        }
    }

    /// The next message of a reader did not come back from the disk as it was written. It is read alone from
    /// now on, with a pause before each attempt; and it is given up only if it is the medium that does not
    /// have it, not for want of memory or descriptors.
    fn read_failed(
        &mut self,
        now: Now,
        lanes: &mut LaneSet,
        reader: Reader,
        medium: bool,
        outlet: &mut impl Outlet,
    ) {
        self.stats.relay.failed_reads.inc();
        let Some(attached) = self.session_mut(reader.mailbox, reader.device, reader.conn) else { return };
        let seq = attached.next_push;
        attached.failed_reads = attached.failed_reads.saturating_add(u8::from(medium)).max(1);
        if attached.failed_reads > READ_ATTEMPTS {
            attached.failed_reads = 0;
            return self.lose(now, lanes, reader.mailbox, seq, outlet);
        }
        attached.waits_for = Some(WaitsFor::Disk);
        self.catch_up.resting.push(reader);
    }

    /// A message that was acknowledged cannot be read back: lets it go, gives the mailbox a new epoch, and
    /// ends its sessions, so that its devices learn of it when they log in again.
    fn lose(&mut self, now: Now, lanes: &mut LaneSet, key: MailboxKey, seq: u64, outlet: &mut impl Outlet) {
        let mailbox = &mut self.mailboxes[key];
        let at = mailbox.position_from(seq);
        let Some(entry) = mailbox.entries.remove(at) else { return };
        mailbox.bytes -= u64::from(entry.payload_bytes());
        mailbox.epoch = Epoch(now.wall_ms.max(mailbox.epoch.0 + 1));
        for attached in mailbox.devices.iter().filter_map(|device| device.session.as_deref()) {
            outlet.epoch_changed(attached.conn);
        }
        self.queued_messages -= 1;
        self.queued_bytes -= u64::from(entry.payload_bytes());
        self.stats.relay.messages_lost.inc();
        lanes.lane_mut(mailbox.lane).release(entry.loc, Kind::Message);
        self.mark_dirty(key);
    }

    /// Puts a reader whose turn is over back to deciding.
    fn resume(&mut self, reader: Reader, outlet: &mut impl Outlet) {
        if let Some(attached) = self.session_mut(reader.mailbox, reader.device, reader.conn) {
            attached.mode = Mode::Behind;
            self.advance(reader.mailbox, reader.device, outlet);
        }
    }
}

/// An error that says what the disk holds, not what the process lacks.
fn is_of_the_medium(errno: Errno) -> bool {
    const EIO: i32 = 5;
    const ENODATA: i32 = 61;
    const EILSEQ: i32 = 84;
    matches!(errno.0, EIO | ENODATA | EILSEQ)
}
