//! State and a limit of memory: what is beyond it goes to disk and comes back, or the run says what holds too much.

use predicates::prelude::*;
use predicates::str::contains;

use crate::sql;

const FLIGHTS: &str = "CREATE STREAM flights (WATERMARK FOR scheduled)
    STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet'; ";

/// The same rows, each airport's by itself.
const SPREAD: &str = "CREATE STREAM spread (WATERMARK FOR scheduled)
    STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitions' 'files'); ";

/// The same rows, of which each airport's are known to be in a file of their own.
const APART: &str = "CREATE STREAM apart (WATERMARK FOR scheduled)
    STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitioned_by' 'origin'); ";

const VALUES: &str = "count(*), count(dep_delay), sum(distance), avg(dep_delay), min(air_time), max(tailnum)";

/// The rows of a query in any order, and what the run says of itself.
fn run(query: &str, arguments: &[&str]) -> (Vec<String>, String) {
    let output = sql(&format!("{FLIGHTS}{query}")).args(["--format", "csv"]).args(arguments).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{query}: {told}");
    let mut rows: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect();
    rows.sort_unstable();
    (rows, told)
}

#[test]
fn what_is_beyond_the_limit_goes_to_disk_and_comes_back() {
    let windows = [
        "tumble(scheduled, INTERVAL '60 days')",
        "hop(scheduled, INTERVAL '20 days', INTERVAL '60 days')",
        "cumulate(scheduled, INTERVAL '20 days', INTERVAL '60 days')",
    ];
    let windowed = windows
        .map(|window| format!("SELECT flight, dest, {window} AS w, {VALUES} FROM flights GROUP BY flight, dest, w"));
    let keyed = format!("SELECT flight, dest, origin, {VALUES} FROM flights GROUP BY flight, dest, origin");
    let of_windows = "SELECT flight, dest, tumble(e, INTERVAL '120 days') AS v, count(*), sum(n)
        FROM (SELECT flight, dest, window_time AS e, count(*) AS n
              FROM flights GROUP BY flight, dest, tumble(scheduled, INTERVAL '60 days'))
        GROUP BY flight, dest, v"
        .to_string();
    let best = "SELECT flight, dest, window_start, scheduled, place
        FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, flight, dest ORDER BY scheduled, tailnum) AS place
              FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '60' DAY))) WHERE place <= 2"
        .to_string();
    for query in windowed.iter().chain([&keyed, &of_windows, &best]) {
        let (expected, told) = run(query, &[]);
        assert!(!told.contains("spilled"), "{told}");
        for arguments in [
            ["--set", "streamlines.routing=hash_at_source"],
            ["--set", "streamlines.routing=merge_on_close"],
            ["--strategy", "inline"],
        ] {
            let (rows, told) = run(query, &[&arguments[..], &["--memory-limit", "1MB"]].concat());
            assert!(told.contains("of state spilled to disk"), "{told}");
            assert_eq!(rows, expected, "{query} {arguments:?}");
        }
    }
}

/// Keys go to disk that no row comes to for a while, and come back with their next one.
#[test]
fn keys_that_are_cold_go_to_disk_and_come_back() {
    let over = |frame: &str| {
        let key = "PARTITION BY origin, flight, dest ORDER BY scheduled";
        format!(
            "{APART} SELECT origin, flight, dest, scheduled, count(*) OVER ({key} {frame}) AS a,
             avg(distance) OVER ({key} {frame}) AS b, max(tailnum) OVER ({key} {frame}) AS c,
             lag(air_time, 2) OVER ({key}) AS d FROM apart"
        )
    };
    let frames = [
        "ROWS 9 PRECEDING",
        "",
        "ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING",
        "RANGE BETWEEN INTERVAL '20 days' PRECEDING AND CURRENT ROW",
    ];
    let frames = frames.map(|frame| (over(frame), "4MB"));
    let sessions = "session(scheduled, INTERVAL '30 hours')";
    let sessions = [
        (format!("SELECT flight, dest, {sessions} AS s, {VALUES} FROM flights GROUP BY flight, dest, s"), "2MB"),
        (
            "SELECT flight, dest, scheduled, window_start, window_end FROM TABLE(SESSION(TABLE flights PARTITION BY flight, dest,
         DESCRIPTOR(scheduled), INTERVAL '30 hours'))"
            .to_string(),
            "12MB",
        ),
    ];
    for (query, limit) in frames.iter().chain(&sessions) {
        let (expected, told) = run(query, &[]);
        assert!(!told.contains("spilled"), "{told}");
        for arguments in [["--partitions", "2"], ["--strategy", "inline"]] {
            let (rows, told) = run(query, &[&arguments[..], &["--memory-limit", limit]].concat());
            assert!(told.contains("of state spilled to disk"), "{query} {told}");
            assert!(rows == expected, "{query} {arguments:?}");
        }
    }
}

#[test]
fn what_cannot_go_to_disk_says_what_it_holds() {
    let changes = "SELECT flight, dest, count(*) FROM flights GROUP BY flight, dest EMIT CHANGES";
    let told = contains("ChangelogAggregate of pipeline").and(contains(" of state")).and(contains("--memory-limit"));
    sql(&format!("{FLIGHTS}{changes}")).args(["--memory-limit", "100KB", "-q"]).assert().code(1).stderr(told);
}

/// However the rows come, the same keys are forgotten.
#[test]
fn keys_that_no_row_comes_for_are_forgotten_and_counted() {
    let queries = [
        "SELECT tailnum, count(*), sum(distance) FROM flights GROUP BY tailnum EMIT CHANGES WITH OP",
        "SELECT tailnum, scheduled, row_number() OVER (PARTITION BY tailnum ORDER BY scheduled) FROM flights",
        "SELECT tailnum, count(*), sum(distance) FROM spread GROUP BY tailnum EMIT CHANGES WITH OP",
        "SELECT tailnum, scheduled, sum(distance) OVER (PARTITION BY tailnum ORDER BY scheduled) FROM spread",
    ];
    let queries = queries.map(|query| format!("{SPREAD}{query}"));
    for query in queries {
        let ttl = ["--set", "streamlines.state_ttl=2 days"];
        let forgotten = |told: &str| {
            let count = told.split(", ").find_map(|part| part.strip_suffix(" keys forgotten")).map(str::to_string);
            count.unwrap_or_else(|| panic!("{told}")).replace(',', "").parse::<u64>().unwrap()
        };
        let (expected, told) = run(&query, &ttl);
        let count = forgotten(&told);
        assert!(count > 10_000, "{told}");
        assert_ne!(run(&query, &[]).0, expected);
        for arguments in [
            ["--partitions", "1"],
            ["--partitions", "3"],
            ["--set", "streamlines.batch_rows=100"],
            ["--strategy", "inline"],
        ] {
            let (rows, told) = run(&query, &[&ttl[..], &arguments].concat());
            assert!(rows == expected, "{query} {arguments:?}");
            // Each of several pipelines knows how far event time has come in its own rows.
            assert!(forgotten(&told).abs_diff(count) * 100 < count, "{query} {arguments:?}: {told}, not {count}");
        }
    }
}

#[test]
fn a_limit_is_a_size() {
    for wrong in ["5", "MB", "0MB", "1.5GB", "99999999999GB"] {
        let told = contains(format!("'{wrong}' is no size: write 512KB, 256MB or 2GB"));
        sql("SELECT 1").args(["--memory-limit", wrong]).assert().code(2).stderr(told);
    }
}
