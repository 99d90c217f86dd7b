//! What the figures hold for, in words.

use super::options::BenchOptions;

/// How it was measured, each with its name.
pub fn conditions(options: &BenchOptions, has_processes: bool) -> Vec<(&'static str, String)> {
    let answers = "the same as plain DataFusion's by rows and checksum, but where a note says otherwise; of changes, the last of each key";
    let mut all = vec![("answers", answers.to_string())];
    if options.runs > 0 {
        all.extend([
            ("runs", format!(
                "{} of each candidate after one to warm up, in turns; planning is in the times; files are in the page cache",
                options.runs
            )),
            ("ratio", "to datafusion at as many partitions, or to the first candidate; of processes, to duckdb".to_string()),
            ("memory", "resident, of one run by a process of its own".to_string()),
        ]);
    }
    let is_spread = |routing: &String| !matches!(routing.as_str(), "auto" | "aligned");
    if options.sql.is_none() && options.routings.iter().any(is_spread) {
        let text = "merge_on_close, hash_at_source and exchange read those with each symbol in every file, all others those with \
                    each symbol in one";
        all.push(("files", text.to_string()));
    }
    if has_processes && options.runs > 0 {
        let text = "from start to exit, rows written as Parquet with Snappy; where rows are changes, duckdb writes the \
                    final answer";
        all.push(("processes", text.to_string()));
    }
    if options.partitions().len() > 1 && options.strategies.iter().any(|strategy| strategy != "partitioned") {
        let text = "inline and single_queue run one pipeline after the other, and so with the most partitions only";
        all.push(("partitions", text.to_string()));
    }
    if !options.rates.is_empty() {
        all.push(("latency", format!(
            "of each row from when it was due to when what it caused at once was written (of a query that answers at the end, \
             or of a window: to when the row was in its state); rows due one by one for {} s or until \
             all are read, over all pipelines; after up to a second to warm up",
            options.seconds
        )));
    }
    all
}
