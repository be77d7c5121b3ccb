//! Checkpoints: the index written down, so that a start reads it and the end of the log, not all of the log.
//!
//! **Promise.** Without any checkpoint, with a damaged one, or with one that was cut short, a start finds the
//! same; it only takes longer. A checkpoint counts when its last record is there and all before it are.
//!
//! **How.** A fourth lane holds checkpoints only: runs of entries in the order of their keys ([`format`]),
//! then a record that says what they mean. Writing one takes many turns while the index changes ([`writer`]).
//! That does no harm, because everything that was appended since it began is read from the log again: the log
//! up to the *mark*, which is what was durable when it began, is known from the checkpoint, and what the two
//! say of one record is put together by [`merge`].
//!
//! **When.** After so many bytes of log as eight checkpoints take, at least 64 MiB, and when the partition
//! shuts down.

pub(super) mod format;
pub(super) mod load;
pub(super) mod merge;
pub(super) mod writer;

use crate::io::LaneId;

/// The lane of checkpoints of a partition.
pub fn lane(partition: LaneId) -> LaneId {
    LaneId(256 * 4 + partition.0)
}
