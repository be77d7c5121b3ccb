//! Acknowledgements of a device: its cursor moves, the window opens, messages that every device has are let
//! go.

use shards::{Kind, LaneSet};

use super::mailbox::{Mailbox, MailboxKey};
use super::{Outlet, Relay};
use crate::rt::api::ConnId;
use crate::wire::{Address, DeviceId, Epoch, MessageId};

/// How far an acknowledgement could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckOutcome {
    /// Fully.
    Done,
    /// Only in part: the way to a sender's core is full. Give the same acknowledgement again when it has
    /// drained.
    Blocked,
    /// It named another epoch of the mailbox, or a session that is gone; nothing was changed.
    Stale,
}

impl Relay {
    /// Takes a cumulative and a selective acknowledgement. `selective` rises strictly and lies above
    /// `cumulative`.
    #[allow(clippy::too_many_arguments, reason = "the acknowledgement's own fields and where it came from")]
    pub fn acknowledge(
        &mut self,
        lanes: &mut LaneSet,
        key: MailboxKey,
        device: DeviceId,
        conn: ConnId,
        epoch: Epoch,
        cumulative: u64,
        selective: impl Iterator<Item = u64>,
        outlet: &mut impl Outlet,
    ) -> AckOutcome {
        if self.session_mut(key, device, conn).is_none() || self.mailboxes[key].epoch != epoch {
            return AckOutcome::Stale;
        }
        self.stats.relay.acks.inc();
        let done = self.move_cursor(key, device, cumulative, outlet)
            && selective.into_iter().all(|seq| self.mark_selective(key, device, seq, outlet));
        self.let_go_below_floor(lanes, key);
        self.mark_dirty(key);
        self.advance(key, device, outlet);
        if done { AckOutcome::Done } else { AckOutcome::Blocked }
    }

    /// Moves the cursor to `cumulative`, message by message. `false` if a DELIVERED receipt found no way.
    fn move_cursor(
        &mut self,
        key: MailboxKey,
        device: DeviceId,
        cumulative: u64,
        outlet: &mut impl Outlet,
    ) -> bool {
        let mailbox = &mut self.mailboxes[key];
        let reachable = cumulative.min(mailbox.committed_seq);
        let Some(index) = mailbox.device_index(device) else { return true };
        loop {
            let device = &mut mailbox.devices[index];
            let Some(attached) = device.session.as_deref_mut() else { return true };
            let Some(front) = attached.in_flight.front().copied().filter(|f| f.acked || f.seq <= reachable)
            else {
                break;
            };
            if !front.acked && !notify(mailbox, front.seq, front.notify, outlet) {
                return false;
            }
            let device = &mut mailbox.devices[index];
            device.cursor = device.cursor.max(front.seq);
            let Some(attached) = device.session.as_deref_mut() else { return true };
            attached.in_flight.pop_front();
            if !front.acked {
                attached.in_flight_bytes -= u64::from(front.bytes);
            }
        }
        let device = &mut mailbox.devices[index];
        device.cursor = device.cursor.max(reachable);
        if let Some(attached) = device.session.as_deref_mut() {
            attached.next_push = attached.next_push.max(device.cursor + 1);
        }
        true
    }

    /// Takes one message out of the window although an earlier one is missing.
    fn mark_selective(
        &mut self,
        key: MailboxKey,
        device: DeviceId,
        seq: u64,
        outlet: &mut impl Outlet,
    ) -> bool {
        let mailbox = &mut self.mailboxes[key];
        let Some(index) = mailbox.device_index(device) else { return true };
        let Some(attached) = mailbox.devices[index].session.as_deref_mut() else { return true };
        let Ok(at) = attached.in_flight.binary_search_by_key(&seq, |flight| flight.seq) else { return true };
        let flight = attached.in_flight[at];
        if flight.acked {
            return true;
        }
        if !notify(mailbox, seq, flight.notify, outlet) {
            return false;
        }
        if let Some(attached) = mailbox.devices[index].session.as_deref_mut() {
            attached.in_flight[at].acked = true;
            attached.in_flight_bytes -= u64::from(flight.bytes);
        }
        true
    }

    /// Lets every message go that all devices have acknowledged.
    pub(super) fn let_go_below_floor(&mut self, lanes: &mut LaneSet, key: MailboxKey) {
        let mailbox = &mut self.mailboxes[key];
        let floor = mailbox.floor();
        while let Some(entry) = mailbox.entries.front().copied().filter(|entry| entry.seq <= floor) {
            mailbox.entries.pop_front();
            mailbox.bytes -= u64::from(entry.payload_bytes());
            self.queued_messages -= 1;
            self.queued_bytes -= u64::from(entry.payload_bytes());
            lanes.lane_mut(mailbox.lane).release(entry.loc, Kind::Message);
        }
    }
}

/// Tells the sender once that a first device acknowledged its message.
fn notify(
    mailbox: &mut Mailbox,
    seq: u64,
    whom: Option<(Address, MessageId)>,
    outlet: &mut impl Outlet,
) -> bool {
    let Some((sender, id)) = whom else { return true };
    let at = mailbox.position_from(seq);
    let Some(entry) = mailbox.entries.get_mut(at).filter(|entry| entry.seq == seq && !entry.notified) else {
        return true;
    };
    entry.notified = outlet.delivered(sender, id);
    entry.notified
}
