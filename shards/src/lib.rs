//! The durable store: what a node keeps, kept so that an acknowledged record survives the loss of power.
//!
//! A [`Store`] is a directory with an identity and a fixed number of lanes. A [`Lane`] is a log: records are
//! gathered into batches, each batch is one durable write into a preallocated segment, and only a completed
//! write makes a record *committed*. After a crash [`Lane::recover`] reads the log back and says, for every
//! defect it meets, whether acknowledged data was lost or only the torn end of a write that nobody was told
//! about.
//!
//! Everything here is a state machine without I/O: it emits [`io::DiskOp`] and is fed [`io::DiskDone`]. The
//! bytes are described in `docs/ON_DISK.md`; [`mod@format`] is their only reader and writer.
//!
//! Called by the relay (one lane per lane of its core, all on one thread) and by the offline tools.

pub mod buffer;
mod checksum;
pub mod code;
pub mod format;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod index;
pub mod io;
pub mod keyed;
pub mod lane;
pub mod recovery;
#[cfg(test)]
mod rig;
pub mod set;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use buffer::AlignedBuf;
pub use format::record::{Kind, RecordView};
pub use format::{Incarnation, Lsn, StoreId};
pub use lane::config::{ConfigError, LaneConfig};
pub use lane::ledger::Ledger;
pub use lane::read::ReadError;
pub use lane::{AppendError, Committed, Completion, Lane, RecordLoc, Reserve, SegmentLoad, Usage};
pub use recovery::report::{LossReason, LostRange, RecoveryCase, RecoveryReport};
pub use recovery::{RecoverError, RecoveredRecord, Visitor};
pub use set::LaneSet;
pub use store::{FormatError, OpenError, Store, StoreConfig};
