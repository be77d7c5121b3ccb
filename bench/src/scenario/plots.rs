//! The plots of `docs/PERFORMANCE.md`, drawn from measurements that are made here and now.

use std::path::Path;

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use super::lane_store::{self, put};
use super::{Effort, erasure};
use crate::error::{BenchError, Context, Result};
use crate::report::{Row, Stat};
use crate::server::Bench;

/// Where they go, from the root of the repository.
const DIR: &str = "docs/plots";
const PIXELS: (u32, u32) = (760, 440);
const COLOURS: [RGBColor; 3] = [RGBColor(0, 90, 181), RGBColor(220, 50, 32), RGBColor(60, 140, 60)];

/// Measures, draws, and returns the rows that were drawn.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let dir = Path::new(DIR);
    if !Path::new("docs").is_dir() {
        let what = format!("there is no docs here; run it from the root of the repository, it writes {DIR}");
        return Err(BenchError::Missing(what));
    }
    std::fs::create_dir_all(dir).context(format!("making {DIR}"))?;
    let fio = lane_store::find_fio(effort, say);
    let points = put::points(bench, effort, fio.as_ref(), say)?;
    draw_puts(dir, &points)?;
    let encoded = erasure::encode(bench, effort, say)?;
    draw_code(dir, &encoded)?;
    say(&format!("plots: written to {DIR}"));
    Ok(put::rows(&points).into_iter().chain(encoded.into_iter().map(|(_, row)| row)).collect())
}

/// One line.
struct Line {
    name: String,
    colour: RGBColor,
    /// A yardstick's.
    dashed: bool,
    points: Vec<(f64, f64)>,
}

/// One plot; both axes are logarithmic.
struct Plot<'w> {
    title: &'w str,
    x: &'w str,
    y: &'w str,
    lines: Vec<Line>,
}

fn draw_puts(dir: &Path, points: &[put::Point]) -> Result<()> {
    let lines = |ours: fn(&put::Point) -> Option<Stat>, theirs: fn(&put::Point) -> Option<Stat>| {
        let of_size = |(bytes, colour): (usize, RGBColor)| {
            [(false, ours), (true, theirs)].map(|(dashed, value)| {
                let points = points.iter().filter(|point| point.bytes == bytes);
                let points = points.filter_map(|point| Some((point.depth as f64, value(point)?.median)));
                let who = if dashed { "fio" } else { "trine" };
                let name = format!("{who}, {}", lane_store::size(bytes));
                Line { name, colour, dashed, points: points.collect() }
            })
        };
        put::SIZES.into_iter().zip(COLOURS).flat_map(of_size).collect()
    };
    let speed = Plot {
        title: "Durable puts on one core, closed loop",
        x: "under way",
        y: "MB/s",
        lines: lines(put::Point::mb_per_s, put::Point::fio_mb_per_s),
    };
    let p99 = Plot {
        title: "From append to durable, closed loop, 99th percentile",
        x: "under way",
        y: "µs",
        lines: lines(put::Point::p99_us, put::Point::fio_p99_us),
    };
    speed.draw(&dir.join("put-throughput.svg"))?;
    p99.draw(&dir.join("put-p99.svg"))
}

fn draw_code(dir: &Path, encoded: &[(usize, Row)]) -> Result<()> {
    let line = |name: &str, colour, dashed, value: fn(&Row) -> Option<f64>| {
        let points = encoded.iter().filter_map(|(bytes, row)| Some((*bytes as f64 / 1024.0, value(row)?)));
        Line { name: name.into(), colour, dashed, points: points.collect() }
    };
    let plot = Plot {
        title: "Encoding (10,5) on one core",
        x: "KiB per shard",
        y: "GB/s of source data",
        lines: vec![
            line("trine", COLOURS[0], false, |row| Some(row.trine.median)),
            line("ISA-L", COLOURS[1], true, |row| Some(row.peer?.1.median)),
        ],
    };
    plot.draw(&dir.join("encode.svg"))
}

impl Plot<'_> {
    fn draw(&self, path: &Path) -> Result<()> {
        let failed =
            |error: String| BenchError::Missing(format!("{} was not drawn: {error}", path.display()));
        self.try_draw(path).map_err(|error| failed(error.to_string()))
    }

    fn try_draw(&self, path: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) =
                values.fold((f64::INFINITY, 1.0_f64), |(low, high), value| (low.min(value), high.max(value)));
            low.min(high) / 1.15..high * 1.15
        };
        let xs = range(&mut points().map(|(x, _)| x)).log_scale().base(2.0);
        let ys = range(&mut points().map(|(_, y)| y)).log_scale();
        let area = SVGBackend::new(path, PIXELS).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(xs, ys)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        for line in &self.lines {
            let Line { colour, dashed, points, .. } = line;
            let style = colour.stroke_width(2);
            let drawn = match dashed {
                true => chart.draw_series(DashedLineSeries::new(points.iter().copied(), 5, 4, style))?,
                false => chart.draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?,
            };
            let thin = colour.stroke_width(if *dashed { 1 } else { 3 });
            drawn.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], thin));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    }
}
