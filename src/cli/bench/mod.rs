//! `streamlines bench`: strategies, routings and other engines on the same question, side by side.
//!
//! ```text
//!   options ─▶ questions × data sets ─▶ candidates ─ answers compared ─▶ rounds ─▶ memory ─▶ rates ─▶ Results
//!     ─▶ table, JSON, report
//! ```
//!
//! No figure is told of an answer that is wrong: that ends the benchmark.

mod candidate;
mod conditions;
mod curve;
mod data;
mod duckdb;
mod json;
mod machine;
mod options;
mod process;
mod questions;
mod rates;
mod ready;
mod report;
mod results;
mod rounds;
mod scenario;
mod scratch;
mod table;
mod verdict;

use std::io::Write;
use std::path::Path;

use datafusion::error::Result;
use streamlines::Error;

use super::{FAILED, errors};
pub use options::BenchOptions;
use questions::Benchmark;

/// Measures, prints the table, and writes what else is asked for.
pub async fn bench(options: &BenchOptions) -> u8 {
    match run(options).await {
        Ok(()) => 0,
        Err(error) => {
            errors::print("", &error);
            FAILED
        }
    }
}

async fn run(options: &BenchOptions) -> Result<()> {
    options.refuse_nonsense()?;
    // What cannot be written is told before anything is measured.
    for path in options.report.iter().chain(&options.json) {
        try_to_open(path)?;
    }
    let results = Benchmark::new(options)?.run().await?;
    // That nobody reads it is no failure.
    let _ = writeln!(std::io::stdout(), "{}", table::text(&results));
    if let Some(path) = &options.report {
        write(path, &report::page(&results))?;
    }
    if let Some(path) = &options.json {
        write(path, &format!("{:#}\n", json::json(&results)))?;
    }
    Ok(())
}

/// Whether a file can be written, which stays as it is.
fn try_to_open(path: &Path) -> Result<(), Error> {
    let is_new = !path.exists();
    std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|error| unwritable(path, &error))?;
    if is_new { std::fs::remove_file(path).map_err(|error| unwritable(path, &error)) } else { Ok(()) }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::data(format!("cannot be written: {error}")).in_file(path.display().to_string())
}
