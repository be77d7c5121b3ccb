//! Telling a device that fails from a bad spot on one that works.

use crate::format::SEGMENTS_MAX;
use crate::io::{Errno, OpId, SegmentId};
use crate::keyed::{Class, Event};
use crate::lane::segment_of_read;

/// Length of a window, in microseconds.
const WINDOW_US: u64 = 600_000_000;
/// Failures in a window that make a failing device.
const FAILURES_MAX: u32 = 16;
/// Of these, as many as one segment can give: a bad spot that is read again and again is not the device.
const PER_PLACE_MAX: u32 = 4;
/// No space left, and no quota left: no failures of the device.
const ENOSPC: Errno = Errno(28);
const EDQUOT: Errno = Errno(122);

/// Failures of the window.
#[derive(Debug, Default)]
pub(in crate::keyed) struct Trouble {
    until_us: u64,
    failures: u32,
    /// At most one for each failure that counted. Writes of a lane are one place.
    places: Vec<((Class, SegmentId), u32)>,
    is_raised: bool,
}

impl Trouble {
    /// An operation failed. The event, if that makes the device a failing one: at most one per window.
    pub fn note(&mut self, now_us: u64, class: Class, op: OpId, errno: Errno) -> Option<Event> {
        if [ENOSPC, EDQUOT].contains(&errno) {
            return None;
        }
        if now_us >= self.until_us {
            *self = Self { until_us: now_us + WINDOW_US, ..Self::default() };
        }
        if self.is_raised {
            return None;
        }
        let place = (class, segment_of_read(op).unwrap_or(SegmentId(SEGMENTS_MAX as u32)));
        let at = self.places.iter().position(|(there, _)| *there == place).unwrap_or_else(|| {
            self.places.push((place, 0));
            self.places.len() - 1
        });
        if self.places[at].1 == PER_PLACE_MAX {
            return None;
        }
        self.places[at].1 += 1;
        self.failures += 1;
        self.is_raised = self.failures >= FAILURES_MAX;
        self.is_raised.then_some(Event::DeviceFailing { failures: self.failures, errno })
    }

    /// Until when the device counts as failing.
    pub fn failing_until_us(&self, now_us: u64) -> Option<u64> {
        (self.is_raised && now_us < self.until_us).then_some(self.until_us)
    }
}
