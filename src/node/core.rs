//! The state of one core and its turn.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use shards::io::{DiskDone, DiskOp, Errno, LaneId};
use shards::{Completion, LaneSet};

use super::crossing::{Reply, Request};
use super::homes::Homes;
use super::outbound::BufferPool;
use super::outlet::Outputs;
use super::recovery::Recovery;
use super::session::{Phase, Session, Sessions};
use super::shared::Shared;
use super::sources::{SourceRefusal, Sources};
use crate::link::ServerLink;
use crate::relay::{ReadEnd, Receipt, Relay, Verdict};
use crate::rt::api::{ConnId, CoreId, CoreLogic, Effects, Event, Next, Now};
use crate::rt::crossing::{CoreCrossings, Port};
use crate::rt::ring::{RingStats, TURN_BUCKETS};
use crate::stats::CoreCounters;
use crate::wire::{CloseCode, MessageClass};

/// Requests taken from each other core in one turn.
const REQUESTS_PER_TURN: usize = 256;
/// Connections tried again in one turn after their frame found no room.
const RETRIES_PER_TURN: usize = 64;
/// Time between two steps of slow work, in microseconds.
const TICK_US: u64 = 200_000;

/// Everything one core owns.
pub struct Core {
    pub(super) out: Outputs,
    pub(super) relay: Relay,
    pub(super) lanes: LaneSet,
    pub(super) sources: Sources,
    /// Connections that are not logged in.
    pub(super) opening_count: u32,
    /// Connections whose turn to shake hands has not come, and how many more this turn may serve.
    pub(super) openings: VecDeque<ConnId>,
    pub(super) openings_left: u32,
    /// Connections whose frame waits for room.
    pub(super) blocked: VecDeque<ConnId>,
    /// Connections whose end was decided in this turn.
    pub(super) to_close: Vec<ConnId>,
    pub(super) stopping: bool,
    /// Where the walk over all connections for stalled and silent ones stands.
    pub(super) inspect_slot: usize,
    tick_at_us: u64,
    /// A request of another core, copied out of the crossing while it is served.
    request: Vec<u8>,
    ring: Option<Arc<RingStats>>,
    /// When the write in flight of each lane was submitted, and its bytes.
    written_us: Vec<(LaneId, u64, usize)>,
    /// What was shown already of how long turns take, by bucket of the driver.
    turns_told: [u64; TURN_BUCKETS],
    /// Lanes whose last attempt to make a segment failed.
    short_of_segments: Vec<LaneId>,
}

impl Core {
    /// A core that is ready to serve. `ring` are the counters of what drives it, if that counts.
    #[allow(clippy::too_many_arguments, reason = "each is a part of the core that comes from somewhere else")]
    pub fn new(
        core: CoreId,
        shared: Arc<Shared>,
        stats: CoreCounters,
        crossings: CoreCrossings<Reply>,
        ring: Option<Arc<RingStats>>,
        reply_credits: u32,
        hash_seed: u64,
        recovery: Recovery,
    ) -> Self {
        let Recovery { lanes, relay, damaged } = recovery;
        let relay = relay.finish(|lane| damaged.contains(&lane));
        let credits = vec![reply_credits; usize::from(crossings.cores())];
        let out = Outputs {
            core,
            sessions: Sessions::default(),
            pool: BufferPool::default(),
            crossings,
            credits,
            dirty: Vec::new(),
            delivered_here: Vec::new(),
            ended: Vec::new(),
            homes: Homes::default(),
            shared,
            stats,
        };
        Self {
            out,
            relay,
            lanes,
            sources: Sources::new(hash_seed),
            opening_count: 0,
            openings: VecDeque::new(),
            openings_left: 0,
            blocked: VecDeque::new(),
            to_close: Vec::new(),
            stopping: false,
            inspect_slot: 0,
            tick_at_us: 0,
            request: Vec::new(),
            ring,
            written_us: Vec::new(),
            turns_told: [0; TURN_BUCKETS],
            short_of_segments: Vec::new(),
        }
    }

    fn accepted(&mut self, now: Now, conn: ConnId, peer: SocketAddr, effects: &mut Effects) {
        let stats = self.out.stats.clone();
        stats.link.connections_accepted.inc();
        let limits = &self.out.shared.sessions;
        let full =
            self.out.sessions.len() >= limits.connections as usize || self.opening_count >= limits.opening;
        let refused = if full || self.stopping {
            Some(0)
        } else {
            match self.sources.open(now.mono_us, limits, peer) {
                Ok(()) => None,
                Err(SourceRefusal::TooMany) => Some(1),
                Err(SourceRefusal::TooFast) => Some(2),
            }
        };
        if let Some(reason) = refused {
            stats.link.connections_refused.inc(reason);
            return effects.close(conn);
        }
        let link = Box::new(ServerLink::new(&self.out.shared.link));
        let open_by_us = now.mono_us + self.out.shared.deadlines.tls_us;
        self.out.sessions.insert(Session::new(conn, peer, link, now.mono_us, open_by_us));
        self.opening_count += 1;
        stats.link.connections_open.inc();
    }

    fn adopted(
        &mut self,
        now: Now,
        conn: ConnId,
        state: Box<dyn std::any::Any + Send>,
        effects: &mut Effects,
    ) {
        let Ok(mut session) = state.downcast::<Session>() else {
            unreachable!("only sessions are handed over");
        };
        session.conn = conn;
        session.paused = false;
        session.blocked_listed = false;
        session.heard_us = now.mono_us;
        session.progress_us = now.mono_us;
        let Phase::Moving(logged_in) = session.phase else {
            unreachable!("a session moves between login and welcome");
        };
        self.sources.adopt(session.peer);
        self.out.sessions.insert(*session);
        self.opening_count += 1;
        self.out.stats.link.connections_open.inc();
        if self.stopping {
            return self.close_with(now, conn, CloseCode::ShuttingDown.into());
        }
        match self.arrive(now, conn, logged_in) {
            Ok(()) => self.after_input(now, conn, effects),
            Err(fatal) => self.close_with(now, conn, fatal),
        }
    }

    /// Lets the lanes submit, and notes when each write began.
    fn poll_lanes(&mut self, now: Now, effects: &mut Effects) {
        let from = effects.disk.len();
        self.lanes.poll(now.mono_us, &mut effects.disk);
        for op in &effects.disk[from..] {
            if let DiskOp::Write { lane, len, .. } = op {
                self.written_us.push((*lane, now.mono_us, *len));
            }
        }
    }

    fn count_write(&mut self, now: Now, lane: LaneId) {
        if let Some(at) = self.written_us.iter().position(|written| written.0 == lane) {
            let (_, began_us, bytes) = self.written_us.swap_remove(at);
            self.out.stats.log.commit_latency_us.record(now.mono_us.saturating_sub(began_us));
            self.out.stats.log.batch_bytes.record(bytes as u64);
        }
    }

    fn disk(&mut self, now: Now, done: DiskDone) {
        let lane = done.lane;
        let (relay, out) = (&mut self.relay, &mut self.out);
        let end = self.lanes.complete(now.mono_us, done, |record| relay.on_committed(lane, &record, out));
        match end {
            Completion::Committed { first, last, .. } => {
                self.relay.after_batch(&mut self.lanes, lane);
                self.count_write(now, lane);
                self.out.stats.log.batch_records.record(last.0 - first.0 + 1);
            }
            Completion::Refused { first, last, errno } => {
                tracing::error!(
                    lane = lane.0,
                    errno = errno.0,
                    "two writes failed: this lane takes nothing more; replace the disk and start again"
                );
                self.count_write(now, lane);
                self.relay.on_failed(lane, first, last, &mut self.out);
            }
            Completion::Read { op, result, buf } => {
                let end = ReadEnd { op, result, buf };
                self.relay.on_read(now, &mut self.lanes, lane, end, &mut self.out);
            }
            Completion::WriteFailed(errno) => {
                tracing::error!(
                    lane = lane.0,
                    errno = errno.0,
                    "a write failed; its batch goes to another segment"
                );
                self.count_write(now, lane);
                self.out.stats.log.writes_failed.inc();
                self.out.stats.log.writes_reissued.inc();
            }
            Completion::Housekeeping => self.count_write(now, lane),
            Completion::Prepared(_) => self.short_of_segments.retain(|short| *short != lane),
            Completion::PrepareFailed(errno) => self.tell_of_no_segment(lane, errno),
            Completion::Unknown(op) => unreachable!("{op:?} was never issued to lane {}", lane.0),
        }
    }

    /// Says once, until it has changed, that a lane cannot grow.
    fn tell_of_no_segment(&mut self, lane: LaneId, errno: Errno) {
        if !self.short_of_segments.contains(&lane) {
            self.short_of_segments.push(lane);
            tracing::warn!(
                lane = lane.0,
                errno = errno.0,
                "no new segment could be made; when the ones there are full, messages are refused: \
                 free space on the disk"
            );
        }
    }

    /// Takes the answers and the requests of the other cores. True if more wait than this turn may take.
    fn drain_crossings(&mut self, now: Now) -> bool {
        let mut more = false;
        for from in self.out.crossings.others() {
            while let Some(reply) = self.out.crossings.pop_reply(from) {
                self.out.credits[usize::from(from.0)] += 1;
                self.out.receipt_here(reply.conn, reply.token, reply.receipt);
            }
            more |= self.drain_requests(now, from);
        }
        self.hand_out_delivered();
        more
    }

    fn drain_requests(&mut self, now: Now, from: CoreId) -> bool {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(bytes) = self.out.crossings.peek_request(from) else { return false };
            let mut request = std::mem::take(&mut self.request);
            request.clear();
            request.extend_from_slice(bytes);
            let served = self.serve(now, from, &request);
            self.request = request;
            if !served {
                // The commit pipeline is full: what waits here waits for the next completion.
                return false;
            }
            self.out.crossings.pop_request(from);
        }
        self.out.crossings.peek_request(from).is_some()
    }

    /// Serves one request of another core. `false` if its lane takes nothing before its next completion.
    fn serve(&mut self, now: Now, from: CoreId, bytes: &[u8]) -> bool {
        let Some(request) = Request::decode(bytes, from) else {
            unreachable!("cores of one process understand each other");
        };
        match request {
            Request::Durable { message, origin } => {
                match self.relay.accept(now, &mut self.lanes, &message, origin) {
                    Verdict::Pending => {}
                    Verdict::Known(receipt) => {
                        self.count(MessageClass::Durable, &receipt);
                        self.out.hand_receipt(origin, receipt);
                    }
                    Verdict::Busy => return false,
                }
            }
            Request::Ephemeral { message, origin } => {
                let receipt = self.relay.relay_ephemeral(&message, &mut self.out);
                self.count(MessageClass::Ephemeral, &receipt);
                if let Some(origin) = origin {
                    self.out.hand_receipt(origin, receipt);
                }
            }
            Request::Delivered { sender, id } => self.out.delivered_here.push((sender, id)),
        }
        true
    }

    fn retry_blocked_connections(&mut self, now: Now, effects: &mut Effects) {
        for _ in 0..self.blocked.len().min(RETRIES_PER_TURN) {
            let Some(conn) = self.blocked.pop_front() else { return };
            if let Some(session) = self.out.sessions.get(conn) {
                session.blocked_listed = false;
            }
            self.after_input(now, conn, effects);
        }
    }

    /// Seals and sends what sessions have to say, one buffer each at a time.
    fn flush(&mut self, now: Now, effects: &mut Effects) {
        for index in 0..self.out.dirty.len() {
            let conn = self.out.dirty[index];
            let Some(session) = self.out.sessions.get(conn) else { continue };
            session.out.listed = false;
            if session.out.in_flight || session.out.is_empty() {
                continue;
            }
            let Some(link) = session.link.as_deref_mut() else { continue };
            match session.out.take_sealed(link) {
                Ok(buffer) => {
                    session.out.in_flight = true;
                    session.progress_us = now.mono_us;
                    self.out.stats.link.bytes_out.add(buffer.len() as u64);
                    effects.send(conn, buffer);
                }
                Err(_) => effects.close(conn),
            }
        }
        self.out.dirty.clear();
    }

    fn sent(&mut self, now: Now, conn: ConnId, buffer: Vec<u8>, effects: &mut Effects) {
        self.out.pool.give(buffer);
        let Some(session) = self.out.sessions.get(conn) else { return };
        session.out.in_flight = false;
        session.progress_us = now.mono_us;
        if !session.out.is_empty() {
            self.out.list(conn);
        } else if matches!(session.phase, Phase::Closing) {
            return effects.close(conn);
        }
        if let Some(identity) = self.out.sessions.get(conn).and_then(|session| session.identity()) {
            self.relay.on_writable(identity.mailbox, identity.device, conn, &mut self.out);
        }
        self.after_input(now, conn, effects);
    }

    /// Slow work, every [`TICK_US`].
    fn tick(&mut self, now: Now, effects: &mut Effects) {
        self.tick_at_us = now.mono_us + TICK_US;
        self.relay.housekeep(now, &mut self.lanes, &mut self.out);
        self.sources.sweep(now.mono_us, &self.out.shared.sessions);
        self.inspect(now, effects);
        let stats = &self.out.stats;
        stats.relay.mailboxes.set(self.relay.mailbox_count() as u64);
        stats.relay.queued_messages.set(self.relay.queued_messages());
        stats.relay.queued_bytes.set(self.relay.queued_bytes());
        stats.rt.buffers_free.set(self.out.pool.len() as u64);
        self.count_space();
        self.count_ring();
    }

    /// Shows what the driver of this core has counted.
    fn count_ring(&mut self) {
        let Some(ring) = &self.ring else { return };
        let rt = &self.out.stats.rt;
        rt.turns.set(ring.turns.get());
        rt.enters.set(ring.enters.get());
        rt.completions.set(ring.cqes.get());
        rt.hand_overs.set(ring.handed_over.get());
        rt.operations_in_flight.set(ring.in_flight.get());
        for (bucket, (turns, told)) in ring.turn_us.iter().zip(&mut self.turns_told).enumerate() {
            // A bucket holds the turns of less than this many microseconds.
            let new = turns.get() - std::mem::replace(told, turns.get());
            rt.turn_time_us.record_many(1 << bucket, new);
        }
        let crossings = self.out.crossings.stats();
        rt.crossing_refusals.set(crossings.requests_refused);
        rt.crossing_wakes.set(crossings.rings);
        rt.crossing_depth_max.observe(crossings.request_depth_bytes as u64);
    }

    fn count_space(&self) {
        let log = &self.out.stats.log;
        let mut sum = [0u64; 5];
        for usage in self.lanes.usage() {
            let (segments, spares) = (u64::from(usage.segments), u64::from(usage.spares));
            let sealed = segments.saturating_sub(spares + 1);
            let bytes = u64::from(usage.segment_bytes);
            let limit = u64::from(usage.segments_max) * bytes;
            let read_only = u64::from(usage.read_only.is_some());
            let parts = [spares, sealed, (segments - spares) * bytes, limit, read_only];
            sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        }
        log.segments_active.set(self.lanes.iter().count() as u64);
        log.segments_spare.set(sum[0]);
        log.segments_sealed.set(sum[1]);
        log.store_used_bytes.set(sum[2]);
        log.store_limit_bytes.set(sum[3]);
        log.lanes_read_only.set(sum[4]);
    }

    pub(super) fn count(&self, class: MessageClass, receipt: &Receipt) {
        super::outlet::count_receipt(&self.out.stats, class, receipt);
    }

    /// The space of every lane and the work under way, for a simulated run that went wrong.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> String {
        let lanes: Vec<_> = self
            .lanes
            .iter()
            .map(|(id, lane)| {
                format!(
                    "lane {}: {:?}\n  reclaimable {:?} sparsest {:?}",
                    id.0,
                    lane.usage(),
                    lane.reclaimable_segment(),
                    lane.sparsest_segment(|_| true)
                )
            })
            .collect();
        format!("{}\n{}", lanes.join("\n"), self.relay.describe())
    }

    /// What must happen before this core is done: every connection closed, every cursor and batch on disk.
    fn drained(&mut self) -> bool {
        if self.out.sessions.len() > 0 || !self.relay.write_all_states(&mut self.lanes) {
            return false;
        }
        self.lanes.begin_shutdown();
        true
    }
}

impl CoreLogic for Core {
    fn port(&mut self) -> Option<&mut dyn Port> {
        Some(&mut self.out.crossings)
    }

    fn on_event(&mut self, now: Now, event: Event<'_>, effects: &mut Effects) {
        match event {
            Event::Accepted { conn, peer } => self.accepted(now, conn, peer, effects),
            Event::Adopted { conn, state, .. } => self.adopted(now, conn, state, effects),
            Event::Received { conn, data } => self.received(now, conn, data, effects),
            Event::Sent { conn, buf, .. } => self.sent(now, conn, buf, effects),
            Event::SendProgress { conn } => {
                if let Some(session) = self.out.sessions.get(conn) {
                    session.progress_us = now.mono_us;
                }
            }
            Event::Closed { conn, cause } => self.closed(now, conn, cause),
            Event::AcceptFailed { .. } => self.out.stats.link.accept_failures.inc(),
            Event::Disk(done) => self.disk(now, done),
        }
    }

    fn turn(&mut self, now: Now, effects: &mut Effects) -> Next {
        let mut more = self.drain_crossings(now);
        more |= self.serve_openings(now, effects);
        self.retry_blocked_connections(now, effects);
        if now.mono_us >= self.tick_at_us {
            self.tick(now, effects);
        }
        self.relay.start_reads(now, &mut self.lanes, &mut self.out, &mut effects.disk);
        self.relay.copy_forward(&mut self.lanes, &mut effects.disk);
        let drained = self.stopping && self.drained();
        while let Some(conn) = self.out.ended.pop() {
            self.close_with(now, conn, CloseCode::EpochChanged.into());
        }
        self.poll_lanes(now, effects);
        self.flush(now, effects);
        self.close_silent(effects);
        if drained && self.lanes.is_drained() && effects.is_empty() {
            return Next::Done;
        }
        if more {
            return Next::Now;
        }
        let deadline_us = self.lanes.next_deadline();
        Next::At(deadline_us.map_or(self.tick_at_us, |at_us| at_us.min(self.tick_at_us)))
    }

    fn begin_shutdown(&mut self, now: Now, _effects: &mut Effects) {
        self.stopping = true;
        for slot in 0..self.out.sessions.slot_end() {
            let conn = self.out.sessions.at(slot).map(|session| session.conn);
            if let Some(conn) = conn {
                self.close_with(now, conn, CloseCode::ShuttingDown.into());
            }
        }
    }
}
