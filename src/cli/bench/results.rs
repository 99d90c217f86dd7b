//! What was measured.

use super::candidate::{Candidate, Engine};
use super::machine::Machine;
use super::process::Memory;
use streamlines::Latency;

/// A whole benchmark.
#[derive(Debug)]
pub struct Results {
    pub machine: Machine,
    /// What the figures hold for, in words.
    pub conditions: Vec<(&'static str, String)>,
    pub throughput: Vec<Measured>,
    pub latency: Vec<AtRate>,
}

/// What was asked, of which data.
#[derive(Debug, Clone)]
pub struct Asked {
    pub scenario: String,
    pub what: String,
    /// Distinct keys of generated data.
    pub keys: Option<u64>,
}

/// A candidate on a question.
#[derive(Debug, Clone)]
pub struct Measured {
    pub asked: Asked,
    pub candidate: Candidate,
    /// Rows that it reads.
    pub rows_in: u64,
    pub rows_out: u64,
    /// Of its rows, where they were compared.
    pub checksum: Option<String>,
    /// Of each run.
    pub seconds: Vec<f64>,
    /// Of one run by a process of its own.
    pub memory: Option<Memory>,
    /// Why there are no figures, or what to know of them.
    pub note: Option<String>,
}

impl Measured {
    /// The middle one of the runs.
    pub fn median(&self) -> Option<f64> {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let (low, high) = (seconds.get(seconds.len().checked_sub(1)? / 2)?, seconds.get(seconds.len() / 2)?);
        Some((low + high) / 2.0)
    }

    /// The fastest and the slowest run.
    pub fn range(&self) -> Option<(f64, f64)> {
        let fastest = self.seconds.iter().copied().reduce(f64::min)?;
        Some((fastest, self.seconds.iter().copied().reduce(f64::max)?))
    }

    /// Rows read in a second.
    pub fn rows_per_s(&self) -> Option<f64> {
        self.median().map(|median| self.rows_in as f64 / median.max(1e-9))
    }
}

impl Results {
    /// How many times as fast as what it is compared with: the other engine at as many partitions, or the first candidate.
    pub fn ratio(&self, of: &Measured) -> Option<f64> {
        let engine = if of.candidate.is_process { Engine::DuckDb } else { Engine::DataFusion };
        let peers = || self.peers(of);
        let others = peers().filter(|other| other.candidate.engine == engine);
        let at_same = others.clone().find(|other| other.candidate.setup.partitions == of.candidate.setup.partitions);
        let base = at_same.or_else(|| others.last());
        let base = base.or_else(|| peers().find(|other| other.candidate.engine == Engine::Streamlines))?;
        Some(base.median()? / of.median()?)
    }

    /// The speed as a share of that of reading alone.
    pub fn share_of_scan(&self, of: &Measured) -> Option<f64> {
        let scans = self.peers(of).filter(|other| other.candidate.engine == Engine::Scan);
        let at_same = scans.clone().find(|other| other.candidate.setup.partitions == of.candidate.setup.partitions);
        Some(at_same.or_else(|| scans.last())?.median()? / of.median()?)
    }

    /// Who answers the same question in the same way.
    fn peers<'a>(&'a self, of: &'a Measured) -> impl Iterator<Item = &'a Measured> + Clone {
        self.throughput.iter().filter(|other| {
            other.asked.scenario == of.asked.scenario
                && other.asked.keys == of.asked.keys
                && other.candidate.is_process == of.candidate.is_process
                && other.median().is_some()
        })
    }
}

/// A candidate on a question, of which rows become due at a fixed rate.
#[derive(Debug, Clone)]
pub struct AtRate {
    pub asked: Asked,
    pub candidate: Candidate,
    /// Rows in a second that became due.
    pub rate: u64,
    /// None where the candidate cannot answer.
    pub latency: Option<Latency>,
    /// Rows that were due and not taken yet when the time was up: they are in no figure.
    pub waiting: u64,
    /// Why it cannot.
    pub note: Option<String>,
}

impl AtRate {
    /// Rows in a second that were taken: the last one stands for the time until the next.
    pub fn achieved(&self) -> Option<f64> {
        let latency = self.latency.as_ref()?;
        let rows = latency.rows() as f64;
        Some(rows / (rows / latency.rows_per_s().max(1e-9) + 1.0 / self.rate.max(1) as f64))
    }

    /// Whether it kept up: within one hundredth of the rate, or with what was due: no row waited for a hundredth of the time.
    pub fn keeps_up(&self) -> bool {
        let is_in_time = |latency: &Latency| {
            let seconds = latency.rows() as f64 / latency.rows_per_s();
            self.is_at_rate() || latency.max().as_secs_f64() < seconds * 0.01
        };
        self.latency.as_ref().is_some_and(is_in_time)
    }

    /// Whether as many rows were written as are due at the rate, less one hundredth.
    pub fn is_at_rate(&self) -> bool {
        self.latency.as_ref().is_some_and(|latency| latency.rows_per_s() >= self.rate as f64 * 0.99)
    }
}

#[cfg(test)]
mod tests {
    use streamlines::Setup;

    use super::*;

    fn measured(engine: Engine, partitions: usize, seconds: &[f64]) -> Measured {
        let setup = Setup { partitions, ..Setup::stream() };
        Measured {
            asked: Asked { scenario: "2".to_string(), what: String::new(), keys: Some(200) },
            candidate: Candidate { engine, setup, spread: false, is_process: false },
            rows_in: 100,
            rows_out: 1,
            checksum: None,
            seconds: seconds.to_vec(),
            memory: None,
            note: None,
        }
    }

    fn results(throughput: Vec<Measured>) -> Results {
        Results { machine: Machine::here(None), conditions: vec![], throughput, latency: vec![] }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(measured(Engine::Scan, 1, &[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(measured(Engine::Scan, 1, &[3.0, 1.0]).median(), Some(2.0));
        assert_eq!(measured(Engine::Scan, 1, &[]).median(), None);
        assert_eq!(measured(Engine::Scan, 1, &[3.0, 1.0]).range(), Some((1.0, 3.0)));
    }

    #[test]
    fn a_ratio_is_to_datafusion_at_as_many_partitions_or_to_the_first() {
        let own = |partitions, seconds| measured(Engine::Streamlines, partitions, &[seconds]);
        let all = vec![measured(Engine::DataFusion, 1, &[8.0]), measured(Engine::DataFusion, 2, &[6.0]), own(2, 2.0)];
        let found = results(all);
        assert_eq!(found.ratio(&found.throughput[2]), Some(3.0));
        let found = results(vec![measured(Engine::Scan, 1, &[1.0]), own(1, 4.0), own(2, 2.0)]);
        assert_eq!(found.ratio(&found.throughput[2]), Some(2.0));
        assert_eq!(found.share_of_scan(&found.throughput[2]), Some(0.5));
    }
}
