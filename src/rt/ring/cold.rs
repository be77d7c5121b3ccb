//! The helper thread for slow file work (making segments), so that it never holds up a core.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use shards::io::{LaneId, OpId, SegmentId};

use super::control::{AbortOnPanic, CoreControl};
use super::retry::Tries;
use crate::rt::volume::FsVolume;

/// Jobs that may wait. A lane asks for one segment at a time, so this is far above what a node needs.
const QUEUE_MAX: usize = 1_024;

/// One segment to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepare {
    pub lane: LaneId,
    pub segment: SegmentId,
    pub bytes: u64,
    pub op: OpId,
    pub tries: Tries,
}

/// What to make, and whom to tell.
pub(super) struct ColdJob {
    pub volume: Arc<FsVolume>,
    pub prepare: Prepare,
    pub reply: Sender<ColdDone>,
    pub control: Arc<CoreControl>,
}

/// A segment that was made, open, or the reason why not.
pub(super) struct ColdDone {
    pub prepare: Prepare,
    pub result: io::Result<OwnedFd>,
}

/// Where cores put jobs.
#[derive(Clone)]
pub struct ColdQueue(SyncSender<ColdJob>);

impl ColdQueue {
    /// Starts the helper thread, on the processors the caller may use. It ends with the last clone of the
    /// queue.
    pub fn start() -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, jobs) = sync_channel(QUEUE_MAX);
        let thread = Builder::new().name("cold-io".into()).spawn(move || work(&jobs))?;
        Ok((Self(sender), thread))
    }

    /// Queues a job, or gives it back if too many wait.
    pub(super) fn push(&self, job: ColdJob) -> Result<(), Box<ColdJob>> {
        self.0.try_send(job).map_err(|refused| match refused {
            std::sync::mpsc::TrySendError::Full(job) | std::sync::mpsc::TrySendError::Disconnected(job) => {
                Box::new(job)
            }
        })
    }
}

fn work(jobs: &Receiver<ColdJob>) {
    let _guard = AbortOnPanic;
    for job in jobs {
        let Prepare { lane, segment, bytes, .. } = job.prepare;
        let result = job.volume.prepare_segment(lane, segment, bytes);
        let done = ColdDone { prepare: job.prepare, result };
        // A core that is gone does not miss the answer, and the segment stays for the next start.
        if job.reply.send(done).is_ok() {
            job.control.notify();
        }
    }
}
