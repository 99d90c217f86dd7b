//! `streamlines check`: whether queries give the rows of plain DataFusion, and the same rows however they run.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::path::PathBuf;

use clap::Args;
use datafusion::error::Result;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use streamlines::{Check, Comparison, Error, Outcome, Setup, parse_statements};

use super::summary::count;
use super::{FAILED, errors};

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct CheckOptions {
    /// A file of SQL statements, or - for standard input.
    file: String,
    /// CREATE statements to run first.
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// The seed of random strategies, partitions, batch sizes and routings [default: another each time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many random ways to run each query.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=1000))]
    runs: u16,
}

/// Runs each query of a file in several ways and prints whether the answers are the same.
pub async fn check(options: &CheckOptions) -> u8 {
    let mut texts = vec![];
    for path in options.init.iter().map(|path| path.display().to_string()).chain([options.file.clone()]) {
        match text_of(&path) {
            Ok(text) => texts.push(text),
            Err(error) => {
                errors::print("", &error.into());
                return FAILED;
            }
        }
    }
    let mut run = match Run::begin(options) {
        Ok(run) => run,
        Err(error) => {
            errors::print("", &error);
            return FAILED;
        }
    };
    for text in &texts {
        if let Err(error) = run.statements(text).await {
            errors::print(text, &error);
            return FAILED;
        }
    }
    run.verdict()
}

fn text_of(path: &str) -> std::result::Result<String, Error> {
    let mut text = String::new();
    let read = match path {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        path => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map(|()| text)
        .map_err(|error| Error::data(error.to_string()).in_file(path).help("check takes a file of SQL statements"))
}

/// What has been compared so far.
struct Run {
    check: Check,
    queries: usize,
    outcomes: Vec<Outcome>,
    /// Queries that could not be answered.
    failed: usize,
}

impl Run {
    fn begin(options: &CheckOptions) -> Result<Self> {
        let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(()));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let setups = (0..options.runs).map(|_| Setup::drawn(random.next_u64())).collect();
        say(&format!("seed {seed}"));
        Ok(Self { check: Check::new(setups)?, queries: 0, outcomes: vec![], failed: 0 })
    }

    async fn statements(&mut self, sql: &str) -> Result<()> {
        for statement in parse_statements(&Setup::stream().session()?, sql)? {
            let is_query = Check::is_query(&statement);
            self.queries += usize::from(is_query);
            if is_query {
                say(&format!("query {}", self.queries));
            }
            let comparisons = match self.check.statement(statement).await {
                // The others are compared all the same.
                Err(error) if is_query => {
                    errors::print(sql, &error);
                    self.failed += 1;
                    continue;
                }
                comparisons => comparisons?.unwrap_or_default(),
            };
            for comparison in comparisons {
                say(&line(&comparison));
                self.outcomes.push(comparison.outcome);
            }
        }
        Ok(())
    }

    fn verdict(&self) -> u8 {
        if self.queries == 0 {
            let error = Error::sql("no query among the statements").help("check takes a SELECT, COPY or INSERT");
            errors::print("", &error.into());
            return FAILED;
        }
        say(&summary(&self.outcomes, self.queries, self.failed));
        if self.failed == 0 && self.outcomes.iter().all(Outcome::is_fine) { 0 } else { FAILED }
    }
}

fn summary(outcomes: &[Outcome], queries: usize, failed: usize) -> String {
    let number = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count();
    match number(|outcome| !outcome.is_fine()) {
        0 if failed > 0 => format!("{failed} of {queries} queries could not be answered"),
        0 => {
            let late = match number(|outcome| matches!(outcome, Outcome::Late(..))) {
                0 => String::new(),
                late => format!(", {late} by late rows"),
            };
            let ties = match number(|outcome| matches!(outcome, Outcome::Ties(..))) {
                0 => String::new(),
                ties => format!(", {ties} by ties"),
            };
            let skipped = match number(|outcome| matches!(outcome, Outcome::NotCompared(_))) {
                0 => String::new(),
                skipped => format!(", {skipped} skipped"),
            };
            format!("all agree: {} comparisons of {queries} queries{late}{ties}{skipped}", outcomes.len())
        }
        different => format!("{different} of {} comparisons differ", outcomes.len()),
    }
}

fn line(comparison: &Comparison) -> String {
    let Comparison { what, rows, late_rows, outcome } = comparison;
    let counted = match late_rows {
        0 => format!("{} rows", count(*rows as u64)),
        late => format!("{} rows, {} late", count(*rows as u64), count(*late)),
    };
    match outcome {
        Outcome::Same => format!("  same     {what}: {counted}"),
        Outcome::NotCompared(why) => format!("  skipped  {what}: {why}"),
        Outcome::Late(difference, why) => {
            format!("  late     {what}: {counted}; {}", indented(&format!("{difference}\n{why}")))
        }
        Outcome::Ties(difference, why) => {
            format!("  ties     {what}: {counted}; {}", indented(&format!("{difference}\n{why}")))
        }
        Outcome::Differs(difference, open) => {
            let open = open.map(|open| format!("\n    {open}")).unwrap_or_default();
            format!("  DIFFERS  {what}: {counted}; {}{open}", indented(&difference.to_string()))
        }
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// Prints a line. That nobody reads it is no failure.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
