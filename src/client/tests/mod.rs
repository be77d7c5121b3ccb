//! The machine against a node that does what a test says: real TLS and frames, no sockets, time passed in.

mod driver;
mod inbox;
mod outbox;
mod session;
mod silence;

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Client, ClientConfig, ClientError, ClientEvent, NewMessage};
use crate::link::{
    ClientLinkConfig, Expect, LinkCrypto, NodeKey, ServerLink, ServerLinkConfig, UserIdentity,
};
use crate::relay::Window;
use crate::rt::api::Now;
use crate::wire::{
    Address, Capabilities, ClientFrame, Deliver, DeliverFlags, Epoch, Flow, FrameStream, Limit, MailboxSeq,
    MessageClass, MessageId, Receipt, ReceiptStatus, RejectReason, RequestId, ServerFrame, Welcome,
};

const SECOND_US: u64 = 1_000_000;
const NOW_MS: u64 = 1_800_000_000_000;

fn at(mono_us: u64) -> Now {
    Now { mono_us, wall_ms: NOW_MS + mono_us / 1000 }
}

fn address(byte: u8) -> Address {
    Address([byte; 32])
}

fn id(number: u64) -> MessageId {
    MessageId((u128::from(number) + 1).to_be_bytes())
}

/// A message numbered `number` for `to`.
fn message(to: u8, number: u64) -> NewMessage {
    NewMessage {
        to: address(to),
        id: id(number),
        ttl_s: 0,
        class: MessageClass::Durable,
        want_delivered: false,
        anonymous: false,
        payload: vec![to; 10],
    }
}

/// What a client said, as far as tests ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Login,
    Send(RequestId),
    Subscribe,
    Ack(u64),
    Ping,
    Bye,
}

/// The node's end of one connection.
struct Node {
    link: ServerLink,
    frames: FrameStream,
    out: Vec<u8>,
}

impl Node {
    fn new(config: &Arc<ServerLinkConfig>) -> Self {
        Self { link: ServerLink::new(config), frames: FrameStream::new(), out: Vec::new() }
    }

    fn hear(&mut self, data: &mut [u8]) -> Vec<Said> {
        let (mut said, frames) = (Vec::new(), &mut self.frames);
        let mut plaintext = |plain: &mut [u8]| {
            frames.feed(
                plain,
                || Limit::AfterLogin,
                |frame| {
                    said.extend(ClientFrame::parse(frame)?.map(|frame| match frame {
                        ClientFrame::Login(_) => Said::Login,
                        ClientFrame::Send(send) => Said::Send(send.request),
                        ClientFrame::Subscribe(_) => Said::Subscribe,
                        ClientFrame::Ack(ack) => Said::Ack(ack.cumulative.0),
                        ClientFrame::Ping { .. } => Said::Ping,
                        ClientFrame::Bye => Said::Bye,
                    }));
                    Ok::<_, ClientError>(Flow::Continue)
                },
            )
        };
        self.link.receive(data, &mut self.out, &mut plaintext).unwrap();
        said
    }

    fn say(&mut self, frame: &ServerFrame<'_>) {
        let start = self.link.begin_record(&mut self.out);
        frame.encode(&mut self.out);
        self.link.end_record(&mut self.out, start).unwrap();
    }
}

/// A client and the node it talks to.
struct Rig {
    client: Client,
    config: Arc<ServerLinkConfig>,
    node: Node,
    unsent: Vec<u8>,
    now: Now,
    send_window: u32,
    cursor: u64,
}

impl Rig {
    fn new() -> Self {
        let seed = |byte| Zeroizing::new([byte; 32]);
        let (key, crypto) = (NodeKey::from_seed(seed(1)).unwrap(), LinkCrypto::seeded(7));
        let config = Arc::new(ServerLinkConfig::new(&key, &crypto).unwrap());
        let link = ClientLinkConfig::new(Expect::Exactly(key.node_id()), &crypto).unwrap();
        let client = Client::new(ClientConfig {
            identity: Arc::new(UserIdentity::create(seed(2), seed(3), u64::MAX).unwrap()),
            link: Arc::new(link),
            subscribe: Some(Window { messages: 64, bytes: 1 << 20 }),
            give_up_us: 3600 * SECOND_US,
            hash_seed: 11,
        });
        let (unsent, now) = (Vec::new(), at(SECOND_US));
        Self { client, node: Node::new(&config), config, unsent, now, send_window: 16, cursor: 0 }
    }

    /// Connects and completes the handshake; the node has the login and says nothing to it.
    fn open(&mut self) {
        self.node = Node::new(&self.config);
        self.unsent.clear();
        self.client.connected(self.now, &mut self.unsent).unwrap();
        for _ in 0..4 {
            if self.turn() == [Said::Login] {
                return;
            }
        }
        panic!("no login came");
    }

    /// Logs in; the node has seen what the client says first.
    fn log_in(&mut self) -> Vec<Said> {
        self.open();
        self.say(&ServerFrame::Welcome(Welcome {
            version: 1,
            capabilities: Capabilities::default(),
            time_ms: NOW_MS,
            mailbox_epoch: Epoch(5),
            next_seq: MailboxSeq(100),
            cursor: MailboxSeq(self.cursor),
            max_frame_bytes: 65_536,
            send_window: self.send_window,
        }));
        let said = self.turn();
        while let Some(event) = self.client.poll(self.now) {
            assert!(matches!(event, ClientEvent::Ready { .. }), "{event:?}");
        }
        said
    }

    fn say(&mut self, frame: &ServerFrame<'_>) {
        self.node.say(frame);
    }

    fn deliver(&mut self, seq: u64, from: u8, number: u64) {
        let flags = DeliverFlags { ephemeral: seq == 0, maybe_redelivery: false };
        let (seq, from, payload) = (MailboxSeq(seq), address(from), &b"hello"[..]);
        self.say(&ServerFrame::Deliver(Deliver { seq, id: id(number), from, sent_ms: 0, flags, payload }));
    }

    /// Everything moves both ways once. Returns what the client said.
    fn turn(&mut self) -> Vec<Said> {
        self.try_turn().unwrap()
    }

    fn try_turn(&mut self) -> Result<Vec<Said>, ClientError> {
        let mut data = std::mem::take(&mut self.node.out);
        self.client.receive(self.now, &mut data, &mut self.unsent)?;
        self.client.flush(self.now, &mut self.unsent)?;
        let mut data = std::mem::take(&mut self.unsent);
        Ok(self.node.hear(&mut data))
    }

    fn lose(&mut self) {
        self.client.disconnected(self.now);
    }

    fn pass(&mut self, time_us: u64) {
        self.now = at(self.now.mono_us + time_us);
    }

    /// Lets time pass as the driver would, until the client ends the connection. Returns why, and what it
    /// said when, in seconds from now.
    fn wait_for_end(&mut self) -> (ClientError, Vec<(u64, Said)>) {
        let (start_us, mut log) = (self.now.mono_us, Vec::new());
        for _ in 0..100 {
            let next_us = self.client.next_us().expect("a connection has deadlines");
            assert!(next_us > self.now.mono_us, "it would spin");
            self.now = at(next_us);
            let second = (self.now.mono_us - start_us) / SECOND_US;
            match self.try_turn() {
                Ok(said) => log.extend(said.into_iter().map(|said| (second, said))),
                Err(error) => return (error, log),
            }
        }
        panic!("it never ends: {log:?}");
    }
}

fn refused(request: u64, reason: RejectReason, retry_ms: u32) -> Receipt {
    let status = ReceiptStatus::Rejected(reason);
    Receipt { request: RequestId(request), status, retry_ms, seq: MailboxSeq(0), id: id(request) }
}

fn accepted(request: u64) -> Receipt {
    let (status, seq) = (ReceiptStatus::Accepted, MailboxSeq(request));
    Receipt { request: RequestId(request), status, retry_ms: 0, seq, id: id(request) }
}
