//! What the core inside is asked to do, and what it answers.

use hdrhistogram::Histogram;
use shards::format::record::RECORD_HEADER_BYTES;
use shards::io::BLOCK_BYTES;
use shards::keyed::{Capacity, Family, HEAD_BYTES, Identity};

/// Longest time that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// A result is not trusted if other programs took more than this share of the processor.
const FOREIGN_MAX: f64 = 0.05;

/// One thing after the other.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Load.
    Work(Work),
    /// Lets time pass until everything has expired. The segments are used again as they are.
    Forget,
}

/// Load of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// What is done.
    pub op: Op,
    /// Size of the body of each record.
    pub body_bytes: usize,
    /// How much at once.
    pub pacing: Pacing,
    /// How long to go on; what is under way then is waited for.
    pub until: Until,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A record of a key that was not there.
    Put,
    /// Reads the record of a key at random.
    Get,
    /// Replaces the record of a key at random, which is read first.
    Overwrite,
    /// The two in turns.
    GetAndOverwrite,
}

/// When the next operation begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pacing {
    /// When fewer than this are under way.
    Closed(usize),
    /// By a schedule of so many per second.
    Open(f64),
}

/// The end of a work, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Until {
    /// Time, in microseconds.
    pub us: u64,
    /// Operations begun.
    pub operations: u64,
}

/// What was counted of one kind of operation.
pub struct Counted {
    /// Microseconds: in a closed loop from the append, or the call of a read, to its end; in an open loop and
    /// for overwriting from when it was meant to begin.
    pub latency_us: Histogram<u64>,
    /// Body bytes of those that ended.
    pub bytes: u64,
}

impl Default for Counted {
    fn default() -> Self {
        // PANIC: the bounds are constants that the library accepts.
        let latency_us =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds of a histogram are valid");
        Self { latency_us, bytes: 0 }
    }
}

impl Counted {
    /// One has ended.
    pub fn count(&mut self, latency_us: u64, bytes: usize) {
        self.latency_us.saturating_record(latency_us);
        self.bytes += bytes as u64;
    }

    /// How many ended.
    pub fn operations(&self) -> u64 {
        self.latency_us.len()
    }

    /// A quantile of the latency, in microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64
    }
}

/// What a step brought.
#[derive(Default)]
pub struct Outcome {
    /// Records that became durable.
    pub puts: Counted,
    /// Records that were read.
    pub gets: Counted,
    /// How late operations of an open loop began.
    pub lag_us: Counted,
    /// From the first operation to the last that ended, in microseconds.
    pub elapsed_us: u64,
    /// Share of that time that the core's thread was running.
    pub thread_share: f64,
    /// Share of that time that the core's processor was not idle: the kernel's workers are in it.
    pub processor_share: f64,
    /// Share of that time that other programs took of the processor, at least.
    pub foreign_share: f64,
    /// Bytes of the records of all puts, as they lie in the log.
    pub record_bytes: u64,
    /// Bytes that compaction copied.
    pub copied_bytes: u64,
    /// Bytes of all writes to the disk.
    pub written_bytes: u64,
    /// Attempts to put a record that found the partition full.
    pub turned_away: u64,
    /// How full the partition was at the end.
    pub capacity: Capacity,
    /// Records at the end.
    pub entries: u64,
    /// Memory of the index at the end, in bytes.
    pub index_bytes: usize,
}

impl Outcome {
    /// Operations per second.
    pub fn rate(&self) -> f64 {
        (self.puts.operations() + self.gets.operations()) as f64 / self.seconds()
    }

    /// Body bytes per second, in millions.
    pub fn mb_per_s(&self) -> f64 {
        (self.puts.bytes + self.gets.bytes) as f64 / self.seconds() / 1e6
    }

    fn seconds(&self) -> f64 {
        self.elapsed_us.max(1) as f64 / 1e6
    }

    /// What was appended for each byte that was put.
    pub fn write_amplification(&self) -> f64 {
        (self.record_bytes + self.copied_bytes) as f64 / self.record_bytes.max(1) as f64
    }

    /// The shares of the processor in words.
    pub fn shares(&self) -> String {
        let percent = |share: f64| share * 100.0;
        let mut words = format!(
            "core's thread {:.0} %, its processor with the kernel's workers {:.0} %",
            percent(self.thread_share),
            percent(self.processor_share)
        );
        if is_disturbed(self.foreign_share) {
            words +=
                &format!("; not to be trusted: other programs took {:.0} %", percent(self.foreign_share));
        }
        words
    }
}

/// True if the processor was not ours alone: a thread that waits for another program's time slice waits for
/// milliseconds, and so do the kernel's workers that finish durable writes.
pub fn is_disturbed(foreign_share: f64) -> bool {
    foreign_share > FOREIGN_MAX
}

/// Length of a record in the log: headers, body, padding. Card and lease are empty.
pub fn record_bytes(body_bytes: usize) -> usize {
    /// From here on lengths are multiples of 1 KiB instead of 64 bytes.
    const FINE_MAX: usize = (128 << 10) - 64;
    let bytes = RECORD_HEADER_BYTES + HEAD_BYTES + body_bytes;
    let fine = bytes.next_multiple_of(64);
    if fine <= FINE_MAX { fine } else { bytes.next_multiple_of(1 << 10) }
}

/// Size of a buffer in which a record of this body can be read wherever it lies.
pub fn buffer_bytes(body_bytes: usize) -> usize {
    record_bytes(body_bytes).next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES
}

/// The identity with this number. No two begin alike.
pub fn identity(number: u64) -> Identity {
    let mut key = [0x5A; 32];
    key[..8].copy_from_slice(&mixed(number).to_be_bytes());
    Identity { family: Family::Shard, key, index: 0 }
}

/// A bijection that spreads numbers over all 64 bits.
pub fn mixed(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ mixed >> 32
}
