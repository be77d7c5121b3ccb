//! The fixed sizes of a lane, checked once so that the log need not check them again.

use crate::buffer::AlignedBuf;
use crate::format::segment::header_bytes;
use crate::format::{BATCH_BYTES_MAX, Lsn, SEGMENTS_MAX, StoreId};
use crate::io::{BLOCK_BYTES, LaneId};

/// What a lane needs to know. [`crate::Store::lane_config`] fills it from the store's own file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneConfig {
    /// Store the lane belongs to.
    pub store: StoreId,
    /// Its number in the store.
    pub lane: LaneId,
    /// Size of each segment file.
    pub segment_bytes: u32,
    /// Segments the lane may own, from 2 to [`SEGMENTS_MAX`].
    pub segments_max: u32,
    /// Empty segments to keep ready, at least 1. The last one is not given to messages when no more can be
    /// made.
    pub spares_wanted: u32,
    /// Bytes of the active segment that only metadata may use when the disk has no space for another segment.
    pub reserve_bytes: u32,
    /// Idle time after which a marker vouches for the last batch, in microseconds.
    pub idle_us: u64,
    /// Pause before a failed preparation of a segment is tried again, in microseconds.
    pub prepare_retry_us: u64,
    /// How far recovery looks behind damage, or behind the end of the log, for a batch that proves more was
    /// written. At least two batches of the largest size.
    pub resync_bytes: u32,
    /// A segment in which nothing lives is used again only after [`crate::Lane::reclaim`]: its owner still
    /// needs dead records of it, such as the ids of messages, until it has carried them elsewhere.
    pub owner_reclaims: bool,
    /// The owner knows the log up to here from elsewhere: segments that are sealed and end before it are not
    /// read, and nothing is said of losses in them.
    pub known_until: Lsn,
    /// Wall clock when the process opened the lane, in milliseconds since 1970; written into segment headers.
    pub opened_ms: u64,
}

/// A configuration that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Too few or unsuitable batch buffers.
    #[error(
        "a lane needs 2 to 16 batch buffers of one size, 8 to {} KiB each; given {count} of {bytes} bytes",
        BATCH_BYTES_MAX >> 10
    )]
    Buffers {
        /// Number of buffers.
        count: usize,
        /// Size of the first.
        bytes: usize,
    },
    /// Segments too small for what must fit into one.
    #[error(
        "segments of {segment_bytes} bytes are too small; the list of the others, the reserve and one round \
         of batches need {needed}"
    )]
    SegmentTooSmall {
        /// As configured.
        segment_bytes: u32,
        /// Least that works.
        needed: u64,
    },
    /// Segment size is no multiple of a block.
    #[error("the segment size of {0} bytes is no multiple of 4096")]
    SegmentUnaligned(u32),
    /// Number of segments out of range.
    #[error(
        "a lane may have 2 to {SEGMENTS_MAX} segments, at least 1 of them spare; \
         configured {max} and {spares}"
    )]
    Segments {
        /// Configured maximum.
        max: u32,
        /// Configured spares.
        spares: u32,
    },
}

impl LaneConfig {
    /// Sizes for a lane of `store` that suit most nodes: 64 segments, one of them spare, a reserve of a
    /// sixteenth.
    pub fn new(store: StoreId, lane: LaneId, segment_bytes: u32) -> Self {
        Self {
            store,
            lane,
            segment_bytes,
            segments_max: 64,
            spares_wanted: 1,
            reserve_bytes: segment_bytes / 16,
            idle_us: 10_000,
            prepare_retry_us: 1_000_000,
            resync_bytes: 4 * BATCH_BYTES_MAX as u32,
            owner_reclaims: false,
            known_until: Lsn(0),
            opened_ms: 0,
        }
    }

    /// Checks the sizes against each other and against the batch buffers.
    pub fn check(&self, buffers: &[AlignedBuf]) -> Result<(), ConfigError> {
        let bytes = buffers.first().map_or(0, |buf| buf.len());
        let alike = buffers.iter().all(|buf| buf.len() == bytes);
        let sizes = 2 * BLOCK_BYTES..=BATCH_BYTES_MAX;
        if !(2..=16).contains(&buffers.len()) || !alike || !sizes.contains(&bytes) {
            return Err(ConfigError::Buffers { count: buffers.len(), bytes });
        }
        let (max, spares) = (self.segments_max, self.spares_wanted);
        if max < 2 || max as usize > SEGMENTS_MAX || spares < 1 || spares >= max {
            return Err(ConfigError::Segments { max, spares });
        }
        if !(self.segment_bytes as usize).is_multiple_of(BLOCK_BYTES) {
            return Err(ConfigError::SegmentUnaligned(self.segment_bytes));
        }
        self.check_room(buffers, max as usize)
    }

    /// Checks that a fresh segment takes whatever may wait for it if the lane has so many: the longest
    /// header, every buffer full, the reserve, and the block kept for a marker.
    pub(crate) fn check_room(&self, buffers: &[AlignedBuf], segments: usize) -> Result<(), ConfigError> {
        let batches: usize = buffers.iter().map(|buf| buf.len()).sum();
        let header = header_bytes(segments.saturating_sub(1));
        let needed = (header + batches + BLOCK_BYTES) as u64 + u64::from(self.reserve_bytes);
        if u64::from(self.segment_bytes) < needed {
            return Err(ConfigError::SegmentTooSmall { segment_bytes: self.segment_bytes, needed });
        }
        Ok(())
    }
}
