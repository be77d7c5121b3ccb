//! `trine store`: what is in a store that no node has open, and whether all of it is there.
//!
//! Changes nothing, and needs the store's lock: of a store that a node is writing to, a reader from outside
//! sees half of what happens. Four questions, from the quickest to the most thorough: `stats` says what there
//! is, `check` whether anything acknowledged is missing, `scrub` compares every body with its root and names
//! what is lost, `verify` works out anew what the index should be.
//!
//! What is asked of the logs is in `reading`, the four answers in `check`, `scrub` and `verify`.

mod check;
mod reading;
mod scrub;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::output::Output;
use crate::cli::store;

const EXAMPLES: &str = "\
Examples:
  trine store check --data /var/lib/trine           exit code 0 if all that was acknowledged is there
  trine store check --data /var/lib/trine --json    one object, for programs
  trine store stats --data /var/lib/trine           what is in it, lane by lane
  trine store scrub --data /var/lib/trine           every checksum and every root; names what is lost
  trine store verify --data /var/lib/trine          is the index what the log says?

The node must be stopped. Nothing is changed.";

const CHECK_HELP: &str = "\
Example:
  trine store check --data /var/lib/trine

Reads every batch of every lane as a start would. Ends with 0 if all that was acknowledged is there, with 5 if
not.

--json prints one object: store_id, node_id, lane_count, segment_bytes, healthy; total, lanes (one per lane of
the relay) and keyed (one per lane of shards and other records found by key, with partition, class and lane),
each with counts of segments and records by kind, bytes, unreadable_blocks and lost_records; lost, a list of
lane, first_lsn, last_lsn and reason.";

const STATS_HELP: &str = "\
Example:
  trine store stats --data /var/lib/trine --json

Reads and prints what `trine store check` does; a loss is no failure. Records count until the space that they
take is used again, dead ones, too.";

const SCRUB_HELP: &str = "\
Examples:
  trine store scrub --data /var/lib/trine           the first twenty losses by name
  trine store scrub --data /var/lib/trine --all     all of them
  trine store scrub --data /var/lib/trine --json

Reads everything at full speed: checksums of batches and of records, and for each live shard, DHT record and
key bundle BLAKE3 of its body against its root. Ends with 0 if all is well, with 5 if anything is lost or
cannot be read.

--json prints one object: store_id, node_id, healthy, bytes_read, batches, records, roots; lost, a list of
family, kind, key, index, reason, lane, segment and offset (at most 65,536 for each partition; lost_unlisted
counts the others); lost_unnamed, damaged records whose heads cannot be read, dead or alive; lost_messages and
wrong_records, of the relay's lanes; unreadable_blocks.";

const VERIFY_HELP: &str = "\
Example:
  trine store verify --data /var/lib/trine

Does what check does. Then, for each partition of records found by key, it compares two results for each
family, count and sum of the keys (first 8 bytes of each) of what lives, and the same of marks (tombstones and
leases): (a) the index, built as a start builds it; (b) a second reading of the log that finds batches by
itself, tells records of one identity apart by their whole keys, and works out which of them counts. It does
not compare places. Ends with 5 if anything is lost or differs.

--json prints one object: check, what `trine store check --json` prints; partitions, a list of partition,
agrees and families, each with family, index and log (live, live_sum, marks, marks_sum); agrees.";

/// Lost records or ranges shown to people.
const SHOWN_MAX: usize = 20;

/// Looks at a store that no node has open
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StoreArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Reads everything and says whether an acknowledged record is missing or damaged
    #[command(after_help = CHECK_HELP)]
    Check(Target),
    /// Reads everything and says what there is
    #[command(after_help = STATS_HELP)]
    Stats(Target),
    /// Verifies every checksum and every root, and names what is lost
    #[command(after_help = SCRUB_HELP)]
    Scrub(ScrubArgs),
    /// Checks, and compares the index with what the log says
    #[command(after_help = VERIFY_HELP)]
    Verify(Target),
}

#[derive(Debug, Args)]
struct Target {
    /// Directory of the node key and the store
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ScrubArgs {
    #[command(flatten)]
    target: Target,
    /// Name every loss, not only the first twenty
    #[arg(long)]
    all: bool,
}

/// The question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What is there?
    Stats,
    /// Is anything missing?
    Check,
    /// Is every byte as it should be?
    Scrub {
        /// Name every loss.
        all: bool,
    },
    /// Is the index what the log says?
    Verify,
}

/// What to ask of which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The directory.
    pub data: PathBuf,
    /// Print one JSON object.
    pub json: bool,
    /// What to ask.
    pub question: Question,
}

impl StoreArgs {
    pub(in crate::cli) fn validate(self) -> StoreOptions {
        let (question, Target { data, json }) = match self.action {
            Action::Check(target) => (Question::Check, target),
            Action::Stats(target) => (Question::Stats, target),
            Action::Scrub(ScrubArgs { target, all }) => (Question::Scrub { all }, target),
            Action::Verify(target) => (Question::Verify, target),
        };
        StoreOptions { data, json, question }
    }
}

/// Reads the store and prints what was found.
pub fn run(options: &StoreOptions) -> Result<Exit, CliError> {
    let dir = store::open(&options.data)?;
    let mut output = Output::stdout();
    let json = options.json;
    let is_well = match options.question {
        Question::Stats => check::run(&dir, &mut output, json).map(|_| true),
        Question::Check => check::run(&dir, &mut output, json),
        Question::Scrub { all } => scrub::run(&dir, &mut output, json, all),
        Question::Verify => verify::run(&dir, &mut output, json),
    };
    is_well.map(|is_well| if is_well { Exit::Ok } else { Exit::Store })
}
