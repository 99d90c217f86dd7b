//! Bad input: each gets one error that says what, where and what to do, exit code 1, and leaves nothing behind.
#![allow(clippy::unwrap_used)]

#[cfg(unix)]
mod fuzz;
#[cfg(unix)]
mod mutated;
mod output;
mod rows;
mod statements;
mod streams;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use assert_cmd::Command;
use datafusion::parquet::arrow::ArrowWriter;
use predicates::str::is_empty;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streamlines");

/// One line, so that the query after it is line 2.
const STREAM: &str =
    "CREATE STREAM trips (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) STORED AS PARQUET LOCATION 'trips.parquet';\n";

/// A folder that programs run in.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// With `trips.parquet`: origin, ts, distance, fare, arrived; ten rows, ten seconds apart.
    fn with_trips() -> Self {
        let folder = Self::new();
        folder.parquet("trips.parquet", trips(0));
        folder
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn parquet(&self, name: &str, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = fs::File::create(self.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.0.path()).args(arguments);
        command
    }

    fn sql(&self, text: &str) -> Command {
        self.program(&["sql", text])
    }

    /// Everything below the folder.
    fn names(&self) -> Vec<String> {
        let mut names = vec![];
        walk(self.0.path(), &mut names);
        names.sort();
        names
    }

    /// Runs `sql` into a file and into a folder: it must fail with all of `told` and leave nothing.
    fn refuses(&self, sql: &str, told: &[&str]) {
        let before = self.names();
        for output in ["out.parquet", "out.csv", "out/"] {
            let run = self.sql(sql).args(["--output", output]).assert().code(1).stdout(is_empty());
            let stderr = String::from_utf8(run.get_output().stderr.clone()).unwrap();
            assert!(stderr.starts_with("error: "), "{stderr}");
            for text in told {
                assert!(stderr.contains(text), "'{text}' is not in:\n{stderr}");
            }
            assert_eq!(self.names(), before, "{sql} leaves something behind");
        }
    }

    /// The same for a query over `trips`, whose place is told by a caret under `place`.
    fn refuses_query(&self, query: &str, place: &str, told: &[&str]) {
        let column = query.find(place).unwrap();
        let caret = format!(" 2 | {query}\n   | {}^\n", " ".repeat(column));
        let position = format!("(line 2, column {})", column + 1);
        self.refuses(&format!("{STREAM}{query}"), &[&[caret.as_str(), position.as_str()], told].concat());
    }
}

fn walk(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.display().to_string());
        if path.is_dir() {
            walk(&path, names);
        }
    }
}

fn trips(first_second: i64) -> Vec<(&'static str, ArrayRef)> {
    let times = (0..10).map(|row| (first_second + row * 10) * 1_000_000);
    vec![
        ("origin", Arc::new(StringArray::from_iter_values((0..10).map(|row| ["EWR", "JFK"][row % 2])))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times.clone()))),
        ("distance", Arc::new(Int64Array::from_iter_values(0..10))),
        ("fare", Arc::new(Float64Array::from_iter_values((0..10).map(f64::from)))),
        ("arrived", Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
    ]
}
