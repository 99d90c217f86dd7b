//! The program as a user meets it: standard output, standard error, files and exit codes.
#![allow(clippy::unwrap_used)]

mod bench;
mod check;
mod checkpoint;
mod confined;
#[cfg(unix)]
mod faults;
#[cfg(unix)]
mod follow;
mod generate;
mod hive;
#[cfg(feature = "http")]
mod http;
mod interrupt;
mod late_rows;
mod lateness;
#[cfg(unix)]
mod live;
mod memory;
mod output;
mod printing;
#[cfg(unix)]
mod running;
#[cfg(all(unix, feature = "s3"))]
mod s3;
#[cfg(all(unix, feature = "s3"))]
mod s3_server;
#[cfg(target_os = "linux")]
mod soak;
mod statements;
mod usage;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streamlines");

const ROWS: &str =
    "SELECT * FROM (VALUES (1, 'EWR', TIMESTAMP '2013-01-01T06:00:00'), (2, NULL, NULL)) AS t (n, origin, ts)";

/// The flights of 2013 from New York's airports that come with the project.
const FLIGHTS: &str = "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR)
    STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitioned_by' 'origin'); ";

fn program() -> Command {
    Command::new(PROGRAM)
}

fn sql(text: &str) -> Command {
    let mut command = program();
    command.args(["sql", text]);
    command
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Reads a whole Parquet file.
fn parquet_rows(path: &Path) -> usize {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap().build().unwrap();
    reader.map(|batch| batch.unwrap().num_rows()).sum()
}
