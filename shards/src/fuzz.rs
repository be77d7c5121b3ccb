//! Entry points that take any bytes: for the fuzz targets, and for the random tests that stand in for them.

use crate::buffer::AlignedBuf;
use crate::format::batch::BatchHeader;
use crate::format::record;
use crate::format::segment::SegmentHeader;
use crate::io::{BLOCK_BYTES, LaneId, SegmentId, Volume};
use crate::lane::config::LaneConfig;
use crate::testing::SimDisk;
use crate::{Lane, StoreId};

const SEGMENT_BYTES: u32 = 64 * 1024;
const BUFFER_BYTES: usize = 8 * 1024;
const LANE: LaneId = LaneId(0);

/// Decodes `bytes` as everything that stands in a segment, then recovers a lane whose only segment begins
/// with them. Panics if a decoder does, or if recovery takes a segment that cannot be read for an error of
/// its own.
pub fn segment(bytes: &[u8]) {
    let _ = BatchHeader::decode(bytes);
    let _ = SegmentHeader::decode(bytes, StoreId([0; 16]), LANE, SegmentId(0));
    let _ = record::parse(bytes);
    assert!(record::walk(bytes).count() <= bytes.len());

    let mut disk = SimDisk::new(1);
    let made =
        disk.create_lane(LANE).and_then(|()| disk.create_segment(LANE, SegmentId(0), SEGMENT_BYTES.into()));
    assert!(made.is_ok(), "an empty disk has room");
    disk.overwrite(LANE, SegmentId(0), 0, &bytes[..bytes.len().min(SEGMENT_BYTES as usize)]);
    let mut config = LaneConfig::new(StoreId([0; 16]), LANE, SEGMENT_BYTES);
    config.resync_bytes = 4 * BUFFER_BYTES as u32;
    config.reserve_bytes = BLOCK_BYTES as u32;
    let buffers = (0..2).map(|_| AlignedBuf::zeroed(BUFFER_BYTES)).collect();
    let mut shown = 0;
    // A newer version is refused; anything else opens, with whatever could be believed.
    let _ = Lane::recover(&disk, config, buffers, &mut |_, _| shown += 1);
    assert!(shown <= bytes.len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_refused_or_understood(bytes in proptest::collection::vec(any::<u8>(), 0..12_000)) {
            super::segment(&bytes);
        }
    }
}
