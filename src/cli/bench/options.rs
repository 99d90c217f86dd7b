//! What to measure.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use streamlines::Error;

use super::super::generate::Format;
use super::scenario::SCENARIOS;

pub const STRATEGIES: [&str; 3] = ["partitioned", "inline", "single_queue"];
pub const ROUTINGS: [&str; 5] = ["auto", "aligned", "merge_on_close", "hash_at_source", "exchange"];

/// What to measure, on what, and where the figures go.
#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    /// 0 filter and expressions to Parquet, 1 window of 100 rows, 2 GROUP BY, 2c its changes, 3a tumbling minutes, 3b their
    /// changes.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = PossibleValuesParser::new(SCENARIOS), default_values = SCENARIOS)]
    pub scenarios: Vec<String>,
    /// How pipelines run.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = PossibleValuesParser::new(STRATEGIES), default_value = "partitioned")]
    pub strategies: Vec<String>,
    /// How rows get to the pipeline of their key. For others than auto and aligned, each key is in every file.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = PossibleValuesParser::new(ROUTINGS), default_value = "auto")]
    pub routings: Vec<String>,
    /// How many pipelines run at once; there are as many files as the most of them [default: one for each core].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    pub partitions: Vec<u32>,
    /// Rows of a batch.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000_000), default_value = "16384")]
    pub batch_rows: Vec<u32>,
    /// Rows that the reader of single_queue hands over at once.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000_000), default_value = "1")]
    pub handoff_rows: Vec<u32>,
    /// Distinct symbols of the trades.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=100_000_000), default_value = "200")]
    pub keys: Vec<u64>,
    /// Trades.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub rows: u64,
    /// 90 % of the trades are of one symbol.
    #[arg(long)]
    pub skew: bool,
    /// Format of the trades' files.
    #[arg(long, value_enum, default_value = "parquet")]
    pub format: Format,
    /// Folder for trades, which are made once [default: streamlines-bench among temporary files].
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Measure the query of this file instead of scenarios.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenarios", "keys", "rows", "skew", "format", "data"])]
    pub sql: Option<PathBuf>,
    /// CREATE statements of the query's streams.
    #[arg(long, value_name = "FILE", requires = "sql")]
    pub init: Option<PathBuf>,
    /// Timed runs of each candidate, after one to warm up; 0 measures no throughput.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub runs: u16,
    /// What to compare with: datafusion in this process, duckdb (a program on PATH, or a module of $STREAMLINES_PYTHON or
    /// python3) by whole processes that write Parquet, or none.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = PossibleValuesParser::new(["datafusion", "duckdb", "none"]), default_value = "datafusion")]
    pub against: Vec<String>,
    /// Measure latency at these rows per second too.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub rates: Vec<u64>,
    /// Seconds of each rate.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub seconds: u16,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write everything measured.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl BenchOptions {
    /// The same, with each value of a list once.
    pub fn without_repeats(mut self) -> Self {
        fn once<T: Clone + PartialEq>(values: &mut Vec<T>) {
            let mut seen = vec![];
            values.retain(|value| {
                let is_new = !seen.contains(value);
                seen.push(value.clone());
                is_new
            });
        }
        [&mut self.scenarios, &mut self.strategies, &mut self.routings, &mut self.against].into_iter().for_each(once);
        [&mut self.partitions, &mut self.batch_rows, &mut self.handoff_rows].into_iter().for_each(once);
        [&mut self.keys, &mut self.rates].into_iter().for_each(once);
        self
    }

    /// What options mean together is something to measure.
    ///
    /// # Errors
    /// Which do not go together.
    pub fn refuse_nonsense(&self) -> Result<(), Error> {
        let wrong = |message: &str, help: &str| Err(Error::sql(message).help(help));
        if self.init.is_some() && self.sql.is_none() {
            return wrong("--init without --sql", "scenarios make streams of their own");
        }
        if self.runs == 0 && self.rates.is_empty() {
            return wrong("--runs 0 without --rates: nothing to measure", "--rates 100000,1000000 measures latency");
        }
        if self.is_against("none") && self.against.len() > 1 {
            return wrong("--against none and something", "name what to compare with, or none");
        }
        if self.report.is_some() && self.report == self.json {
            return wrong("--report and --json are one file", "name two");
        }
        Ok(())
    }

    /// How many pipelines run at once.
    pub fn partitions(&self) -> Vec<usize> {
        match self.partitions.is_empty() {
            true => vec![std::thread::available_parallelism().map_or(1, usize::from)],
            false => self.partitions.iter().map(|partitions| *partitions as usize).collect(),
        }
    }

    /// Files of generated data: a partition for each of the most pipelines.
    pub fn files(&self) -> u64 {
        self.partitions().into_iter().max().unwrap_or(1) as u64
    }

    /// Whether to compare with an engine.
    pub fn is_against(&self, engine: &str) -> bool {
        self.against.iter().any(|name| name == engine)
    }
}
