//! Durable puts in a closed loop, by size and depth, beside fio's durable sequential writes of that size.

use std::path::PathBuf;
use std::time::Duration;

use shards::io::{LaneId, SegmentId, Volume};
use trine::rt::volume::FsVolume;

use super::fio::{Fio, Job, Measured, Pattern};
use super::station::{Depot, Sizes};
use super::work::{Op, Outcome, Pacing, Until, Work};
use super::{FIO, NAME, are_disturbed, size, stat};
use crate::error::{BenchError, Context, Result};
use crate::report::{Row, Stat, Target};
use crate::scenario::Effort;
use crate::server::Bench;

/// Sizes of bodies, in bytes.
pub const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// Puts per second of 4 KiB that are enough whatever fio does.
const SMALL_ENOUGH: f64 = 150_000.0;
/// What of fio's speed has to be reached.
const SHARE: f64 = 0.8;

/// One size at one depth.
pub struct Point {
    /// Size of the bodies, in bytes.
    pub bytes: usize,
    /// Puts under way.
    pub depth: usize,
    /// Ours.
    pub ours: Vec<Outcome>,
    /// fio's, if it is there.
    pub theirs: Vec<Measured>,
}

impl Point {
    /// Bodies made durable per second, in millions of bytes.
    pub fn mb_per_s(&self) -> Option<Stat> {
        stat(&self.ours, Outcome::mb_per_s)
    }

    /// The same of fio.
    pub fn fio_mb_per_s(&self) -> Option<Stat> {
        stat(&self.theirs, |run| run.mb_per_s)
    }

    /// From append to durable in the closed loop, 99th percentile in microseconds.
    pub fn p99_us(&self) -> Option<Stat> {
        stat(&self.ours, |run| run.puts.quantile_us(0.99))
    }

    /// The same of fio.
    pub fn fio_p99_us(&self) -> Option<Stat> {
        stat(&self.theirs, |run| run.p99_us)
    }
}

/// How much is measured.
struct Plan {
    depths: &'static [usize],
    sizes: Sizes,
    time: Duration,
    /// What one point may put, so that the store never has to compact.
    bytes: u64,
}

impl Plan {
    fn new(effort: &Effort) -> Self {
        if effort.quick {
            let time = Duration::from_millis(250);
            return Self { depths: &[1, 16, 64], sizes: Sizes::whole(10), time, bytes: 1 << 30 };
        }
        let time = Duration::from_millis(1_500);
        Self { depths: &[1, 4, 16, 64, 256], sizes: Sizes::whole(24), time, bytes: 4 << 30 }
    }
}

/// Measures every size at every depth.
pub fn points(bench: &Bench, effort: &Effort, fio: Option<&Fio>, say: &dyn Fn(&str)) -> Result<Vec<Point>> {
    let plan = Plan::new(effort);
    say(&format!("{NAME}: making {} segments", plan.sizes.segments));
    let depot = Depot::new(bench, plan.sizes)?;
    let yardstick =
        fio.map(|fio| Ok::<_, BenchError>((fio, Blank::new(bench, plan.bytes / 2)?))).transpose()?;
    let station = depot.open(bench, 0)?;
    let mut points = Vec::new();
    for bytes in SIZES {
        for depth in plan.depths.iter().copied() {
            say(&format!("{NAME}: put of {} at depth {depth}", size(bytes)));
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..effort.passes {
                if let Some((fio, blank)) = &yardstick {
                    let pattern = Pattern::DurableWrite;
                    let job = Job { pattern, block_bytes: bytes, depth, time: plan.time };
                    theirs.push(fio.run(bench, std::slice::from_ref(&blank.file), job)?);
                }
                let until = Until { us: plan.time.as_micros() as u64, operations: plan.bytes / bytes as u64 };
                let work = Work { op: Op::Put, body_bytes: bytes, pacing: Pacing::Closed(depth), until };
                ours.push(station.work(work)?);
                station.forget()?;
            }
            points.push(Point { bytes, depth, ours, theirs });
        }
    }
    station.stop()?;
    Ok(points)
}

/// A file for fio, made as our segments are.
struct Blank {
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Blank {
    fn new(bench: &Bench, bytes: u64) -> Result<Self> {
        let dir = bench.fresh_dir("fio")?;
        let made = "making a file for fio";
        let volume =
            FsVolume::open(dir.path()).map_err(|error| BenchError::Missing(format!("{made}: {error}")))?;
        volume.create_lane(LaneId(0)).context(made)?;
        volume.create_segment(LaneId(0), SegmentId(0), bytes).context(made)?;
        Ok(Self { file: dir.path().join("lane-000/00000000.seg"), _dir: dir })
    }
}

/// The rows: one of each size that has a verdict, then every point.
pub fn rows(points: &[Point]) -> Vec<Row> {
    let verdicts = SIZES.into_iter().flat_map(|bytes| best_rows(points, bytes));
    verdicts.chain(points.iter().flat_map(point_rows)).collect()
}

/// The best depth of each side.
fn best_rows(points: &[Point], bytes: usize) -> Vec<Row> {
    let of_size = || points.iter().filter(move |point| point.bytes == bytes);
    let ours = of_size().filter_map(|point| Some((point, stat(&point.ours, Outcome::rate)?)));
    let Some((best, rate)) = ours.max_by(|(_, a), (_, b)| a.median.total_cmp(&b.median)) else {
        return Vec::new();
    };
    let theirs = |depth: Option<usize>| {
        let depths = of_size().filter(move |point| depth.is_none_or(|depth| depth == point.depth));
        let stats = depths.filter_map(|point| Some((point.depth, stat(&point.theirs, |run| run.rate)?)));
        stats.max_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))
    };
    let row = |against: &str, peer: Option<(usize, Stat)>, target| {
        let work = format!("put of {}, closed loop, best depth", size(bytes));
        let measure = format!("durable, against fio's {against}");
        let row = Row::new(
            NAME,
            work,
            measure,
            "records/s",
            Some(rate),
            peer.map(|(_, stat)| (FIO, stat)),
            target,
        )?;
        let depth = peer.map_or(String::new(), |(depth, _)| format!(", fio's {depth}"));
        let shares = best.ours.last().map_or(String::new(), Outcome::shares);
        let note = format!("our best depth is {}{depth}; {shares}", best.depth);
        let fio = of_size().filter(|point| peer.is_some_and(|(depth, _)| depth == point.depth));
        let fio_disturbed = fio.clone().any(|point| are_disturbed(foreign_of(&point.theirs)));
        let fio = fio.filter_map(|point| Some(format!("; {}", point.theirs.last()?.words())));
        let note = note + &fio.collect::<String>();
        let ours_disturbed = are_disturbed(best.ours.iter().map(|run| run.foreign_share));
        Some(row.noted(note, ours_disturbed || fio_disturbed))
    };
    let enough = bytes == SIZES[0] && rate.median >= SMALL_ENOUGH;
    let target = if enough { Target::AtLeast(SMALL_ENOUGH) } else { Target::AtLeastTimes(SHARE) };
    let (first, all) = (theirs(Some(1)), theirs(None));
    [row("best depth", all, target), row("depth 1", first, Target::None)].into_iter().flatten().collect()
}

fn foreign_of(runs: &[Measured]) -> impl Iterator<Item = f64> {
    runs.iter().map(|run| run.foreign_share)
}

fn point_rows(point: &Point) -> Vec<Row> {
    let Point { bytes, depth, ours, theirs } = point;
    let work = format!("put of {}, closed loop, depth {depth}", size(*bytes));
    let row = |measure, unit, ours, theirs: Option<_>| {
        Row::new(NAME, work.clone(), measure, unit, ours, theirs.map(|stat| (FIO, stat)), Target::None)
    };
    let (p50, fio_p50) =
        (stat(ours, |run| run.puts.quantile_us(0.5)), stat(theirs, |run: &Measured| run.p50_us));
    let speed = row("durable bodies", "MB/s", point.mb_per_s(), point.fio_mb_per_s());
    let p50 = row("append to durable, closed loop, p50", "us", p50, fio_p50);
    let p99 = row("append to durable, closed loop, p99", "us", point.p99_us(), point.fio_p99_us());
    let rate = stat(ours, Outcome::rate).map_or(0.0, |stat| stat.median);
    let shares = ours.last().map_or(String::new(), Outcome::shares);
    let fio = theirs.last().map_or(String::new(), |run| format!("; {}", run.words()));
    let speed = speed.map(|row| row.noted(format!("{rate:.0} records/s; {shares}{fio}"), false));
    [speed, p50, p99].into_iter().flatten().collect()
}
