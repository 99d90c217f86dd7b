//! A second oracle: DuckDB, by the Python that `STREAMLINES_PYTHON` names (with the package duckdb).
//!
//! `STREAMLINES_PYTHON=python3 cargo test --test duckdb -- --ignored`
#![allow(clippy::unwrap_used)]

use std::process::Command;

use streamlines::{Answer, Setup, StreamlinesContext, compare};

const FLIGHTS: &str = "testdata/nycflights/flights-*.parquet";

/// Queries of the stream, and what they are in DuckDB.
const QUERIES: [(&str, &str); 4] = [
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
];

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
async fn tumbling_windows_are_those_of_duckdb() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = Setup::stream().session().unwrap();
    let create = format!(
        "CREATE STREAM flights (WATERMARK FOR scheduled) STORED AS PARQUET LOCATION '{FLIGHTS}'
         OPTIONS ('partitioned_by' 'origin')"
    );
    ctx.stream_sql(&create).await.unwrap();
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
        let difference = compare(&expected.batches, &answer.batches, &answer.schema).unwrap();
        assert!(difference.is_none(), "{stream}: {}", difference.unwrap());
    }
}
