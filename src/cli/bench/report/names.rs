//! Short names of candidates: what is the same for all is left out. Each name has one color in all plots.

use super::super::candidate::{Candidate, Engine};
use super::super::results::Results;

/// The names of all candidates.
pub struct Names {
    has_batches: bool,
    has_routings: bool,
    /// Names without partitions, which have the colors.
    colored: Vec<String>,
    /// Numbers of partitions, the most of them first.
    partitions: Vec<usize>,
}

impl Names {
    pub fn of(results: &Results) -> Self {
        let throughput = results.throughput.iter().map(|row| &row.candidate);
        let all: Vec<&Candidate> = throughput.chain(results.latency.iter().map(|row| &row.candidate)).collect();
        let own = || all.iter().filter(|candidate| candidate.engine == Engine::Streamlines);
        let mut names = Self {
            has_batches: differ(own().map(|candidate| candidate.setup.batch_rows)),
            has_routings: differ(own().map(|candidate| candidate.setup.routing)),
            colored: vec![],
            partitions: all.iter().map(|candidate| candidate.setup.partitions).collect(),
        };
        names.partitions.sort_unstable_by(|a, b| b.cmp(a));
        names.partitions.dedup();
        for candidate in all {
            let name = names.without_partitions(candidate);
            if !names.colored.contains(&name) {
                names.colored.push(name);
            }
        }
        names
    }

    /// What a candidate is called where partitions are told apart otherwise.
    pub fn without_partitions(&self, candidate: &Candidate) -> String {
        let mut name = candidate.way();
        if candidate.engine != Engine::Streamlines {
            return name;
        }
        if self.has_routings {
            name.push_str(&format!(", {}", candidate.setup.routing));
        }
        if self.has_batches {
            name.push_str(&format!(", {} rows", candidate.setup.batch_rows));
        }
        name
    }

    /// What it is called where they are not.
    pub fn name(&self, candidate: &Candidate) -> String {
        format!("{} × {}", self.without_partitions(candidate), candidate.setup.partitions)
    }

    /// How its line is dashed: not at all with the most partitions.
    pub fn dash(&self, candidate: &Candidate) -> usize {
        self.partitions.iter().position(|known| *known == candidate.setup.partitions).unwrap_or_default()
    }

    /// Its color.
    pub fn color(&self, candidate: &Candidate) -> usize {
        let name = self.without_partitions(candidate);
        self.colored.iter().position(|known| *known == name).unwrap_or_default()
    }
}

fn differ<T: PartialEq>(mut values: impl Iterator<Item = T>) -> bool {
    let first = values.next();
    values.any(|value| Some(&value) != first.as_ref())
}
