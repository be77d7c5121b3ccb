//! What each frame of a client does.

use super::core::Core;
use super::crossing::Request;
use super::inbound::Fatal;
use super::session::{Identity, Phase};
use crate::link::{LoggedIn, verify_login};
use crate::relay::{AckOutcome, AttachRefusal, Incoming, Origin, Outcome, Receipt, Verdict, Window};
use crate::rt::api::{ConnId, Effects, HandOver, Now};
use crate::wire::{
    Ack, Address, Capabilities, ClientFrame, CloseCode, Flow, Frame, Limit, MessageClass, PROTOCOL_VERSION,
    RejectReason, Send, ServerFrame, Subscribe, Welcome,
};

/// When a client whose node is full shall try again.
const RETRY_FULL_MS: u32 = 10_000;
/// When a sender that overran its own window shall try again.
const RETRY_WINDOW_MS: u32 = 10;

impl Core {
    /// Takes one frame. `Stop` means that nothing more can be taken from this connection now.
    pub(super) fn frame(&mut self, now: Now, conn: ConnId, frame: Frame<'_>) -> Result<Flow, Fatal> {
        self.out.stats.link.frames_in.inc();
        let Some(parsed) = ClientFrame::parse(frame)? else { return Ok(Flow::Continue) };
        let Some(session) = self.out.sessions.get(conn) else { return Ok(Flow::Stop) };
        let Some(identity) = session.identity() else {
            return match (&session.phase, parsed) {
                (Phase::Opening, ClientFrame::Login(login)) => {
                    session.login = Some(Box::new(login));
                    Ok(Flow::Stop)
                }
                _ => Err(CloseCode::UnexpectedFrame.into()),
            };
        };
        match parsed {
            ClientFrame::Login(_) => Err(CloseCode::UnexpectedFrame.into()),
            ClientFrame::Send(send) => Ok(self.send(now, conn, identity, &send, frame)),
            ClientFrame::Subscribe(subscribe) => Ok(self.subscribe(conn, identity, subscribe)),
            ClientFrame::Ack(ack) => Ok(self.ack(conn, identity, &ack, frame)),
            ClientFrame::Ping { request, opaque } => {
                self.out.write(conn, &ServerFrame::Pong { request, opaque });
                Ok(self.flow(conn))
            }
            ClientFrame::Bye => {
                self.finish_closing(now, conn);
                Ok(Flow::Stop)
            }
        }
    }

    /// Whether more may be taken from this connection.
    fn flow(&mut self, conn: ConnId) -> Flow {
        match self.out.sessions.get(conn) {
            Some(session) if !session.must_wait() => Flow::Continue,
            _ => Flow::Stop,
        }
    }

    fn send(
        &mut self,
        now: Now,
        conn: ConnId,
        identity: Identity,
        send: &Send<'_>,
        frame: Frame<'_>,
    ) -> Flow {
        let durable = send.class == MessageClass::Durable;
        let wants_receipt = durable || send.options.want_ephemeral_receipt;
        let origin = Origin { core: self.out.core, conn, token: send.request.0 };
        if let Err((reason, retry_ms)) = self.admit(now, conn, identity, send) {
            let receipt = Receipt { id: send.id, outcome: Outcome::Rejected { reason, retry_ms } };
            self.count(send.class, &receipt);
            if wants_receipt {
                self.answer(conn, send, receipt);
            }
            return self.flow(conn);
        }
        let message = Incoming {
            to: send.to,
            id: send.id,
            dedup: identity.dedup_key(send.id),
            from: if send.options.anonymous { Address::NONE } else { identity.address },
            notify: send.options.want_delivered.then_some(identity.address),
            sent_ms: send.sent_ms,
            ttl_s: send.ttl_s,
            payload: send.payload,
        };
        let home = self.out.home_of(&send.to);
        if home == self.out.core {
            return self.send_here(now, conn, identity, send, &message, frame);
        }
        let request = if durable {
            Request::Durable { message, origin }
        } else {
            Request::Ephemeral { message, origin: wants_receipt.then_some(origin) }
        };
        if !self.out.ask(home, &request) {
            self.relay.refund(identity.mailbox, send.payload.len() as u64);
            return self.block(conn, frame);
        }
        self.expect_receipt(conn, wants_receipt);
        self.flow(conn)
    }

    /// Sends to a mailbox of this core.
    fn send_here(
        &mut self,
        now: Now,
        conn: ConnId,
        identity: Identity,
        send: &Send<'_>,
        message: &Incoming<'_>,
        frame: Frame<'_>,
    ) -> Flow {
        let receipt = if send.class == MessageClass::Durable {
            let origin = Origin { core: self.out.core, conn, token: send.request.0 };
            match self.relay.accept(now, &mut self.lanes, message, origin) {
                Verdict::Busy => {
                    self.relay.refund(identity.mailbox, send.payload.len() as u64);
                    return self.block(conn, frame);
                }
                Verdict::Pending => {
                    self.expect_receipt(conn, true);
                    return self.flow(conn);
                }
                Verdict::Known(receipt) => receipt,
            }
        } else {
            self.relay.relay_ephemeral(message, &mut self.out)
        };
        self.count(send.class, &receipt);
        if send.class == MessageClass::Durable || send.options.want_ephemeral_receipt {
            self.answer(conn, send, receipt);
        }
        self.flow(conn)
    }

    fn expect_receipt(&mut self, conn: ConnId, wanted: bool) {
        if let Some(session) = self.out.sessions.get(conn) {
            session.outstanding += u32::from(wanted);
        }
    }

    /// Checks what can be checked of a message before it goes to its recipient's core.
    fn admit(
        &mut self,
        now: Now,
        conn: ConnId,
        identity: Identity,
        send: &Send<'_>,
    ) -> Result<(), (RejectReason, u32)> {
        if self.stopping {
            return Err((RejectReason::ShuttingDown, RETRY_FULL_MS));
        }
        if send.payload.len() > crate::wire::MESSAGE_BYTES_MAX {
            return Err((RejectReason::TooLarge, 0));
        }
        let window = self.out.shared.sessions.send_window;
        if self.out.sessions.get(conn).is_some_and(|session| session.outstanding >= window) {
            return Err((RejectReason::WindowExceeded, RETRY_WINDOW_MS));
        }
        self.relay
            .charge(now, identity.mailbox, send.payload.len() as u64)
            .map_err(|retry_ms| (RejectReason::Rate, retry_ms))
    }

    /// A receipt for a message that was never counted as outstanding.
    fn answer(&mut self, conn: ConnId, send: &Send<'_>, receipt: Receipt) {
        self.out.write(conn, &ServerFrame::Receipt(super::outlet::wire_receipt(send.request, &receipt)));
    }

    fn subscribe(&mut self, conn: ConnId, identity: Identity, subscribe: Subscribe) -> Flow {
        let most = self.out.shared.sessions.window;
        let window = Window {
            messages: subscribe.window_messages.min(most.messages),
            bytes: subscribe.window_bytes.min(most.bytes),
        };
        self.relay.subscribe(identity.mailbox, identity.device, conn, window, &mut self.out);
        self.flow(conn)
    }

    fn ack(&mut self, conn: ConnId, identity: Identity, ack: &Ack<'_>, frame: Frame<'_>) -> Flow {
        let outcome = self.relay.acknowledge(
            &mut self.lanes,
            identity.mailbox,
            identity.device,
            conn,
            ack.epoch,
            ack.cumulative.0,
            ack.selective.iter().map(|seq| seq.0),
            &mut self.out,
        );
        self.hand_out_delivered();
        match outcome {
            AckOutcome::Done | AckOutcome::Stale => self.flow(conn),
            AckOutcome::Blocked => self.block(conn, frame),
        }
    }

    /// Writes DELIVERED receipts to the sessions of senders at home here.
    pub(super) fn hand_out_delivered(&mut self) {
        while let Some((sender, id)) = self.out.delivered_here.pop() {
            let receipt = Receipt { id, outcome: Outcome::Delivered };
            let frame =
                ServerFrame::Receipt(super::outlet::wire_receipt(crate::wire::RequestId(0), &receipt));
            self.count(MessageClass::Durable, &receipt);
            for conn in self.relay.sessions_of(&sender) {
                // A sender that reads nothing gets no notices it could drown in; ACCEPTED it has already.
                if self.out.sessions.get(conn).is_some_and(|session| !session.out.is_congested()) {
                    self.out.write(conn, &frame);
                }
            }
        }
    }

    /// Checks a login that has arrived and takes the session home.
    pub(super) fn finish_login(
        &mut self,
        now: Now,
        conn: ConnId,
        effects: &mut Effects,
    ) -> Result<(), Fatal> {
        let Some(session) = self.out.sessions.get(conn) else { return Ok(()) };
        if let (Some(login), Some(link)) = (session.login.take(), session.link.as_deref()) {
            let exporter = link.exporter().ok_or(Fatal::from(CloseCode::Internal))?;
            let verified = verify_login(&login, exporter, &self.out.shared.node_id, now.wall_ms);
            let logged_in =
                verified.inspect_err(|code| self.out.stats.link.logins_failed.inc(code.code() as u8))?;
            let Some(session) = self.out.sessions.get(conn) else { return Ok(()) };
            session.phase = Phase::Moving(logged_in);
        }
        let Some(session) = self.out.sessions.get(conn) else { return Ok(()) };
        let Phase::Moving(logged_in) = session.phase else { return Ok(()) };
        let home = self.out.shared.home_of(&logged_in.address);
        if home == self.out.core {
            return self.arrive(now, conn, logged_in);
        }
        if session.out.in_flight || !session.out.is_empty() {
            return Ok(());
        }
        if let Some(session) = self.out.sessions.remove(conn) {
            self.left_opening();
            self.sources.close(now.mono_us, &self.out.shared.sessions, session.peer);
            self.out.stats.link.connections_open.dec();
            effects.hand_overs.push(HandOver { conn, to: home, state: session });
        }
        Ok(())
    }

    /// The session is on its home core: attaches it to its mailbox and welcomes it.
    pub(super) fn arrive(&mut self, now: Now, conn: ConnId, logged_in: LoggedIn) -> Result<(), Fatal> {
        let LoggedIn { address, device_id: device, .. } = logged_in;
        let attached = self.relay.attach(now, &self.lanes, address, device, conn);
        let attachment = attached.map_err(|refusal| Fatal {
            code: match refusal {
                AttachRefusal::TooManyDevices => CloseCode::TooManyDevices,
                AttachRefusal::TooManyMailboxes => CloseCode::Overloaded,
            },
            retry_ms: RETRY_FULL_MS,
        })?;
        if let Some(old) = attachment.displaced {
            self.close_with(now, old, CloseCode::Displaced.into());
        }
        self.left_opening();
        let mask = self.out.shared.store.mask_of(&address.0);
        if let Some(session) = self.out.sessions.get(conn) {
            session.phase = Phase::Ready(Identity { address, device, mailbox: attachment.mailbox, mask });
        }
        self.out.stats.link.logins.inc();
        self.out.stats.link.sessions_open.inc();
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            capabilities: Capabilities::SUPPORTED.both(logged_in.capabilities),
            time_ms: now.wall_ms,
            mailbox_epoch: attachment.epoch,
            next_seq: attachment.next_seq,
            cursor: attachment.cursor,
            max_frame_bytes: Limit::AfterLogin.frame_bytes() as u32,
            send_window: self.out.shared.sessions.send_window,
        };
        self.out.write(conn, &ServerFrame::Welcome(welcome));
        Ok(())
    }
}
