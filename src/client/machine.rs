//! The client's state machine: one login after another, with what outlives them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::inbox::Inbox;
use super::outbox::{NewMessage, Outbox, SendReport};
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
    /// Seed of this client's tables.
    pub hash_seed: u64,
}

/// A message for the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Number in the mailbox; 0 for the ephemeral class.
    pub seq: MailboxSeq,
    /// Its id; give it to [`Client::done`] when the message needs no second delivery.
    pub id: MessageId,
    /// Who sent it, if the sender let that be known.
    pub from: Option<Address>,
    /// The sender's clock, in milliseconds since 1970.
    pub sent_ms: u64,
    /// What the sender sealed.
    pub payload: Vec<u8>,
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
    /// TLS and login are under way.
    Opening,
    /// Logged in.
    Ready,
}

/// A client without I/O.
pub struct Client {
    config: ClientConfig,
    link: Option<ClientLink>,
    /// Who is at the other end, once the handshake has proven it.
    node: Option<NodeId>,
    frames: FrameStream,
    stage: Stage,
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
        Self {
            config,
            link: None,
            node: None,
            frames: FrameStream::new(),
            stage: Stage::Offline,
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

    /// A transport to the node is open. Writes the first bytes to `out`.
    pub fn connected(&mut self, out: &mut Vec<u8>) -> Result<(), ClientError> {
        self.link = Some(ClientLink::new(&self.config.link, out)?);
        self.frames = FrameStream::new();
        self.stage = Stage::Opening;
        self.plain.clear();
        Ok(())
    }

    /// The transport is gone. What has no receipt will be sent again after the next login.
    pub fn disconnected(&mut self) {
        self.link = None;
        self.node = None;
        self.stage = Stage::Offline;
        self.outbox.connection_lost();
    }

    /// Takes bytes from the transport; writes what TLS has to answer to `out`. On an error the transport is
    /// to be closed.
    pub fn receive(&mut self, now: Now, data: &mut [u8], out: &mut Vec<u8>) -> Result<(), ClientError> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
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
            ServerFrame::Welcome(welcome) => self.welcome(&welcome),
            ServerFrame::Receipt(receipt) if receipt.status == ReceiptStatus::Delivered => {
                self.events.push_back(ClientEvent::Delivered { id: receipt.id });
            }
            ServerFrame::Receipt(receipt) => {
                self.events.extend(self.outbox.receipt(now, &receipt).map(ClientEvent::Sent));
            }
            ServerFrame::Deliver(deliver) => {
                if self.inbox.arrive(deliver.seq, deliver.id) {
                    self.events.push_back(ClientEvent::Received(ReceivedMessage {
                        seq: deliver.seq,
                        id: deliver.id,
                        from: (deliver.from != Address::NONE).then_some(deliver.from),
                        sent_ms: deliver.sent_ms,
                        payload: deliver.payload.to_vec(),
                    }));
                }
            }
            ServerFrame::CaughtUp { .. } => self.events.push_back(ClientEvent::CaughtUp),
            ServerFrame::Close(close) => {
                self.events.push_back(ClientEvent::Closed { code: close.code, retry_ms: close.retry_ms });
            }
            ServerFrame::Pong { .. } | ServerFrame::GoAway { .. } => {}
        }
    }

    fn welcome(&mut self, welcome: &Welcome) {
        self.stage = Stage::Ready;
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
    pub fn done(&mut self, id: MessageId) {
        self.inbox.done(id);
    }

    /// Appends to `out` what is to be sent now, sealed.
    pub fn flush(&mut self, now: Now, out: &mut Vec<u8>) -> Result<(), ClientError> {
        if self.stage == Stage::Ready {
            self.write_ack();
            self.outbox.write(now, self.send_window, &mut self.plain, OUTPUT_BYTES_MAX);
        }
        let Some(link) = self.link.as_mut().filter(|link| link.is_established()) else { return Ok(()) };
        if !self.plain.is_empty() {
            let start = link.begin_record(out);
            out.extend_from_slice(&self.plain);
            link.end_record(out, start)?;
            self.plain.clear();
        }
        Ok(())
    }

    fn write_ack(&mut self) {
        if let Some((epoch, cumulative)) = self.inbox.take_ack() {
            ClientFrame::Ack(Ack { epoch, cumulative, selective: SeqList::EMPTY }).encode(&mut self.plain);
        }
    }

    /// Says goodbye: the node closes when everything before is done.
    pub fn bye(&mut self) {
        if self.stage == Stage::Ready {
            self.write_ack();
            ClientFrame::Bye.encode(&mut self.plain);
        }
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

    /// When [`Client::flush`] and [`Client::poll`] have something new without input, in monotonic
    /// microseconds.
    pub fn next_us(&self) -> Option<u64> {
        self.outbox.next_us()
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
