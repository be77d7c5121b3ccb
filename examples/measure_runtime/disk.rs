//! Durable overwrites through a bare ring, so that nothing of the driver is in the figures.

use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};
use shards::AlignedBuf;
use shards::io::{LaneId, SegmentId, Volume};
use trine::rt::clock::Clock;
use trine::rt::volume::FsVolume;

const SEGMENT_BYTES: u64 = 16 << 20;
const WRITE_BYTES: usize = 64 << 10;
const WRITES: u64 = 1_000;

struct Bench {
    ring: IoUring,
    fd: types::Fd,
    bufs: Vec<AlignedBuf>,
    clock: Clock,
}

impl Bench {
    /// Durable writes in windows of `depth`. Returns microseconds per write, and how many kernel workers
    /// there are.
    fn write(&mut self, depth: usize, registered: bool) -> (f64, usize) {
        let started = self.clock.mono_us();
        let places = SEGMENT_BYTES / WRITE_BYTES as u64;
        for first in (0..WRITES).step_by(depth) {
            for i in 0..depth as u64 {
                let offset = (first + i) % places * WRITE_BYTES as u64;
                let buf = self.bufs[i as usize].as_ptr();
                let len = WRITE_BYTES as u32;
                let entry = if registered {
                    let write = opcode::WriteFixed::new(self.fd, buf, len, i as u16);
                    write.offset(offset).rw_flags(libc::RWF_DSYNC).build()
                } else {
                    opcode::Write::new(self.fd, buf, len).offset(offset).rw_flags(libc::RWF_DSYNC).build()
                };
                self.push(&entry);
            }
            self.finish(depth, WRITE_BYTES as i32);
        }
        ((self.clock.mono_us() - started) as f64 / WRITES as f64, io_workers())
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the buffers and the file live until `finish` has seen every completion.
        unsafe { self.ring.submission().push(entry).expect("the queue is deep enough") };
    }

    fn finish(&mut self, count: usize, result: i32) {
        self.ring.submit_and_wait(count).expect("the ring works");
        let results: Vec<i32> = self.ring.completion().map(|done| done.result()).collect();
        assert_eq!(results, vec![result; count]);
    }
}

/// Kernel worker threads of this process: a request that would block is given to one, and an idle one stays a
/// while.
fn io_workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc is mounted");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("iou-wrk")).count()
}

/// Prints what an overwrite costs, by depth, with and without registered buffers.
pub fn measure() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
    let volume = FsVolume::open(dir.path()).expect("a directory of our own");
    volume.create_lane(LaneId(0)).expect("a lane");
    let file = volume.prepare_segment(LaneId(0), SegmentId(0), SEGMENT_BYTES).expect("there is room");
    let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(64).expect("a ring");
    let mut bufs: Vec<AlignedBuf> = (0..8).map(|_| AlignedBuf::zeroed(WRITE_BYTES)).collect();
    let vectors: Vec<libc::iovec> = bufs
        .iter_mut()
        .map(|buf| libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: WRITE_BYTES })
        .collect();
    // SAFETY: the buffers outlive the ring's use of them.
    unsafe { ring.submitter().register_buffers(&vectors).expect("within the limit of locked memory") };
    let mut bench = Bench { ring, fd: types::Fd(file.as_raw_fd()), bufs, clock: Clock::start() };
    for round in 0..3 {
        for depth in [1, 8] {
            for (name, registered) in [("plain", false), ("registered", true)] {
                let (each, workers) = bench.write(depth, registered);
                println!(
                    "round {round} depth {depth} {name}: {each:.1} us per 64 KiB, {workers} io-wq workers"
                );
            }
        }
    }
    // The control: an fsync always goes to a worker, so it must show one if the count above means anything.
    let fsync = opcode::Fsync::new(bench.fd).build();
    bench.push(&fsync);
    bench.finish(1, 0);
    println!("control, one fsync: {} io-wq workers", io_workers());
    assert!(io_workers() > 0);
}
