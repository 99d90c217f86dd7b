//! Declarations that the files do not bear out.

use std::fs;
use std::sync::Arc;

use arrow::array::Int32Array;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

use crate::{Folder, STREAM, trips};

#[test]
fn a_watermark_on_what_is_no_timestamp() {
    let folder = Folder::with_trips();
    let on = |column: &str| {
        format!(
            "CREATE STREAM s (WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND)
             STORED AS PARQUET LOCATION 'trips.parquet'; SELECT * FROM s"
        )
    };
    folder.refuses(
        &on("tss"),
        &["tss", "not there", "(line 1, column 32)", "   |                                ^", "did you mean ts?"],
    );
    folder.refuses(&on("origin"), &["origin is ", "not a timestamp", "(line 1, column 32)", "help: name a timestamp"]);
}

#[test]
fn a_location_without_files() {
    let folder = Folder::with_trips();
    fs::create_dir(folder.path("empty")).unwrap();
    for (location, told) in [
        ("nowhere/*.parquet", "no file at 'nowhere/*.parquet'"),
        ("trips.parquet,gone.parquet", "no file at 'gone.parquet'"),
        ("empty/", "the folder 'empty/' holds no PARQUET files"),
    ] {
        let sql = format!("CREATE STREAM s STORED AS PARQUET LOCATION '{location}'; SELECT * FROM s");
        folder.refuses(&sql, &[told, "(line 1, column 44)", "relative paths start at"]);
    }
    folder.refuses_query("SELECT * FROM 'gone/*.csv'", "'gone", &["no file at 'gone/*.csv'", "relative paths"]);
}

#[test]
fn files_whose_schemas_differ() {
    let folder = Folder::new();
    folder.parquet("a.parquet", trips(0));
    let mut retyped = trips(100);
    retyped[2].1 = Arc::new(Int32Array::from_iter_values(0..10));
    folder.parquet("b.parquet", retyped);
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION '*.parquet'; SELECT * FROM s";
    folder.refuses(sql, &["b.parquet: has column 'distance' as Int32 and not as Int64", "unlike a.parquet", "help:"]);
    let mut renamed = trips(100);
    renamed[2].0 = "miles";
    folder.parquet("b.parquet", renamed);
    folder.refuses(sql, &["b.parquet: has no column 'distance'", "help: list the columns"]);
}

#[test]
fn listed_columns_that_the_files_do_not_have() {
    let folder = Folder::with_trips();
    let sql =
        "CREATE STREAM s (origin VARCHAR, distanc BIGINT) STORED AS PARQUET LOCATION 'trips.parquet'; SELECT * FROM s";
    folder.refuses(sql, &["trips.parquet: has no column 'distanc'", "did you mean 'distance'?"]);
    let sql = "CREATE STREAM s (distance VARCHAR) STORED AS PARQUET LOCATION 'trips.parquet'; SELECT * FROM s";
    folder.refuses(sql, &["trips.parquet: column 'distance' is Int64, not "]);
}

#[test]
fn csv_files_whose_columns_differ() {
    let folder = Folder::new();
    folder.text("1.csv", "a,b\n1,2\n");
    folder.text("2.csv", "b,a\n1,2\n");
    folder.refuses("SELECT * FROM '*.csv'", &["2.csv: has column 'b' where 'a' is, unlike 1.csv", "help: "]);
    folder.text("2.csv", "");
    let sum = folder.sql("SELECT a, b FROM '*.csv'").assert().success();
    sum.stdout("a,b\n1,2\n");
    folder.text("1.csv", "a,a\n1,2\n");
    folder.refuses("SELECT * FROM '1.csv'", &["1.csv: has two columns 'a'", "help: "]);
    folder.refuses(
        "SELECT * FROM 'mem://bucket/1.csv'",
        &["mem://bucket/1.csv: is in no store that the session knows", "help: "],
    );
}

#[test]
fn files_that_overlap_in_event_time() {
    let folder = Folder::with_trips();
    folder.parquet("trips-2.parquet", trips(30));
    let sql =
        "CREATE STREAM s (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) STORED AS PARQUET LOCATION 'trips*.parquet';
        SELECT count(*) AS rows FROM s";
    let told = contains("warning: ").and(contains("trips.parquet").and(contains("trips-2.parquet")));
    let told = told.and(contains("'partitioned_by'")).and(contains("'partitions' 'files'"));
    folder.sql(sql).assert().success().stdout("rows\n20\n").stderr(told);
    folder.sql(sql).arg("-q").assert().success().stderr(is_empty());
    let declared = sql.replace("*.parquet'", "*.parquet' OPTIONS ('partitions' 'files')");
    folder.sql(&declared).assert().success().stderr(contains("warning").not());
    let wider = sql.replace("'5' SECOND", "'1' HOUR");
    folder.sql(&wider).assert().success().stderr(contains("warning").not());
    // Text files show it when they are read.
    folder.text("t-1.csv", "ts\n2024-01-01T00:00:00\n2024-01-01T00:10:00\n");
    folder.text("t-2.csv", "ts\n2024-01-01T00:05:00\n2024-01-01T00:20:00\n");
    let text = "CREATE STREAM s (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) STORED AS CSV LOCATION 't-*.csv';
        SELECT count(*) AS rows FROM s GROUP BY tumble(ts, INTERVAL '1 hour')";
    let told = contains("warning: ").and(contains("t-2.csv begins before")).and(contains("t-1.csv ends"));
    folder.sql(text).assert().success().stdout("rows\n4\n").stderr(told);
}

/// A false declaration would make wrong rows, so every row is checked, wherever it stands.
#[test]
fn a_key_in_two_declared_partitions_far_down() {
    let folder = Folder::new();
    folder.text("k-1.csv", "k\na\n");
    let keys = (0..40_000).map(|row| if row == 30_000 { "a\n" } else { "b\n" });
    folder.text("k-2.csv", &format!("k\n{}", keys.collect::<String>()));
    let sql = "CREATE STREAM s STORED AS CSV LOCATION 'k-*.csv' OPTIONS ('partitioned_by' 'k');
        SELECT k, count(*) FROM s GROUP BY k";
    folder.refuses(sql, &["k = a", "k-1.csv", "k-2.csv", "'partitioned_by' k"]);
}

#[test]
fn a_key_in_two_declared_partitions() {
    let folder = Folder::with_trips();
    folder.parquet("trips-2.parquet", trips(30));
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trips*.parquet' OPTIONS ('partitioned_by' 'origin');
        SELECT origin, count(*) FROM s GROUP BY origin";
    folder.refuses(sql, &["trips.parquet", "trips-2.parquet", "origin", "help:"]);
}

#[test]
fn a_stream_that_is_there_already() {
    let folder = Folder::with_trips();
    let create = |how: &str| {
        let again = STREAM.trim_end().replace("trips (", "trips (distance BIGINT, ts TIMESTAMP, ");
        format!("{STREAM}{} SELECT * FROM trips LIMIT 1", again.replace("STREAM trips", how))
    };
    folder
        .refuses(&create("STREAM trips"), &["trips exists already", "(line 2, column 15)", "CREATE OR REPLACE STREAM"]);
    folder.sql(&create("OR REPLACE STREAM trips")).assert().success().stdout(contains("distance,ts\n"));
    folder
        .sql(&create("STREAM IF NOT EXISTS trips"))
        .assert()
        .success()
        .stdout(contains("origin,ts,distance,fare,arrived\n"));
    folder.sql(&format!("{STREAM}DROP STREAM trips; DROP STREAM IF EXISTS trips; {STREAM}")).assert().success();
}

#[test]
fn options_that_do_not_exist() {
    let folder = Folder::with_trips();
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trips.parquet' OPTIONS ('partitoned_by' 'origin'); SELECT 1";
    folder.refuses(sql, &["unknown option 'partitoned_by'", "line 1", "did you mean 'partitioned_by'?"]);
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trips.parquet' OPTIONS ('partitioned_by' 'orign'); SELECT 1";
    folder.refuses(sql, &["orign", "line 1", "did you mean origin?"]);
}
