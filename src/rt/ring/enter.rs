//! The two system calls that name a ring by its registered index. The `io-uring` crate keeps that index in a
//! value that borrows the ring, which a long-lived owner of both cannot hold; so the calls are made here.

use std::io;
use std::os::fd::RawFd;

/// How long an enter may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all.
    No,
    /// Until a completion.
    Forever,
    /// Until a completion, or this long.
    AtMostUs(u64),
}

const REGISTER_RING_FDS: libc::c_uint = 20;
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;

/// `struct io_uring_rsrc_update` of the kernel's interface.
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// `struct io_uring_getevents_arg` of the kernel's interface.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timespec: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// Registers the ring `fd` with the calling thread, and returns the index that names it in [`enter`].
pub(super) fn register_ring(fd: RawFd) -> io::Result<u32> {
    let mut update = RsrcUpdate { offset: u32::MAX, resv: 0, data: fd as u64 };
    // SAFETY: the one entry is valid for reading and writing during the call.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, std::ptr::from_mut(&mut update), 1)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(update.offset) }
}

/// Submits `queued` entries of the ring that this thread registered as `ring`, runs deferred work, sleeps as
/// `wait` allows. Returns how many entries the kernel took.
pub(super) fn enter(ring: u32, queued: u32, wait: Wait) -> io::Result<u32> {
    let us = if let Wait::AtMostUs(us) = wait { us } else { 0 };
    let time = Timespec { seconds: (us / 1_000_000) as i64, nanoseconds: (us % 1_000_000) as i64 * 1_000 };
    let timespec = if let Wait::AtMostUs(_) = wait { std::ptr::from_ref(&time) as u64 } else { 0 };
    let arg = GetEventsArg { sigmask: 0, sigmask_bytes: 0, min_wait_us: 0, timespec };
    let flags = ENTER_GETEVENTS | ENTER_EXT_ARG | ENTER_REGISTERED_RING;
    let least = u32::from(wait != Wait::No);
    // SAFETY: `arg` and the time it points to live during the call; what the queued entries point to was
    // promised when they were queued.
    let taken = unsafe {
        let arg = std::ptr::from_ref(&arg);
        libc::syscall(libc::SYS_io_uring_enter, ring, queued, least, flags, arg, size_of::<GetEventsArg>())
    };
    if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(taken as u32) }
}
