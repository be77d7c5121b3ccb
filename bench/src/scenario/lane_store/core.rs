//! The core under test: one partition of keyed records on the node's runtime, and the load on it. There is no
//! network; what a node would hear from its links is made here, in the same turns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender};

use shards::AlignedBuf;
use shards::io::DiskOp;
use shards::keyed::{Begun, ChangeError, Event, Got, Hold, KeyedStore, LookupError, NewRecord, Ticket};
use shards::lane::AppendError;
use trine::rt::api::{self, CoreLogic, Effects, Next, Now};
use trine::rt::clock::Clock;

use super::work::{Op, Outcome, Pacing, Step, Work, buffer_bytes, identity, mixed, record_bytes};
use crate::host;

/// Life of every record, in seconds: more than a hundred days, so that all are of one class.
const LIFE_S: u64 = 2_500 * 3_600;
/// When nothing else is due, what was refused is tried again after this time, in microseconds.
const TRY_AGAIN_US: u64 = 500;
/// How long nothing may end while changes wait, in microseconds.
const STUCK_US: u64 = 5_000_000;
/// Reads that may be under way in an open loop.
const READS_MAX: usize = 256;

/// What is said about a step.
pub type Answer = std::result::Result<Outcome, String>;

/// The logic of the core.
pub struct StoreCore {
    store: KeyedStore,
    clock: Clock,
    /// The processor it is pinned to.
    processor: usize,
    steps: Receiver<Step>,
    answers: Sender<Answer>,
    /// Keys that were put, from number 0 on.
    keys: u64,
    /// Keys from this number on have not expired.
    first_key: u64,
    /// How far the wall clock is ahead of the machine's, in seconds.
    ahead_s: u64,
    body: Vec<u8>,
    root: [u8; 32],
    run: Option<Run>,
    events: Vec<Event>,
    buffers: Vec<AlignedBuf>,
    random: u64,
    closing: bool,
}

/// A step that is being done.
struct Run {
    step: Step,
    outcome: Outcome,
    started_us: u64,
    /// Operations begun.
    begun: u64,
    /// Changes that could not be begun or appended yet.
    waiting: VecDeque<Change>,
    lookups: BTreeMap<Ticket, (u64, u64)>,
    /// Since when each is under way.
    puts: BTreeMap<Ticket, u64>,
    gets: BTreeMap<Ticket, u64>,
    ended_us: u64,
    thread_us: u64,
    processor: host::ProcessorTimes,
    copied_bytes: u64,
    fault: Option<String>,
}

/// A change that has to wait: for another of the same key, for buffers, or for space.
struct Change {
    number: u64,
    since_us: u64,
    hold: Option<Hold>,
}

impl Run {
    fn under_way(&self) -> usize {
        self.waiting.len() + self.lookups.len() + self.puts.len() + self.gets.len()
    }

    /// When operation `nth` of an open loop is due.
    fn due_us(&self, nth: u64, rate: f64) -> u64 {
        self.started_us + (nth as f64 * 1e6 / rate) as u64
    }

    fn is_over(&self, work: &Work, now_us: u64) -> bool {
        self.fault.is_some()
            || self.begun >= work.until.operations
            || now_us >= self.started_us.saturating_add(work.until.us)
    }

    fn fail(&mut self, what: impl Into<String>) {
        self.fault.get_or_insert(what.into());
    }
}

impl StoreCore {
    /// A core with a partition in which the first `keys` numbers live.
    pub fn new(
        store: KeyedStore,
        keys: u64,
        clock: Clock,
        processor: usize,
        steps: Receiver<Step>,
        answers: Sender<Answer>,
    ) -> Self {
        Self {
            store,
            clock,
            processor,
            steps,
            answers,
            keys,
            first_key: 0,
            ahead_s: 0,
            body: Vec::new(),
            root: [0; 32],
            run: None,
            events: Vec::new(),
            buffers: Vec::new(),
            random: 0,
            closing: false,
        }
    }

    fn wall_s(&self, now: Now) -> u64 {
        now.wall_ms / 1_000 + self.ahead_s
    }

    /// Waits for the next step; nothing but the partition's own work is under way meanwhile.
    fn await_step(&mut self) {
        let Ok(step) = self.steps.recv() else {
            self.closing = true;
            return self.store.begin_shutdown();
        };
        match step {
            Step::Work(work) => {
                self.body = (0..work.body_bytes as u64).map(|at| mixed(at) as u8).collect();
                self.root = *blake3::hash(&self.body).as_bytes();
                let buffers = if let Pacing::Closed(most) = work.pacing { most } else { READS_MAX };
                let reads = matches!(work.op, Op::Get | Op::GetAndOverwrite);
                self.buffers = (0..if reads { buffers } else { 0 })
                    .map(|_| AlignedBuf::zeroed(buffer_bytes(work.body_bytes)))
                    .collect();
            }
            Step::Forget => {
                self.ahead_s += LIFE_S + 100 * 3_600;
                self.first_key = self.keys;
            }
        }
        let started_us = self.clock.mono_us();
        self.run = Some(Run {
            step,
            outcome: Outcome::default(),
            started_us,
            begun: 0,
            waiting: VecDeque::new(),
            lookups: BTreeMap::new(),
            puts: BTreeMap::new(),
            gets: BTreeMap::new(),
            ended_us: started_us,
            thread_us: host::thread_cpu_us().unwrap_or_default(),
            processor: host::ProcessorTimes::of(self.processor).unwrap_or_default(),
            copied_bytes: self.store.compacted_bytes(),
            fault: None,
        });
    }

    fn is_done(&self, now: Now) -> bool {
        let Some(run) = &self.run else { return false };
        match run.step {
            Step::Work(work) => run.is_over(&work, now.mono_us) && run.under_way() == 0,
            Step::Forget => self.store.entries() == 0,
        }
    }

    fn end_step(&mut self) {
        let Some(mut run) = self.run.take() else { return };
        let elapsed_us = (run.ended_us - run.started_us).max(1);
        // The shares are of the time until now, which a step that ends by the clock may exceed a little.
        let until_now_us = (self.clock.mono_us() - run.started_us).max(1) as f64;
        let thread_us = host::thread_cpu_us().unwrap_or_default() - run.thread_us;
        run.outcome.elapsed_us = elapsed_us;
        run.outcome.thread_share = thread_us as f64 / until_now_us;
        let (busy, programs) = run.processor.shares_until_now(self.processor).unwrap_or_default();
        run.outcome.processor_share = busy;
        // The kernel's workers run no program: whatever does and is not this thread is somebody else.
        run.outcome.foreign_share = (programs - run.outcome.thread_share).max(0.0);
        run.outcome.copied_bytes = self.store.compacted_bytes() - run.copied_bytes;
        run.outcome.capacity = self.store.capacity();
        run.outcome.entries = self.store.entries();
        run.outcome.index_bytes = self.store.index_bytes();
        // Whoever asked has ended if this fails, and the channel of steps with it.
        let _ = self.answers.send(run.fault.map_or(Ok(run.outcome), Err));
    }

    /// Begins what is due: first what had to wait, then what is new.
    fn load(&mut self, now: Now) {
        let Some(mut run) = self.run.take() else { return };
        if let Step::Work(work) = run.step {
            self.give_up_if_stuck(&mut run, now);
            for _ in 0..run.waiting.len() {
                let Some(change) = run.waiting.pop_front() else { break };
                self.change(&mut run, now, change);
            }
            while !run.is_over(&work, now.mono_us)
                && let Some(since_us) = next_since(&run, &work, now)
                && self.begin(&mut run, &work, now, since_us)
            {}
        }
        self.run = Some(run);
    }

    /// Ends a step in which changes wait and nothing comes to an end, and lets go of what waits in one that
    /// failed.
    fn give_up_if_stuck(&mut self, run: &mut Run, now: Now) {
        if !run.waiting.is_empty() && now.mono_us > run.ended_us + STUCK_US {
            let seconds = STUCK_US / 1_000_000;
            let capacity = self.store.capacity();
            run.fail(format!("the partition took nothing for {seconds} s: {capacity:?}"));
        }
        if run.fault.is_some() {
            run.waiting.drain(..).filter_map(|change| change.hold).for_each(|hold| self.store.release(hold));
        }
    }

    /// Begins one operation; false if it has to be tried again later.
    fn begin(&mut self, run: &mut Run, work: &Work, now: Now, since_us: u64) -> bool {
        let reads = work.op == Op::Get || (work.op == Op::GetAndOverwrite && run.begun.is_multiple_of(2));
        if reads && self.buffers.is_empty() {
            return false;
        }
        if let Pacing::Open(_) = work.pacing {
            run.outcome.lag_us.count(now.mono_us.saturating_sub(since_us), 0);
        }
        run.begun += 1;
        if reads {
            self.get(run, since_us);
            return true;
        }
        let number = if work.op == Op::Put { self.keys } else { self.random_key() };
        self.keys = self.keys.max(number + 1);
        let waited = run.waiting.len();
        self.change(run, now, Change { number, since_us, hold: None });
        run.waiting.len() == waited || matches!(work.pacing, Pacing::Open(_))
    }

    fn random_key(&mut self) -> u64 {
        self.random += 1;
        self.first_key + mixed(self.random) % (self.keys - self.first_key).max(1)
    }

    fn get(&mut self, run: &mut Run, since_us: u64) {
        let number = self.random_key();
        let Some(buf) = self.buffers.pop() else { return run.fail("no buffer is left for a read") };
        match self.store.get(identity(number), buf) {
            Ok(ticket) => {
                run.gets.insert(ticket, since_us);
            }
            Err((error, buf)) => {
                self.buffers.push(buf);
                run.fail(format!("a key cannot be read: {error}"));
            }
        }
    }

    /// Takes hold of a key, if it is not held yet, and puts its record.
    fn change(&mut self, run: &mut Run, now: Now, change: Change) {
        let Change { number, since_us, hold } = change;
        let hold = match hold {
            Some(hold) => hold,
            None => match self.store.begin(identity(number)) {
                Ok(Begun::Held(hold)) => hold,
                Ok(Begun::Reading(ticket)) => {
                    run.lookups.insert(ticket, (number, since_us));
                    return;
                }
                Err(LookupError::Busy) => {
                    return run.waiting.push_back(Change { number, since_us, hold: None });
                }
                Err(error) => return run.fail(format!("a key cannot be held: {error}")),
            },
        };
        let expires_s = (self.wall_s(now) + LIFE_S) as u32;
        let (root, body) = (self.root, &self.body[..]);
        let record = NewRecord { code: 1, sequence: 1, expires_s, card: &[], lease: &[], root, body };
        match self.store.put(hold, &record) {
            Ok(ticket) => {
                let is_closed_put =
                    matches!(run.step, Step::Work(Work { op: Op::Put, pacing: Pacing::Closed(_), .. }));
                let since_us = if is_closed_put { self.clock.mono_us() } else { since_us };
                run.puts.insert(ticket, since_us);
            }
            Err((ChangeError::Append(AppendError::Busy), hold)) => {
                run.waiting.push_back(Change { number, since_us, hold: Some(hold) });
            }
            Err((ChangeError::Capacity(_), hold)) => {
                // A client would be sent away; here it comes back.
                self.store.release(hold);
                run.outcome.turned_away += 1;
                run.waiting.push_back(Change { number, since_us, hold: None });
            }
            Err((error, hold)) => {
                self.store.release(hold);
                run.fail(format!("a record was not taken: {error}"));
            }
        }
    }

    fn take(&mut self, run: &mut Run, now: Now, event: Event) {
        let now_us = self.clock.mono_us();
        match event {
            Event::Stored { ticket } => {
                if let Some(since_us) = run.puts.remove(&ticket) {
                    run.outcome.puts.count(now_us.saturating_sub(since_us), self.body.len());
                    run.outcome.record_bytes += record_bytes(self.body.len()) as u64;
                    run.ended_us = now_us;
                }
            }
            Event::Got { ticket, got, buf } => {
                if let (Some(since_us), Got::Record(read)) = (run.gets.remove(&ticket), &got) {
                    run.outcome.gets.count(now_us.saturating_sub(since_us), read.body(&buf).len());
                    run.ended_us = now_us;
                } else {
                    run.fail(format!("a record that was put cannot be read: {got:?}"));
                }
                self.buffers.push(buf);
            }
            Event::Held { ticket, hold } => match run.lookups.remove(&ticket) {
                Some((number, since_us)) => {
                    self.change(run, now, Change { number, since_us, hold: Some(hold) });
                }
                None => run.fail("a key is held for nobody"),
            },
            Event::LookupFailed { .. }
            | Event::Refused { .. }
            | Event::Lost { .. }
            | Event::CheckpointTrouble { .. }
            | Event::DeviceFailing { .. }
            | Event::DiskTrouble { .. } => {
                run.fail(format!("the partition reports {event:?}"));
            }
        }
    }

    fn next(&self, now: Now) -> Next {
        let deadline = self.store.next_deadline();
        let Some(run) = &self.run else { return deadline.map_or(Next::Event, Next::At) };
        let work = match run.step {
            Step::Forget => return Next::Now,
            Step::Work(work) => work,
        };
        let open = match work.pacing {
            Pacing::Open(rate) if !run.is_over(&work, now.mono_us) => Some(run.due_us(run.begun, rate)),
            _ => None,
        };
        let end = Some(run.started_us.saturating_add(work.until.us)).filter(|end| *end > now.mono_us);
        let again = (!run.waiting.is_empty()).then_some(now.mono_us + TRY_AGAIN_US);
        let due = [deadline, open, end, again].into_iter().flatten().min();
        due.map_or(Next::Event, Next::At)
    }
}

/// From when the latency of the next operation counts, if it may begin now.
fn next_since(run: &Run, work: &Work, now: Now) -> Option<u64> {
    match work.pacing {
        Pacing::Closed(most) => (run.under_way() < most).then_some(now.mono_us),
        Pacing::Open(rate) => Some(run.due_us(run.begun, rate)).filter(|due| *due <= now.mono_us),
    }
}

impl CoreLogic for StoreCore {
    fn on_event(&mut self, now: Now, event: api::Event<'_>, _: &mut Effects) {
        let api::Event::Disk(done) = event else { return };
        self.store.complete(now.mono_us, done, &mut self.events);
        if self.events.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        if let Some(mut run) = self.run.take() {
            events.drain(..).for_each(|event| self.take(&mut run, now, event));
            self.run = Some(run);
        }
        events.clear();
        self.events = events;
    }

    fn turn(&mut self, now: Now, effects: &mut Effects) -> Next {
        if self.is_done(now) {
            self.end_step();
        }
        if self.run.is_none() && !self.closing {
            // The time of this turn is that of before the wait.
            self.await_step();
            return Next::Now;
        }
        self.load(now);
        let first = effects.disk.len();
        self.store.poll(now.mono_us, self.wall_s(now), &mut effects.disk);
        if let Some(run) = &mut self.run {
            let written = effects.disk[first..].iter().map(|op| match op {
                DiskOp::Write { len, .. } => *len as u64,
                DiskOp::Read { .. } | DiskOp::Prepare { .. } => 0,
            });
            run.outcome.written_bytes += written.sum::<u64>();
        }
        if self.closing && self.store.is_drained() {
            return Next::Done;
        }
        self.next(now)
    }

    fn begin_shutdown(&mut self, _: Now, _: &mut Effects) {
        self.closing = true;
        self.store.begin_shutdown();
    }
}
