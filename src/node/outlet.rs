//! The way from the relay to sessions, on this core or another.

use super::crossing::{Reply, Request};
use super::homes::Homes;
use super::outbound::BufferPool;
use super::session::Sessions;
use super::shared::Shared;
use crate::relay::{Delivery, Origin, Outcome, Outlet, Receipt};
use crate::rt::api::{ConnId, CoreId};
use crate::rt::crossing::CoreCrossings;
use crate::stats::CoreCounters;
use crate::wire::{
    self, Address, Deliver, DeliverFlags, MailboxSeq, MessageId, ReceiptStatus, RequestId, ServerFrame,
};

/// Everything of a core that carries frames and crossings outwards.
pub(super) struct Outputs {
    pub core: CoreId,
    pub sessions: Sessions,
    pub pool: BufferPool,
    pub crossings: CoreCrossings<Reply>,
    /// Replies that may still be asked of each core.
    pub credits: Vec<u32>,
    /// Connections with something to flush.
    pub dirty: Vec<ConnId>,
    /// DELIVERED receipts for senders whose home is this core, to be handed out after the relay's call.
    pub delivered_here: Vec<(Address, MessageId)>,
    pub homes: Homes,
    /// Sessions whose mailbox has a new epoch, to be ended after the relay's call.
    pub ended: Vec<ConnId>,
    pub shared: std::sync::Arc<Shared>,
    pub stats: CoreCounters,
}

impl Outputs {
    /// Writes a frame to a session and lists it for flushing. `false` if the session is gone.
    pub(super) fn write(&mut self, conn: ConnId, frame: &ServerFrame<'_>) -> bool {
        let Some(session) = self.sessions.get(conn) else { return false };
        session.out.write(&mut self.pool, frame);
        self.stats.link.frames_out.inc();
        self.list(conn);
        true
    }

    /// The core that is home to the recipient of a message.
    pub(super) fn home_of(&mut self, address: &Address) -> CoreId {
        self.homes.of(address, |address| self.shared.home_of(address))
    }

    /// Remembers to flush a session at the end of the turn.
    pub(super) fn list(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.get(conn)
            && !std::mem::replace(&mut session.out.listed, true)
        {
            self.dirty.push(conn);
        }
    }

    /// Writes the receipt of a request to the session that made it.
    pub(super) fn receipt_here(&mut self, conn: ConnId, token: u64, receipt: Receipt) {
        let Some(session) = self.sessions.get(conn) else { return };
        session.outstanding = session.outstanding.saturating_sub(1);
        self.write(conn, &ServerFrame::Receipt(wire_receipt(RequestId(token), &receipt)));
    }

    /// Takes a receipt, which is counted already, to the core of the session that waits for it.
    pub(super) fn hand_receipt(&mut self, origin: Origin, receipt: Receipt) {
        if origin.core == self.core {
            return self.receipt_here(origin.conn, origin.token, receipt);
        }
        let reply = Reply { conn: origin.conn, token: origin.token, receipt };
        let refused = self.crossings.push_reply(origin.core, reply);
        assert!(refused.is_ok(), "a reply slot was reserved by the credit of its request");
    }

    /// Asks another core. `false` if the way is full; nothing was sent then.
    pub(super) fn ask(&mut self, to: CoreId, request: &Request<'_>) -> bool {
        let credit = &mut self.credits[usize::from(to.0)];
        if request.wants_reply() && *credit == 0 {
            return false;
        }
        if self.crossings.push_request(to, &[&request.head(), request.payload()]).is_err() {
            return false;
        }
        if request.wants_reply() {
            *credit -= 1;
        }
        true
    }
}

impl Outlet for Outputs {
    fn deliver(&mut self, conn: ConnId, delivery: &Delivery<'_>) -> bool {
        let Some(session) = self.sessions.get(conn) else { return false };
        if !session.out.has_room(delivery.payload.len()) {
            return false;
        }
        let frame = ServerFrame::Deliver(Deliver {
            seq: delivery.seq,
            id: delivery.id,
            from: delivery.from,
            sent_ms: delivery.sent_ms,
            flags: DeliverFlags { ephemeral: delivery.seq.0 == 0, maybe_redelivery: delivery.redelivery },
            payload: delivery.payload,
        });
        self.write(conn, &frame)
    }

    fn epoch_changed(&mut self, conn: ConnId) {
        self.ended.push(conn);
    }

    fn caught_up(&mut self, conn: ConnId, seq: MailboxSeq) {
        self.write(conn, &ServerFrame::CaughtUp { seq });
    }

    fn receipt(&mut self, origin: Origin, receipt: Receipt) {
        // Only durable messages get their receipts from the relay itself.
        count_receipt(&self.stats, wire::MessageClass::Durable, &receipt);
        self.hand_receipt(origin, receipt);
    }

    fn delivered(&mut self, sender: Address, id: MessageId) -> bool {
        let home = self.shared.home_of(&sender);
        if home == self.core {
            self.delivered_here.push((sender, id));
            return true;
        }
        self.ask(home, &Request::Delivered { sender, id })
    }
}

/// A receipt as it goes over the wire.
pub(super) fn wire_receipt(request: RequestId, receipt: &Receipt) -> wire::Receipt {
    let (status, retry_ms, seq) = match receipt.outcome {
        Outcome::Accepted(seq) => (ReceiptStatus::Accepted, 0, seq),
        Outcome::Delivered => (ReceiptStatus::Delivered, 0, MailboxSeq(0)),
        Outcome::Relayed => (ReceiptStatus::Relayed, 0, MailboxSeq(0)),
        Outcome::Rejected { reason, retry_ms } => (ReceiptStatus::Rejected(reason), retry_ms, MailboxSeq(0)),
    };
    wire::Receipt { request, status, retry_ms, seq, id: receipt.id }
}

/// Counts what a sender is told.
pub(super) fn count_receipt(stats: &CoreCounters, class: wire::MessageClass, receipt: &Receipt) {
    let class = class.code();
    let receipt = wire_receipt(RequestId(0), receipt);
    stats.relay.receipts.inc(class, receipt.status.code());
    if let ReceiptStatus::Rejected(reason) = receipt.status {
        stats.relay.rejects.inc(class, reason.code());
    }
}
