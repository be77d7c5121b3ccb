//! Carrying out what the logic asked for, and telling it what could not be.

use super::conn::{Finish, Input, Step};
use super::driver::Driver;
use super::handover::Parcel;
use super::table::{Leaving, Sending};
use crate::rt::api::{CloseCause, ConnId, CoreLogic, Event, HandOver, Now};
use crate::rt::ring::conn::Machine;

impl<L: CoreLogic> Driver<L> {
    /// Queues all effects of the turn. The vectors go back with their capacity. Sends come first, so that
    /// what is sent and closed in one turn is sent.
    pub(super) fn apply_effects(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for (conn, buf) in effects.sends.drain(..) {
            self.send(conn, buf);
        }
        for (conn, wanted) in effects.receives.drain(..) {
            self.input(conn, Input::Receive(wanted));
        }
        for hand_over in effects.hand_overs.drain(..) {
            self.hand_over(hand_over);
        }
        for conn in effects.closes.drain(..) {
            self.input(conn, Input::Close);
        }
        for op in effects.disk.drain(..) {
            self.start_disk(op);
        }
        debug_assert!(self.effects.is_empty());
        self.effects = effects;
    }

    /// Applies what an event asked for if a connection shall end or leave: the logic must not hear of bytes
    /// of a connection it has just given up, though they may be among this turn's completions.
    pub(super) fn apply_partings(&mut self) {
        if !self.effects.closes.is_empty() || !self.effects.hand_overs.is_empty() {
            self.apply_effects();
        }
    }

    /// Gives `input` to the connection and does what follows. A connection of the past takes nothing.
    pub(super) fn input(&mut self, id: ConnId, input: Input) {
        let Some(conn) = self.table.get(id) else { return };
        let step = conn.machine.on(input);
        self.follow(id, step);
    }

    fn send(&mut self, id: ConnId, buf: Vec<u8>) {
        let conn = self.table.get(id).filter(|conn| conn.machine.is_open() && !buf.is_empty());
        let Some(conn) = conn else { return self.unsent.push((id, buf)) };
        if conn.sending.is_some() {
            debug_assert!(false, "a second send on {id:?} while one is in flight");
            return self.unsent.push((id, buf));
        }
        conn.sending = Some(Sending { buf, sent: 0 });
        self.input(id, Input::SendStarted);
        self.submit_send(id);
    }

    fn hand_over(&mut self, hand_over: HandOver) {
        let HandOver { conn: id, to, state } = hand_over;
        // One that is closing already is not handed over: its state goes with it, and nobody hears of it
        // again.
        let Some(conn) = self.table.get(id).filter(|conn| conn.leaving.is_none()) else { return };
        conn.leaving = Some(Box::new(Leaving { to, state, residue: Vec::new() }));
        self.input(id, Input::Leave);
    }

    /// Does what a connection's state machine decided.
    pub(super) fn follow(&mut self, id: ConnId, step: Step) {
        if step.arm_recv {
            self.submit_recv(id);
        }
        if step.cancel_recv {
            self.cancel(super::op::Op::Recv(id.into()));
        }
        if step.resend {
            self.stats.sends_short.add(1);
            self.submit_send(id);
        }
        if step.cancel_send {
            self.cancel(super::op::Op::Send(id.into()));
        }
        match step.finish {
            Some(Finish::Closed(cause)) => self.finish(id, cause),
            Some(Finish::Left(ended)) => self.depart(id, ended),
            None => {}
        }
    }

    /// Closes the descriptor; the logic hears of it at the start of the next turn.
    fn finish(&mut self, id: ConnId, cause: CloseCause) {
        if let Some(fd) = self.table.get(id).and_then(|conn| conn.fd.take()) {
            if cause == CloseCause::Requested {
                super::network::end_gracefully(&fd);
            }
            drop(fd);
        }
        self.finished.push((id, cause));
        if let Some(listener) = &mut self.listener {
            listener.descriptor_freed();
        }
    }

    /// Sends a connection that has left the kernel to its new core.
    fn depart(&mut self, id: ConnId, ended: Option<CloseCause>) {
        let Some(conn) = self.table.remove(id) else { return };
        let (Some(fd), Some(leaving)) = (conn.fd, conn.leaving) else {
            unreachable!("a connection that leaves has a descriptor and a destination")
        };
        let Leaving { to, state, residue } = *leaving;
        self.hand_overs.send(to, Parcel { fd, peer: conn.peer, state, residue, ended });
        self.stats.handed_over.add(1);
    }

    /// Takes in connections from other cores. One that finds no place is closed with its parcel.
    pub(super) fn adopt(&mut self, now: Now) {
        while let Some(parcel) = self.hand_overs.receive() {
            if !self.table.has_room() {
                self.stats.accepts_shed.add(1);
                continue;
            }
            let Parcel { fd, peer, state, residue, ended } = parcel;
            let (machine, step) = ended.map_or_else(Machine::open, Machine::ended);
            let conn = self.table.insert(fd, peer, machine);
            self.stats.adopted.add(1);
            // Before the logic hears of it, as when it is accepted.
            self.follow(conn, step);
            self.emit(now, Event::Adopted { conn, peer, state });
            self.pass_residue(now, conn, ended.is_some(), residue);
        }
    }

    /// Passes on what was received on the way: to the logic, or with the connection if it moves on at once.
    fn pass_residue(&mut self, now: Now, id: ConnId, ended: bool, mut residue: Vec<u8>) {
        let Some(conn) = self.table.get(id).filter(|_| !residue.is_empty()) else { return };
        if let Some(leaving) = &mut conn.leaving {
            leaving.residue.append(&mut residue);
        } else if ended || conn.machine.is_open() {
            self.emit(now, Event::Received { conn: id, data: &mut residue });
        }
    }

    /// Reports sends that were not started, then connections that are over: in this order, because the end of
    /// a connection comes after every buffer has returned.
    pub(super) fn report_over(&mut self, now: Now) {
        let mut unsent = std::mem::take(&mut self.unsent);
        for (conn, buf) in unsent.drain(..) {
            self.emit(now, Event::Sent { conn, buf, ok: false });
        }
        self.unsent = unsent;
        let mut finished = std::mem::take(&mut self.finished);
        for (conn, cause) in finished.drain(..) {
            // One that the logic had given away before it ended is none of this logic's any more.
            let given_away = self.table.remove(conn).is_some_and(|conn| conn.leaving.is_some());
            if !given_away {
                self.emit(now, Event::Closed { conn, cause });
            }
        }
        self.finished = finished;
    }

    /// Asks every connection to end.
    pub(super) fn close_all(&mut self) {
        for id in self.table.ids() {
            self.input(id, Input::Close);
        }
    }
}
