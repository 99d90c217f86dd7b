//! What the benchmarks share: generated trades, sessions over them, and checksums of answers.

// A benchmark that cannot set itself up has nothing to measure.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use streamlines::{Job, Sink, StreamlinesContext, StreamlinesOptions, streaming_session};
use tokio::runtime::Runtime;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: usize = 2;

pub const AGGREGATES: &str =
    "count(*) AS n, sum(quantity) AS total, avg(price) AS mean, min(price) AS low, max(price) AS high";

/// Replaces `{}` by a query of those aggregates: its rows, and a sum over them.
pub const SUMS: &str = "SELECT count(*), sum(n) * 1.0 + sum(total) + sum(mean) + sum(low) + sum(high) FROM ({})";

/// Number of trades that are measured.
pub fn rows() -> u64 {
    std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(10_000_000)
}

/// The threads of the pipelines.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(PARTITIONS).enable_all().build().unwrap()
}

/// So many trades with so many symbols, made once.
fn data(rows: u64, keys: u64) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trades-{rows}-{keys}"));
    if !folder.exists() {
        let made = Command::new(env!("CARGO_BIN_EXE_streamlines"))
            .args(["generate", "trades", "--rows", &rows.to_string(), "--keys", &keys.to_string()])
            .args(["--partitions", &PARTITIONS.to_string(), "--out"])
            .arg(&folder)
            .status()
            .unwrap();
        assert!(made.success());
    }
    folder
}

/// A session over so many trades: as `trades` with a bound, and as `exact` with an exact watermark.
pub fn session(runtime: &Runtime, strategy: &str, rows: u64, keys: u64) -> SessionContext {
    let options =
        StreamlinesOptions { strategy: strategy.to_string(), partitions: PARTITIONS, ..StreamlinesOptions::default() };
    let config = SessionConfig::new().with_target_partitions(PARTITIONS).with_option_extension(options);
    let ctx = streaming_session(config);
    for (name, bound) in [("trades", " AS event_time - INTERVAL '5' SECOND"), ("exact", "")] {
        let create = format!(
            "CREATE STREAM {name} (WATERMARK FOR event_time{bound}) STORED AS PARQUET LOCATION '{}/' \
             OPTIONS ('partitioned_by' 'symbol')",
            data(rows, keys).display()
        );
        runtime.block_on(ctx.stream_sql(&create)).unwrap();
    }
    ctx
}

/// Runs a query into a sink.
pub fn run(runtime: &Runtime, ctx: &SessionContext, sql: &str, sink: &dyn Sink) -> u64 {
    runtime.block_on(async {
        let job = Job::new(ctx.stream_sql(sql).await.unwrap()).await.unwrap();
        job.run(sink).await.unwrap().rows_written
    })
}

/// The one row of a query: a number of rows and a sum over them.
pub fn checksum(runtime: &Runtime, ctx: &SessionContext, sql: &str) -> (i64, f64) {
    let batches = runtime.block_on(async { ctx.stream_sql(sql).await.unwrap().collect().await.unwrap() });
    let row = &batches[0];
    (row.column(0).as_primitive::<Int64Type>().value(0), row.column(1).as_primitive::<Float64Type>().value(0))
}

/// The same as [`SUMS`] of the last change of each group, of changes of so many rows: the columns before the five
/// aggregates are a group's key.
pub fn checksum_of_last_changes(runtime: &Runtime, ctx: &SessionContext, sql: &str, rows: u64) -> (i64, f64) {
    let mut changes = 0;
    let mut last: HashMap<Vec<String>, f64> = HashMap::new();
    let mut take = |batch: RecordBatch| {
        changes += batch.num_rows() as u64;
        let (keys, values) = batch.columns().split_at(batch.num_columns() - 5);
        let options = FormatOptions::default();
        let keys: Vec<_> = keys.iter().map(|key| ArrayFormatter::try_new(key, &options).unwrap()).collect();
        let values: Vec<_> = values.iter().map(|values| cast(values, &DataType::Float64).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let sum = values.iter().map(|values| values.as_primitive::<Float64Type>().value(row)).sum();
            last.insert(keys.iter().map(|key| key.value(row).to_string()).collect(), sum);
        }
    };
    runtime.block_on(async {
        let mut rows = ctx.stream_sql(sql).await.unwrap().execute_stream().await.unwrap();
        while let Some(batch) = rows.next().await {
            take(batch.unwrap());
        }
    });
    assert_eq!(changes, rows, "changes of {sql}");
    (last.len() as i64, last.values().sum())
}

/// Whether two checksums are of the same answer: the order in which floats are added is open.
pub fn assert_same(name: &str, (count, sum): (i64, f64), (expected_count, expected_sum): (i64, f64)) {
    assert_eq!(count, expected_count, "rows of {name}");
    assert!((sum - expected_sum).abs() <= 1e-9 * expected_sum.abs(), "{name}: {sum} and not {expected_sum}");
}
