//! Devices coming and going: a session attaches to its mailbox, subscribes, and leaves.

use std::collections::VecDeque;

use shards::LaneSet;

use super::accept::{Purpose, wall_s};
use super::mailbox::{Device, MailboxKey};
use super::{Outlet, Relay};
use crate::rt::api::{ConnId, Now};
use crate::wire::{Address, DeviceId, Epoch, MailboxSeq, MessageId, RejectReason};

/// How much a device is given before it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Messages in flight.
    pub messages: u32,
    /// Payload bytes in flight; one message always fits.
    pub bytes: u32,
}

/// What a session learns when it attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Where its mailbox is.
    pub mailbox: MailboxKey,
    /// Another session of the same device, which must go.
    pub displaced: Option<ConnId>,
    /// Epoch of the mailbox.
    pub epoch: Epoch,
    /// Number of the next message.
    pub next_seq: MailboxSeq,
    /// What this device has acknowledged.
    pub cursor: MailboxSeq,
}

/// Why a session could not attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachRefusal {
    /// The mailbox has as many devices as it may.
    TooManyDevices,
    /// This core has as many mailboxes as it may.
    TooManyMailboxes,
}

/// A message pushed to a device and not acknowledged by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub seq: u64,
    pub bytes: u32,
    /// Acknowledged out of order.
    pub acked: bool,
    /// Whom to tell when it is acknowledged.
    pub notify: Option<(Address, MessageId)>,
}

/// How messages reach a device now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Not subscribed yet.
    Quiet,
    /// It has everything; commits are pushed from memory.
    Live,
    /// It is behind and waits for its turn to read the log.
    Queued,
    /// A read from the log is under way for it.
    Reading,
    /// It is behind and must acknowledge, or drain its connection, first: cursor mode.
    Behind,
}

impl Mode {
    /// Subscribed, and not given everything yet.
    pub(super) fn is_behind(self) -> bool {
        matches!(self, Self::Queued | Self::Reading | Self::Behind)
    }
}

/// The session of a device.
#[derive(Debug)]
pub(super) struct Attached {
    pub conn: ConnId,
    pub window: Window,
    /// Number of the next message to push.
    pub next_push: u64,
    pub in_flight: VecDeque<InFlight>,
    pub in_flight_bytes: u64,
    pub mode: Mode,
    /// It was told that it has everything since it subscribed.
    pub told_caught_up: bool,
    /// Reads in a row that did not bring its next message.
    pub failed_reads: u8,
    /// What must happen before it is given anything more, besides room in its window.
    pub waits_for: Option<WaitsFor>,
}

/// Why a device that is behind does not read the log now, although its window has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// Its connection to take what was written for it.
    Output,
    /// A little time: the disk did not give its next message back.
    Disk,
}

impl Attached {
    pub(super) fn subscribed(&self) -> bool {
        self.mode != Mode::Quiet
    }

    /// Room for one more message of `bytes`.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.in_flight.len() < self.window.messages as usize
            && (self.in_flight.is_empty()
                || self.in_flight_bytes + bytes as u64 <= u64::from(self.window.bytes))
    }
}

impl Relay {
    /// Attaches a session to the mailbox of its address. The newest session of a device wins.
    pub fn attach(
        &mut self,
        now: Now,
        lanes: &LaneSet,
        address: Address,
        device: DeviceId,
        conn: ConnId,
    ) -> Result<Attachment, AttachRefusal> {
        let key = self.mailbox_for(lanes, address, Purpose::Login).map_err(|(reason, _)| {
            debug_assert_eq!(reason, RejectReason::TooManyMailboxes);
            AttachRefusal::TooManyMailboxes
        })?;
        let index = self.device_for(key, device, wall_s(now))?;
        let mailbox = &mut self.mailboxes[key];
        let (epoch, next_seq) = (mailbox.epoch, mailbox.next_seq);
        let device = &mut mailbox.devices[index];
        device.last_seen_s = wall_s(now);
        let session = Attached {
            conn,
            window: Window { messages: 0, bytes: 0 },
            next_push: device.cursor + 1,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            mode: Mode::Quiet,
            told_caught_up: false,
            failed_reads: 0,
            waits_for: None,
        };
        let cursor = MailboxSeq(device.cursor);
        let old = device.session.replace(Box::new(session));
        if old.as_ref().is_some_and(|old| old.mode.is_behind()) {
            self.stats.relay.cursor_mode_sessions.dec();
        }
        let displaced = old.map(|old| old.conn);
        Ok(Attachment { mailbox: key, displaced, epoch, next_seq: MailboxSeq(next_seq), cursor })
    }

    /// The device's place in the mailbox; a new one starts at the oldest message that is still held.
    fn device_for(&mut self, key: MailboxKey, id: DeviceId, now_s: u32) -> Result<usize, AttachRefusal> {
        let mailbox = &mut self.mailboxes[key];
        if let Some(index) = mailbox.device_index(id) {
            return Ok(index);
        }
        if mailbox.devices.len() >= usize::from(self.limits.devices) {
            return Err(AttachRefusal::TooManyDevices);
        }
        let oldest = mailbox.entries.front().map_or(mailbox.committed_seq + 1, |entry| entry.seq);
        mailbox.devices.push(Device { id, cursor: oldest - 1, pushed: 0, last_seen_s: now_s, session: None });
        self.mark_dirty(key);
        Ok(self.mailboxes[key].devices.len() - 1)
    }

    /// Starts deliveries to a session, or changes its window.
    pub fn subscribe(
        &mut self,
        key: MailboxKey,
        device: DeviceId,
        conn: ConnId,
        window: Window,
        outlet: &mut impl Outlet,
    ) {
        let Some(attached) = self.session_mut(key, device, conn) else { return };
        attached.window = Window { messages: window.messages.max(1), bytes: window.bytes };
        if attached.mode == Mode::Quiet {
            attached.mode = Mode::Behind;
            self.stats.relay.cursor_mode_sessions.inc();
        }
        self.advance(key, device, outlet);
    }

    /// A session ended. What it had not acknowledged is pushed again to the next one.
    pub fn detach(&mut self, now: Now, key: MailboxKey, device: DeviceId, conn: ConnId) {
        if self.session_mut(key, device, conn).is_none() {
            return;
        }
        if let Some(mailbox) = self.mailboxes.get_mut(key)
            && let Some(index) = mailbox.device_index(device)
        {
            mailbox.devices[index].last_seen_s = wall_s(now);
            if mailbox.devices[index].session.take().is_some_and(|session| session.mode.is_behind()) {
                self.stats.relay.cursor_mode_sessions.dec();
            }
            self.mark_dirty(key);
        }
    }

    /// Connections of all sessions of an address.
    pub fn sessions_of(&self, address: &Address) -> impl Iterator<Item = ConnId> {
        let mailbox = self.mailboxes.find(address).map(|key| &self.mailboxes[key]);
        let devices = mailbox.into_iter().flat_map(|mailbox| &mailbox.devices);
        devices.filter_map(|device| device.session.as_ref().map(|attached| attached.conn))
    }

    /// The session of a device, if it is still this connection's.
    pub(super) fn session_mut(
        &mut self,
        key: MailboxKey,
        device: DeviceId,
        conn: ConnId,
    ) -> Option<&mut Attached> {
        let mailbox = self.mailboxes.get_mut(key)?;
        let index = mailbox.device_index(device)?;
        mailbox.devices[index].session.as_deref_mut().filter(|attached| attached.conn == conn)
    }

    /// Remembers that the state of a mailbox on disk is behind.
    pub(super) fn mark_dirty(&mut self, key: MailboxKey) {
        let mailbox = &mut self.mailboxes[key];
        mailbox.state.dirty = true;
        if !mailbox.state.listed {
            mailbox.state.listed = true;
            let lane = mailbox.lane;
            self.book(lane).dirty.push_back(key);
        }
    }
}
