//! A relay with one lane, a disk, and sessions that write down what they hear.

use shards::io::SegmentId;
use shards::testing::{Fault, SimDisk};
use shards::{AlignedBuf, Completion, LaneSet, Store, StoreConfig, StoreId};

use super::super::copy_forward::Walk;
use super::super::mailbox::MailboxKey;
use super::super::{
    AckOutcome, AttachRefusal, Attachment, Delivery, Incoming, Origin, Outcome, Outlet, Rate, ReadEnd,
    Receipt, Recovering, Relay, RelayLimits, Verdict, Window,
};
use crate::rt::api::{ConnId, CoreId, Now};
use crate::stats::{CoreCounters, per_core};
use crate::wire::{Address, DeviceId, Epoch, MailboxSeq, MessageId};

pub const ALICE: Address = Address([0xA1; 32]);
pub const BOB: Address = Address([0xB0; 32]);
pub const PHONE: DeviceId = DeviceId([1; 16]);
pub const TABLET: DeviceId = DeviceId([2; 16]);
pub const WINDOW: Window = Window { messages: 8, bytes: 1 << 20 };
pub const TTL_MAX_S: u32 = 86_400;
pub const MAILBOX_MESSAGES: u32 = 200;
pub const DEVICES: u8 = 3;
pub const DEDUP_IDS: u32 = 500;
const SEGMENT_BYTES: u32 = 256 * 1024;
const BUFFER_BYTES: usize = 16 * 1024;

pub fn device(number: u8) -> DeviceId {
    DeviceId([number; 16])
}

/// What the sessions were told.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Receipt { token: u64, outcome: Outcome },
    Delivery { conn: ConnId, seq: u64 },
    CaughtUp { conn: ConnId, seq: u64 },
    Delivered { id: MessageId },
    EpochChanged { conn: ConnId },
}

/// A session of a device.
#[derive(Clone, Copy)]
pub struct Listener {
    pub conn: ConnId,
    device: DeviceId,
    attachment: Attachment,
}

pub struct Rig {
    pub relay: Relay,
    pub heard: Vec<Heard>,
    /// Sessions that take nothing.
    pub deaf: Vec<ConnId>,
    /// DELIVERED receipts find no way.
    pub no_way: bool,
    lanes: LaneSet,
    disk: SimDisk,
    store: Store,
    now: Now,
    conns: u32,
}

/// The rig's sessions, apart from its relay.
struct Ears<'a> {
    heard: &'a mut Vec<Heard>,
    deaf: &'a [ConnId],
    no_way: bool,
}

impl Outlet for Ears<'_> {
    fn deliver(&mut self, conn: ConnId, delivery: &Delivery<'_>) -> bool {
        let takes = !self.deaf.contains(&conn);
        if takes {
            self.heard.push(Heard::Delivery { conn, seq: delivery.seq.0 });
        }
        takes
    }
    fn epoch_changed(&mut self, conn: ConnId) {
        self.heard.push(Heard::EpochChanged { conn });
    }
    fn caught_up(&mut self, conn: ConnId, seq: MailboxSeq) {
        self.heard.push(Heard::CaughtUp { conn, seq: seq.0 });
    }
    fn receipt(&mut self, origin: Origin, receipt: Receipt) {
        self.heard.push(Heard::Receipt { token: origin.token, outcome: receipt.outcome });
    }
    fn delivered(&mut self, _sender: Address, id: MessageId) -> bool {
        if !self.no_way {
            self.heard.push(Heard::Delivered { id });
        }
        !self.no_way
    }
}

macro_rules! ears {
    ($rig:expr) => {
        &mut Ears { heard: &mut $rig.heard, deaf: &$rig.deaf, no_way: $rig.no_way }
    };
}

impl Rig {
    pub fn new() -> Self {
        let disk = SimDisk::new(1);
        let config = StoreConfig {
            lanes: 1,
            segment_bytes: SEGMENT_BYTES,
            segments_per_lane: 2,
            store_id: StoreId([1; 16]),
            mixing_secret: [2; 32],
            node_id: [3; 32],
            created_ms: 5,
        };
        let store = Store::format(&disk, &config).unwrap();
        let now = Now { mono_us: 0, wall_ms: 1_700_000_000_000 };
        let (relay, lanes) = recover(&disk, &store, now);
        let (heard, deaf) = (Vec::new(), Vec::new());
        Self { relay, heard, deaf, no_way: false, lanes, disk, store, now, conns: 0 }
    }

    /// Power fails and comes back.
    pub fn restart(&mut self) {
        self.disk.crash(|_| false);
        (self.relay, self.lanes) = recover(&self.disk, &self.store, self.now);
        self.heard.clear();
    }

    pub fn pass_seconds(&mut self, seconds: u64) {
        self.now.mono_us += seconds * 1_000_000;
        self.now.wall_ms += seconds * 1_000;
    }

    fn incoming(id: u64, to: Address, ttl_s: u32, notify: bool, payload: &[u8]) -> Incoming<'_> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&id.to_le_bytes());
        let (id, from, notify) = (MessageId(bytes), ALICE, notify.then_some(ALICE));
        Incoming { to, id, dedup: id, from, notify, sent_ms: 1, ttl_s, payload }
    }

    fn accept(&mut self, token: u64, message: &Incoming<'_>) -> Verdict {
        let origin = Origin { core: CoreId(0), conn: ConnId { slot: 0, generation: 0 }, token };
        self.relay.accept(self.now, &mut self.lanes, message, origin)
    }

    pub fn send(&mut self, token: u64, to: Address, payload: &[u8]) -> Verdict {
        self.accept(token, &Self::incoming(1 << 32 | token, to, 0, false, payload))
    }

    pub fn send_as(&mut self, token: u64, id: u64, to: Address, payload: &[u8]) -> Verdict {
        self.accept(token, &Self::incoming(id, to, 0, false, payload))
    }

    /// Another sender uses the same id: the key of dedup differs.
    pub fn send_from_other(&mut self, token: u64, id: u64, to: Address, payload: &[u8]) -> Verdict {
        let message = Self::incoming(id, to, 0, false, payload);
        let dedup = MessageId(message.id.0.map(|byte| byte ^ 0x5A));
        self.accept(token, &Incoming { dedup, ..message })
    }

    pub fn send_ttl(&mut self, token: u64, to: Address, ttl_s: u32) -> Verdict {
        self.accept(token, &Self::incoming(token, to, ttl_s, false, b"x"))
    }

    pub fn send_notify(&mut self, token: u64, to: Address) -> Verdict {
        self.accept(token, &Self::incoming(token, to, 0, true, b"x"))
    }

    pub fn send_ephemeral(&mut self, id: u64, to: Address) -> Outcome {
        self.relay.relay_ephemeral(&Self::incoming(id, to, 0, false, b"x"), ears!(self)).outcome
    }

    pub fn attach(
        &mut self,
        address: Address,
        device: DeviceId,
    ) -> Result<(ConnId, Attachment), AttachRefusal> {
        self.conns += 1;
        let conn = ConnId { slot: self.conns, generation: 1 };
        self.relay.attach(self.now, &self.lanes, address, device, conn).map(|attachment| (conn, attachment))
    }

    pub fn listen(&mut self, address: Address, device: DeviceId, window: Window) -> Listener {
        let (conn, attachment) = self.attach(address, device).unwrap();
        self.relay.subscribe(attachment.mailbox, device, conn, window, ears!(self));
        Listener { conn, device, attachment }
    }

    pub fn writable(&mut self, listener: Listener) {
        let Listener { conn, device, attachment } = listener;
        self.relay.on_writable(attachment.mailbox, device, conn, ears!(self));
    }

    pub fn acknowledge(&mut self, listener: Listener, cumulative: u64) -> AckOutcome {
        self.acknowledge_all(listener, listener.attachment.epoch, cumulative, &[])
    }

    pub fn acknowledge_some(&mut self, listener: Listener, cumulative: u64, selective: &[u64]) -> AckOutcome {
        self.acknowledge_all(listener, listener.attachment.epoch, cumulative, selective)
    }

    pub fn acknowledge_epoch(&mut self, listener: Listener, cumulative: u64, epoch: u64) -> AckOutcome {
        self.acknowledge_all(listener, Epoch(epoch), cumulative, &[])
    }

    fn acknowledge_all(
        &mut self,
        listener: Listener,
        epoch: Epoch,
        cumulative: u64,
        selective: &[u64],
    ) -> AckOutcome {
        let Listener { conn, device, attachment } = listener;
        let (key, selective) = (attachment.mailbox, selective.iter().copied());
        self.relay.acknowledge(&mut self.lanes, key, device, conn, epoch, cumulative, selective, ears!(self))
    }

    pub fn housekeep(&mut self) {
        self.relay.housekeep(self.now, &mut self.lanes, ears!(self));
    }

    /// Gives the disk what the relay and its lane ask for. Returns how many operations.
    pub fn submit(&mut self) -> usize {
        let mut ops = Vec::new();
        self.relay.start_reads(self.now, &mut self.lanes, ears!(self), &mut ops);
        self.relay.copy_forward(&mut self.lanes, &mut ops);
        self.lanes.poll(self.now.mono_us, &mut ops);
        let count = ops.len();
        ops.into_iter().for_each(|op| self.disk.submit(op));
        count
    }

    /// Lets the disk do everything that is asked of it, markers excepted.
    pub fn commit(&mut self) {
        loop {
            self.submit();
            if !self.finish_one() {
                return;
            }
        }
    }

    /// At most so many completions. Returns how many operations were asked for.
    pub fn steps(&mut self, most: usize) -> usize {
        let mut operations = 0;
        for _ in 0..most {
            operations += self.submit();
            if !self.finish_one() {
                break;
            }
        }
        operations
    }

    /// Ends the oldest operation. False if there is none.
    pub fn finish_one(&mut self) -> bool {
        let Some(done) = self.disk.complete(0) else { return false };
        let (lane, relay) = (done.lane, &mut self.relay);
        let ears = ears!(self);
        match self.lanes.complete(self.now.mono_us, done, |record| relay.on_committed(lane, &record, ears)) {
            Completion::Committed { .. } => self.relay.after_batch(&mut self.lanes, lane),
            Completion::Read { op, result, buf } => {
                let end = ReadEnd { op, result, buf };
                self.relay.on_read(self.now, &mut self.lanes, lane, end, ears!(self));
            }
            Completion::Housekeeping | Completion::Prepared(_) => {}
            other => panic!("{other:?}"),
        }
        true
    }

    pub fn leave(&mut self, listener: Listener) {
        let Listener { conn, device, attachment } = listener;
        self.relay.detach(self.now, attachment.mailbox, device, conn);
    }

    /// Begins a walk that copies a mailbox's first message.
    pub fn copy_all_of(&mut self, key: MailboxKey, walk: impl FnOnce(SegmentId) -> Walk) {
        let segment = self.relay.mailboxes[key].entries.front().unwrap().loc.segment;
        self.relay.copying.walk = Some(walk(segment));
    }

    pub fn fail_reads(&mut self, count: usize) {
        (0..count).for_each(|_| self.disk.inject(Fault::ReadError));
    }

    /// Flips a bit in the payload of a message.
    pub fn damage(&mut self, key: MailboxKey, seq: u64) {
        let entries = &self.relay.mailboxes[key].entries;
        let loc = entries.iter().find(|entry| entry.seq == seq).unwrap().loc;
        self.disk.flip_bit(shards::io::LaneId(0), loc.segment, u64::from(loc.offset + loc.len / 2), 3);
    }

    /// As [`Rig::commit`]; says that reads are what matters.
    pub fn settle(&mut self) {
        self.commit();
    }

    pub fn delivered(&self, listener: Listener) -> Vec<u64> {
        let of = |heard: &Heard| match heard {
            Heard::Delivery { conn, seq } if *conn == listener.conn => Some(*seq),
            _ => None,
        };
        self.heard.iter().filter_map(of).collect()
    }

    pub fn outcomes(&self) -> Vec<(u64, Outcome)> {
        let of = |heard: &Heard| match heard {
            Heard::Receipt { token, outcome } => Some((*token, *outcome)),
            _ => None,
        };
        self.heard.iter().filter_map(of).collect()
    }

    pub fn segments_used(&self) -> u32 {
        self.lanes.usage().map(|usage| usage.segments).sum()
    }
}

fn recover(disk: &SimDisk, store: &Store, now: Now) -> (Relay, LaneSet) {
    let lane = shards::io::LaneId(0);
    let limits = RelayLimits {
        mailbox_messages: MAILBOX_MESSAGES,
        mailbox_bytes: 64 << 20,
        mailboxes: 100,
        queued_messages: 10_000,
        devices: DEVICES,
        dedup_ids: DEDUP_IDS,
        dedup_ids_core: 100_000,
        dedup_s: 86_400,
        ttl_default_s: TTL_MAX_S,
        ttl_max_s: TTL_MAX_S,
        device_retention_s: 2 * TTL_MAX_S,
        sender_messages: Rate { per_s: 0, burst: 0 },
        sender_bytes: Rate { per_s: 0, burst: 0 },
        reads: 2,
    };
    let stats = CoreCounters::new(&per_core(1), 0);
    let mut relay = Recovering::new(Relay::new(limits, lane, 1, store.created_ms(), 9, stats), now.wall_ms);
    let mut config = store.lane_config(lane);
    config.owner_reclaims = true;
    let buffers = (0..2).map(|_| AlignedBuf::zeroed(BUFFER_BYTES)).collect();
    let mut visitor = |record: shards::RecoveredRecord<'_>, ledger: &mut shards::Ledger| {
        relay.record(lane, &record, ledger);
    };
    let (recovered, report) = shards::Lane::recover(disk, config, buffers, &mut visitor).unwrap();
    assert!(!report.has_loss());
    let relay = relay.finish(|_| false);
    (relay, LaneSet::new(store.clone(), lane, vec![recovered]))
}
