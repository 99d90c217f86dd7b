//! A candidate at work on a question: its session, its answer, one timed run, its memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use streamlines::{Checksum, Job, NullSink, Setup, StreamlinesContext};

use super::candidate::{Candidate, Engine};
use super::data::quoted;
use super::duckdb::DuckDb;
use super::process::{self, Used};
use super::results::{Asked, Measured};
use super::scenario::Question;
use super::verdict::{Judge, miscounted, told};

/// Runs to see the memory of.
const WATCHED_AT_MOST: usize = 3;

/// What all candidates of a question share.
pub struct Ground<'a> {
    pub question: &'a Question,
    pub asked: Asked,
    /// For output, which is taken away after each run.
    pub scratch: &'a Path,
    pub duckdb: Option<&'a DuckDb>,
}

/// A candidate that is ready to run.
pub struct Ready {
    pub candidate: Candidate,
    ctx: SessionContext,
    /// The statements that make its streams, for a process of its own.
    init: PathBuf,
    /// The same for DuckDB.
    view: String,
    /// Whether it can answer; if not, its row says why.
    pub can_run: bool,
    pub measured: Measured,
}

impl Ready {
    /// Makes the candidate's session, and asks the planner whether it can answer; if not, the reason is in its row.
    ///
    /// # Errors
    /// What is wrong with the statements of `init`.
    pub async fn new(ground: &Ground<'_>, candidate: Candidate, init: &Path, view: &str, rows_in: u64) -> Result<Self> {
        let ctx = candidate.session(&std::fs::read_to_string(init)?).await?;
        let measured = Measured {
            asked: ground.asked.clone(),
            candidate: candidate.clone(),
            rows_in,
            rows_out: 0,
            checksum: None,
            seconds: vec![],
            memory: None,
            note: None,
        };
        let (init, view) = (init.to_path_buf(), view.to_string());
        let mut ready = Self { candidate, ctx, init, view, can_run: true, measured };
        ready.measured.note = match ready.candidate.engine {
            Engine::DuckDb => ground.question.duckdb.as_ref().err().cloned(),
            _ => ready.plan(ground.question).await.err().map(|error| told(&error)),
        };
        ready.can_run = ready.measured.note.is_none();
        Ok(ready)
    }

    fn sql<'a>(&self, question: &'a Question) -> &'a str {
        match self.candidate.engine {
            Engine::DataFusion => &question.datafusion,
            _ => &question.stream,
        }
    }

    async fn plan(&self, question: &Question) -> Result<Job> {
        Job::new(self.ctx.stream_sql(self.sql(question)).await?).await
    }

    /// Compares the answer with that of plain DataFusion.
    ///
    /// # Errors
    /// A wrong answer; a query that fails.
    pub async fn check(&mut self, ground: &Ground<'_>, judge: &mut Judge) -> Result<()> {
        let found = match self.candidate.engine {
            Engine::Scan => return Ok(()),
            Engine::DuckDb => self.written(ground, &ground.scratch.join("duckdb.parquet")).await?,
            // Of changes, what is in the files is not yet the answer.
            _ if self.candidate.is_process && ground.question.is_changes => {
                let why = "not compared: its changes are not folded; the same query is compared in this process";
                self.measured.note = Some(why.to_string());
                return Ok(());
            }
            _ if self.candidate.is_process => self.written(ground, &ground.scratch.join("checked/")).await?,
            _ => Checksum::of(self.ctx.stream_sql(self.sql(ground.question)).await?).await?,
        };
        self.measured.rows_out = found.rows;
        self.measured.checksum = Some(found.to_string());
        self.measured.note = judge.verdict(&self.measured, &found)?;
        Ok(())
    }

    /// The rows that a process writes.
    async fn written(&self, ground: &Ground<'_>, output: &Path) -> Result<Checksum> {
        self.process(ground, output)?;
        let rows = match output.exists() {
            // Read as a table, whatever routing the candidate has.
            true => Setup::batch().session()?.stream_sql(&format!("SELECT * FROM '{}'", quoted(output))).await?,
            // A folder without files, for there are no rows.
            false => self.ctx.stream_sql(&format!("SELECT * FROM ({}) LIMIT 0", ground.question.datafusion)).await?,
        };
        let found = Checksum::of(rows).await;
        take_away(output)?;
        found
    }

    /// Runs once, and gives the seconds that it took.
    ///
    /// # Errors
    /// A query that fails.
    pub async fn run(&self, ground: &Ground<'_>) -> Result<f64> {
        let output = ground.scratch.join("output");
        let seconds = match self.candidate.is_process {
            true => self.process(ground, &output)?.seconds,
            false => self.in_process(ground.question, &output).await?,
        };
        take_away(&output)?;
        Ok(seconds)
    }

    async fn in_process(&self, question: &Question, output: &Path) -> Result<f64> {
        let started = Instant::now();
        if self.candidate.engine == Engine::Scan {
            self.plan(question).await?.scan_only().await?;
            return Ok(started.elapsed().as_secs_f64());
        }
        let sql = self.sql(question);
        let sql = match question.is_written {
            true => format!("COPY ({sql}) TO '{}/' STORED AS PARQUET", quoted(output)),
            false => sql.to_string(),
        };
        let summary = Job::new(self.ctx.stream_sql(&sql).await?).await?.run(&NullSink).await?;
        let seconds = started.elapsed().as_secs_f64();
        // How often changes are told may hang on batches.
        let is_counted = self.measured.checksum.is_some() && !question.is_written && !question.is_changes;
        match is_counted && summary.rows_written != self.measured.rows_out {
            true => Err(miscounted(&self.measured, summary.rows_written).into()),
            false => Ok(seconds),
        }
    }

    /// One run by a process of its own, to see its memory.
    ///
    /// # Errors
    /// A process that fails.
    pub fn watch_memory(&mut self, ground: &Ground<'_>) -> Result<()> {
        let output = ground.scratch.join("watched");
        let is_written = ground.question.is_written || self.candidate.is_process;
        if self.candidate.engine == Engine::Scan {
            return Ok(());
        }
        // One that is over before it was looked at is run again.
        for _ in 0..WATCHED_AT_MOST {
            let used = match self.candidate.engine {
                Engine::DuckDb => self.process(ground, &output)?,
                _ => process::run(&mut self.own_command(ground.question, is_written.then_some(output.as_path()))?)?,
            };
            take_away(&output)?;
            self.measured.memory = used.memory;
            if self.measured.memory.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn process(&self, ground: &Ground<'_>, output: &Path) -> Result<Used> {
        let mut command = match (self.candidate.engine, ground.duckdb, &ground.question.duckdb) {
            (Engine::DuckDb, Some(duckdb), Ok(sql)) => {
                duckdb.command(&self.view, sql, self.candidate.setup.partitions, output)
            }
            _ => self.own_command(ground.question, Some(output))?,
        };
        Ok(process::run(&mut command)?)
    }

    /// This program, with the same settings.
    fn own_command(&self, question: &Question, output: Option<&Path>) -> Result<Command> {
        let setup = &self.candidate.setup;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["sql", "--quiet", "--strategy", setup.strategy, "--init"]).arg(&self.init);
        command.args(["--partitions", &setup.partitions.to_string(), "--batch-rows", &setup.batch_rows.to_string()]);
        command.args(["--set", &format!("streamlines.routing={}", setup.routing)]);
        command.args(["--set", &format!("streamlines.handoff_rows={}", setup.handoff_rows)]);
        match output {
            Some(folder) => {
                if self.candidate.is_process {
                    command.args(["--set", "datafusion.execution.parquet.compression=snappy"]);
                }
                command.args(["--format", "parquet", "--output", &format!("{}/", folder.display())])
            }
            None => command.args(["--format", "none"]),
        };
        command.args(["--", self.sql(question)]);
        Ok(command)
    }
}

/// Takes output away: a file of DuckDB's, a folder of others, or nothing where there are no rows.
fn take_away(output: &Path) -> std::io::Result<()> {
    match output.is_dir() {
        true => std::fs::remove_dir_all(output),
        false if output.exists() => std::fs::remove_file(output),
        false => Ok(()),
    }
}
