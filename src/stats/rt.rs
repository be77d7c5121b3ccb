//! What the loop of one core does: turns, crossings, buffer pools.

use super::cell::{Counter, Gauge, Peak};
use super::histogram::Histogram;
use super::series::series;

series! {
    /// Series of the runtime.
    pub struct RtStats {
        /// Turns of the core's loop.
        turns: Counter => "rt_turns", Count, None;
        /// Time a turn took, waiting excluded, rounded up to a power of two.
        turn_time_us: Histogram => "rt_turn_time", Micros, None;
        /// Calls of io_uring_enter.
        enters: Counter => "rt_enters", Count, None;
        /// Completions reaped from the ring.
        completions: Counter => "rt_completions", Count, None;
        /// Most bytes seen waiting in this core's requests to other cores, looked at a few times per second.
        crossing_depth_max: Peak => "rt_crossing_depth_max", Bytes, None;
        /// Entries a full crossing would not take from this core.
        crossing_refusals: Counter => "rt_crossing_refusals", Count, None;
        /// Times this core woke another one.
        crossing_wakes: Counter => "rt_crossing_wakes", Count, None;
        /// Connections handed over to another core.
        hand_overs: Counter => "rt_hand_overs", Count, None;
        /// Operations of every kind that are in the kernel now; each owns its buffer.
        operations_in_flight: Gauge => "rt_operations_in_flight", Count, None;
        /// Output buffers free in the pool now.
        buffers_free: Gauge => "rt_buffers_free", Count, None;
    }
}
