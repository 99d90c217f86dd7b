//! The five scenarios on generated trades, beside plain DataFusion on the same SQL and files in the same process.
//!
//! `cargo bench --bench scenarios`; `ROWS` sets the number of rows (10,000,000). Before anything is timed the answers
//! are compared: a scenario whose rows differ from batch fails the run. Of changes, there is one for each row read, and
//! the last ones of all groups are the rows of batch.

// A benchmark that cannot set itself up has nothing to measure.
#![allow(clippy::unwrap_used)]

mod trades;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::prelude::SessionContext;
use streamlines::{FileSink, NullSink, OutputFormat, Sink};
use tokio::runtime::Runtime;

use trades::{AGGREGATES, SUMS, assert_same, checksum, checksum_of_last_changes, rows, run, runtime, session};

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

fn same(name: &'static str, keys: u64, sql: String, checksum: &'static str, to_parquet: bool) -> Scenario {
    Scenario { name, keys, stream: sql.clone(), batch: sql, checksum, emits_changes: false, to_parquet }
}

fn check(runtime: &Runtime, stream: &SessionContext, batch: &SessionContext, scenario: &Scenario) {
    let answer = match scenario.emits_changes {
        true => checksum_of_last_changes(runtime, stream, &scenario.stream, rows()),
        false => checksum(runtime, stream, &scenario.checksum.replace("{}", &scenario.stream)),
    };
    assert_same(scenario.name, answer, checksum(runtime, batch, &scenario.checksum.replace("{}", &scenario.batch)));
}

fn bench(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    for scenario in scenarios() {
        let stream = session(&runtime, "partitioned", rows(), scenario.keys);
        let batch = session(&runtime, "batch", rows(), scenario.keys);
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
