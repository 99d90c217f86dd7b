//! What the figures hold for, in words.

use super::options::BenchOptions;

/// How it was measured, each with its name.
pub fn conditions(options: &BenchOptions, has_processes: bool) -> Vec<(&'static str, String)> {
    let mut all = vec![];
    if options.runs > 0 {
        all.extend([
            ("runs", format!(
                "{} of each candidate after one to warm up, in turns; planning is in the times; files are in the page cache",
                options.runs
            )),
            ("ratio", "to datafusion at as many partitions, or to the first candidate; of processes, to duckdb".to_string()),
            ("answers", "the same as plain DataFusion's by rows and checksum; of changes, the last of each key".to_string()),
            ("memory", "resident, of one run by a process of its own".to_string()),
        ]);
    }
    if has_processes && options.runs > 0 {
        let text =
            "from start to exit, rows written as Parquet; where rows are changes, duckdb writes the final answer";
        all.push(("processes", text.to_string()));
    }
    if !options.rates.is_empty() {
        all.push(("latency", format!(
            "of each row from when it was due to when what it caused was written; rows due one by one for {} s, over all \
             pipelines; after a second to warm up",
            options.seconds
        )));
    }
    all
}
