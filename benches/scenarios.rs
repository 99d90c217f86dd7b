//! The five scenarios on generated trades, beside plain DataFusion on the same SQL and files in the same process.
//!
//! `cargo bench --bench scenarios`; `ROWS` sets the number of rows (10,000,000). Before anything is timed the answers
//! are compared: a scenario whose rows differ from batch fails the run.

// A benchmark that cannot set itself up has nothing to measure.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext};
use streamlines::{
    FileSink, Job, NullSink, OutputFormat, Sink, StreamlinesContext, StreamlinesOptions, streaming_session,
};
use tokio::runtime::Runtime;

const PARTITIONS: usize = 2;
const AGGREGATES: &str =
    "count(*) AS n, sum(quantity) AS total, avg(price) AS mean, min(price) AS low, max(price) AS high";

/// A query, what batch runs in its place, and a checksum over the rows of both.
struct Scenario {
    name: &'static str,
    keys: u64,
    stream: String,
    batch: String,
    /// Replaces `{}` by the query; one row comes out.
    checksum: Option<&'static str>,
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
        // Rows of one time may come in either order, so only their number is compared.
        checksum: Some("SELECT count(*), 0.0 FROM ({})"),
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
            checksum: None,
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
            checksum: None,
            to_parquet: false,
        });
    }
    all
}

const SUMS: &str = "SELECT count(*), sum(n) * 1.0 + sum(total) + sum(mean) + sum(low) + sum(high) FROM ({})";

fn same(name: &'static str, keys: u64, sql: String, checksum: &'static str, to_parquet: bool) -> Scenario {
    Scenario { name, keys, stream: sql.clone(), batch: sql, checksum: Some(checksum), to_parquet }
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
    let mut options = StreamlinesOptions::default();
    options.strategy = strategy.to_string();
    options.partitions = PARTITIONS;
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

/// The stream's rows are those of batch, or, for changes, one for each row read.
fn check(runtime: &Runtime, stream: &SessionContext, batch: &SessionContext, scenario: &Scenario) {
    let Some(template) = scenario.checksum else {
        assert_eq!(run(runtime, stream, &scenario.stream, &NullSink), rows(), "{}", scenario.name);
        return;
    };
    let (count, sum) = checksum(runtime, stream, &template.replace("{}", &scenario.stream));
    let (batch_count, batch_sum) = checksum(runtime, batch, &template.replace("{}", &scenario.batch));
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
