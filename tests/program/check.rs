//! `check`: the same query in many ways.

use std::fs;

use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use tempfile::TempDir;

use crate::{FLIGHTS, program};

/// Runs `check` on statements.
fn check(statements: &str, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("queries.sql");
    fs::write(&file, statements).unwrap();
    program().arg("check").arg(&file).args(arguments).assert()
}

#[test]
fn check_says_whether_answers_are_the_same() {
    let hourly =
        "SELECT origin, window_end, count(*) AS n FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')";
    let agrees = check(
        &format!(
            "{FLIGHTS} SET streamlines.partitions = 3; {hourly} HAVING count(*) < 0; SELECT origin, count(*) FROM flights GROUP BY origin EMIT CHANGES"
        ),
        &["--seed", "7", "--runs", "1"],
    );
    let folded = "  same     batch and the stream's folded changes: 336,776 rows\n";
    let same =
        contains("  same     stream and partitioned, partitions ").and(contains("  same     batch and stream: 0 rows"));
    let all = contains("all agree: 4 comparisons of 2 queries\n");
    agrees
        .success()
        .stdout(starts_with("seed 7\nquery 1\n").and(same).and(contains(folded)).and(all))
        .stderr(is_empty());
    // What late rows explain is no failure, and said.
    let late = check(&format!("{FLIGHTS} {hourly}"), &["--runs", "0"]);
    let told = contains("  late     batch and stream: 19,486 rows, 1,740 late; ")
        .and(contains("\n    - EWR | "))
        .and(contains("\n    + EWR | "));
    let row = "\n    testdata/nycflights/flights-EWR.parquet row 238: 6600 s behind the watermark 2013-01-01T15:15:00, which row 235 had set\n";
    late.success().stdout(
        told.and(contains("the late rows explain it: without them, plain DataFusion gives the same"))
            .and(contains(row))
            .and(contains("1 by late rows")),
    );
    // Rows that are late for some of their windows have a part in the others.
    let from = "FROM flights WHERE scheduled < '2013-04-01'";
    let partly = [
        format!(
            "SELECT window_start, origin, avg(dep_delay) {from} GROUP BY origin, hop(scheduled, INTERVAL '1 hour', INTERVAL '5 hours') EMIT CHANGES"
        ),
        format!(
            "SELECT window_start, window_end, sum(distance) {from} GROUP BY cumulate(scheduled, INTERVAL '2 hours', INTERVAL '6 hours')"
        ),
        format!(
            "SELECT window_start, origin, array_agg(flight) {from} GROUP BY origin, hop(scheduled, INTERVAL '2 hours', INTERVAL '4 hours')"
        ),
    ];
    let told = contains("without them in the windows that they missed, plain DataFusion gives the same").count(3);
    check(&format!("{FLIGHTS} {}", partly.join("; ")), &["--runs", "0"]).success().stdout(told);
    // Each of two windows side by side has late rows of its own.
    let hours =
        |hours| format!("SELECT origin, window_start, count(*) {from} GROUP BY origin WINDOW TUMBLING ({hours} HOURS)");
    let hops = format!(
        "SELECT origin, window_start, count(*) {from} GROUP BY origin WINDOW HOPPING (SIZE 4 HOURS, ADVANCE BY 1 HOUR)"
    );
    let readings = "CREATE STREAM readings (WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) LOCATION 'testdata/slt/data/readings.csv'";
    let bounded = format!("{} {readings};", FLIGHTS.replace("'3' HOUR", "'1' HOUR"));
    let none = format!("SELECT * FROM (SELECT origin, scheduled, distance {from} LIMIT 0)");
    let sensors = "SELECT sensor, window_start, count(*) FROM readings GROUP BY sensor WINDOW TUMBLING (10 SECONDS)";
    for (query, told) in [
        (format!("{} UNION ALL {}", hours(1), hours(24)), "without them, plain DataFusion gives the same"),
        (format!("{none} UNION ALL {} UNION ALL {}", hours(1), hours(24)), "without them, plain DataFusion gives"),
        (format!("{sensors} UNION ALL {}", hours(1)), "without them, plain DataFusion gives the same"),
        (format!("{} UNION ALL {hops}", hours(2)), "without them in the windows that they missed, plain DataFusion"),
    ] {
        check(&format!("{bounded} {query}"), &["--runs", "1"]).success().stdout(contains(told));
    }
    // Changes that do not say of which key they are say what they replace.
    let counts = "SELECT origin, count(*) AS n FROM flights WHERE scheduled < '2013-02-01'";
    let unkeyed = format!(
        "{FLIGHTS} SELECT count(*) FROM flights GROUP BY origin EMIT CHANGES; \
         {counts} GROUP BY origin, carrier HAVING count(*) > 900 EMIT CHANGES PER BATCH WITH OP; \
         {counts} GROUP BY ROLLUP (origin, carrier) EMIT CHANGES"
    );
    let folded =
        contains("  same     batch and the stream's folded changes, WITH RETRACTIONS (as it is written, ").count(3);
    let all = contains("all agree: 6 comparisons of 3 queries\n");
    check(&unkeyed, &["--runs", "1", "--seed", "5"]).success().stdout(folded.and(all));
}

#[test]
fn check_breaks_ties_as_a_stream_does() {
    // Two flights of a time and an airport come in either order, and so their means.
    let flights = FLIGHTS.replace(" AS scheduled - INTERVAL '3' HOUR", "");
    let over = "SELECT origin, flight, avg(dep_delay) OVER (PARTITION BY origin ORDER BY scheduled ROWS 3 PRECEDING) FROM flights";
    let told = contains("  ties     batch and stream: 336,776 rows; ")
        .and(contains("with ties by partition and row, plain DataFusion gives the same"))
        .and(contains("all agree: 1 comparisons of 1 queries, 1 by ties"));
    check(&format!("{flights} {over}"), &["--runs", "0"]).success().stdout(told);
    // How rows tie makes no difference where peers count alike.
    let peers = "SELECT origin, flight, rank() OVER (PARTITION BY origin ORDER BY scheduled) FROM flights";
    let same = contains("  same     batch and stream: 336,776 rows");
    check(&format!("{flights} {peers}"), &["--runs", "0"]).success().stdout(same);
    // Nobody says in which order distinct values come.
    let distinct = "SELECT origin, array_agg(DISTINCT carrier) FROM flights GROUP BY origin";
    let told = contains("  ties     batch and stream: 3 rows; ")
        .and(contains("in their own order, the values of lists are the same"))
        .and(contains("1 by ties"));
    check(&format!("{flights} {distinct}"), &["--runs", "0"]).success().stdout(told);
    // NaN is beyond every number, and to plain DataFusion it is neither less nor more.
    let delay = "CASE WHEN flight % 7 = 0 THEN 'NaN'::DOUBLE ELSE dep_delay END";
    let extremes = format!("SELECT origin, min({delay}) AS least, max({delay}) AS most FROM flights GROUP BY origin");
    let told = contains("  ties     batch and stream: 3 rows; ")
        .and(contains("by their total order, in which NaN is beyond every number, plain DataFusion gives the same"))
        .and(contains("1 by ties"));
    check(&format!("{flights} {extremes}"), &["--runs", "0"]).success().stdout(told);
}

#[test]
fn check_fails_where_answers_differ() {
    let random = "SELECT sensor, random() AS r FROM 'testdata/slt/data/readings.csv'";
    let differs = check(random, &["--runs", "1", "--seed", "1"]).code(1).stderr(is_empty());
    let told = contains("  DIFFERS  batch and stream: 10 rows; 10 rows missing, 10 rows more\n    - a | ");
    differs.stdout(told.and(contains("a function is random")).and(contains("2 of 2 comparisons differ\n")));
    check("SELECT sensor FROM nowhere", &[]).code(1).stderr(contains("there is no stream or table nowhere"));
    check("SET streamlines.partitions = 1", &[]).code(1).stderr(contains("no query").and(contains("help:")));
    program().args(["check", "nowhere.sql"]).assert().code(1).stderr(contains("nowhere.sql"));
}

#[test]
fn check_writes_nothing_and_looks_for_limited_rows_among_all() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.csv");
    let copy =
        format!("COPY (SELECT sensor, amount FROM 'testdata/slt/data/readings.csv' LIMIT 3) TO '{}'", out.display());
    let told = contains("  same     batch and stream: 10 rows")
        .and(contains("LIMIT's rows among all, partitioned, partitions by cores, batch rows 8192, ledger: 3 rows"));
    // The seed draws a routing that the query cannot take; it takes its own then.
    check(&copy, &["--runs", "1", "--seed", "8929424889849744448"]).success().stdout(told);
    assert!(!out.exists());
}
