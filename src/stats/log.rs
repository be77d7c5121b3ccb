//! What the lane logs of one core do: commits, segments, recovery.

use super::cell::{Counter, Gauge};
use super::histogram::Histogram;
use super::series::series;

series! {
    /// Series of the lane logs.
    pub struct LogStats {
        /// Time from a record's append to the completion of the write that made it durable.
        commit_latency_us: Histogram => "log_commit_latency", Micros, None;
        /// Size of committed batches on disk, padding included.
        batch_bytes: Histogram => "log_batch", Bytes, None;
        /// Records per committed batch.
        batch_records: Histogram => "log_batch_records", Count, None;
        /// Records the log would not take, for want of space or after a failed device.
        append_refusals: Counter => "log_append_refusals", Count, None;
        /// Log writes that failed.
        writes_failed: Counter => "log_writes_failed", Count, None;
        /// Log writes issued again to a fresh segment after a failure.
        writes_reissued: Counter => "log_writes_reissued", Count, None;
        /// Segments being written now.
        segments_active: Gauge => "log_segments_active", Count, None;
        /// Segments prepared and waiting now.
        segments_spare: Gauge => "log_segments_spare", Count, None;
        /// Segments full and still needed now.
        segments_sealed: Gauge => "log_segments_sealed", Count, None;
        /// Segments freed and made ready for use again.
        segments_recycled: Counter => "log_segments_recycled", Count, None;
        /// Bytes of segment files that hold something still needed.
        store_used_bytes: Gauge => "log_store_used", Bytes, None;
        /// Bytes of segment files this core's lanes may have.
        store_limit_bytes: Gauge => "log_store_limit", Bytes, None;
        /// Lanes that take nothing any more since two writes in a row failed.
        lanes_read_only: Gauge => "log_lanes_read_only", Count, None;
        /// Records found by recovery at start.
        recovered_records: Counter => "log_recovered_records", Count, None;
        /// Bytes of torn tails that recovery discarded at start; none of them was acknowledged.
        recovered_torn_bytes: Counter => "log_recovered_torn", Bytes, None;
        /// Ranges of acknowledged records that recovery at start could not read.
        recovered_lost_ranges: Counter => "log_recovered_lost_ranges", Count, None;
    }
}
