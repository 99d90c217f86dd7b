//! Files and rows that cannot be read, and values that are odd.

use std::fs;
use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, TimestampMicrosecondArray};
use predicates::prelude::*;
use predicates::str::contains;

use crate::{Folder, STREAM};

#[test]
fn damaged_parquet_files() {
    let folder = Folder::with_trips();
    let whole = fs::read(folder.path("trips.parquet")).unwrap();
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trips.parquet'; SELECT * FROM s";
    for length in [whole.len() - 1, whole.len() / 2, 6] {
        fs::write(folder.path("trips.parquet"), &whole[..length]).unwrap();
        folder.refuses(sql, &["trips.parquet: cannot be read: ", "help: the file is truncated or no Parquet file"]);
    }
    fs::write(folder.path("trips.parquet"), "").unwrap();
    folder.refuses(sql, &["trips.parquet: is empty", "help: leave it out"]);
    // A whole footer over damaged pages.
    let mut damaged = whole;
    damaged[4..40].fill(0xff);
    fs::write(folder.path("trips.parquet"), damaged).unwrap();
    folder.refuses(sql, &["trips.parquet: cannot be read: ", "help: the file is damaged"]);
}

#[test]
fn a_file_that_is_another_than_it_was() {
    let folder = Folder::with_trips();
    let sql = format!("{STREAM}COPY (SELECT 1 AS n) TO 'trips.parquet' STORED AS PARQUET; SELECT count(*) FROM trips");
    let run = folder.sql(&sql).assert().code(1);
    run.stderr(contains("trips.parquet: has changed since the stream was created").and(contains("help: ")));
}

const CSV: &str = "CREATE STREAM s (k VARCHAR, ts TIMESTAMP, n BIGINT, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
    STORED AS CSV LOCATION 's.csv'";

#[test]
fn a_row_that_cannot_be_read_ends_every_strategy_and_routing() {
    let folder = Folder::with_trips();
    fs::write(folder.path("s.csv"), "k,ts,n\na,2024-01-01T00:00:01,1\nb,2024-01-01T00:00:02,x\n").unwrap();
    for strategy in ["partitioned", "inline", "single_queue"] {
        for routing in ["auto", "hash_at_source", "exchange"] {
            let settings = format!("SET streamlines.strategy = '{strategy}'; SET streamlines.routing = '{routing}';");
            let query = "SELECT k, sum(n) FROM s GROUP BY k EMIT CHANGES";
            folder.refuses(&format!("{settings} {CSV}; {query}"), &["s.csv: row 2: cannot be read: "]);
        }
    }
}

#[test]
fn the_value_that_cannot_be_read_is_told_with_its_column() {
    let folder = Folder::new();
    for (row, told) in [
        ("a,soon,1", "s.csv: row 2: cannot be read: Error parsing column ts: Error parsing timestamp from 'soon'"),
        ("a,9999-12-31T00:00:00,1", "column ts: 9999-12-31T00:00:00+00:00 would overflow 64-bit signed nanoseconds\n"),
        ("a,2024-01-01T00:00:02,many", "Error while parsing value 'many' as type 'Int64' for column n\n"),
    ] {
        fs::write(folder.path("s.csv"), format!("k,ts,n\na,2024-01-01T00:00:01,1\n{row}\n")).unwrap();
        folder.refuses(&format!("{CSV}; SELECT k, ts, n FROM s"), &[told]);
    }
}

#[test]
fn a_row_far_down_is_named_whoever_reads_it() {
    let folder = Folder::new();
    let row = |row: usize| match row {
        6001 => "b,2024-01-01T00:00:02,x".to_string(),
        8001 => "b,2024-01-01T00:00:02".to_string(),
        row => format!("a,2024-01-01T00:{:02}:{:02},{row}", row / 60 % 60, row % 60),
    };
    let text = |rows: std::ops::Range<usize>| rows.map(row).collect::<Vec<_>>().join("\n");
    for (rows, bad) in [(1..8000, "row 6001"), (7001..11_000, "row 1001")] {
        folder.text("s.csv", &format!("k,ts,n\n{}\n", text(rows)));
        for partitions in [1, 2, 4] {
            for query in ["SELECT k, n FROM s", "SELECT sum(n) FROM s GROUP BY tumble(ts, INTERVAL '1 minute')"] {
                let sql = format!("SET streamlines.partitions = {partitions}; {CSV}; {query}");
                folder.refuses(&sql, &[&format!("s.csv: {bad}: cannot be read: ")]);
            }
        }
    }
}

#[test]
fn a_csv_row_with_too_few_columns() {
    let folder = Folder::new();
    folder.text("s.csv", "k,ts,n\na,2024-01-01T00:00:00,1\nb,2024-01-01T00:00:01\nc,2024-01-01T00:00:02,3\n");
    folder
        .refuses(&format!("{CSV}; SELECT k, n FROM s"), &["s.csv: row 2: ", "expected 3 got 2", "help: mend the row"]);
    let inferred = "CREATE STREAM s STORED AS CSV LOCATION 's.csv'; SELECT * FROM s";
    folder.refuses(inferred, &["s.csv: row 2: ", "list the columns", "'on_error' 'skip'"]);
    folder
        .sql(&format!("{CSV} OPTIONS ('on_error' 'skip'); SELECT k, n FROM s"))
        .assert()
        .success()
        .stdout("k,n\na,1\nc,3\n")
        .stderr(contains("3 rows in = 2 used + 0 late + 1 skipped as malformed"));
}

#[test]
fn a_csv_row_with_a_bad_number() {
    let folder = Folder::new();
    folder.text("s.csv", "k,ts,n\na,2024-01-01T00:00:00,1\nb,2024-01-01T00:00:01,2\nc,2024-01-01T00:00:02,many\n");
    let told = ["s.csv: row 3: ", "'many'", "Int64", "'on_error' 'skip'"];
    folder.refuses(&format!("{CSV}; SELECT k, n FROM s"), &told);
    let skipping = format!("{CSV} OPTIONS ('on_error' 'skip'); SELECT count(*) AS rows FROM s");
    folder.sql(&skipping).assert().success().stdout("rows\n2\n").stderr(contains("1 skipped as malformed"));
    // Without a header the first line is row 1.
    folder.text("s.csv", "a,2024-01-01T00:00:00,1\nb,2024-01-01T00:00:01,two\n");
    folder.refuses(&format!("{CSV} OPTIONS ('has_header' 'false'); SELECT n FROM s"), &["s.csv: row 2: ", "'two'"]);
}

#[test]
fn a_bad_number_beyond_the_rows_that_types_are_inferred_from() {
    let folder = Folder::new();
    let rows: String = (1..=3000).map(|row| if row == 2900 { "x\n".to_string() } else { format!("{row}\n") }).collect();
    folder.text("s.csv", &format!("n\n{rows}"));
    let sql = "CREATE STREAM s STORED AS CSV LOCATION 's.csv'; SELECT sum(n) FROM s";
    folder.refuses(sql, &["s.csv: row 2900: ", "'x'", "list the column's type"]);
}

#[test]
fn a_json_row_that_is_none() {
    let folder = Folder::new();
    let rows: String = (1..=2000).map(|row| format!("{{\"n\":{row}}}\n")).collect();
    folder.text("s.json", &format!("{rows}{{\"n\":\n"));
    let sql = "CREATE STREAM s STORED AS JSON LOCATION 's.json'; SELECT sum(n) FROM s";
    folder.refuses(sql, &["s.json: row 2001: ", "help: "]);
    folder.text("s.json", &rows.replace("1500", "\"x\""));
    folder.refuses(sql, &["s.json: row 1500: ", "help: ", "list the column's type"]);
    // Within the rows that types are inferred from.
    folder.text("s.json", &rows.replace("{\"n\":15}", "{\"n\""));
    folder.refuses(sql, &["s.json: row 15: ", "help: "]);
}

#[test]
fn groups_of_nan_and_null_are_those_of_the_batch() {
    let folder = Folder::new();
    let keys = [Some(f64::NAN), None, Some(1.0), Some(-f64::NAN), Some(0.0), None, Some(f64::NAN), Some(-0.0)];
    let times = (0..8).map(|row| row * 1_000_000);
    folder.parquet(
        "trips.parquet",
        vec![
            ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
            ("fare", Arc::new(Float64Array::from_iter(keys))),
            ("n", Arc::new(Int64Array::from_iter_values(0..8))),
        ],
    );
    let rows = |query: &str, strategy: &str| {
        let run = folder.sql(&format!("{STREAM}{query}")).args(["--strategy", strategy]).assert().success();
        let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
        let mut rows: Vec<String> = text.lines().map(str::to_string).collect();
        rows.sort();
        rows
    };
    let plain = "SELECT fare, count(*), sum(n), max(fare) FROM trips GROUP BY fare";
    let windows = "SELECT fare, count(*), sum(n) FROM trips GROUP BY fare, tumble(ts, INTERVAL '3 seconds')";
    for query in [plain, windows] {
        assert_eq!(rows(query, "partitioned"), rows(query, "batch"));
    }
    let groups = rows(plain, "partitioned");
    assert!(groups.iter().any(|row| row == ",2,6,"), "{groups:?}");
    assert!(groups.iter().any(|row| row == "NaN,2,6,NaN"), "{groups:?}");
}
