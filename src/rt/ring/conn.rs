//! The life of one connection as a table of (state, input) → (state, step). No system call in here.
//!
//! A connection may have two operations in the kernel: a multishot receive and one send. Whatever ends it,
//! both must be out of the kernel before the descriptor is closed or handed to another core. Running out of
//! provided buffers, a multishot that stops by itself, a cancelled receive and a reset peer are ordinary
//! inputs.

use shards::io::Errno;

use crate::rt::api::CloseCause;

/// Where the multishot receive stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recv {
    /// Not in the kernel.
    Idle,
    /// In the kernel.
    Armed,
    /// In the kernel, and asked to end.
    Stopping,
}

/// Where the send stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Send {
    Idle,
    Busy,
    Stopping,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// It ends for this reason, once nothing of it is left in the kernel.
    Closing(CloseCause),
    /// It moves to another core, once nothing of it is left in the kernel. If it ended meanwhile, so.
    Leaving(Option<CloseCause>),
    /// Nothing of it is left in the kernel.
    Over,
}

/// How a receive left the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvEnd {
    /// It stopped without an error that concerns the peer: no buffers, no room for completions, cancelled.
    Interrupted,
    /// The peer closed its side.
    Eof,
    /// The connection failed.
    Failed(Errno),
}

/// How a send left the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendEnd {
    /// All bytes were taken.
    Whole,
    /// Some were taken, others are left.
    Short,
    /// None were taken.
    Failed(Errno),
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    RecvEnded(RecvEnd),
    SendStarted,
    SendEnded(SendEnd),
    /// The logic wants to receive, or not.
    Receive(bool),
    Close,
    Leave,
}

/// How a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Closed(CloseCause),
    /// It may be handed over; the other core must also hear that it ended, if it did.
    Left(Option<CloseCause>),
}

/// What the driver must do after an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub arm_recv: bool,
    pub cancel_recv: bool,
    /// Send what a short send left.
    pub resend: bool,
    pub cancel_send: bool,
    pub finish: Option<Finish>,
}

/// The state of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub recv: Recv,
    pub send: Send,
    pub life: Life,
    /// What the logic wants of the receive.
    pub receive: bool,
}

impl Machine {
    /// A new connection and its first step, which arms the receive.
    pub fn open() -> (Self, Step) {
        let machine = Self { recv: Recv::Armed, send: Send::Idle, life: Life::Open, receive: true };
        (machine, Step { arm_recv: true, ..Step::default() })
    }

    /// A connection that another core handed over after the peer had ended it.
    pub fn ended(cause: CloseCause) -> (Self, Step) {
        let life = Life::Closing(cause);
        let mut machine = Self { recv: Recv::Idle, send: Send::Idle, life, receive: false };
        let step = machine.settle(Step::default());
        (machine, step)
    }

    /// True while the logic may send and receive.
    pub fn is_open(&self) -> bool {
        self.life == Life::Open
    }

    /// Takes one input.
    pub fn on(&mut self, input: Input) -> Step {
        let step = match input {
            Input::RecvEnded(end) => self.recv_ended(end),
            Input::SendStarted => self.send_started(),
            Input::SendEnded(end) => self.send_ended(end),
            Input::Receive(wanted) => self.receive(wanted),
            Input::Close => self.close(CloseCause::Requested),
            Input::Leave => self.leave(),
        };
        self.settle(step)
    }

    fn recv_ended(&mut self, end: RecvEnd) -> Step {
        debug_assert_ne!(self.recv, Recv::Idle, "a receive ended that was not in the kernel");
        self.recv = Recv::Idle;
        match end {
            RecvEnd::Interrupted if self.is_open() && self.receive => self.arm(),
            RecvEnd::Interrupted => Step::default(),
            RecvEnd::Eof => self.ends(CloseCause::PeerClosed),
            RecvEnd::Failed(errno) => self.ends(CloseCause::Failed(errno)),
        }
    }

    /// The network ended the connection; what the logic had asked for before takes precedence.
    fn ends(&mut self, cause: CloseCause) -> Step {
        match self.life {
            Life::Leaving(None) => {
                self.life = Life::Leaving(Some(cause));
                Step::default()
            }
            _ => self.close(cause),
        }
    }

    fn send_started(&mut self) -> Step {
        debug_assert!(self.is_open() && self.send == Send::Idle);
        self.send = Send::Busy;
        Step::default()
    }

    fn send_ended(&mut self, end: SendEnd) -> Step {
        debug_assert_ne!(self.send, Send::Idle, "a send ended that was not in the kernel");
        let closing = matches!(self.life, Life::Closing(_));
        match end {
            SendEnd::Short if !closing => Step { resend: true, ..Step::default() },
            SendEnd::Whole | SendEnd::Short => {
                self.send = Send::Idle;
                Step::default()
            }
            SendEnd::Failed(errno) => {
                self.send = Send::Idle;
                self.ends(CloseCause::Failed(errno))
            }
        }
    }

    fn receive(&mut self, wanted: bool) -> Step {
        self.receive = wanted;
        match (self.recv, wanted) {
            _ if !self.is_open() => Step::default(),
            (Recv::Idle, true) => self.arm(),
            (Recv::Armed, false) => self.stop_recv(Step::default()),
            _ => Step::default(),
        }
    }

    fn close(&mut self, cause: CloseCause) -> Step {
        if !self.is_open() {
            return Step::default();
        }
        self.life = Life::Closing(cause);
        let mut step = self.stop_recv(Step::default());
        if self.send == Send::Busy {
            self.send = Send::Stopping;
            step.cancel_send = true;
        }
        step
    }

    fn leave(&mut self) -> Step {
        if !self.is_open() {
            return Step::default();
        }
        debug_assert_eq!(self.send, Send::Idle, "handed over with a send in flight");
        self.life = Life::Leaving(None);
        self.stop_recv(Step::default())
    }

    fn arm(&mut self) -> Step {
        self.recv = Recv::Armed;
        Step { arm_recv: true, ..Step::default() }
    }

    fn stop_recv(&mut self, mut step: Step) -> Step {
        if self.recv == Recv::Armed {
            self.recv = Recv::Stopping;
            step.cancel_recv = true;
        }
        step
    }

    /// Ends the connection if it shall end and nothing of it is in the kernel.
    fn settle(&mut self, mut step: Step) -> Step {
        if self.recv == Recv::Idle && self.send == Send::Idle {
            step.finish = match self.life {
                Life::Closing(cause) => Some(Finish::Closed(cause)),
                Life::Leaving(ended) => Some(Finish::Left(ended)),
                Life::Open | Life::Over => None,
            };
            if step.finish.is_some() {
                self.life = Life::Over;
            }
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: Errno = Errno(104);
    const LOST: CloseCause = CloseCause::Failed(RESET);
    const NOTHING: Step =
        Step { arm_recv: false, cancel_recv: false, resend: false, cancel_send: false, finish: None };
    const ARM: Step = Step { arm_recv: true, ..NOTHING };
    const STOP: Step = Step { cancel_recv: true, ..NOTHING };
    const STOP_BOTH: Step = Step { cancel_recv: true, cancel_send: true, ..NOTHING };
    const RESEND: Step = Step { resend: true, ..NOTHING };

    fn closed(cause: CloseCause) -> Step {
        Step { finish: Some(Finish::Closed(cause)), ..NOTHING }
    }

    fn left(ended: Option<CloseCause>) -> Step {
        Step { finish: Some(Finish::Left(ended)), ..NOTHING }
    }

    /// Feeds `script` to a fresh connection and compares each step.
    fn play(name: &str, script: &[(Input, Step)]) {
        let (mut machine, _) = Machine::open();
        for (at, (input, expected)) in script.iter().enumerate() {
            assert_eq!(machine.on(*input), *expected, "{name}, input {at}: {input:?}");
        }
    }

    #[test]
    fn every_life_of_a_connection_goes_as_the_table_says() {
        use Input::*;
        let interrupted = RecvEnded(RecvEnd::Interrupted);
        let eof = RecvEnded(RecvEnd::Eof);
        let reset = RecvEnded(RecvEnd::Failed(RESET));
        let whole = SendEnded(SendEnd::Whole);
        let short = SendEnded(SendEnd::Short);
        let broken = SendEnded(SendEnd::Failed(RESET));
        let requested = closed(CloseCause::Requested);
        let peer_closed = closed(CloseCause::PeerClosed);
        play("a receive that stops by itself is armed again", &[(interrupted, ARM), (interrupted, ARM)]);
        play("the peer closes", &[(eof, peer_closed), (Close, NOTHING)]);
        play("the peer resets", &[(reset, closed(LOST))]);
        play("pause, then resume", &[(Receive(false), STOP), (interrupted, NOTHING), (Receive(true), ARM)]);
        play(
            "resume before the pause took hold",
            &[(Receive(false), STOP), (Receive(true), NOTHING), (interrupted, ARM)],
        );
        play(
            "paused and stopped by itself",
            &[(Receive(false), STOP), (interrupted, NOTHING), (Receive(false), NOTHING)],
        );
        play("the peer closes while pausing", &[(Receive(false), STOP), (eof, peer_closed)]);
        play(
            "a short send goes on",
            &[(SendStarted, NOTHING), (short, RESEND), (short, RESEND), (whole, NOTHING)],
        );
        play("a send fails", &[(SendStarted, NOTHING), (broken, STOP), (interrupted, closed(LOST))]);
        play("send and receive fail", &[(SendStarted, NOTHING), (broken, STOP), (reset, closed(LOST))]);
        play(
            "the peer closes during a send",
            &[(SendStarted, NOTHING), (eof, Step { cancel_send: true, ..NOTHING }), (broken, peer_closed)],
        );
        play("close when idle", &[(Close, STOP), (interrupted, requested)]);
        play("close twice", &[(Close, STOP), (Close, NOTHING), (interrupted, requested), (Close, NOTHING)]);
        play(
            "close while sending",
            &[(SendStarted, NOTHING), (Close, STOP_BOTH), (short, NOTHING), (interrupted, requested)],
        );
        play(
            "close while sending, the other way",
            &[(SendStarted, NOTHING), (Close, STOP_BOTH), (interrupted, NOTHING), (whole, requested)],
        );
        play("close when paused", &[(Receive(false), STOP), (interrupted, NOTHING), (Close, requested)]);
        play(
            "resume does not revive a closing one",
            &[(Close, STOP), (Receive(true), NOTHING), (interrupted, requested)],
        );
        play("leave", &[(Leave, STOP), (interrupted, left(None))]);
        play("leave when paused", &[(Receive(false), STOP), (interrupted, NOTHING), (Leave, left(None))]);
        play("the peer closes while leaving", &[(Leave, STOP), (eof, left(Some(CloseCause::PeerClosed)))]);
        play("the peer resets while leaving", &[(Leave, STOP), (reset, left(Some(LOST)))]);
        play("leave after close", &[(Close, STOP), (Leave, NOTHING), (interrupted, requested)]);
    }

    #[test]
    fn one_that_ended_on_its_way_is_closed_where_it_arrives() {
        assert_eq!(Machine::ended(LOST).1, closed(LOST));
    }

    /// Applies every sequence of inputs that the driver can produce, up to a depth, and checks what must
    /// always hold.
    #[test]
    fn no_sequence_of_inputs_leaves_an_operation_behind_or_ends_a_connection_twice() {
        fn explore(machine: Machine, finished: bool, depth: u32) {
            if depth == 0 {
                return;
            }
            for input in possible(&machine) {
                let mut next = machine;
                let step = next.on(input);
                if step.finish.is_some() {
                    assert!(!finished, "finished twice: {machine:?} {input:?}");
                    assert!(next.recv == Recv::Idle && next.send == Send::Idle);
                    assert!(!step.arm_recv && !step.resend);
                }
                if matches!(next.life, Life::Closing(_) | Life::Leaving(_)) {
                    assert!(next.recv != Recv::Armed, "nobody stops the receive: {machine:?} {input:?}");
                }
                assert_eq!(step.arm_recv, machine.recv_free(input) && next.recv == Recv::Armed);
                explore(next, finished || step.finish.is_some(), depth - 1);
            }
        }
        explore(Machine::open().0, false, 8);
    }

    impl Machine {
        /// True if the receive is out of the kernel when the step for `input` is made.
        fn recv_free(&self, input: Input) -> bool {
            self.recv == Recv::Idle || matches!(input, Input::RecvEnded(_))
        }
    }

    fn possible(machine: &Machine) -> Vec<Input> {
        let mut inputs = vec![Input::Close, Input::Receive(true), Input::Receive(false)];
        if machine.recv != Recv::Idle {
            for end in [RecvEnd::Interrupted, RecvEnd::Eof, RecvEnd::Failed(RESET)] {
                inputs.push(Input::RecvEnded(end));
            }
        }
        if machine.send != Send::Idle {
            for end in [SendEnd::Whole, SendEnd::Short, SendEnd::Failed(RESET)] {
                inputs.push(Input::SendEnded(end));
            }
        } else if machine.is_open() {
            inputs.extend([Input::SendStarted, Input::Leave]);
        }
        inputs
    }
}
