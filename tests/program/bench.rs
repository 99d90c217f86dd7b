//! `streamlines bench` on few rows.

use std::fs;
use std::path::Path;
use std::time::Instant;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::Value;
use tempfile::TempDir;

use crate::program;

/// Benches a thousand trades, with data in `folder`.
fn bench(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(["bench", "--partitions", "2", "--data"]).arg(folder);
    for (option, value) in [("--rows", "1000"), ("--runs", "1")] {
        if !arguments.contains(&option) {
            command.args([option, value]);
        }
    }
    command.args(arguments);
    command
}

fn results(folder: &Path, arguments: &[&str]) -> Value {
    let json = folder.join("out.json");
    bench(folder, arguments).arg("--json").arg(&json).assert().success();
    serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap()
}

fn rows<'a>(results: &'a Value, part: &str) -> &'a Vec<Value> {
    results[part].as_array().unwrap()
}

#[test]
fn all_scenarios_strategies_and_routings_run() {
    let folder = TempDir::new().unwrap();
    let report = folder.path().join("report.html");
    let arguments =
        ["--strategies", "partitioned,inline,single_queue", "--keys", "7", "--report", report.to_str().unwrap()];
    let found = results(folder.path(), &arguments);
    // Reading alone, DataFusion and three strategies, of six scenarios.
    assert_eq!(rows(&found, "throughput").len(), 30);
    for row in rows(&found, "throughput") {
        assert_eq!(row["note"], Value::Null, "{row}");
        assert_eq!((row["seconds"].as_array().unwrap().len(), &row["rows_in"]), (1, &Value::from(1000)), "{row}");
    }
    let of = |scenario: &str, engine: &str| {
        let same = |row: &&Value| row["scenario"] == scenario && row["engine"] == engine;
        rows(&found, "throughput").iter().find(same).unwrap().clone()
    };
    assert_eq!(of("2c", "streamlines")["rows_out"], 1000);
    assert_eq!(of("2c", "datafusion")["rows_out"], 7);
    assert_eq!(of("2", "streamlines")["checksum"], of("2", "datafusion")["checksum"]);
    assert!(found["machine"]["cores"].as_u64().unwrap() > 0);
    let page = fs::read_to_string(report).unwrap();
    assert!(page.contains("<svg") && page.contains("3b") && page.contains("prefers-color-scheme: dark"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
}

#[test]
fn a_routing_that_a_query_cannot_take_is_said_in_its_row() {
    let folder = TempDir::new().unwrap();
    let routings = ["--scenarios", "2c,3a", "--routings", "auto,aligned,merge_on_close,hash_at_source,exchange"];
    let found = results(folder.path(), &routings);
    for row in rows(&found, "throughput") {
        let is_refused = row["scenario"] == "2c" && row["routing"] == "merge_on_close";
        assert_eq!(row["note"].is_string(), is_refused, "{row}");
        assert_eq!(row["seconds"].as_array().unwrap().is_empty(), is_refused, "{row}");
    }
}

#[test]
fn no_rows_one_row_one_key_and_skew_run() {
    let folder = TempDir::new().unwrap();
    let odd: [&[&str]; 5] = [
        &["--rows", "0"],
        &["--rows", "1"],
        &["--keys", "1"],
        &["--keys", "20", "--skew"],
        &["--keys", "1", "--rows", "0", "--format", "csv"],
    ];
    for arguments in odd {
        let found = results(folder.path(), arguments);
        assert_eq!(rows(&found, "throughput").len(), 18);
        assert!(rows(&found, "throughput").iter().all(|row| row["note"].is_null()), "{arguments:?}: {found:#}");
    }
}

#[test]
fn latency_is_that_of_all_rows_that_were_due() {
    let folder = TempDir::new().unwrap();
    let report = folder.path().join("report.html");
    let arguments = ["--scenarios", "3b", "--runs", "0", "--rates", "2000", "--seconds", "5"];
    let strategies = ["--strategies", "partitioned,inline,single_queue", "--report", report.to_str().unwrap()];
    let found = results(folder.path(), &[&arguments[..], &strategies[..]].concat());
    assert!(rows(&found, "throughput").is_empty());
    assert_eq!(rows(&found, "latency").len(), 3);
    for row in rows(&found, "latency") {
        // A thousand rows are there, and not 10,000.
        assert_eq!(row["rows"], 1000, "{row}");
        assert!(row["note"].as_str().is_some_and(|note| note.starts_with("all rows were read after")), "{row}");
        let achieved = row["achieved_rows_per_s"].as_f64().unwrap();
        assert!(achieved > 500.0 && achieved < 2100.0, "{row}");
        assert!(row["p50_ms"].as_f64().unwrap() <= row["max_ms"].as_f64().unwrap(), "{row}");
    }
    assert!(fs::read_to_string(report).unwrap().contains("99.9 %"));
}

#[test]
fn uneven_partitions_end_together() {
    let folder = TempDir::new().unwrap();
    // Of a thousand rows, 950 are in one of two files.
    let arguments = ["--scenarios", "3b", "--runs", "0", "--keys", "20", "--skew", "--rates", "1000"];
    let found = results(folder.path(), &arguments);
    let row = &rows(&found, "latency")[0];
    assert!(row["achieved_rows_per_s"].as_f64().unwrap() > 900.0, "{row}");
}

#[test]
fn data_that_is_not_what_it_is_called_is_refused() {
    let folder = TempDir::new().unwrap();
    let bench = |rows: &str| bench(folder.path(), &["--scenarios", "2", "--rows", rows]);
    bench("1000").assert().success();
    bench("500").assert().success();
    let file = |rows: u32| folder.path().join(format!("trades-{rows}-rows-200-keys-2-files-parquet/trades-1.parquet"));
    fs::copy(file(500), file(1000)).unwrap();
    bench("1000").assert().code(1).stderr(contains("trades, not 1,000").and(contains("remove the folder")));
}

#[test]
fn own_queries_are_measured() {
    let folder = TempDir::new().unwrap();
    let query = folder.path().join("query.sql");
    fs::write(&query, "SELECT origin, count(*) FROM flights GROUP BY origin EMIT CHANGES;").unwrap();
    let json = folder.path().join("out.json");
    let mut command = program();
    command.args(["bench", "--runs", "1", "--init", "examples/streams.sql", "--sql"]).arg(&query);
    command.args(["--routings", "auto,aligned,merge_on_close"]);
    command.arg("--json").arg(&json).assert().success().stdout(contains("datafusion").and(contains("336,776").not()));
    let found: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert!(rows(&found, "throughput").iter().all(|row| row["rows_in"] == 336_776), "{found:#}");
    let notes: Vec<&Value> = rows(&found, "throughput").iter().map(|row| &row["note"]).collect();
    assert!(notes.iter().any(|note| note.to_string().contains("merge_on_close")), "{notes:?}");
    for (wrong, said) in [("SELECT 1; SELECT 2", "holds 2 statements"), ("EXPLAIN SELECT 1", "holds no query")] {
        fs::write(&query, wrong).unwrap();
        program().args(["bench", "--sql"]).arg(&query).assert().code(1).stderr(contains(said));
    }
    // What was there stays until there is something else.
    fs::write(&query, "SELECT origin FROM no_such_stream").unwrap();
    let mut command = program();
    command.args(["bench", "--sql"]).arg(&query).arg("--json").arg(&json);
    command.assert().code(1).stderr(contains("no_such_stream"));
    assert!(fs::read_to_string(&json).unwrap().contains("throughput"));
}

#[test]
fn wrong_usage_says_what_is_accepted() {
    let wrong = |arguments: &[&str], said: &str| {
        let folder = TempDir::new().unwrap();
        bench(folder.path(), arguments).assert().code(2).stdout(is_empty()).stderr(contains(said));
    };
    wrong(&["--scenarios", "4"], "possible values: 0, 1, 2, 2c, 3a, 3b");
    wrong(&["--strategies", "fast"], "possible values: partitioned, inline, single_queue");
    wrong(&["--routings", "any"], "possible values: auto, aligned");
    wrong(&["--rates", "0"], "--rates");
    wrong(&["--sql", "query.sql", "--keys", "5"], "cannot be used with");
    let refused = |arguments: &[&str], said: &str| {
        let folder = TempDir::new().unwrap();
        bench(folder.path(), arguments).assert().code(1).stdout(is_empty()).stderr(contains(said));
    };
    refused(&["--init", "examples/streams.sql"], "--init without --sql");
    refused(&["--runs", "0"], "nothing to measure");
    refused(&["--against", "none,datafusion"], "--against none and something");
    let folder = TempDir::new().unwrap();
    let nowhere = folder.path().join("no/such/report.html");
    let report = ["--report", nowhere.to_str().unwrap()];
    bench(folder.path(), &report).assert().code(1).stderr(contains("cannot be written"));
}

#[test]
fn rows_come_at_a_speed() {
    let at = |speed: &str, rows: u32| {
        let flights = "'testdata/nycflights/flights-EWR.parquet'";
        let count = format!("SELECT count(*) AS n FROM (SELECT * FROM {flights} LIMIT {rows})");
        let mut command = program();
        command.args(["sql", "--speed", speed, "--partitions", "1"]).arg(count);
        command
    };
    at("max", 100_000).assert().success().stdout("n\n100000\n");
    let started = Instant::now();
    at("1000rows/s", 500).assert().success().stdout("n\n500\n");
    assert!(started.elapsed().as_secs_f64() > 0.45);
    at("fast", 1).assert().code(2).stderr(contains("streamlines.speed is max, 1000rows/s or"));
}

#[test]
fn rows_come_by_event_time() {
    let stream = |watermark: &str| {
        format!("CREATE STREAM flights {watermark} STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet';")
    };
    let exact = stream("(WATERMARK FOR scheduled)");
    let run = |more: &[&str], sql: String| {
        let mut command = program();
        command.args(["sql", "--quiet", "--format", "csv"]).args(more).arg(sql);
        command.assert()
    };
    // Half an hour in half a second.
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ticks.csv");
    let rows: String = (0..7).map(|row| format!("2024-01-01 00:{:02}:00,{row}\n", row * 5)).collect();
    fs::write(&file, format!("ts,n\n{rows}")).unwrap();
    let of_file = format!("STORED AS CSV LOCATION '{}' OPTIONS ('has_header' 'true');", file.display());
    let counts =
        format!("CREATE STREAM ticks (ts TIMESTAMP, n BIGINT, WATERMARK FOR ts) {of_file} SELECT n FROM ticks");
    let started = Instant::now();
    run(&["--speed", "3600x"], counts).success().stdout("n\n0\n1\n2\n3\n4\n5\n6\n");
    assert!((0.5..20.0).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
    // What comes out does not hang on when rows come.
    let hours = "GROUP BY origin, tumble(scheduled, INTERVAL '1 day')";
    let questions = [
        format!("{exact} SELECT origin, window_start, count(*), avg(dep_delay) FROM flights {hours}"),
        format!(
            "{exact} SELECT origin, window_start, count(*) FROM flights {hours} EMIT CHANGES EVERY INTERVAL '1' DAY"
        ),
        format!("{exact} SELECT origin, flight FROM flights WHERE dep_delay > 900"),
        format!(
            "{} SELECT origin, window_start, count(*) FROM flights {hours}",
            stream("(WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR)")
        ),
    ];
    let sorted = |output: Vec<u8>| {
        let text = String::from_utf8(output).unwrap();
        let mut rows: Vec<String> = text.lines().map(str::to_string).collect();
        rows.sort();
        rows
    };
    for question in questions {
        let expected = sorted(run(&[], question.clone()).success().get_output().stdout.clone());
        for strategy in ["partitioned", "inline", "single_queue"] {
            let more = ["--speed", "300_000_000x", "--strategy", strategy, "--set", "streamlines.handoff_rows=1000"];
            let given = sorted(run(&more, question.clone()).success().get_output().stdout.clone());
            assert_eq!(given, expected, "{question} {strategy}");
        }
    }
    let refuses = |more: &[&str], sql: String, message: &'static str| {
        run(&[&["--speed", "60x", "--time-limit", "20s"], more].concat(), sql).code(1).stderr(contains(message));
    };
    refuses(&[], format!("{} SELECT flight FROM flights", stream("")), "the rows have no event time to come by");
    let by_partition = "SELECT array_to_string(array_agg(flight), ' ') FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 day')";
    let by_files = exact.replace(".parquet';", ".parquet' OPTIONS ('partitions' 'files');");
    refuses(&[], format!("{by_files} {by_partition}"), "the query takes one partition after the other");
    let hashed = ["--set", "streamlines.routing=hash_at_source"];
    let counts = format!("{exact} SELECT origin, count(*) FROM flights GROUP BY origin");
    refuses(&hashed, counts, "this query takes single: rows come by event time");
}

#[test]
fn without_duckdb_the_rest_is_measured() {
    let folder = TempDir::new().unwrap();
    let mut command = bench(folder.path(), &["--scenarios", "2", "--against", "duckdb"]);
    command.env("PATH", "").env("STREAMLINES_PYTHON", "/no/such/python");
    command.assert().success().stdout(contains("no duckdb program on PATH").and(contains("partitioned")));
}
