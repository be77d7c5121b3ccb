//! What the loop of one core does: turns, crossings, buffer pools.

use super::cell::{Counter, Gauge, Peak};
use super::histogram::Histogram;
use super::series::series;

series! {
    /// Series of the runtime.
    pub struct RtStats {
        /// Turns of the core's loop.
        turns: Counter => "rt_turns", Count, None;
        /// Time a turn took, waiting excluded.
        turn_time_us: Histogram => "rt_turn_time", Micros, None;
        /// Calls of io_uring_enter.
        enters: Counter => "rt_enters", Count, None;
        /// Completions reaped from the ring.
        completions: Counter => "rt_completions", Count, None;
        /// Highest number of entries ever found waiting in a crossing to this core.
        crossing_depth_max: Peak => "rt_crossing_depth_max", Count, None;
        /// Entries a full crossing would not take from this core.
        crossing_refusals: Counter => "rt_crossing_refusals", Count, None;
        /// Times this core woke another one.
        crossing_wakes: Counter => "rt_crossing_wakes", Count, None;
        /// Connections handed over to another core.
        hand_overs: Counter => "rt_hand_overs", Count, None;
        /// Pool buffers in use by the kernel or the core's logic now.
        buffers_held: Gauge => "rt_buffers_held", Count, None;
        /// Pool buffers free now.
        buffers_free: Gauge => "rt_buffers_free", Count, None;
    }
}
