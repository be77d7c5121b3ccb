//! Writing a checkpoint, a few runs per turn.

use crate::format::Lsn;
use crate::format::record::Kind;
use crate::index::{Entry, Prefix};
use crate::io::DiskDone;
use crate::keyed::checkpoint::format::{ENTRY_BYTES, End, TREES, Use, push_entry, run_head, trees};
use crate::keyed::{Class, Event, KeyedStore};
use crate::lane::{AppendError, Completion, Lane, RecordLoc, Reserve};

/// Entries of a run; more only if that many begin alike.
const RUN_ENTRIES: usize = 4_096;
/// Runs that one turn writes, at most: some 100 microseconds.
const RUNS_PER_POLL: usize = 2;
/// A checkpoint is due after so many bytes of log as this many checkpoints take.
const LOG_PER_CHECKPOINT: u64 = 8;

/// The lane of checkpoints and what is being written to it.
#[derive(Debug)]
pub struct Checkpointer {
    pub lane: Lane,
    /// Number of the last that was begun.
    pub number: u64,
    /// Records of the one that counts.
    pub kept: Vec<RecordLoc>,
    /// Bytes of the one that counts.
    pub kept_bytes: u64,
    writing: Option<Writing>,
    /// Bytes appended to the log since the last was begun.
    pub log_bytes: u64,
    /// Least of them before the next is begun.
    pub log_bytes_min: u64,
    /// Checkpoints that could not be finished. Nothing is lost by that; a start takes longer.
    pub abandoned: u64,
    /// One must be written although it is not due.
    wanted: bool,
}

#[derive(Debug)]
struct Writing {
    end: End,
    /// The tree that is being written, and from which prefix on. Past the last tree, the end is due.
    tree: usize,
    from: Option<Prefix>,
    /// Records that are durable.
    done: Vec<RecordLoc>,
    /// Records that are not.
    under_way: u32,
    /// The lane takes no more before something ends.
    waits: bool,
    /// The end was appended.
    is_ended: bool,
    /// Nothing more is appended, and what is durable of it will be let go.
    is_given_up: bool,
}

impl Checkpointer {
    /// With the checkpoint that was loaded, if one was.
    pub fn new(lane: Lane, number: u64, kept: Vec<RecordLoc>, log_bytes_min: u64) -> Self {
        let kept_bytes = kept.iter().map(|loc| u64::from(loc.len)).sum();
        let (writing, log_bytes, abandoned, wanted) = (None, 0, 0, false);
        Self { lane, number, kept, kept_bytes, writing, log_bytes, log_bytes_min, abandoned, wanted }
    }

    /// Asks for one although it is not due.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// True if one is being written or due.
    pub fn has_work(&self) -> bool {
        self.writing.is_some() || self.wanted
    }

    /// True if something can be written at once.
    pub fn can_go_on(&self) -> bool {
        let writes = |it: &Writing| !it.waits && !it.is_ended && !it.is_given_up;
        self.writing.as_ref().map_or(self.is_due(), writes)
    }

    fn is_due(&self) -> bool {
        let due = self.log_bytes_min.max(LOG_PER_CHECKPOINT * self.kept_bytes);
        self.writing.is_none() && (self.wanted || self.log_bytes >= due)
    }

    /// An operation of the lane ended.
    fn go_on(&mut self) {
        if let Some(writing) = &mut self.writing {
            writing.waits = false;
        }
    }

    /// A record is durable.
    fn note_durable(&mut self, loc: RecordLoc) {
        let Some(writing) = &mut self.writing else { return self.lane.release(loc, Kind::Checkpoint) };
        writing.done.push(loc);
        writing.under_way -= 1;
    }

    /// Ends what is at its end: the older checkpoint goes when the newer is whole.
    fn settle(&mut self) {
        let Some(writing) = self.writing.take_if(|it| it.under_way == 0 && (it.is_ended || it.is_given_up))
        else {
            return;
        };
        let dead = if writing.is_given_up {
            self.abandoned += 1;
            writing.done
        } else {
            self.kept_bytes = writing.done.iter().map(|loc| u64::from(loc.len)).sum();
            std::mem::replace(&mut self.kept, writing.done)
        };
        dead.into_iter().for_each(|loc| self.lane.release(loc, Kind::Checkpoint));
    }
}

impl KeyedStore {
    /// Writes on, if there is something to be written.
    pub(in crate::keyed) fn write_checkpoint(&mut self) {
        if self.checkpointer.is_due() {
            self.begin_checkpoint();
        }
        for _ in 0..RUNS_PER_POLL {
            if !self.write_run() {
                break;
            }
        }
        self.checkpointer.settle();
    }

    fn begin_checkpoint(&mut self) {
        let unsettled = self.appended.iter().flatten().filter_map(|appended| appended.serial).min();
        let uses = Class::ALL.into_iter().flat_map(|class| {
            let used = self.lanes[class as usize].uses();
            used.map(move |(segment, incarnation)| Use { class, segment, incarnation })
        });
        let uses = uses.collect();
        let checkpointer = &mut self.checkpointer;
        checkpointer.number += 1;
        checkpointer.log_bytes = 0;
        checkpointer.wanted = false;
        let end = End {
            number: checkpointer.number,
            settled_serial: unsettled.map_or(self.serial, |serial| serial - 1),
            begun_serial: self.serial,
            hour: self.hour,
            marks: std::array::from_fn(|class| self.lanes[class].durable_lsn()),
            origins: std::array::from_fn(|tree| self.tree(tree).origin()),
            uses,
            ..End::default()
        };
        let (tree, from, done) = (0, Some(Prefix::MIN), Vec::new());
        let (under_way, waits, is_ended, is_given_up) = (0, false, false, false);
        self.checkpointer.writing =
            Some(Writing { end, tree, from, done, under_way, waits, is_ended, is_given_up });
    }

    /// Appends the next run, or the end; false if nothing more can be done now.
    fn write_run(&mut self) -> bool {
        let Some(mut writing) = self.checkpointer.writing.take() else { return false };
        let wrote = !writing.is_ended && !writing.is_given_up && self.write_next(&mut writing);
        self.checkpointer.writing = Some(writing);
        wrote
    }

    fn write_next(&mut self, writing: &mut Writing) -> bool {
        let Some(from) = writing.from else {
            writing.tree += 1;
            writing.from = Some(Prefix::MIN);
            return true;
        };
        if writing.tree == TREES {
            return self.write_end(writing);
        }
        let mut bytes = std::mem::take(&mut self.checkpoint_scratch);
        bytes.clear();
        let (count, next) = self.collect_run(writing.tree, from, &mut bytes);
        let head = run_head(writing.end.number, writing.end.runs, writing.tree);
        let went = bytes.is_empty() || self.append_part(writing, &[&head, &bytes]);
        if went {
            writing.end.runs += u32::from(!bytes.is_empty());
            writing.end.counts[writing.tree] += count as u64;
            writing.from = next;
        }
        self.checkpoint_scratch = bytes;
        went
    }

    /// The entries of a run, and where the next begins. All of one prefix stand in one run: while it is being
    /// collected nothing changes, and between two runs the places of a prefix may change their order.
    fn collect_run(&self, tree: usize, from: Prefix, out: &mut Vec<u8>) -> (usize, Option<Prefix>) {
        let mut last: Option<Entry> = None;
        for entry in self.tree(tree).range(from, Prefix::MAX) {
            if out.len() >= RUN_ENTRIES * ENTRY_BYTES && last.is_some_and(|last| last.prefix != entry.prefix)
            {
                return (out.len() / ENTRY_BYTES, Some(entry.prefix));
            }
            push_entry(out, entry);
            last = Some(entry);
        }
        (out.len() / ENTRY_BYTES, None)
    }

    fn write_end(&mut self, writing: &mut Writing) -> bool {
        writing.end.shadows =
            self.shadows.iter().map(|((family, prefix), hour)| (*family, *prefix, *hour)).collect();
        writing.end.last_serial = self.serial;
        let payload = writing.end.encode();
        writing.is_ended = self.append_part(writing, &[&payload]);
        writing.is_ended
    }

    fn append_part(&mut self, writing: &mut Writing, parts: &[&[u8]]) -> bool {
        match self.checkpointer.lane.append_with(Reserve::Keep, Kind::Checkpoint, 0, parts) {
            Ok(Lsn(_)) => {
                writing.under_way += 1;
                true
            }
            Err(AppendError::Busy) => {
                writing.waits = true;
                false
            }
            // No space for it, a disk that failed, or more segments than fit into its end.
            Err(_) => {
                writing.is_given_up = true;
                false
            }
        }
    }

    /// Takes the end of an operation of the lane of checkpoints.
    pub(in crate::keyed) fn complete_checkpoint(
        &mut self,
        now_us: u64,
        done: DiskDone,
        events: &mut Vec<Event>,
    ) {
        let mut durable = std::mem::take(&mut self.committed);
        let lane = &mut self.checkpointer.lane;
        let completion = lane.complete(now_us, done, |record| durable.push((record.lsn, record.loc)));
        durable.drain(..).for_each(|(_, loc)| self.checkpointer.note_durable(loc));
        self.checkpointer.go_on();
        self.committed = durable;
        match completion {
            Completion::Refused { first, last, errno } => {
                if let Some(writing) = &mut self.checkpointer.writing {
                    writing.under_way -= (last.0 + 1).saturating_sub(first.0) as u32;
                    writing.is_given_up = true;
                }
                events.push(Event::CheckpointTrouble { errno });
            }
            Completion::WriteFailed(errno) | Completion::PrepareFailed(errno) => {
                events.push(Event::CheckpointTrouble { errno });
            }
            // PANIC: the border to the machine gives every buffer back and ends what was begun, once; and
            // checkpoints are read at a start only.
            Completion::Read { .. } | Completion::Unknown(_) => unreachable!("an operation nobody asked for"),
            Completion::Committed { .. } | Completion::Housekeeping | Completion::Prepared(_) => {}
        }
        self.checkpointer.settle();
    }

    /// A tree by its number in a checkpoint.
    fn tree(&self, number: usize) -> &crate::index::KeyIndex {
        // PANIC: `number` is below `TREES`, which is how many there are.
        let (family, tree) = trees().nth(number).expect("a tree of the partition");
        self.families[family.at()].get(tree)
    }
}
