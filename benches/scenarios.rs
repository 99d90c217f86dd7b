//! The five scenarios on generated trades, beside plain DataFusion on the same SQL and files in the same process.
//!
//! `cargo bench --bench scenarios`; `ROWS` sets the number of rows (10,000,000). Before anything is timed the answers
//! are compared: a scenario whose rows differ from batch fails the run. Of changes, there is one for each row read, and
//! the last ones of all groups are the rows of batch.

// A benchmark that cannot set itself up has nothing to measure.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use streamlines::{
    FileSink, Job, NullSink, OutputFormat, Sink, StreamlinesContext, StreamlinesOptions, streaming_session,
};
use tokio::runtime::Runtime;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: usize = 2;
const AGGREGATES: &str =
    "count(*) AS n, sum(quantity) AS total, avg(price) AS mean, min(price) AS low, max(price) AS high";

/// A query, what batch runs in its place, and a checksum over the rows of both.
struct Scenario {
    name: &'static str,
    keys: u64,
    stream: String,
    batch: String,
    /// Replaces `{}` by a query; one row comes out.
    checksum: &'static str,
    emits_changes: bool,
    to_parquet: bool,
}

fn scenarios() -> Vec<Scenario> {
    let mut all = vec![];
    let select = "SELECT symbol, event_time, price * quantity AS notional, trade_id FROM trades WHERE quantity > 500";
    all.push(same("0_select_to_parquet", 200, select.to_string(), "SELECT count(*), sum(notional) FROM ({})", true));
    let over = "SELECT symbol, event_time, avg(price) OVER (PARTITION BY symbol ORDER BY event_time, trade_id \
                ROWS BETWEEN 99 PRECEDING AND CURRENT ROW) AS mean FROM trades";
    all.push(Scenario {
        name: "1_rows_window",
        keys: 200,
        stream: over.replace(", trade_id ", " "),
        batch: over.to_string(),
        // Rows of one time keep the order of the file, which is that of trade_id.
        checksum: "SELECT count(*), sum(mean) FROM ({})",
        emits_changes: false,
        to_parquet: false,
    });
    let group = format!("SELECT symbol, {AGGREGATES} FROM trades GROUP BY symbol");
    all.push(same("2_group_by", 200, group.clone(), SUMS, false));
    for keys in [200, 100_000] {
        all.push(Scenario {
            name: "2_group_by_changes",
            keys,
            stream: format!("{group} EMIT CHANGES"),
            batch: group.clone(),
            checksum: SUMS,
            emits_changes: true,
            to_parquet: false,
        });
        let window = format!(
            "SELECT symbol, window_start, {AGGREGATES} FROM trades GROUP BY symbol, tumble(event_time, INTERVAL '1 minute')"
        );
        all.push(same("3a_tumble", keys, window.clone(), SUMS, false));
        all.push(Scenario {
            name: "3b_tumble_changes",
            keys,
            stream: format!("{window} EMIT CHANGES"),
            batch: window,
            checksum: SUMS,
            emits_changes: true,
            to_parquet: false,
        });
    }
    all
}

const SUMS: &str = "SELECT count(*), sum(n) * 1.0 + sum(total) + sum(mean) + sum(low) + sum(high) FROM ({})";

fn same(name: &'static str, keys: u64, sql: String, checksum: &'static str, to_parquet: bool) -> Scenario {
    Scenario { name, keys, stream: sql.clone(), batch: sql, checksum, emits_changes: false, to_parquet }
}

fn rows() -> u64 {
    std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(10_000_000)
}

/// Trades with so many symbols, made once.
fn data(keys: u64) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trades-{}-{keys}", rows()));
    if !folder.exists() {
        let made = Command::new(env!("CARGO_BIN_EXE_streamlines"))
            .args(["generate", "trades", "--rows", &rows().to_string(), "--keys", &keys.to_string()])
            .args(["--partitions", &PARTITIONS.to_string(), "--out"])
            .arg(&folder)
            .status()
            .unwrap();
        assert!(made.success());
    }
    folder
}

fn session(runtime: &Runtime, strategy: &str, keys: u64) -> SessionContext {
    let options =
        StreamlinesOptions { strategy: strategy.to_string(), partitions: PARTITIONS, ..StreamlinesOptions::default() };
    let config = SessionConfig::new().with_target_partitions(PARTITIONS).with_option_extension(options);
    let ctx = streaming_session(config);
    let create = format!(
        "CREATE STREAM trades (WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND) \
         STORED AS PARQUET LOCATION '{}/' OPTIONS ('partitioned_by' 'symbol')",
        data(keys).display()
    );
    runtime.block_on(ctx.stream_sql(&create)).unwrap();
    ctx
}

fn run(runtime: &Runtime, ctx: &SessionContext, sql: &str, sink: &dyn Sink) -> u64 {
    runtime.block_on(async {
        let job = Job::new(ctx.stream_sql(sql).await.unwrap()).await.unwrap();
        job.run(sink).await.unwrap().rows_written
    })
}

/// Rows and a sum over them.
fn checksum(runtime: &Runtime, ctx: &SessionContext, sql: &str) -> (i64, f64) {
    let batches = runtime.block_on(async { ctx.stream_sql(sql).await.unwrap().collect().await.unwrap() });
    let row = &batches[0];
    (row.column(0).as_primitive::<Int64Type>().value(0), row.column(1).as_primitive::<Float64Type>().value(0))
}

/// The same of the last change of each group: the columns before the five aggregates are its key.
fn checksum_of_last_changes(runtime: &Runtime, ctx: &SessionContext, sql: &str) -> (i64, f64) {
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
    assert_eq!(changes, self::rows(), "changes of {sql}");
    (last.len() as i64, last.values().sum())
}

fn check(runtime: &Runtime, stream: &SessionContext, batch: &SessionContext, scenario: &Scenario) {
    let (count, sum) = match scenario.emits_changes {
        true => checksum_of_last_changes(runtime, stream, &scenario.stream),
        false => checksum(runtime, stream, &scenario.checksum.replace("{}", &scenario.stream)),
    };
    let (batch_count, batch_sum) = checksum(runtime, batch, &scenario.checksum.replace("{}", &scenario.batch));
    assert_eq!(count, batch_count, "rows of {}", scenario.name);
    assert!((sum - batch_sum).abs() <= 1e-9 * batch_sum.abs(), "{}: {sum} and not {batch_sum}", scenario.name);
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(PARTITIONS).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for scenario in scenarios() {
        let stream = session(&runtime, "partitioned", scenario.keys);
        let batch = session(&runtime, "batch", scenario.keys);
        check(&runtime, &stream, &batch, &scenario);
        let mut group = criterion.benchmark_group(format!("{}/{}_keys", scenario.name, scenario.keys));
        group.sample_size(10).measurement_time(Duration::from_secs(10)).throughput(Throughput::Elements(rows()));
        for (engine, ctx, sql) in [("stream", &stream, &scenario.stream), ("datafusion", &batch, &scenario.batch)] {
            let path = format!("{}/{engine}/", folder.path().display());
            let files = FileSink::local(&path, OutputFormat::Parquet).unwrap();
            let sink: &dyn Sink = if scenario.to_parquet { &files } else { &NullSink };
            group.bench_function(BenchmarkId::from_parameter(engine), |bencher| {
                bencher.iter(|| run(&runtime, ctx, sql, sink));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
