//! SQL behaviour: every file under testdata/slt gives the same rows on DataFusion batch (the oracle) and on the
//! engine, for every number of pipelines and every batch size.
//!
//! A file may `skipif batch` what only a stream can answer (EMIT CHANGES). `$TMP` is a folder of the run's own.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::{SessionConfig, SessionContext};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use streamlines::{StreamlinesContext, StreamlinesOptions, streaming_session};

/// One way to run every file.
#[derive(Clone)]
struct Engine {
    name: &'static str,
    partitions: usize,
    batch_rows: usize,
}

impl Engine {
    fn grid() -> Vec<Self> {
        let mut engines = vec![Self { name: "batch", partitions: 2, batch_rows: 8192 }];
        for partitions in [1, 2, 4] {
            for batch_rows in [1, 7, 8192] {
                engines.push(Self { name: "stream", partitions, batch_rows });
            }
        }
        engines
    }

    fn connect(&self) -> Connection {
        let strategy = if self.name == "batch" { "batch" } else { "partitioned" };
        let options = StreamlinesOptions {
            strategy: strategy.to_string(),
            partitions: self.partitions,
            ..StreamlinesOptions::default()
        };
        let config = SessionConfig::new()
            .with_target_partitions(self.partitions)
            .with_batch_size(self.batch_rows)
            .with_option_extension(options);
        Connection { ctx: streaming_session(config) }
    }
}

struct Connection {
    ctx: SessionContext,
}

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = DataFusionError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>> {
        let query = self.ctx.stream_sql(sql).await?;
        let columns = query.schema().fields().len();
        let batches = query.collect().await?;
        if columns == 0 {
            return Ok(DBOutput::StatementComplete(0));
        }
        let mut rows = vec![];
        for batch in &batches {
            rows.extend(text_rows(batch)?);
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "streamlines"
    }
}

fn text_rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::new().with_null("NULL");
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let cell = |row: usize, column: usize| match float(batch.column(column), row) {
        Some(value) => value,
        None => match formatters[column].value(row).to_string() {
            text if text.is_empty() => "(empty)".to_string(),
            text => text.replace(' ', "_"),
        },
    };
    Ok((0..batch.num_rows()).map(|row| (0..batch.num_columns()).map(|column| cell(row, column)).collect()).collect())
}

/// Floats agree within 1e-9 relative, so nine digits are compared.
fn float(column: &Arc<dyn Array>, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    let value = match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row),
        DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)),
        _ => return None,
    };
    // Back from nine digits to the shortest form of the number: 2.5, not 2.50000000e0.
    Some(format!("{value:.8e}").parse::<f64>().map_or(value.to_string(), |rounded| rounded.to_string()))
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

fn run_all_files_on(engine: &Engine) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failures = vec![];
    for file in files() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let folder = tempfile::tempdir().unwrap();
        let mut runner = Runner::new(|| async { Ok(engine.connect()) });
        runner.add_label(engine.name);
        runner.set_var("TMP".to_string(), folder.path().to_string_lossy().into_owned());
        if let Err(error) = runtime.block_on(runner.run_file_async(&file)) {
            let at = format!("{} (partitions {}, batch rows {})", engine.name, engine.partitions, engine.batch_rows);
            failures.push(format!("{name} on {at}: {}", error.display(false)));
        }
    }
    failures
}

/// `SLT_COMPLETE=1` writes the oracle's rows into the files.
fn complete_files() {
    let oracle = &Engine::grid()[0];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for file in files() {
        let folder = tempfile::tempdir().unwrap();
        let mut runner = Runner::new(|| async { Ok(oracle.connect()) });
        runner.add_label(oracle.name);
        runner.set_var("TMP".to_string(), folder.path().to_string_lossy().into_owned());
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
    if std::env::var_os("SLT_COMPLETE").is_some() {
        return complete_files();
    }
    let failures: Vec<_> = Engine::grid().iter().flat_map(run_all_files_on).collect();
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n\n"));
}
