//! Durable puts in a closed loop, by size and depth, beside fio's durable sequential writes of that size.

use std::path::PathBuf;
use std::time::Duration;

use shards::io::{LaneId, SegmentId, Volume};
use trine::rt::volume::FsVolume;

use super::fio::{Fio, Job, Measured, Pattern};
use super::station::{Depot, Sizes};
use super::work::{Op, Outcome, Pacing, Until, Work};
use super::{FIO, NAME, size, stat};
use crate::error::{BenchError, Context, Result};
use crate::report::{Row, Target};
use crate::scenario::Effort;
use crate::server::Bench;

/// Sizes of bodies, in bytes.
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
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
        let sizes = |segments| Sizes { segment_bytes: 256 << 20, segments };
        if effort.quick {
            let time = Duration::from_millis(350);
            return Self { depths: &[1, 16, 64], sizes: sizes(12), time, bytes: 1 << 30 };
        }
        let time = Duration::from_millis(1_500);
        Self { depths: &[1, 4, 16, 64, 256], sizes: sizes(24), time, bytes: 4 << 30 }
    }
}

/// Measures every size at every depth.
pub fn points(bench: &Bench, effort: &Effort, fio: Option<&Fio>, say: &dyn Fn(&str)) -> Result<Vec<Point>> {
    let plan = Plan::new(effort);
    say(&format!("{NAME}: making {} segments", plan.sizes.segments));
    let depot = Depot::new(bench, plan.sizes)?;
    let yardstick = fio.map(|fio| Ok::<_, BenchError>((fio, Blank::new(bench, 2 << 30)?))).transpose()?;
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
    let row = |against: &str, peer: Option<(usize, crate::report::Stat)>, target| {
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
        Some(row.noted(format!("our best depth is {}{depth}", best.depth), false))
    };
    let enough = bytes == SIZES[0] && rate.median >= SMALL_ENOUGH;
    let target = if enough { Target::AtLeast(SMALL_ENOUGH) } else { Target::AtLeastTimes(SHARE) };
    let (first, all) = (theirs(Some(1)), theirs(None));
    [row("best depth", all, target), row("depth 1", first, Target::None)].into_iter().flatten().collect()
}

fn point_rows(point: &Point) -> Vec<Row> {
    let Point { bytes, depth, ours, theirs } = point;
    let work = format!("put of {}, closed loop, depth {depth}", size(*bytes));
    let row = |measure, unit, ours, theirs: Option<_>| {
        Row::new(NAME, work.clone(), measure, unit, ours, theirs.map(|stat| (FIO, stat)), Target::None)
    };
    let speed = row(
        "durable bodies",
        "MB/s",
        stat(ours, Outcome::mb_per_s),
        stat(theirs, |run: &Measured| run.mb_per_s),
    );
    let quantile = |quantile: f64| stat(ours, move |run: &Outcome| run.puts.quantile_us(quantile));
    let p50 = row(
        "append to durable, closed loop, p50",
        "us",
        quantile(0.5),
        stat(theirs, |run: &Measured| run.p50_us),
    );
    let p99 = row(
        "append to durable, closed loop, p99",
        "us",
        quantile(0.99),
        stat(theirs, |run: &Measured| run.p99_us),
    );
    let rate = stat(ours, Outcome::rate).map_or(0.0, |stat| stat.median);
    let shares = ours.last().map_or(String::new(), Outcome::shares);
    let fio =
        theirs.last().map_or(String::new(), |run| format!("; fio's process {:.0} %", run.share * 100.0));
    let note = format!("{rate:.0} records/s; {shares}{fio}");
    let speed = speed.map(|row| row.noted(note, false));
    [speed, p50, p99].into_iter().flatten().collect()
}
