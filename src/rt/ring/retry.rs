//! Disk operations that met a lack which passes: of descriptors or memory, or an interruption.
//!
//! Reported as a failed write, such a moment would retire a segment that is sound. So the operation is put
//! off and tried again, a bounded number of times; only then is the error the lane's.

use std::collections::VecDeque;

use shards::io::Errno;

/// How long an operation waits before it is tried again, in microseconds.
const PAUSE_US: u64 = 10_000;
/// How often it is tried again: five seconds in all.
const RETRIES_MAX: u16 = 500;

/// How often an operation was put off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tries(u16);

/// True for errors that say nothing about the file.
fn passes(errno: Errno) -> bool {
    [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE].contains(&errno.0)
}

/// Operations that wait to be tried again, no more than their lanes have under way.
pub(super) struct Retries<T> {
    /// By the time when each is due: all wait equally long.
    waiting: VecDeque<(u64, T)>,
    total: u64,
}

impl<T> Retries<T> {
    /// None waits.
    pub fn new() -> Self {
        Self { waiting: VecDeque::new(), total: 0 }
    }

    /// True if an operation that failed with `errno` shall be put off; counts it in `tries`.
    pub fn allows(errno: Errno, tries: &mut Tries) -> bool {
        let allowed = passes(errno) && tries.0 < RETRIES_MAX;
        tries.0 += u16::from(allowed);
        allowed
    }

    /// Puts `job` off.
    pub fn put_off(&mut self, now_us: u64, job: T) {
        self.total += 1;
        self.waiting.push_back((now_us.saturating_add(PAUSE_US), job));
    }

    /// The next job whose time has come.
    pub fn pop_due(&mut self, now_us: u64) -> Option<T> {
        self.waiting.pop_front_if(|(due_us, _)| *due_us <= now_us).map(|(_, job)| job)
    }

    /// When the next job is due.
    pub fn due_us(&self) -> Option<u64> {
        self.waiting.front().map(|(due_us, _)| *due_us)
    }

    /// Jobs put off so far.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_about_the_file_is_tried_again_a_bounded_number_of_times() {
        for errno in [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE] {
            let mut tries = Tries::default();
            let allowed = (0..2_000).filter(|_| Retries::<()>::allows(Errno(errno), &mut tries)).count();
            assert_eq!(allowed, usize::from(RETRIES_MAX), "errno {errno}");
        }
        for errno in [libc::EIO, libc::ENOSPC, libc::ENOENT, libc::EINVAL, libc::EROFS, libc::ENODEV] {
            assert!(!Retries::<()>::allows(Errno(errno), &mut Tries::default()), "errno {errno}");
        }
    }

    #[test]
    fn a_job_comes_back_when_its_pause_is_over_and_in_the_order_in_which_it_was_put_off() {
        let mut retries = Retries::new();
        assert_eq!(retries.due_us(), None);
        retries.put_off(5, 'a');
        retries.put_off(9, 'b');
        assert_eq!(retries.due_us(), Some(5 + PAUSE_US));
        assert_eq!(retries.pop_due(5 + PAUSE_US - 1), None);
        assert_eq!(retries.pop_due(5 + PAUSE_US), Some('a'));
        assert_eq!(retries.pop_due(5 + PAUSE_US), None);
        assert_eq!(retries.pop_due(u64::MAX), Some('b'));
        assert_eq!(retries.total(), 2);
    }
}
