//! The client's state machine: one login after another, with what outlives them.
//!
//! Time is passed in. Whoever runs it opens a transport at [`Client::connect_us`], calls [`Client::flush`]
//! after every event and at [`Client::next_us`], and closes the transport on an error.

use std::collections::VecDeque;
use std::sync::Arc;

use super::inbox::{Inbox, MessageKey};
use super::liveness::{Dead, Liveness};
use super::outbox::{NewMessage, Outbox, SendReport};
use super::reconnect::Reconnect;
use crate::link::{ClientLink, ClientLinkConfig, LinkError, UserIdentity, make_login};
use crate::relay::Window;
use crate::rt::api::Now;
use crate::wire::{
    Ack, Address, ClientFrame, CloseCode, Epoch, Flow, FrameStream, Limit, MailboxSeq, MessageClass,
    MessageId, NodeId, ReceiptStatus, RequestId, Send, SendOptions, SeqList, ServerFrame, Subscribe, Welcome,
    WireError,
};

/// Plaintext written ahead of the network, in bytes: what is beyond waits in the outbox.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Sealed bytes that the transport did not take, beyond which nothing is added to them.
const UNSENT_BYTES_MAX: usize = 512 * 1024;
/// From the beginning of an attempt to its WELCOME; after that it has failed.
const LOGIN_US_MAX: u64 = 10_000_000;

/// What a client is made of.
pub struct ClientConfig {
    /// Who logs in.
    pub identity: Arc<UserIdentity>,
    /// The client's side of TLS, and which node is expected.
    pub link: Arc<ClientLinkConfig>,
    /// Receive messages, with this window. `None` for a client that only sends.
    pub subscribe: Option<Window>,
    /// How long a message may wait for its final receipt, in microseconds.
    pub give_up_us: u64,
    /// Seed of this client's tables, and of the pauses between its connections.
    pub hash_seed: u64,
}

/// A message for the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Number in the mailbox; 0 for the ephemeral class.
    pub seq: MailboxSeq,
    /// The sender's id for it.
    pub id: MessageId,
    /// Who sent it, if the sender let that be known.
    pub from: Option<Address>,
    /// The sender's clock, in milliseconds since 1970.
    pub sent_ms: u64,
    /// What the sender sealed.
    pub payload: Vec<u8>,
}

impl ReceivedMessage {
    /// What to give to [`Client::done`] when the message needs no second delivery.
    pub fn key(&self) -> MessageKey {
        MessageKey { from: self.from.unwrap_or(Address::NONE), id: self.id, is_stored: self.seq.0 > 0 }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// Logged in to this node.
    Ready { node: NodeId },
    /// The final word on a message that was given to [`Client::send`].
    Sent(SendReport),
    /// A recipient acknowledged a message that asked for it.
    Delivered { id: MessageId },
    /// No final receipt came in time; the message may or may not have been accepted.
    GaveUp { request: RequestId, id: MessageId },
    /// A message arrived.
    Received(ReceivedMessage),
    /// Everything that waited has been received.
    CaughtUp,
    /// The node lost part of this mailbox's past: messages may be missing.
    EpochChanged,
    /// The node closes the connection and says why.
    Closed { code: CloseCode, retry_ms: u32 },
}

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none.
    Offline,
    /// A transport is being opened, or TLS and login are under way.
    Opening,
    /// Logged in.
    Ready,
    /// Goodbye was said: nothing more is sent.
    Leaving,
}

/// A client without I/O.
pub struct Client {
    config: ClientConfig,
    link: Option<ClientLink>,
    /// Who is at the other end, once the handshake has proven it.
    node: Option<NodeId>,
    frames: FrameStream,
    stage: Stage,
    /// When the attempt under way began.
    attempt_us: u64,
    reconnect: Reconnect,
    liveness: Liveness,
    /// When to leave a node that goes away.
    leave_at_us: Option<u64>,
    /// More could be sent if the transport had taken what it was given.
    is_blocked: bool,
    send_window: u32,
    outbox: Outbox,
    inbox: Inbox,
    events: VecDeque<ClientEvent>,
    plain: Vec<u8>,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS failed, or the node is not the one expected.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The node sent something that is no frame.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The login was not accepted in time.
    #[error("the node did not answer the login within {} s", LOGIN_US_MAX / 1_000_000)]
    LoginLate,
    /// The node did not answer when it was asked whether it is there.
    #[error("the node fell silent and does not answer")]
    Silent,
    /// The node said that it goes away, and it is this client's turn to come back.
    #[error("the node goes away and asked to be connected again")]
    GoingAway,
}

impl ClientError {
    /// True if no other connection would do better.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Link(LinkError::WrongNode { .. }))
    }
}

impl Client {
    /// A client that is offline.
    pub fn new(config: ClientConfig) -> Self {
        let inbox = Inbox::new(config.hash_seed);
        let reconnect = Reconnect::new(config.hash_seed);
        Self {
            config,
            link: None,
            node: None,
            frames: FrameStream::new(),
            stage: Stage::Offline,
            attempt_us: 0,
            reconnect,
            liveness: Liveness::default(),
            leave_at_us: None,
            is_blocked: false,
            send_window: 0,
            outbox: Outbox::default(),
            inbox,
            events: VecDeque::new(),
            plain: Vec::new(),
        }
    }

    /// From the next connection on, uses another side of TLS: the node's identity has become known.
    pub fn trust_only(&mut self, link: Arc<ClientLinkConfig>) {
        self.config.link = link;
    }

    /// When the next attempt to connect may begin, in monotonic microseconds.
    pub fn connect_us(&self) -> u64 {
        self.reconnect.not_before_us()
    }

    /// Since when there is no login; `None` if there is one, or none was tried yet.
    pub fn offline_since_us(&self) -> Option<u64> {
        self.reconnect.offline_since_us()
    }

    /// A transport to the node is being opened: the time for the login runs. May be left out where that takes
    /// none.
    pub fn connecting(&mut self, now: Now) {
        self.stage = Stage::Opening;
        self.attempt_us = now.mono_us;
        self.reconnect.attempt(now.mono_us);
    }

    /// A transport to the node is open. Writes the first bytes to `out`.
    pub fn connected(&mut self, now: Now, out: &mut Vec<u8>) -> Result<(), ClientError> {
        if self.stage != Stage::Opening {
            self.connecting(now);
        }
        self.link = Some(ClientLink::new(&self.config.link, out)?);
        self.frames = FrameStream::new();
        self.plain.clear();
        Ok(())
    }

    /// The transport is gone, or could not be opened. What has no receipt will be sent again after the next
    /// login.
    pub fn disconnected(&mut self, now: Now) {
        self.link = None;
        self.node = None;
        self.stage = Stage::Offline;
        self.leave_at_us = None;
        self.is_blocked = false;
        self.reconnect.lost(now.mono_us);
        self.outbox.connection_lost();
    }

    /// Takes bytes from the transport; writes what TLS has to answer to `out`. On an error the transport is
    /// to be closed.
    pub fn receive(&mut self, now: Now, data: &mut [u8], out: &mut Vec<u8>) -> Result<(), ClientError> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        if !data.is_empty() {
            self.liveness.heard(now.mono_us);
        }
        let was_established = link.is_established();
        let result = link.receive(data, out, &mut |plaintext| self.plaintext(now, plaintext));
        if result.is_ok() && link.is_established() && !was_established {
            let (Some(exporter), Some(node)) = (link.exporter(), link.node_id()) else {
                return Err(LinkError::NotEstablished.into());
            };
            self.node = Some(node);
            let login = make_login(&self.config.identity, exporter, &node, now.wall_ms);
            ClientFrame::Login(login).encode(&mut self.plain);
        }
        self.link = Some(link);
        result
    }

    fn plaintext(&mut self, now: Now, bytes: &[u8]) -> Result<usize, ClientError> {
        let mut frames = std::mem::take(&mut self.frames);
        let result = frames.feed(
            bytes,
            || Limit::AfterLogin,
            |frame| {
                if let Some(frame) = ServerFrame::parse(frame)? {
                    self.frame(now, frame);
                }
                Ok::<_, ClientError>(Flow::Continue)
            },
        );
        self.frames = frames;
        result
    }

    fn frame(&mut self, now: Now, frame: ServerFrame<'_>) {
        match frame {
            ServerFrame::Welcome(welcome) => self.welcome(now, &welcome),
            ServerFrame::Receipt(receipt) if receipt.status == ReceiptStatus::Delivered => {
                self.events.push_back(ClientEvent::Delivered { id: receipt.id });
            }
            ServerFrame::Receipt(receipt) => {
                self.events.extend(self.outbox.receipt(now, &receipt).map(ClientEvent::Sent));
            }
            ServerFrame::Deliver(deliver) => {
                let key = MessageKey { from: deliver.from, id: deliver.id, is_stored: deliver.seq.0 > 0 };
                if self.inbox.arrive(deliver.seq, key) {
                    self.events.push_back(ClientEvent::Received(ReceivedMessage {
                        seq: deliver.seq,
                        id: deliver.id,
                        from: (deliver.from != Address::NONE).then_some(deliver.from),
                        sent_ms: deliver.sent_ms,
                        payload: deliver.payload.to_vec(),
                    }));
                }
            }
            ServerFrame::CaughtUp { .. } => {
                self.inbox.caught_up();
                self.events.push_back(ClientEvent::CaughtUp);
            }
            ServerFrame::Close(close) => {
                self.reconnect.stay_away(now.mono_us, close.retry_ms);
                self.events.push_back(ClientEvent::Closed { code: close.code, retry_ms: close.retry_ms });
            }
            ServerFrame::GoAway { spread_ms } => {
                let at_us = self.reconnect.spread(now.mono_us, spread_ms);
                self.leave_at_us.get_or_insert(at_us);
            }
            ServerFrame::Pong { .. } => {}
        }
    }

    fn welcome(&mut self, now: Now, welcome: &Welcome) {
        self.stage = Stage::Ready;
        self.reconnect.ready();
        self.liveness = Liveness::start(now.mono_us);
        self.send_window = welcome.send_window;
        if self.inbox.welcome(welcome.mailbox_epoch, welcome.cursor) {
            self.events.push_back(ClientEvent::EpochChanged);
        }
        if let Some(window) = self.config.subscribe {
            let subscribe = Subscribe { window_messages: window.messages, window_bytes: window.bytes };
            ClientFrame::Subscribe(subscribe).encode(&mut self.plain);
        }
        // The link itself is on loan while its plaintext is looked at.
        if let Some(node) = self.node {
            self.events.push_back(ClientEvent::Ready { node });
        }
    }

    /// Takes a message to send, now or after the next login. Returns the number under which it is reported.
    pub fn send(&mut self, now: Now, message: NewMessage) -> RequestId {
        let give_up_us = now.mono_us.saturating_add(self.config.give_up_us);
        self.outbox.push(now, message, give_up_us)
    }

    /// Sends an ephemeral message now or never: no receipt comes, nothing is kept. `false`, and nothing was
    /// sent, if the client is not logged in or what waits for the network is too much already.
    pub fn send_ephemeral(&mut self, now: Now, to: Address, id: MessageId, payload: &[u8]) -> bool {
        if self.stage != Stage::Ready || self.plain.len() >= OUTPUT_BYTES_MAX {
            return false;
        }
        let options = SendOptions { want_delivered: false, anonymous: false, want_ephemeral_receipt: false };
        let request = RequestId(0);
        let (class, sent_ms) = (MessageClass::Ephemeral, now.wall_ms);
        ClientFrame::Send(Send { request, to, id, ttl_s: 0, class, options, sent_ms, payload })
            .encode(&mut self.plain);
        true
    }

    /// The program is done with a message: it may be acknowledged.
    pub fn done(&mut self, message: MessageKey) {
        self.inbox.done(&message);
    }

    /// Appends to `out` what is to be sent now, sealed. `out` is what the transport did not take yet; while
    /// that is much, nothing is added. On an error the transport is to be closed.
    pub fn flush(&mut self, now: Now, out: &mut Vec<u8>) -> Result<(), ClientError> {
        self.check_time(now)?;
        self.is_blocked = out.len() >= UNSENT_BYTES_MAX;
        if self.is_blocked {
            return Ok(());
        }
        if self.stage == Stage::Ready {
            self.write_ack();
            self.outbox.write(now, self.send_window, &mut self.plain, OUTPUT_BYTES_MAX);
            self.is_blocked = self.plain.len() >= OUTPUT_BYTES_MAX;
        }
        let Some(link) = self.link.as_mut().filter(|link| link.is_established()) else { return Ok(()) };
        if !self.plain.is_empty() {
            let start = link.begin_record(out);
            out.extend_from_slice(&self.plain);
            link.end_record(out, start)?;
            self.plain.clear();
            self.liveness.said(now.mono_us);
        }
        Ok(())
    }

    /// What time alone brings about: a login that takes too long, a PING, a node that is gone.
    fn check_time(&mut self, now: Now) -> Result<(), ClientError> {
        match self.stage {
            Stage::Offline => Ok(()),
            Stage::Opening if now.mono_us >= self.attempt_us + LOGIN_US_MAX => Err(ClientError::LoginLate),
            Stage::Opening => Ok(()),
            Stage::Ready | Stage::Leaving => {
                if self.leave_at_us.is_some_and(|at_us| at_us <= now.mono_us) {
                    return Err(ClientError::GoingAway);
                }
                let is_due = self.liveness.tick(now.mono_us).map_err(|Dead| ClientError::Silent)?;
                if is_due && self.stage == Stage::Ready {
                    let ping = ClientFrame::Ping { request: RequestId(0), opaque: [0; 8] };
                    ping.encode(&mut self.plain);
                }
                Ok(())
            }
        }
    }

    fn write_ack(&mut self) {
        if let Some((epoch, cumulative)) = self.inbox.take_ack() {
            ClientFrame::Ack(Ack { epoch, cumulative, selective: SeqList::EMPTY }).encode(&mut self.plain);
        }
    }

    /// Says goodbye: the node closes when everything before is done. What is done is acknowledged first;
    /// nothing is sent afterwards, and what still arrives will arrive again at the next login.
    pub fn bye(&mut self) {
        if self.stage == Stage::Ready {
            self.write_ack();
            ClientFrame::Bye.encode(&mut self.plain);
            self.stage = Stage::Leaving;
        }
    }

    /// Something the program is done with is not acknowledged yet.
    pub fn is_owing(&self) -> bool {
        self.inbox.is_owing()
    }

    /// A goodbye now would acknowledge everything that the program is done with.
    pub fn may_leave(&self) -> bool {
        self.stage == Stage::Ready && !self.inbox.is_owing_from_before()
    }

    /// What happened next, oldest first.
    pub fn poll(&mut self, now: Now) -> Option<ClientEvent> {
        if self.events.is_empty()
            && let Some((request, id)) = self.outbox.give_up(now)
        {
            return Some(ClientEvent::GaveUp { request, id });
        }
        self.events.pop_front()
    }

    /// When there is something new without input, in monotonic microseconds, for [`Client::flush`],
    /// [`Client::poll`], or to connect. After a flush it lies in the future, unless events are to be polled.
    pub fn next_us(&self) -> Option<u64> {
        let by_stage = match self.stage {
            Stage::Offline => Some(self.reconnect.not_before_us()),
            Stage::Opening => Some(self.attempt_us + LOGIN_US_MAX),
            Stage::Ready | Stage::Leaving => Some(self.liveness.due_us()),
        };
        let may_send = self.stage == Stage::Ready && !self.is_blocked;
        let retry = may_send.then(|| self.outbox.retry_us(self.send_window)).flatten();
        [by_stage, retry, self.leave_at_us, self.outbox.give_up_us()].into_iter().flatten().min()
    }

    /// Messages without a final receipt.
    pub fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// True if every message has its final receipt and every event was taken.
    pub fn is_settled(&self) -> bool {
        self.outbox.len() == 0 && self.events.is_empty()
    }

    /// How far the connection has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Epoch of the mailbox, once known.
    pub fn epoch(&self) -> Option<Epoch> {
        self.inbox.epoch
    }
}
