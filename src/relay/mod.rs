//! The relay of one core: durable mailboxes, device cursors, live delivery and receipts.
//!
//! # Purpose
//! A message arrives for an address, is made durable in that address's lane, is acknowledged to its sender,
//! and is pushed to every device of the address until each has acknowledged it or its time to live ends.
//!
//! # Promises
//! * ACCEPTED is made in one place only (`commit`), from the completion of the write that made the message
//!   durable.
//! * Order per mailbox is commit order. A message is delivered at least once or expires; the same message id
//!   within
//!   the dedup window is stored once and gets the same receipt.
//! * Producers are never slowed by consumers: a device that falls behind is switched to *cursor mode*, costs
//!   no
//!   memory for what it has not read, and reads on from the log when it acknowledges (`catch_up`).
//!
//! # Failure model
//! A crash loses nothing that was acknowledged. It may forget the last moments of a device's
//! acknowledgements, so that messages repeat. When recovery finds that acknowledged data was lost on the
//! medium, the mailbox gets a new epoch, so that its devices can tell.
//!
//! # Who calls it
//! `node` feeds it frames, crossings and disk completions of its own core. It calls the lanes (`shards`) and,
//! through [`Outlet`], the sessions of the same core. It is a state machine: no clock, no socket, no file.

mod accept;
mod ack;
mod attach;
mod catch_up;
mod chunks;
mod commit;
mod copy_forward;
mod dedup;
mod housekeeping;
mod mailbox;
mod quota;
mod records;
mod recover;
mod table;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use shards::io::{LaneId, SegmentId};
use shards::{Kind, Lsn, RecordLoc};

use crate::rt::api::{ConnId, CoreId};
use crate::stats::CoreCounters;
use crate::wire::{Address, Epoch, MailboxSeq, MessageId, RejectReason};

pub use ack::AckOutcome;
pub use attach::{AttachRefusal, Attachment, Window};
pub use catch_up::ReadEnd;
pub use mailbox::MailboxKey;
pub use quota::{Bucket, Rate};
#[doc(hidden)]
pub use records::fuzz_records;
pub use recover::Recovering;
pub(crate) use table::hasher;

use catch_up::CatchUp;
use copy_forward::CopyForward;
use dedup::DedupIndex;
use table::Table;

/// Upper bounds of the relay of one core. All are set at start.
#[derive(Clone, Copy, Debug)]
pub struct RelayLimits {
    /// Messages a mailbox may hold, staged ones included.
    pub mailbox_messages: u32,
    /// Payload bytes a mailbox may hold.
    pub mailbox_bytes: u64,
    /// Mailboxes on this core.
    pub mailboxes: u32,
    /// Messages in all mailboxes of this core: bounds the index in memory.
    pub queued_messages: u64,
    /// Devices of one mailbox.
    pub devices: u8,
    /// Message ids a mailbox remembers.
    pub dedup_ids: u32,
    /// Message ids remembered on this core, beyond which each mailbox keeps only its newest few.
    pub dedup_ids_core: u64,
    /// How long it remembers them, in seconds.
    pub dedup_s: u32,
    /// Time to live when a sender gives none, in seconds.
    pub ttl_default_s: u32,
    /// Longest time to live, in seconds.
    pub ttl_max_s: u32,
    /// A device that was not seen for this long, in seconds, is forgotten and holds nothing back.
    pub device_retention_s: u32,
    /// Messages per second of one sender.
    pub sender_messages: Rate,
    /// Payload bytes per second of one sender.
    pub sender_bytes: Rate,
    /// Reads from the log in flight at once, for catching up.
    pub reads: u16,
}

/// Where a message came from, so that its receipt finds the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Core of the sender's session.
    pub core: CoreId,
    /// The session's connection on that core.
    pub conn: ConnId,
    /// The sender's own number of the request.
    pub token: u64,
}

/// A message as it reached the core of its recipient. Checked for size, class and the sender's rate already.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Recipient.
    pub to: Address,
    /// Chosen by the sender.
    pub id: MessageId,
    /// The key of deduplication: the id mixed with a secret of the sender's address, so that nobody who has
    /// seen an id can take it for a message of his own and have the sender's own message pass for a
    /// repetition.
    pub dedup: MessageId,
    /// Sender's address; all zero if the recipient shall not be told.
    pub from: Address,
    /// Sender's address if a DELIVERED receipt is wanted.
    pub notify: Option<Address>,
    /// Sender's clock, in milliseconds since 1970; passed through.
    pub sent_ms: u64,
    /// Time to live in seconds; 0 asks for the longest.
    pub ttl_s: u32,
    /// Sealed by the sender for the recipient; the node never looks inside.
    pub payload: &'a [u8],
}

/// What a sender is told about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message.
    pub id: MessageId,
    /// Its fate.
    pub outcome: Outcome,
}

/// What [`Relay::accept`] made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Staged; the receipt follows through [`Outlet::receipt`] when its batch is committed or has failed.
    Pending,
    /// Answered at once.
    Known(Receipt),
    /// Nothing was done: the lane's buffers are all in use. Offer it again after the next completion.
    Busy,
}

/// The fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On disk here, under this number of the recipient's mailbox.
    Accepted(MailboxSeq),
    /// A device of the recipient acknowledged it.
    Delivered,
    /// Handed to connected devices and not stored (ephemeral class).
    Relayed,
    /// Not taken; trying again makes sense after `retry_ms`, or never if that is 0.
    Rejected { reason: RejectReason, retry_ms: u32 },
}

/// A message on its way to a device.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Its number in the mailbox, 0 for the ephemeral class.
    pub seq: MailboxSeq,
    /// Its id.
    pub id: MessageId,
    /// Sender, all zero if not told.
    pub from: Address,
    /// Sender's clock in milliseconds.
    pub sent_ms: u64,
    /// It may have been delivered to this device before.
    pub redelivery: bool,
    /// As the sender sealed it.
    pub payload: &'a [u8],
}

/// The sessions of the same core, as the relay sees them.
pub trait Outlet {
    /// Writes a message to a session. `false` if its buffer has no room; the session then reports
    /// [`Relay::on_writable`] when it has drained.
    fn deliver(&mut self, conn: ConnId, delivery: &Delivery<'_>) -> bool;
    /// The mailbox of a session has lost a message and got a new epoch: the session is to end, with a reason
    /// that brings the device back.
    fn epoch_changed(&mut self, conn: ConnId);
    /// Tells a session that it has been given everything up to `seq`.
    fn caught_up(&mut self, conn: ConnId, seq: MailboxSeq);
    /// Takes a receipt to its sender, on whatever core that is. Never refused: room was reserved with the
    /// request.
    fn receipt(&mut self, origin: Origin, receipt: Receipt);
    /// Tells the sessions of `sender` that its message was delivered. `false` if the way there is full now.
    fn delivered(&mut self, sender: Address, id: MessageId) -> bool;
}

/// What was staged in a lane and waits for its commit, in LSN order.
#[derive(Debug)]
enum Staged {
    Message { lsn: Lsn, mailbox: MailboxKey, seq: u64, id: MessageId, payload_bytes: u32, origin: Origin },
    State { lsn: Lsn, mailbox: MailboxKey },
    Dedup { lsn: Lsn, mailbox: MailboxKey, from: SegmentId },
    Copied { lsn: Lsn, mailbox: MailboxKey, seq: u64, from: RecordLoc },
}

/// A second request for a message that is staged already; it gets the receipt of the first.
#[derive(Debug)]
struct Waiter {
    mailbox: MailboxKey,
    seq: u64,
    origin: Origin,
}

/// The relay's part of one lane.
#[derive(Debug)]
struct LaneBook {
    /// Epoch of mailboxes of which the log says nothing else: when the store was made, or when the lane last
    /// lost data. A mailbox that lost even its state is told by it.
    epoch: Epoch,
    staged: VecDeque<Staged>,
    waiters: Vec<Waiter>,
    /// Mailboxes whose state on disk is behind, in the order in which they fell behind.
    dirty: VecDeque<MailboxKey>,
    relocation: Option<housekeeping::Relocation>,
    /// Records replaced by ones that have just been committed.
    replaced: Vec<(RecordLoc, Kind)>,
    /// The lane has lost data, and so many mailboxes have a new epoch that is not on disk yet.
    owes_epochs: Option<u32>,
    /// Since when the lane has taken nothing because its buffers were all in use.
    busy_since_us: Option<u64>,
}

impl LaneBook {
    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            staged: VecDeque::new(),
            waiters: Vec::new(),
            dirty: VecDeque::new(),
            relocation: None,
            replaced: Vec::new(),
            owes_epochs: None,
            busy_since_us: None,
        }
    }
}

/// The mailboxes of one core.
pub struct Relay {
    limits: RelayLimits,
    mailboxes: Table,
    dedup: DedupIndex,
    books: Vec<LaneBook>,
    first_lane: LaneId,
    catch_up: CatchUp,
    copying: CopyForward,
    queued_messages: u64,
    queued_bytes: u64,
    sweep: housekeeping::Sweep,
    /// For encoding records; keeps its capacity.
    scratch: Vec<u8>,
    stats: CoreCounters,
}

impl Relay {
    /// An empty relay for `lanes` lanes from `first_lane` of a store made at `created_ms`. `hash_seed` keeps
    /// outsiders from choosing colliding keys.
    pub fn new(
        limits: RelayLimits,
        first_lane: LaneId,
        lanes: usize,
        created_ms: u64,
        hash_seed: u64,
        stats: CoreCounters,
    ) -> Self {
        Self {
            limits,
            mailboxes: Table::new(hash_seed),
            dedup: DedupIndex::new(hash_seed),
            books: (0..lanes).map(|_| LaneBook::new(Epoch(created_ms))).collect(),
            first_lane,
            catch_up: CatchUp::new(limits.reads),
            copying: CopyForward::new(),
            queued_messages: 0,
            queued_bytes: 0,
            sweep: housekeeping::Sweep::default(),
            scratch: Vec::new(),
            stats,
        }
    }

    /// The work under way, for a simulated run that went wrong.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> String {
        format!("{:#?}", self.books)
    }

    fn book(&mut self, lane: LaneId) -> &mut LaneBook {
        &mut self.books[usize::from(lane.0 - self.first_lane.0)]
    }

    /// Messages held for all mailboxes of this core.
    pub fn queued_messages(&self) -> u64 {
        self.queued_messages
    }

    /// Payload bytes held for all mailboxes of this core.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Mailboxes on this core.
    pub fn mailbox_count(&self) -> usize {
        self.mailboxes.len()
    }
}
