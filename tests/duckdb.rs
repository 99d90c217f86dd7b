//! A second oracle: DuckDB, by the Python that `STREAMLINES_PYTHON` names (with the package duckdb).
//!
//! `STREAMLINES_PYTHON=python3 cargo test --test duckdb -- --ignored`
#![allow(clippy::unwrap_used)]

use std::process::Command;

use streamlines::{Answer, Setup, StreamlinesContext, compare};

const FLIGHTS: &str = "testdata/nycflights/flights-*.parquet";

/// Queries of the stream, and what they are in DuckDB.
const QUERIES: [(&str, &str); 18] = [
    (
        "SELECT origin, window_start AS w, count(*) AS n, sum(distance) AS s, avg(dep_delay) AS a, min(dep_delay) AS l,
         max(carrier) AS c, stddev(dep_delay) AS d FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')",
        "SELECT origin, time_bucket(INTERVAL '1 hour', scheduled) AS w, count(*) AS n, sum(distance)::DOUBLE AS s,
         avg(dep_delay) AS a, min(dep_delay) AS l, max(carrier) AS c, stddev(dep_delay) AS d
         FROM flights GROUP BY origin, w",
    ),
    (
        "SELECT carrier, window_end AS w, count(DISTINCT flight) AS n, sum(dep_delay) FILTER (WHERE dep_delay > 0) AS s
         FROM flights WHERE distance > 500 GROUP BY carrier, tumble(scheduled, INTERVAL '90 minutes', INTERVAL '7 minutes')
         HAVING count(*) > 2",
        "SELECT carrier, time_bucket(INTERVAL '90 minutes', scheduled, INTERVAL '7 minutes') + INTERVAL '90 minutes' AS w,
         count(DISTINCT flight) AS n, sum(dep_delay) FILTER (WHERE dep_delay > 0) AS s
         FROM flights WHERE distance > 500 GROUP BY carrier, w HAVING count(*) > 2",
    ),
    (
        "SELECT window_start AS w, median(dep_delay) AS m, bool_or(dep_delay > 600) AS b FROM flights
         GROUP BY tumble(scheduled, INTERVAL '1 day')",
        "SELECT time_bucket(INTERVAL '1 day', scheduled) AS w, median(dep_delay) AS m, bool_or(dep_delay > 600) AS b
         FROM flights GROUP BY w",
    ),
    (
        "SELECT origin, carrier, count(*) AS n, avg(dep_delay) AS a FROM flights GROUP BY origin, carrier EMIT CHANGES",
        "SELECT origin, carrier, count(*) AS n, avg(dep_delay) AS a FROM flights GROUP BY origin, carrier",
    ),
    // A slide that divides the size, with an offset, and one that does not.
    (
        "SELECT origin, window_start AS w, window_end AS e, count(*) AS n, sum(distance) AS s, avg(dep_delay) AS a
         FROM flights GROUP BY origin, hop(scheduled, INTERVAL '15 minutes', INTERVAL '1 hour', INTERVAL '5 minutes')",
        "SELECT origin, w, w + INTERVAL '1 hour' AS e, count(*) AS n, sum(distance) AS s, avg(dep_delay) AS a
         FROM (SELECT *, time_bucket(INTERVAL '15 minutes', scheduled, INTERVAL '5 minutes') AS b FROM flights),
         (SELECT unnest([0, 15, 30, 45]) AS m), LATERAL (SELECT b - to_minutes(m) AS w) GROUP BY origin, w",
    ),
    (
        "SELECT carrier, window_start AS w, count(*) AS n, max(dep_delay) AS x
         FROM TABLE(HOP(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '40' MINUTES, INTERVAL '1' HOUR))
         GROUP BY carrier, window_start, window_end",
        "SELECT carrier, w, count(*) AS n, max(dep_delay) AS x
         FROM (SELECT *, time_bucket(INTERVAL '40 minutes', scheduled) AS b FROM flights),
         (SELECT unnest([0, 40]) AS m), LATERAL (SELECT b - to_minutes(m) AS w)
         WHERE scheduled < w + INTERVAL '1 hour' GROUP BY carrier, w",
    ),
    (
        "SELECT origin, window_start AS w, count(*) AS n, sum(distance) AS s FROM flights
         WHERE scheduled < '2013-01-15T00:00:00'
         GROUP BY origin, hop(scheduled, INTERVAL '30 minutes', INTERVAL '1 hour') EMIT CHANGES",
        "SELECT origin, w, count(*) AS n, sum(distance) AS s
         FROM (SELECT *, time_bucket(INTERVAL '30 minutes', scheduled) AS b FROM flights),
         (SELECT unnest([0, 30]) AS m), LATERAL (SELECT b - to_minutes(m) AS w)
         WHERE scheduled < '2013-01-15T00:00:00' GROUP BY origin, w",
    ),
    (
        "SELECT origin, window_start AS w, window_end AS e, count(*) AS n, count(DISTINCT carrier) AS c
         FROM flights GROUP BY origin, cumulate(scheduled, INTERVAL '6 hours', INTERVAL '1 day')",
        "SELECT origin, d AS w, e, count(*) AS n, count(DISTINCT carrier) AS c
         FROM (SELECT *, time_bucket(INTERVAL '1 day', scheduled) AS d FROM flights),
         (SELECT unnest([6, 12, 18, 24]) AS h), LATERAL (SELECT d + to_hours(h) AS e)
         WHERE scheduled < e GROUP BY origin, d, e",
    ),
    (
        "SELECT origin, carrier, window_start AS w, window_end AS e, count(*) AS n, sum(distance) AS s,
         avg(dep_delay) AS a FROM flights GROUP BY origin, carrier, session(scheduled, INTERVAL '3 hours')",
        SESSIONS,
    ),
    (
        "SELECT origin, carrier, window_start AS w, window_end AS e, count(*) AS n, sum(distance) AS s,
         avg(dep_delay) AS a FROM flights GROUP BY origin, carrier, session(scheduled, INTERVAL '3 hours')
         EMIT CHANGES WITH OP",
        SESSIONS,
    ),
    (
        "SELECT origin, carrier, window_start AS w, window_end AS e, count(*) AS n, stddev(dep_delay) AS d
         FROM flights GROUP BY origin, carrier, tumble(scheduled, INTERVAL '1 month')",
        "SELECT origin, carrier, date_trunc('month', scheduled) AS w, w + INTERVAL '1 month' AS e, count(*) AS n,
         stddev(dep_delay) AS d FROM flights GROUP BY origin, carrier, w",
    ),
    (
        "SELECT carrier, window_start AS w, window_end AS e, count(*) AS n
         FROM flights GROUP BY carrier, tumble(scheduled, INTERVAL '3 months')",
        "SELECT carrier, date_trunc('quarter', scheduled) AS w, w + INTERVAL '3 months' AS e, count(*) AS n
         FROM flights GROUP BY carrier, w",
    ),
    (
        "SELECT window_start AS w, window_end AS e, count(*) AS n, avg(dep_delay) AS a
         FROM flights GROUP BY tumble(scheduled, INTERVAL '1 day', 'America/New_York')",
        "SELECT timezone('UTC', timezone('America/New_York', d)) AS w,
         timezone('UTC', timezone('America/New_York', d + INTERVAL '1 day')) AS e, count(*) AS n, avg(dep_delay) AS a
         FROM (SELECT *, date_trunc('day', timezone('America/New_York', timezone('UTC', scheduled))) AS d FROM flights)
         GROUP BY d",
    ),
    (
        "SELECT flight, carrier, scheduled AS t, count(*) OVER w AS n, avg(dep_delay) OVER w AS a FROM flights
         WINDOW w AS (PARTITION BY origin ORDER BY scheduled RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)",
        "SELECT flight, carrier, scheduled AS t, count(*) OVER w AS n, avg(dep_delay) OVER w AS a FROM flights
         WINDOW w AS (PARTITION BY origin ORDER BY scheduled RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)",
    ),
    // Windows of windows, their changes, OVER columns of them, and the first rows of each.
    (
        "SELECT window_start AS w, max(n) AS x, sum(n) AS n, count(*) AS c FROM
         (SELECT carrier, window_time AS t, count(*) AS n FROM flights GROUP BY carrier, tumble(scheduled, INTERVAL '15 minutes'))
         GROUP BY tumble(t, INTERVAL '1 day')",
        DAYS,
    ),
    (
        "SELECT window_start AS w, max(n) AS x, sum(n) AS n, count(*) AS c FROM
         (SELECT carrier, window_end AS e, window_start AS b, count(*) AS n FROM flights
          GROUP BY carrier, tumble(scheduled, INTERVAL '15 minutes'))
         GROUP BY tumble(b, INTERVAL '1 day') EMIT CHANGES EVERY INTERVAL '6' HOUR",
        DAYS,
    ),
    (
        "SELECT origin, w, n, sum(n) OVER (PARTITION BY origin ORDER BY w ROWS 23 PRECEDING) AS s FROM
         (SELECT origin, window_start AS w, count(*) AS n FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour'))",
        "SELECT origin, w, n, sum(n) OVER (PARTITION BY origin ORDER BY w ROWS 23 PRECEDING)::BIGINT AS s FROM
         (SELECT origin, time_bucket(INTERVAL '1 hour', scheduled) AS w, count(*) AS n FROM flights GROUP BY origin, w)",
    ),
    (
        "SELECT window_start AS w, origin, carrier, flight, dep_delay AS d FROM
         (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, origin
             ORDER BY dep_delay DESC NULLS LAST, scheduled, carrier, flight) AS place
          FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))) WHERE place <= 3",
        "SELECT time_bucket(INTERVAL '1 day', scheduled) AS w, origin, carrier, flight, dep_delay AS d FROM flights
         QUALIFY ROW_NUMBER() OVER (PARTITION BY w, origin
             ORDER BY dep_delay DESC NULLS LAST, scheduled, carrier, flight) <= 3",
    ),
];

const DAYS: &str = "SELECT time_bucket(INTERVAL '1 day', t) AS w, max(n) AS x, sum(n)::BIGINT AS n, count(*) AS c FROM
     (SELECT carrier, time_bucket(INTERVAL '15 minutes', scheduled) AS t, count(*) AS n FROM flights GROUP BY carrier, t)
     GROUP BY w";

/// A row that is three hours or more after the one before it begins a session.
const SESSIONS: &str = "SELECT origin, carrier, min(scheduled) AS w, max(scheduled) + INTERVAL '3 hours' AS e,
     count(*) AS n, sum(distance) AS s, avg(dep_delay) AS a
     FROM (SELECT *, sum(begins) OVER (PARTITION BY origin, carrier ORDER BY scheduled) AS number
         FROM (SELECT *, CASE WHEN scheduled - lag(scheduled) OVER (PARTITION BY origin, carrier ORDER BY scheduled)
             < INTERVAL '3 hours' THEN 0 ELSE 1 END AS begins FROM flights))
     GROUP BY origin, carrier, number";

fn duckdb(query: &str, output: &str) {
    let program = std::env::var("STREAMLINES_PYTHON").unwrap();
    let script = format!(
        "import duckdb\nduckdb.sql(\"CREATE VIEW flights AS FROM '{FLIGHTS}'\")\n\
         duckdb.sql(\"\"\"COPY ({query}) TO '{output}' (FORMAT parquet)\"\"\")"
    );
    let run = Command::new(program).args(["-c", &script]).output().unwrap();
    assert!(run.status.success(), "{query}\n{}", String::from_utf8_lossy(&run.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python with DuckDB"]
async fn windows_are_those_of_duckdb() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = Setup::stream().session().unwrap();
    let create = format!(
        "CREATE STREAM flights (WATERMARK FOR scheduled) STORED AS PARQUET LOCATION '{FLIGHTS}'
         OPTIONS ('partitioned_by' 'origin')"
    );
    ctx.stream_sql(&create).await.unwrap();
    let mut failures = vec![];
    for (number, (stream, query)) in QUERIES.into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.parquet")).display().to_string();
        duckdb(query, &path);
        let answer = Answer::of(ctx.stream_sql(stream).await.unwrap()).await.unwrap().folded().unwrap();
        let columns = answer.schema.fields().iter().map(|field| {
            let (name, data_type) = (field.name(), field.data_type().to_string());
            format!("arrow_cast({name}, '{data_type}') AS {name}")
        });
        let columns: Vec<_> = columns.collect();
        let read = format!("SELECT {} FROM '{path}'", columns.join(", "));
        let expected = Answer::of(ctx.stream_sql(&read).await.unwrap()).await.unwrap();
        assert!(expected.rows() > 30, "{query}");
        if let Some(difference) = compare(&expected.batches, &answer.batches, &answer.schema).unwrap() {
            failures.push(format!("{stream}: {difference}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
