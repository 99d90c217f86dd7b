//! What is printed, and who reads it.

use std::fs;
use std::io::Read;
use std::process::{Command as Process, Stdio};

use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use tempfile::TempDir;

use crate::{FLIGHTS, PROGRAM, ROWS, sql};

#[test]
fn rows_alone_are_on_standard_output() {
    sql(ROWS).assert().success().stdout("n,origin,ts\n1,EWR,2013-01-01T06:00:00\n2,,\n").stderr(is_empty());
    let query = format!("{FLIGHTS} SELECT origin, count(*) AS n FROM flights GROUP BY origin ORDER BY origin");
    let rows = || starts_with("origin,n\nEWR,").and(contains("\nJFK,")).and(contains("\nLGA,"));
    let summary = || contains(" used + 0 late, 3 rows out, ").and(contains(" rows/s\n"));
    sql(&query).assert().success().stdout(rows()).stderr(summary().and(contains("pipeline").not()));
    sql(&query).arg("-q").assert().success().stdout(rows()).stderr(is_empty());
    let verbose = summary().and(contains("  pipeline 0: ")).and(contains("flights-LGA.parquet"));
    sql(&query).arg("-v").assert().success().stdout(rows()).stderr(verbose);
}

#[test]
fn every_text_format() {
    let first = r#"{"n":1,"origin":"EWR","ts":"2013-01-01T06:00:00"}"#;
    let format = |name: &str| sql(ROWS).args(["--format", name]).assert().success();
    format("csv").stdout("n,origin,ts\n1,EWR,2013-01-01T06:00:00\n2,,\n");
    format("json").stdout(format!("[{first},{{\"n\":2}}]"));
    format("ndjson").stdout(format!("{first}\n{{\"n\":2}}\n"));
    format("table").stdout("n  origin  ts\n-  ------  -------------------\n1  EWR     2013-01-01T06:00:00\n2\n");
    format("none").stdout(is_empty());
}

#[test]
fn parquet_and_arrow_on_a_pipe() {
    let stdout = |format: &str| {
        let run = sql(ROWS).args(["--format", format]).assert().success();
        run.get_output().stdout.clone()
    };
    let parquet = stdout("parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    let arrow = stdout("arrow");
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
    // Two results are no one file.
    let several = sql("SELECT 1; SELECT 2").args(["--format", "parquet"]).assert().code(2);
    several.stdout(is_empty()).stderr(contains("several queries").and(contains("help:")));
}

/// Runs a query of more rows than any pipe holds, reads the first line, and goes away.
fn reads_one_line(arguments: &[&str]) -> (String, std::process::Output) {
    let mut child =
        Process::new(PROGRAM).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut line, mut byte) = (String::new(), [0]);
    while !line.ends_with('\n') {
        stdout.read_exact(&mut byte).unwrap();
        line.push(byte[0].into());
    }
    drop(stdout);
    (line, child.wait_with_output().unwrap())
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_run_quietly() {
    let series = "SELECT value FROM generate_series(1, 20000000)";
    let (line, output) = reads_one_line(&["sql", series, "--format", "csv"]);
    assert_eq!((line.as_str(), String::from_utf8_lossy(&output.stderr).as_ref()), ("value\n", ""));
    assert!(output.status.success(), "{:?}", output.status);
    let flights = format!("{FLIGHTS} SELECT * FROM flights");
    let (_, output) = reads_one_line(&["sql", &flights, "--format", "ndjson"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{:?}", output.status);
}

/// Who closes standard error, or fills its disk, hears nothing more, and the run goes on.
#[cfg(target_os = "linux")]
#[test]
fn nobody_has_to_read_the_summary() {
    let folder = TempDir::new().unwrap();
    for (statement, code) in [(format!("{FLIGHTS} SELECT count(*) AS n FROM flights"), 0), ("SELECT nope".into(), 1)] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Process::new(PROGRAM)
            .args(["sql", &statement, "--output", &format!("{}/x.csv", folder.path().display())])
            .stderr(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{statement}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("x.csv")).unwrap(), "n\n336776\n");
}

#[test]
fn progress_is_lines_where_there_is_no_terminal() {
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000)";
    let mut child = Process::new(PROGRAM)
        .args(["sql", endless, "--progress", "always"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stderr.as_mut().unwrap()), &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains(" rows/s"), "{line}");
}

#[test]
fn without_a_terminal_there_is_no_progress_bar() {
    let query = format!("{FLIGHTS} SELECT count(*) FROM flights");
    let one_line = || predicate::function(|text: &str| text.lines().count() == 1 && !text.contains(['\r', '\x1b']));
    sql(&query).assert().success().stderr(one_line());
    sql(&query).args(["--progress", "never"]).assert().success().stderr(one_line());
    sql(&query).args(["--progress", "always", "-q"]).assert().success().stderr(is_empty());
}
