//! fio, the yardstick of disks: the same work on the same file system and processor, in the same run.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::work::is_disturbed;
use crate::error::{BenchError, Context, Result};
use crate::host::{self, ProcessorTimes};
use crate::server::{Bench, find};

/// The program.
pub struct Fio {
    program: PathBuf,
}

/// One run of it.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// As fio names it.
    pub pattern: Pattern,
    /// Bytes of each transfer.
    pub block_bytes: usize,
    /// Transfers under way.
    pub depth: usize,
    /// How long.
    pub time: Duration,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Overwrites one place after the other, each durable when it ends.
    DurableWrite,
    /// Reads anywhere.
    RandomRead,
}

/// What it measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Transfers per second.
    pub rate: f64,
    /// Bytes per second, in millions.
    pub mb_per_s: f64,
    /// From submission to completion, in microseconds. Closed loop.
    pub p50_us: f64,
    /// Likewise.
    pub p99_us: f64,
    /// Share of a processor that it used.
    pub share: f64,
    /// Share of the processor that other programs took meanwhile.
    pub foreign_share: f64,
}

impl Measured {
    /// What it used, in words.
    pub fn words(&self) -> String {
        let mut words = format!("fio's process {:.0} %", self.share * 100.0);
        if is_disturbed(self.foreign_share) {
            words += &format!(" (not to be trusted: others {:.0} %)", self.foreign_share * 100.0);
        }
        words
    }
}

impl Fio {
    /// Finds it.
    pub fn find() -> Result<Self> {
        Ok(Self { program: find("fio", "fio")? })
    }

    /// Runs a job over `files`, which exist.
    pub fn run(&self, bench: &Bench, files: &[PathBuf], job: Job) -> Result<Measured> {
        let names: Vec<_> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        let mut command = Command::new(&self.program);
        command
            .args(["--name=yardstick", "--direct=1", "--ioengine=io_uring", "--time_based"])
            .args(["--output-format=json", "--norandommap", "--invalidate=0"])
            .arg(format!("--filename={}", names.join(":")))
            .arg(format!("--bs={}", job.block_bytes))
            .arg(format!("--iodepth={}", job.depth))
            .arg(format!("--runtime={}ms", job.time.as_millis()));
        match job.pattern {
            Pattern::DurableWrite => command.args(["--rw=write", "--sync=dsync", "--overwrite=1"]),
            Pattern::RandomRead => command.args(["--rw=randread", "--readonly", "--blockalign=4k"]),
        };
        let processor = bench.processors.server;
        let (times, children_us) = (ProcessorTimes::of(processor)?, host::children_us()?);
        let child = bench.processors.on(&[bench.processors.server], || {
            let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            child.context("starting fio")
        })?;
        let output = child.wait_with_output().context("waiting for fio")?;
        let foreign_share = times.foreign_until_now(processor, host::children_us()? - children_us)?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(failed(format!("it ended with {}: {words}", output.status)));
        }
        // Notes may stand before the report.
        let start = output.stdout.iter().position(|byte| *byte == b'{').unwrap_or(0);
        let report: Report =
            serde_json::from_slice(&output.stdout[start..]).map_err(|error| failed(error.to_string()))?;
        let Some(done) = report.jobs.first() else { return Err(failed("it reported no job")) };
        Ok(Measured { foreign_share, ..done.measured(job.pattern) })
    }
}

fn failed(what: impl Into<String>) -> BenchError {
    BenchError::Peer { peer: "fio", what: what.into() }
}

#[derive(Deserialize)]
struct Report {
    jobs: Vec<Done>,
}

#[derive(Deserialize)]
struct Done {
    read: Side,
    write: Side,
    usr_cpu: f64,
    sys_cpu: f64,
}

#[derive(Deserialize)]
struct Side {
    iops: f64,
    bw_bytes: f64,
    clat_ns: Clat,
}

#[derive(Deserialize)]
struct Clat {
    percentile: Option<Percentiles>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Percentiles {
    #[serde(rename = "50.000000")]
    p50: f64,
    #[serde(rename = "99.000000")]
    p99: f64,
}

impl Done {
    fn measured(&self, pattern: Pattern) -> Measured {
        let side = if pattern == Pattern::RandomRead { &self.read } else { &self.write };
        let Percentiles { p50, p99 } = side.clat_ns.percentile.unwrap_or_default();
        Measured {
            rate: side.iops,
            mb_per_s: side.bw_bytes / 1e6,
            p50_us: p50 / 1e3,
            p99_us: p99 / 1e3,
            share: (self.usr_cpu + self.sys_cpu) / 100.0,
            foreign_share: 0.0,
        }
    }
}
