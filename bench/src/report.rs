//! Medians, verdicts, and the table or the JSON that shows them.

use serde::Serialize;

/// One measure over all runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stat {
    /// The middle run.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// How many.
    pub runs: usize,
}

impl Stat {
    /// Of the runs that have a value; `None` if none has.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max, runs: values.len() })
    }
}

/// What a row is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// At most this many times what the peer needs.
    AtMostTimes(f64),
    /// At least this many times what the peer does.
    AtLeastTimes(f64),
    /// Only shown.
    None,
}

/// How a row fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Reached.
    Pass,
    /// Missed.
    Miss,
    /// There is nothing to compare with, or the result cannot be trusted.
    Open,
    /// Not held against anything.
    Shown,
}

/// One line of the result.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// The work: class, window.
    pub work: String,
    /// What was measured.
    pub measure: String,
    /// Its unit.
    pub unit: &'static str,
    /// The node's.
    pub trine: Stat,
    /// The peer's name and result.
    pub peer: Option<(&'static str, Stat)>,
    /// The target in words.
    pub target: String,
    /// Whether it was reached.
    pub verdict: Verdict,
    /// What a reader must know.
    pub note: String,
}

impl Row {
    /// A row; `None` if the node has no value.
    pub fn new(
        scenario: &'static str,
        work: impl Into<String>,
        measure: impl Into<String>,
        unit: &'static str,
        trine: Option<Stat>,
        peer: Option<(&'static str, Stat)>,
        target: Target,
    ) -> Option<Self> {
        let trine = trine?;
        let (verdict, words) = judge(trine.median, peer, target);
        let (work, measure) = (work.into(), measure.into());
        Some(Self { scenario, work, measure, unit, trine, peer, target: words, verdict, note: String::new() })
    }

    /// With words for the reader. A result that is `distrusted` has no verdict.
    pub fn noted(mut self, note: impl Into<String>, distrusted: bool) -> Self {
        self.note = note.into();
        if distrusted && self.verdict != Verdict::Shown {
            self.verdict = Verdict::Open;
        }
        self
    }
}

fn judge(trine: f64, peer: Option<(&'static str, Stat)>, target: Target) -> (Verdict, String) {
    let verdict = |reached| if reached { Verdict::Pass } else { Verdict::Miss };
    let against = |words: &str, reached: &dyn Fn(f64) -> bool| match peer {
        Some((name, stat)) => (verdict(reached(stat.median)), format!("{words} {name}")),
        None => (Verdict::Open, format!("{words} the peer")),
    };
    match target {
        Target::AtMost(most) => (verdict(trine <= most), format!("<= {}", number(most))),
        Target::AtLeast(least) => (verdict(trine >= least), format!(">= {}", number(least))),
        Target::AtMostTimes(times) => against(&format!("<= {times} x"), &|peer| trine <= times * peer),
        Target::AtLeastTimes(times) => against(&format!(">= {times} x"), &|peer| trine >= times * peer),
        Target::None => (Verdict::Shown, String::new()),
    }
}

/// Three significant digits, thousands as they are.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn stat(stat: Stat) -> String {
    let Stat { median, min, max, runs } = stat;
    if runs == 1 { number(median) } else { format!("{} ({}..{})", number(median), number(min), number(max)) }
}

/// Prints rows as they come: a table, or one JSON object per line.
pub struct Report {
    json: bool,
    missed: bool,
}

impl Report {
    /// A report in one of its forms.
    pub fn new(json: bool) -> Self {
        Self { json, missed: false }
    }

    /// Words beside the rows; not part of the JSON.
    pub fn say(&self, words: &str) {
        if self.json {
            eprintln!("{words}");
        } else {
            println!("{words}");
        }
    }

    /// Prints the rows of one scenario.
    pub fn rows(&mut self, rows: &[Row]) {
        self.missed |= rows.iter().any(|row| row.verdict == Verdict::Miss);
        if self.json {
            // PANIC: a row holds strings and finite numbers under string keys.
            let line = |row: &Row| serde_json::to_string(row).expect("a row can be written as JSON");
            rows.iter().for_each(|row| println!("{}", line(row)));
            return;
        }
        let heading =
            ["scenario", "work", "measure", "trine", "peer", "ratio", "target", "verdict"].map(String::from);
        let lines: Vec<[String; 8]> = std::iter::once(heading).chain(rows.iter().map(cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..8).map(width).collect();
        for (index, line) in lines.iter().enumerate() {
            let padded: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("| {} |", padded.join(" | "));
            if index == 0 {
                println!(
                    "|-{}-|",
                    widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("-|-")
                );
            }
        }
        for row in rows.iter().filter(|row| !row.note.is_empty()) {
            println!("  {} / {}: {}", row.work, row.measure, row.note);
        }
        println!();
    }

    /// True if a target was missed.
    pub fn has_missed(&self) -> bool {
        self.missed
    }
}

fn cells(row: &Row) -> [String; 8] {
    let (peer, ratio) = match row.peer {
        Some((name, peer)) => {
            (format!("{name} {}", stat(peer)), format!("{:.2}", row.trine.median / peer.median))
        }
        None => (String::new(), String::new()),
    };
    let measure = format!("{}, {}", row.measure, row.unit);
    let verdict = format!("{:?}", row.verdict).to_lowercase();
    let target = row.target.clone();
    [row.scenario.into(), row.work.clone(), measure, stat(row.trine), peer, ratio, target, verdict]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(trine: f64, peer: Option<f64>, target: Target) -> Verdict {
        let peer = peer.map(|value| ("peer", Stat::of([value]).unwrap()));
        Row::new("s", "w", "m", "u", Stat::of([trine]), peer, target).unwrap().verdict
    }

    #[test]
    fn the_median_of_runs_is_the_middle_one_and_the_range_is_kept() {
        let odd = Stat::of([5.0, 1.0, 3.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max, odd.runs), (3.0, 1.0, 5.0, 3));
        assert_eq!(Stat::of([4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5);
        assert!(Stat::of([]).is_none());
    }

    #[test]
    fn a_verdict_needs_a_peer_only_where_the_target_names_one() {
        assert_eq!(row(2.0, None, Target::AtMost(2.0)), Verdict::Pass);
        assert_eq!(row(2.0, None, Target::AtLeast(2.1)), Verdict::Miss);
        assert_eq!(row(2.0, Some(4.0), Target::AtMostTimes(0.6)), Verdict::Pass);
        assert_eq!(row(2.0, Some(4.0), Target::AtLeastTimes(0.6)), Verdict::Miss);
        assert_eq!(row(2.0, None, Target::AtLeastTimes(0.6)), Verdict::Open);
        assert_eq!(row(2.0, None, Target::None), Verdict::Shown);
    }

    #[test]
    fn a_result_that_is_not_trusted_has_no_verdict() {
        let row = Row::new("s", "w", "m", "u", Stat::of([1.0]), None, Target::AtMost(2.0)).unwrap();
        assert_eq!(row.noted("the generator was late", true).verdict, Verdict::Open);
    }
}
