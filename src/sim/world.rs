//! The scheduler, the faults and the verdict.

use std::collections::{BTreeMap, BTreeSet};

use shards::testing::{Fault, Rng};

use super::net::Pipe;
use super::node::{Machine, SimCore, pick};
use super::user::User;
use crate::client::Stage;
use crate::rt::api::{CloseCause, ConnId, CoreId, CoreLogic, Event, Next, Now};
use crate::wire::Address;

/// Which faults happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// Connections break.
    pub disconnects: bool,
    /// Power fails; the node starts again, on another number of cores.
    pub crashes: bool,
    /// The node is stopped in order and starts again.
    pub stops: bool,
    /// Writes fail or are short; segments cannot be made.
    pub disk: bool,
}

impl Faults {
    pub(super) const NONE: Self = Self { disconnects: false, crashes: false, stops: false, disk: false };
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub users: usize,
    pub steps: u32,
    pub segments_per_lane: u32,
    /// Steps between two power failures, on average.
    pub crash_every: u64,
    pub faults: Faults,
}

impl Default for Plan {
    fn default() -> Self {
        Self { users: 5, steps: 6_000, segments_per_lane: 40, crash_every: 1_200, faults: Faults::NONE }
    }
}

/// Everything there is.
pub(super) struct World {
    seed: u64,
    plan: Plan,
    rng: Rng,
    now: Now,
    machine: Machine,
    cores: Vec<SimCore>,
    pipes: Vec<Pipe>,
    users: Vec<User>,
    /// Recipient of every message ever given to a client.
    recipients: BTreeMap<[u8; 16], Address>,
    trace: blake3::Hasher,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut machine = Machine::format(seed, plan.segments_per_lane);
        let now = Now { mono_us: 1_000_000, wall_ms: 1_700_000_000_000 };
        let node = machine.node_id();
        let cores = machine.start(now, 1 + (seed % 3) as u16);
        let users = (0..plan.users as u64).map(|number| User::new(seed, number, node)).collect();
        let (pipes, recipients) = (Vec::new(), BTreeMap::new());
        let rng = Rng::new(seed);
        Self { seed, plan, rng, now, machine, cores, pipes, users, recipients, trace: blake3::Hasher::new() }
    }

    /// A number that any difference between two runs changes.
    pub(super) fn trace(&self) -> u64 {
        let hash = self.trace.finalize();
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) ^ self.machine.disk.trace_hash()
    }

    /// The eventful part.
    pub(super) fn run(&mut self) {
        for _ in 0..self.plan.steps {
            self.step();
            if self.rng.one_in(6) {
                self.somebody_sends();
            }
            self.maybe_fault();
        }
    }

    /// Ends the faults, lets everything drain, and judges.
    pub(super) fn settle(&mut self) {
        self.machine.disk.clear_faults();
        if self.plan.faults.disk {
            // A lane that a fault has made read-only takes messages again after a restart.
            self.crash();
        }
        let mut quiet = 0;
        for _ in 0..400_000 {
            self.step();
            quiet = if self.is_quiet() { quiet + 1 } else { 0 };
            if quiet > 300 {
                return self.judge();
            }
        }
        for core in &self.cores {
            eprintln!("{}", core.core.describe());
        }
        let unsent: Vec<_> = self.users.iter().map(|user| user.client.unsent()).collect();
        panic!("seed {}: did not drain; unsent {unsent:?}, received {:?}", self.seed, self.received());
    }

    fn received(&self) -> Vec<usize> {
        self.users.iter().map(|user| user.received.len()).collect()
    }

    fn is_quiet(&self) -> bool {
        let settled =
            self.users.iter().all(|user| user.client.is_settled() && user.client.stage() == Stage::Ready);
        let pipes = self.pipes.iter().all(|pipe| pipe.to_node.is_empty() && pipe.to_user.is_empty());
        settled
            && pipes
            && self.expected().iter().zip(&self.users).all(|(ids, user)| ids.len() <= user.received.len())
    }

    /// Ids that each user must have received, in the order of their numbers.
    fn expected(&self) -> Vec<Vec<(u64, [u8; 16])>> {
        let of = |user: &User| {
            let accepted = self.users.iter().flat_map(|sender| &sender.accepted);
            let mut ids: Vec<_> = accepted
                .filter(|(_, (to, _))| *to == user.address)
                .map(|(id, (_, seq))| (*seq, *id))
                .collect();
            ids.sort_unstable();
            ids
        };
        self.users.iter().map(of).collect()
    }

    fn judge(&self) {
        for (user, expected) in self.users.iter().zip(self.expected()) {
            let got: Vec<_> = user.received.iter().map(|(id, seq)| (*seq, id.0)).collect();
            let ids: BTreeSet<_> = got.iter().map(|(_, id)| *id).collect();
            assert_eq!(ids.len(), got.len(), "seed {}: a message arrived twice", self.seed);
            assert!(got.is_sorted(), "seed {}: messages arrived out of order: {got:?}", self.seed);
            let lost: Vec<_> = expected.iter().filter(|(_, id)| !ids.contains(id)).collect();
            assert!(lost.is_empty(), "seed {}: acknowledged and never delivered: {lost:?}", self.seed);
            let strange = ids.iter().filter(|id| self.recipients.get(*id) != Some(&user.address)).count();
            assert_eq!(strange, 0, "seed {}: delivered to the wrong user", self.seed);
        }
        let sent: u64 = self.users.iter().map(|user| user.sent).sum();
        let accepted: usize = self.users.iter().map(|user| user.accepted.len()).sum();
        assert!(accepted > 0 || sent == 0, "seed {}: nothing was accepted of {sent}", self.seed);
    }

    fn somebody_sends(&mut self) {
        let from = pick(&mut self.rng, self.users.len());
        let to = self.users[pick(&mut self.rng, self.users.len())].address;
        let user = &mut self.users[from];
        user.send(self.now, &mut self.rng, from as u64, to);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(from as u64).to_le_bytes());
        id[8..].copy_from_slice(&user.sent.to_le_bytes());
        self.recipients.insert(id, to);
    }

    fn maybe_fault(&mut self) {
        let faults = self.plan.faults;
        if faults.disconnects && self.rng.one_in(150) && !self.pipes.is_empty() {
            let at = pick(&mut self.rng, self.pipes.len());
            self.break_pipe(at);
        }
        if faults.crashes && self.rng.one_in(self.plan.crash_every) {
            self.crash();
        }
        if faults.stops && self.rng.one_in(1_500) {
            self.stop();
        }
        if faults.disk && self.rng.one_in(400) {
            let fault = match self.rng.below(4) {
                0 => Fault::WriteError,
                1 => Fault::ErrorAfterWrite,
                2 => Fault::ShortWrite,
                _ => Fault::NoSpace,
            };
            self.machine.disk.inject(fault);
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        self.now.mono_us += self.rng.below(400);
        self.now.wall_ms = 1_700_000_000_000 + self.now.mono_us / 1000;
        match self.rng.below(8) {
            0..3 => {
                let core = pick(&mut self.rng, self.cores.len());
                self.turn(core);
            }
            3 => self.disk_completes(),
            4 => self.user_acts(),
            _ => self.pipe_moves(),
        }
    }

    fn turn(&mut self, at: usize) {
        let sim = &mut self.cores[at];
        sim.next = sim.core.turn(self.now, &mut sim.effects);
        self.apply(at);
        if let Some(port) = self.cores[at].core.port() {
            port.publish();
        }
    }

    fn event(&mut self, at: usize, event: Event<'_>) {
        let sim = &mut self.cores[at];
        sim.core.on_event(self.now, event, &mut sim.effects);
        self.apply(at);
    }

    /// Carries out what a core asked for.
    fn apply(&mut self, at: usize) {
        let core = CoreId(at as u16);
        let mut effects = std::mem::take(&mut self.cores[at].effects);
        for op in effects.disk.drain(..) {
            self.machine.disk.submit(op);
        }
        for (conn, buffer) in effects.sends.drain(..) {
            self.trace.update(&buffer);
            match self.pipe_of(core, conn) {
                Some(pipe) => {
                    assert!(pipe.sending.is_none(), "one send in flight per connection");
                    pipe.sending = Some((buffer, 0));
                }
                None => panic!("a send on a connection that is closed"),
            }
        }
        for (conn, receive) in effects.receives.drain(..) {
            if let Some(pipe) = self.pipe_of(core, conn) {
                pipe.receiving = receive;
            }
        }
        for conn in effects.closes.drain(..) {
            if let Some(pipe) = self.pipe_of(core, conn) {
                pipe.closed_by_node = true;
            }
        }
        let hand_overs = std::mem::take(&mut effects.hand_overs);
        self.cores[at].effects = effects;
        for hand_over in hand_overs {
            let to = usize::from(hand_over.to.0);
            let conn = self.cores[to].new_conn();
            let Some(pipe) = self.pipe_of(core, hand_over.conn) else { panic!("a closed connection moves") };
            (pipe.core, pipe.conn, pipe.receiving) = (hand_over.to, conn, true);
            let peer = "192.0.2.1:1".parse().unwrap();
            self.event(to, Event::Adopted { conn, peer, state: hand_over.state });
        }
    }

    fn pipe_of(&mut self, core: CoreId, conn: ConnId) -> Option<&mut Pipe> {
        self.pipes.iter_mut().find(|pipe| (pipe.core, pipe.conn) == (core, conn))
    }

    fn disk_completes(&mut self) {
        let Some(done) = self.machine.disk.complete_any() else { return };
        let cores = self.cores.len() as u16;
        let at = self.machine.core_of(done.lane, cores);
        self.event(at, Event::Disk(done));
    }

    fn user_acts(&mut self) {
        let number = pick(&mut self.rng, self.users.len());
        let connected = self.pipes.iter().any(|pipe| pipe.user == number);
        if !connected {
            if self.users[number].client.connect_us() > self.now.mono_us {
                return;
            }
            let at = pick(&mut self.rng, self.cores.len());
            let conn = self.cores[at].new_conn();
            self.pipes.push(Pipe::new(number, CoreId(at as u16), conn));
            let user = &mut self.users[number];
            user.unsent.clear();
            user.client.connected(self.now, &mut user.unsent).unwrap();
            let peer = "192.0.2.1:1".parse().unwrap();
            return self.event(at, Event::Accepted { conn, peer });
        }
        let (user, now) = (&mut self.users[number], self.now);
        user.client.flush(now, &mut user.unsent).unwrap();
        user.take_events(now, &self.recipients);
        if let Some(pipe) = self.pipes.iter_mut().find(|pipe| pipe.user == number) {
            let part = pipe.room_to_node().min(user.unsent.len());
            pipe.to_node.extend(user.unsent.drain(..part));
        }
    }

    /// Some bytes of one connection arrive, at either end.
    fn pipe_moves(&mut self) {
        if self.pipes.is_empty() {
            return;
        }
        let at = pick(&mut self.rng, self.pipes.len());
        let bytes =
            if self.rng.one_in(4) { self.rng.below(40) + 1 } else { self.rng.below(16_000) + 1 } as usize;
        let pipe = &mut self.pipes[at];
        let (core, conn) = (usize::from(pipe.core.0), pipe.conn);
        if pipe.broken || (pipe.closed_by_node && pipe.sending.is_none() && pipe.to_user.is_empty()) {
            return self.close(at);
        }
        if let Some(buf) = pipe.take(bytes) {
            return self.event(core, Event::Sent { conn, buf, ok: true });
        }
        if self.pipes[at].sending.is_some() {
            self.event(core, Event::SendProgress { conn });
        }
        let pipe = &mut self.pipes[at];
        if !pipe.to_user.is_empty() && self.rng.one_in(2) {
            let part = bytes.min(pipe.to_user.len());
            let mut data: Vec<u8> = pipe.to_user.drain(..part).collect();
            let user = &mut self.users[pipe.user];
            user.client.receive(self.now, &mut data, &mut user.unsent).unwrap();
            return user.take_events(self.now, &self.recipients);
        }
        if pipe.receiving && !pipe.to_node.is_empty() {
            let part = bytes.min(pipe.to_node.len());
            let mut data: Vec<u8> = pipe.to_node.drain(..part).collect();
            self.event(core, Event::Received { conn, data: &mut data });
        }
    }

    fn break_pipe(&mut self, at: usize) {
        self.pipes[at].broken = true;
        self.pipes[at].to_user.clear();
        self.pipes[at].to_node.clear();
    }

    /// The end of a connection reaches both sides.
    fn close(&mut self, at: usize) {
        let pipe = self.pipes.swap_remove(at);
        self.users[pipe.user].client.disconnected(self.now);
        let (core, conn) = (usize::from(pipe.core.0), pipe.conn);
        if let Some((buf, _)) = pipe.sending {
            self.event(core, Event::Sent { conn, buf, ok: false });
        }
        let cause = if pipe.closed_by_node { CloseCause::Requested } else { CloseCause::PeerClosed };
        self.event(core, Event::Closed { conn, cause });
    }

    /// The operator stops the node and starts it again.
    fn stop(&mut self) {
        for at in 0..self.cores.len() {
            let sim = &mut self.cores[at];
            sim.core.begin_shutdown(self.now, &mut sim.effects);
            self.apply(at);
        }
        for _ in 0..100_000 {
            self.step();
            if self.cores.iter().all(|sim| sim.next == Next::Done) {
                assert_eq!(self.machine.disk.pending(), [], "a core that is done has nothing in flight");
                return self.start_again();
            }
        }
        panic!("seed {}: the node did not stop", self.seed);
    }

    /// Power fails: memory is gone, the disk keeps some of what was being written. Then the node starts
    /// again.
    fn crash(&mut self) {
        self.machine.disk.crash_at_random();
        self.start_again();
    }

    /// The process is gone, and with it every connection; another takes its place, on another number of
    /// cores.
    fn start_again(&mut self) {
        self.cores.clear();
        for pipe in self.pipes.drain(..) {
            self.users[pipe.user].client.disconnected(self.now);
        }
        let cores = 1 + self.rng.below(3) as u16;
        self.cores = self.machine.start(self.now, cores);
    }
}
