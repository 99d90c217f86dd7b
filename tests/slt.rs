//! SQL behaviour: every file under testdata/slt gives the same rows on DataFusion batch (the oracle) and on the
//! engine, for every number of pipelines and every batch size.
//!
//! A file may `skipif batch` what only a stream can answer (EMIT CHANGES). `$TMP` is a folder of the run's own.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::{DataFrame, SessionContext};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Normalizer, Runner};
use streamlines::{Answer, Error, Setup, StreamlinesContext, text_rows};

struct Connection {
    ctx: SessionContext,
    setup: Setup,
}

impl Connection {
    /// Plans a statement, by another routing if it cannot take the one of the setup.
    async fn plan(&self, sql: &str) -> Result<DataFrame> {
        match self.ctx.stream_sql(sql).await {
            Err(error)
                if self.setup.routing != "auto" && matches!(Error::find(&error), Some(Error::Refused { .. })) =>
            {
                self.ctx.stream_sql("SET streamlines.routing = 'auto'").await?;
                let planned = self.ctx.stream_sql(sql).await;
                self.ctx.stream_sql(&format!("SET streamlines.routing = '{}'", self.setup.routing)).await?;
                planned
            }
            planned => planned,
        }
    }
}

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = DataFusionError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>> {
        let query = self.plan(sql).await?;
        let columns = query.schema().fields().len();
        if columns == 0 {
            query.collect().await?;
            return Ok(DBOutput::StatementComplete(0));
        }
        let batches = Answer::of(query).await?.batches;
        let mut rows = vec![];
        for batch in &batches {
            rows.extend(text_rows(batch)?.into_iter().map(|row| row.into_iter().map(cell).collect()));
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "streamlines"
    }
}

/// Cells are separated by spaces in the files.
fn cell(text: String) -> String {
    if text.is_empty() { "(empty)".to_string() } else { text.replace(' ', "_") }
}

fn runner(
    setup: &Setup,
    folder: &Path,
) -> Runner<Connection, impl sqllogictest::MakeConnection<Conn = Connection> + use<>> {
    let connect = setup.clone();
    let mut runner = Runner::new(move || {
        let ctx = connect.session();
        let setup = connect.clone();
        async move { Ok(Connection { ctx: ctx?, setup }) }
    });
    runner.add_label(if setup.is_batch() { "batch" } else { "stream" });
    if setup.routing != "auto" {
        runner.add_label("routed");
        runner.with_validator(in_any_order);
    }
    runner.set_var("TMP".to_string(), folder.to_string_lossy().into_owned());
    runner
}

/// Pipelines that share the keys give their rows one beside the other.
fn in_any_order(normalizer: Normalizer, given: &[Vec<String>], expected: &[String]) -> bool {
    let mut given: Vec<String> = given.iter().map(|row| normalizer(&row.join(" "))).collect();
    let mut expected: Vec<String> = expected.iter().map(normalizer).collect();
    given.sort();
    expected.sort();
    given == expected
}

/// The files whose name contains `SLT`: all of them, if that is not set.
fn files() -> Vec<PathBuf> {
    let only = std::env::var("SLT").unwrap_or_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains(&only))
        .collect();
    assert!(!files.is_empty(), "no file is called '{only}'");
    files.sort();
    files
}

fn run_all_files_under(setup: &Setup) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failures = vec![];
    for file in files() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let folder = tempfile::tempdir().unwrap();
        if let Err(error) = runtime.block_on(runner(setup, folder.path()).run_file_async(&file)) {
            failures.push(format!("{name} on {setup}: {}", error.display(false)));
        }
    }
    failures
}

/// `SLT_COMPLETE=1` writes the oracle's rows into the files.
fn complete_files() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for file in files() {
        let folder = tempfile::tempdir().unwrap();
        let mut runner = runner(&Setup::batch(), folder.path());
        let updated = runner.update_test_file(
            &file,
            " ",
            sqllogictest::default_validator,
            sqllogictest::default_normalizer,
            sqllogictest::default_column_validator,
        );
        runtime.block_on(updated).unwrap();
    }
}

#[test]
fn every_file_agrees_on_every_engine() {
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let substitutes = !text.contains("${TMP}") || text.contains("control substitution on");
        assert!(substitutes, "{} says ${{TMP}} without control substitution on", file.display());
    }
    if std::env::var_os("SLT_COMPLETE").is_some() {
        return complete_files();
    }
    // A setup keeps about one core busy.
    let setups = Mutex::new([Setup::batch()].into_iter().chain(Setup::grid()));
    let next = || setups.lock().unwrap().next();
    let run = || std::iter::from_fn(next).flat_map(|setup| run_all_files_under(&setup)).collect::<Vec<_>>();
    let cores = std::thread::available_parallelism().unwrap().get();
    let failures = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n\n"));
}
