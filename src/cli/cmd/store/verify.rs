//! Whether the index that a start builds is what the log says.

use std::io;

use serde::Serialize;
use shards::keyed::{Family, FamilySum};

use super::check;
use super::reading::{Watched, partitions, restore};
use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::Output;
use crate::cli::store::NodeDir;

/// Count and sum of the keys of one family.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Sums {
    live: u64,
    live_sum: String,
    marks: u64,
    marks_sum: String,
}

#[derive(Debug, Serialize)]
struct Compared {
    family: &'static str,
    index: Sums,
    log: Sums,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: u16,
    agrees: bool,
    families: Vec<Compared>,
}

#[derive(Debug, Serialize)]
struct Report {
    check: check::Report,
    partitions: Vec<Partition>,
    agrees: bool,
}

/// Prints what was found; true if nothing is lost and everything agrees.
pub fn run(dir: &NodeDir, output: &mut Output<io::Stdout>, json: bool) -> Result<bool, CliError> {
    let partitions = partitions(dir)?;
    let volume = Watched::new(dir, &partitions, (1, 3))?;
    let check = check::read(dir, &volume, &partitions)?;
    let mut compared = Vec::new();
    for partition in partitions {
        let restored = restore(dir, &volume, partition)?;
        let (index, log) = (restored.store.sums(), restored.store.audit(&volume).families);
        let families = Family::ALL.into_iter().zip(index.iter().zip(&log)).map(Compared::of).collect();
        compared.push(Partition { partition: partition.0, agrees: index == log, families });
    }
    volume.end();
    let agrees = compared.iter().all(|partition| partition.agrees);
    let report = Report { check, partitions: compared, agrees };
    if json {
        output.json(&report)?
    } else {
        output.line(&report.render())?
    }
    Ok(report.agrees && report.check.healthy)
}

impl Compared {
    fn of((family, (index, log)): (Family, (&FamilySum, &FamilySum))) -> Self {
        let family = match family {
            Family::Shard => "shards",
            Family::DhtRecord => "dht records",
            Family::KeyBundle => "key bundles",
        };
        Self { family, index: Sums::of(index), log: Sums::of(log) }
    }
}

impl Sums {
    fn of(sum: &FamilySum) -> Self {
        Self {
            live: sum.live.count,
            live_sum: format!("{:032x}", sum.live.sum),
            marks: sum.marks.count,
            marks_sum: format!("{:032x}", sum.marks.sum),
        }
    }

    fn line(&self) -> String {
        let Self { live_sum, marks_sum, .. } = self;
        let (live, marks) = (human::count(self.live), human::count(self.marks));
        format!("{live} live ({}), {marks} marks ({})", &live_sum[..8], &marks_sum[..8])
    }
}

impl Report {
    fn render(&self) -> String {
        let mut lines = vec![self.check.verdict().to_owned()];
        for Partition { partition, families, .. } in &self.partitions {
            for Compared { family, index, log } in families {
                let index_line = index.line();
                let answer = if index == log {
                    format!("index and log agree: {index_line}")
                } else {
                    format!("the index has {index_line}, the log {}", log.line())
                };
                lines.push(format!("partition {partition} {family:<12} {answer}"));
            }
        }
        lines.push(match (self.partitions.is_empty(), self.agrees) {
            (true, _) => "there are no records found by key".into(),
            (false, true) => "verified: the index is what the log says".into(),
            (false, false) => {
                "the index is not what the log says: keep the store as it is, and report this".into()
            }
        });
        lines.join("\n")
    }
}
