//! The course of a benchmark: question by question, over the data that its candidates read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::error::Result;
use streamlines::{Checksum, Error, Job, Setup, StreamlinesContext};

use super::super::errors::say;
use super::super::summary::count;
use super::candidate::{Candidate, Engine, candidates, streamlines};
use super::conditions::conditions;
use super::data::DataSet;
use super::duckdb::DuckDb;
use super::machine::Machine;
use super::options::BenchOptions;
use super::rates::at_rate;
use super::ready::{Ground, Ready};
use super::results::{Asked, Results};
use super::rounds::rounds;
use super::scenario::{Question, own, scenario};
use super::scratch::{Leftovers, Scratch};
use super::verdict::{Judge, told};

/// What is read: the statements that make streams of it, in a file.
struct Source {
    init: PathBuf,
    /// The same for DuckDB.
    view: String,
}

/// A benchmark that is under way.
pub struct Benchmark<'a> {
    options: &'a BenchOptions,
    duckdb: Option<DuckDb>,
    scratch: Scratch,
    leftovers: Leftovers,
    results: Results,
}

impl<'a> Benchmark<'a> {
    /// Looks for what it needs.
    ///
    /// # Errors
    /// Temporary files that cannot be written.
    pub fn new(options: &'a BenchOptions) -> Result<Self> {
        let found = options.is_against("duckdb").then(DuckDb::find);
        let mut conditions = vec![];
        if let Some(Err(why)) = &found {
            say(&format!("not against duckdb: {why}"));
            conditions.push(("DuckDB", why.clone()));
        }
        let duckdb = found.and_then(|found| found.ok());
        let machine = Machine::here(duckdb.as_ref());
        let results = Results { machine, conditions, throughput: vec![], latency: vec![] };
        let leftovers = Leftovers::listen();
        Ok(Self { options, duckdb, scratch: Scratch::new(&leftovers)?, leftovers, results })
    }

    /// Measures everything.
    ///
    /// # Errors
    /// A wrong answer; a query that fails; data that cannot be made.
    pub async fn run(mut self) -> Result<Results> {
        match &self.options.sql {
            Some(path) => self.own(path).await?,
            None => {
                for keys in &self.options.keys {
                    self.scenarios(*keys).await?;
                }
            }
        }
        self.results.conditions.extend(conditions(self.options, self.duckdb.is_some()));
        Ok(self.results)
    }

    async fn scenarios(&mut self, keys: u64) -> Result<()> {
        let is_spread = self.candidates().iter().any(|candidate| candidate.spread);
        let mut sets = vec![DataSet::make(self.options, keys, false, &self.leftovers)?];
        if is_spread {
            sets.push(DataSet::make(self.options, keys, true, &self.leftovers)?);
        }
        let mut sources = vec![];
        for set in &sets {
            let init = self.scratch.path().join(format!("init-{keys}-{}.sql", set.spread));
            std::fs::write(&init, set.create_stream())?;
            let source = Source { init, view: set.create_view() };
            let found = rows_read("SELECT symbol FROM trades", &source).await?;
            if found != set.rows {
                let error = Error::data(format!("holds {} trades, not {}", count(found), count(set.rows)));
                let error = error.in_file(set.folder.display().to_string());
                return Err(error.help("remove the folder: it is made anew").into());
            }
            sources.push(source);
            let text = format!("{}, {:.1} MB, {}", set.describe(), set.bytes() as f64 / 1e6, set.folder.display());
            self.results.conditions.push(("data", text));
        }
        for name in self.options.scenarios.clone() {
            let questions: Vec<_> = sets.iter().map(|set| scenario(&name, set.files)).collect();
            self.question(&questions, Some(keys), &sources, self.options.rows).await?;
        }
        Ok(())
    }

    /// The user's own query.
    async fn own(&mut self, path: &Path) -> Result<()> {
        let question = own(path)?;
        let init = self.scratch.path().join("init.sql");
        let text = self.options.init.as_ref().map(std::fs::read_to_string).transpose();
        let named = |error: std::io::Error| {
            let init = self.options.init.as_ref().map(|init| init.display().to_string()).unwrap_or_default();
            Error::data(error.to_string()).in_file(init).help("--init takes a file of SQL")
        };
        std::fs::write(&init, text.map_err(named)?.unwrap_or_default())?;
        self.results.conditions.push(("query", question.stream.clone()));
        let sources = [Source { init, view: String::new() }];
        let rows = rows_read(&question.stream, &sources[0]).await?;
        self.question(&[question], None, &sources, rows).await
    }

    fn candidates(&self) -> Vec<Candidate> {
        let mut all = candidates(self.options);
        if self.duckdb.is_some() {
            for partitions in self.options.partitions() {
                all.push(Candidate::duckdb(partitions));
            }
            let own = |candidate: &Candidate| candidate.engine == Engine::Streamlines;
            all.extend(streamlines(self.options).iter().filter(|candidate| own(candidate)).map(Candidate::process));
        }
        all
    }

    /// One question, in the words for each source.
    async fn question(
        &mut self,
        questions: &[Question],
        keys: Option<u64>,
        sources: &[Source],
        rows: u64,
    ) -> Result<()> {
        let Some(question) = questions.first() else { return Ok(()) };
        let of_keys = keys.map(|keys| format!(", {} keys", count(keys))).unwrap_or_default();
        say(&format!("{}: {}{of_keys}", question.name, question.what));
        let asked = Asked { scenario: question.name.clone(), what: question.what.clone(), keys };
        let ground = Ground { question, asked, scratch: self.scratch.path(), duckdb: self.duckdb.as_ref() };
        if self.options.runs > 0 || !self.options.rates.is_empty() {
            let mut all = vec![];
            for candidate in self.candidates() {
                let source = &sources[usize::from(candidate.spread)];
                all.push(Ready::new(&ground, candidate, &source.init, &source.view, rows).await?);
            }
            check(&ground, questions, sources, &mut all).await?;
            if self.options.runs > 0 {
                rounds(&ground, &mut all, self.options.runs).await?;
                for ready in all.iter_mut().filter(|ready| ready.can_run) {
                    ready.watch_memory(&ground)?;
                }
                self.results.throughput.extend(all.into_iter().map(|ready| ready.measured));
            }
        }
        for candidate in streamlines(self.options) {
            let init = std::fs::read_to_string(&sources[usize::from(candidate.spread)].init)?;
            for rate in &self.options.rates {
                let length = Duration::from_secs(self.options.seconds.into());
                self.results.latency.push(at_rate(&ground, &candidate, &init, *rate, length).await?);
            }
        }
        Ok(())
    }
}

/// Compares all answers with plain DataFusion's over the same files.
async fn check(ground: &Ground<'_>, questions: &[Question], sources: &[Source], all: &mut [Ready]) -> Result<()> {
    for (index, (question, source)) in questions.iter().zip(sources).enumerate() {
        let init = std::fs::read_to_string(&source.init)?;
        let ctx = Candidate::new(Engine::DataFusion, Setup::batch()).session(&init).await?;
        let expected = match ctx.stream_sql(&question.oracle).await {
            Ok(query) => Checksum::of(query).await,
            Err(error) => Err(error),
        };
        let mine = |ready: &&mut Ready| ready.can_run && usize::from(ready.candidate.spread) == index;
        match expected {
            Ok(expected) => {
                let mut judge = Judge::new(expected, question.oracle != question.datafusion);
                for ready in all.iter_mut().filter(mine) {
                    ready.check(ground, &mut judge).await?;
                }
            }
            // What is wrong with the question is told once; what only batch cannot answer is noted.
            Err(error) if !all.iter().any(|ready| ready.can_run && ready.candidate.engine == Engine::Streamlines) => {
                return Err(error);
            }
            Err(error) => {
                let why = format!("not compared: plain DataFusion cannot answer: {}", told(&error));
                all.iter_mut().filter(mine).for_each(|ready| ready.measured.note = Some(why.clone()));
            }
        }
    }
    Ok(())
}

/// Rows that a query reads.
async fn rows_read(query: &str, source: &Source) -> Result<u64> {
    let candidate = Candidate::new(Engine::Scan, Setup::stream());
    let ctx = candidate.session(&std::fs::read_to_string(&source.init)?).await?;
    Job::new(ctx.stream_sql(query).await?).await?.scan_only().await
}
