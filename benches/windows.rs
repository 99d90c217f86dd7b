//! The kinds of windows on generated trades, few keys and many: what each costs beside a tumbling window, changes
//! beside final values, and an exact watermark beside a bound.
//!
//! `cargo bench --bench windows`; `ROWS` sets the number of rows (10,000,000). Before anything is timed, the answers over
//! a part of the data are compared with those of plain DataFusion, and the totals over all of it with those of the
//! trades: it takes plain DataFusion minutes to answer overlapping windows and sessions over all of them.

// A benchmark that cannot set itself up has nothing to measure.
#![allow(clippy::unwrap_used)]

mod trades;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::prelude::SessionContext;
use streamlines::NullSink;
use tokio::runtime::Runtime;

use trades::{AGGREGATES, SUMS, assert_same, checksum, checksum_of_last_changes, rows, run, runtime, session};

/// A query, and in how many of its windows each trade is.
struct Case {
    name: &'static str,
    sql: String,
    emits_changes: bool,
    windows: &'static str,
}

/// Trades that answers are compared over.
const CHECKED_ROWS: u64 = 200_000;

/// Panes of five minutes up to the end of a trade's hour.
const CUMULATED: &str = "12 - floor(date_part('minute', event_time) / 5)";

fn cases() -> Vec<Case> {
    let case = |name, table, window, windows| Case {
        name,
        sql: format!("SELECT symbol, window_start, window_end, {AGGREGATES} FROM {table} GROUP BY symbol, {window}"),
        emits_changes: false,
        windows,
    };
    let minute = "tumble(event_time, INTERVAL '1 minute')";
    let changes = case("5_minute_changes", "trades", minute, "1");
    vec![
        case("0_tumble", "trades", "tumble(event_time, INTERVAL '1 hour')", "1"),
        case("1_hop", "trades", "hop(event_time, INTERVAL '5 minutes', INTERVAL '1 hour')", "12"),
        case("2_cumulate", "trades", "cumulate(event_time, INTERVAL '5 minutes', INTERVAL '1 hour')", CUMULATED),
        case("3_session", "trades", "session(event_time, INTERVAL '30 seconds')", "1"),
        case("4_minute", "trades", minute, "1"),
        Case { sql: format!("{} EMIT CHANGES", changes.sql), emits_changes: true, ..changes },
        case("6_minute_exact", "exact", minute, "1"),
    ]
}

/// Compares the answer over a part of the data with that of plain DataFusion.
fn check_part(runtime: &Runtime, case: &Case, keys: u64) {
    let stream = session(runtime, "partitioned", CHECKED_ROWS, keys);
    let batch = session(runtime, "batch", CHECKED_ROWS, keys);
    let answer = match case.emits_changes {
        true => checksum_of_last_changes(runtime, &stream, &case.sql, CHECKED_ROWS),
        false => checksum(runtime, &stream, &SUMS.replace("{}", &case.sql)),
    };
    let plain = case.sql.trim_end_matches(" EMIT CHANGES");
    assert_same(case.name, answer, checksum(runtime, &batch, &SUMS.replace("{}", plain)));
}

/// Compares the counts and totals over all windows with those of the trades.
fn check_totals(runtime: &Runtime, stream: &SessionContext, batch: &SessionContext, case: &Case) {
    let plain = case.sql.trim_end_matches(" EMIT CHANGES");
    let answer = checksum(runtime, stream, &format!("SELECT sum(n), sum(total) * 1.0 FROM ({plain})"));
    let windows = format!("SELECT CAST({} AS BIGINT) AS windows, quantity FROM trades", case.windows);
    let totals = format!("SELECT sum(windows), sum(windows * quantity) * 1.0 FROM ({windows})");
    assert_same(case.name, answer, checksum(runtime, batch, &totals));
}

fn bench(criterion: &mut Criterion) {
    let runtime = runtime();
    for keys in [200, 100_000] {
        let stream = session(&runtime, "partitioned", rows(), keys);
        let batch = session(&runtime, "batch", rows(), keys);
        let mut group = criterion.benchmark_group(format!("windows/{keys}_keys"));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
        group.throughput(Throughput::Elements(rows()));
        for case in cases() {
            check_part(&runtime, &case, keys);
            check_totals(&runtime, &stream, &batch, &case);
            group.bench_function(BenchmarkId::from_parameter(case.name), |bencher| {
                bencher.iter(|| run(&runtime, &stream, &case.sql, &NullSink));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
